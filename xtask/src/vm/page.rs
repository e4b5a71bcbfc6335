//! What the kernels gave, as tables: on stdout, and in `docs/compatibility.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::judge::Verdict;
use crate::command::say;
use crate::paths;

const INTRODUCTION: &str = "\
# Kernels

One and the same object file on Debian's kernels, each in a virtual machine with two CPUs.
Written by `cargo xtask vm --kernel all`; not to be edited.

In each machine, on loopback: 7 WebSocket connections before the agent starts, 23 after (5 of them
reset by the client), 997 short plain connections, 3 connects to a port where nobody listens, and 10
WebSocket connections that are open while Unix time is set, by an hour and back. What `probe count` and a
capture say of them is compared for equality, with what was done and with `/proc/net/tcp`.

`-v1` has only cgroups of version 1, which sockets do not carry: their container is told by their network
namespace and by the processes that hold them, and packets are not seen. `-hybrid` has both versions. All
of these kernels have BTF; in the end a file system is mounted over it, so that `probe` finds none.
";

pub(crate) fn write(verdicts: &[(&str, Verdict)]) -> Result<()> {
    let path = paths::root().join("docs/compatibility.md");
    fs::write(&path, format!("{INTRODUCTION}{}", tables(verdicts)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("wrote {}", path.display()));
    Ok(())
}

/// One table of hooks and one of checks, a column for each kernel.
pub(crate) fn tables(verdicts: &[(&str, Verdict)]) -> String {
    let mut page = String::new();
    let mut row = |cells: &[String]| {
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    };
    let columns = |first: &str| -> Vec<String> {
        let names = verdicts.iter().map(|(name, _)| (*name).to_owned());
        std::iter::once(first.to_owned()).chain(names).collect()
    };
    let rule = vec!["---".to_owned(); verdicts.len() + 1];

    row(&[]);
    row(&columns("hook"));
    row(&rule);
    let releases = verdicts.iter().map(|(_, verdict)| verdict.release.clone());
    row(&std::iter::once("release".to_owned()).chain(releases).collect::<Vec<_>>());
    for name in in_order_of_first(verdicts, |verdict| {
        verdict.features.iter().map(|(name, ..)| name.as_str()).collect()
    }) {
        let mut cells = vec![format!("`{name}`")];
        for (_, verdict) in verdicts {
            let found = verdict.features.iter().find(|(feature, ..)| feature == name);
            cells.push(found.map_or("–".to_owned(), |(_, state, _)| state.clone()));
        }
        row(&cells);
    }
    row(&[]);
    row(&columns("compared"));
    row(&rule);
    for what in in_order_of_first(verdicts, |verdict| {
        verdict.checks.iter().map(|check| check.what.as_str()).collect()
    }) {
        let mut cells = vec![what.to_owned()];
        for (_, verdict) in verdicts {
            let found = verdict.checks.iter().find(|check| check.what == what);
            cells.push(found.map_or("–".to_owned(), |check| {
                if check.held() {
                    check.found.clone()
                } else {
                    format!("**{}**, not {}", check.found, check.expected)
                }
            }));
        }
        row(&cells);
    }
    // An empty row is the gap between two tables.
    page = page.replace("|  |\n", "\n");
    let reasons = reasons(verdicts);
    if !reasons.is_empty() {
        page.push_str("\nWhat is not `ok`, and why:\n\n");
        for reason in reasons {
            let _ = writeln!(page, "- {reason}");
        }
    }
    page
}

fn in_order_of_first<'a>(
    verdicts: &'a [(&str, Verdict)],
    names: impl Fn(&'a Verdict) -> Vec<&'a str>,
) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let all = verdicts.iter().flat_map(|(_, verdict)| names(verdict));
    all.filter(|name| seen.insert(*name)).collect()
}

fn reasons(verdicts: &[(&str, Verdict)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (kernel, verdict) in verdicts {
        for (feature, state, why) in &verdict.features {
            if state != "ok" {
                // The verifier's log is for `probe doctor`.
                let why = why.split("Verifier output").next().unwrap_or_default().trim();
                lines.push(format!("{kernel}, `{feature}`: {why}"));
            }
        }
    }
    lines
}
