//! Holds the analyzer's report against the truth.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::error::{LabError, file_error};
use crate::truth::Hit;

/// The part of `report.json` that is compared.
#[derive(Debug, Deserialize)]
struct Report {
    captures: Vec<Capture>,
}

#[derive(Debug, Deserialize)]
struct Capture {
    servers: Vec<Server>,
}

#[derive(Debug, Deserialize)]
struct Server {
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    kind: String,
    count: u64,
    /// The examples are the very connections, not only candidates.
    examples_are_named: bool,
    examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
struct Example {
    remote_address: String,
    remote_port: u32,
}

/// What was done, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Comparison {
    /// Hits in the truth file, under the kind of phantom that they make.
    pub(super) truth: BTreeMap<String, u64>,
    pub(super) found: BTreeMap<String, u64>,
    /// Connections that the report names, and no fault hit.
    pub(super) wrongly_named: Vec<String>,
    pub(super) equal: bool,
}

pub(super) fn compare(
    scenario: &Scenario,
    hits: &[Hit],
    report: &Path,
) -> anyhow::Result<Comparison> {
    let text = std::fs::read_to_string(report)
        .map_err(|error| file_error(report, "read the report", &error))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| LabError::usage(format!("{}: {error}", report.display())))?;
    let servers = report.captures.into_iter().flat_map(|capture| capture.servers);
    let findings: Vec<_> = servers.flat_map(|server| server.findings).collect();
    Ok(compare_findings(scenario, hits, &findings))
}

/// A line of `probe watch --json`; the last line is no block.
#[derive(Debug, Deserialize)]
struct Block {
    elapsed_ms: u64,
    kernel: Kernel,
    reported: Option<i64>,
    phantoms: Option<Magnitude>,
}

#[derive(Debug, Deserialize)]
struct Kernel {
    established: i64,
}

#[derive(Debug, Deserialize)]
struct Magnitude {
    count: u64,
}

/// A block of `probe watch --json` in a line for people; none for what is no block.
pub(super) fn block_text(line: &str) -> Option<String> {
    let block: Block = serde_json::from_str(line).ok()?;
    let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    Some(format!(
        "+{:.0} s  kernel {} (not exact)  reported {}  phantoms {}",
        block.elapsed_ms as f64 / 1e3,
        block.kernel.established,
        or_dash(block.reported.map(|n| n.to_string())),
        or_dash(block.phantoms.map(|phantoms| phantoms.count.to_string())),
    ))
}

/// Where nothing could be recorded: the phantoms of the last block of `probe watch`. Their kind is
/// not told by counts alone.
pub(super) fn compare_polled(hits: &[Hit], blocks: &Path) -> anyhow::Result<Comparison> {
    const KIND: &str = "phantoms";

    let text = std::fs::read_to_string(blocks)
        .map_err(|error| file_error(blocks, "read the blocks of `probe watch`", &error))?;
    let last = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Block>(line).ok()?.phantoms)
        .next_back();
    let Some(last) = last else {
        let text = format!("{} has no block that was judged", blocks.display());
        return Err(LabError::Inconclusive(text).into());
    };
    let count = |count: u64| {
        let some = (count > 0).then(|| (KIND.to_owned(), count));
        some.into_iter().collect::<BTreeMap<_, _>>()
    };
    let (truth, found) = (count(hits.len() as u64), count(last.count));
    let equal = truth == found;
    Ok(Comparison { truth, found, wrongly_named: Vec::new(), equal })
}

fn compare_findings(scenario: &Scenario, hits: &[Hit], findings: &[Finding]) -> Comparison {
    let mut truth = BTreeMap::new();
    if let (Some((kind, _)), false) = (scenario.expect, hits.is_empty()) {
        truth.insert(kind.to_owned(), hits.len() as u64);
    }
    let mut found = BTreeMap::new();
    for finding in findings {
        *found.entry(finding.kind.clone()).or_default() += finding.count;
    }
    let hit: HashSet<_> =
        hits.iter().map(|hit| (hit.remote_address.as_str(), u32::from(hit.remote_port))).collect();
    let wrongly_named: Vec<_> = findings
        .iter()
        .filter(|finding| finding.examples_are_named)
        .flat_map(|finding| &finding.examples)
        .filter(|example| !hit.contains(&(example.remote_address.as_str(), example.remote_port)))
        .map(|example| format!("{}:{}", example.remote_address, example.remote_port))
        .collect();
    let equal = truth == found && wrongly_named.is_empty();
    Comparison { truth, found, wrongly_named, equal }
}

impl Comparison {
    /// One or two sentences for people.
    pub(super) fn text(&self) -> String {
        let verdict = if self.equal { "equal" } else { "NOT equal" };
        let mut text =
            format!("done: {}; found: {}; {verdict}", in_words(&self.truth), in_words(&self.found));
        if !self.wrongly_named.is_empty() {
            text.push_str(&format!("; never hit: {}", self.wrongly_named.join(", ")));
        }
        text
    }
}

fn in_words(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "no phantoms".to_owned();
    }
    let kinds: Vec<_> =
        counts.iter().map(|(kind, n)| format!("{n} {}", kind.replace('_', " "))).collect();
    kinds.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Chosen, find};
    use crate::truth::Leg;

    fn app_leak_rst() -> &'static Scenario {
        match find("app-leak-rst") {
            Ok(Chosen::Phantoms(scenario)) => scenario,
            other => panic!("{other:?}"),
        }
    }

    fn hits(ports: std::ops::Range<u16>) -> Vec<Hit> {
        let leg = |port| Leg {
            remote: ([127, 0, 0, 1], port).into(),
            local: ([127, 0, 0, 1], 8080).into(),
            client: None,
        };
        ports.map(|port| Hit::now("app-leak-on-rst", None, &leg(port))).collect()
    }

    fn finding(kind: &str, count: u64, port: u32) -> Finding {
        let example = Example { remote_address: "127.0.0.1".to_owned(), remote_port: port };
        Finding { kind: kind.to_owned(), count, examples_are_named: true, examples: vec![example] }
    }

    #[test]
    fn only_kind_and_count_and_names_together_are_equal() {
        let scenario = app_leak_rst();
        let hits = hits(40000..40023);
        let verdict = |finding| compare_findings(scenario, &hits, &[finding]).equal;
        assert!(verdict(finding("application_leak", 23, 40000)));
        assert!(!verdict(finding("application_leak", 22, 40000)));
        assert!(!verdict(finding("descriptor_leak", 23, 40000)));
        assert!(!verdict(finding("application_leak", 23, 40023)));
        assert!(!compare_findings(scenario, &hits, &[]).equal);
        assert!(compare_findings(scenario, &[], &[]).equal);
    }

    #[test]
    fn a_difference_is_said_in_words() {
        let scenario = app_leak_rst();
        let comparison = compare_findings(scenario, &hits(40000..40023), &[]);
        assert_eq!(comparison.text(), "done: 23 application leak; found: no phantoms; NOT equal");
    }
}
