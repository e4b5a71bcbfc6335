//! The reference in `docs/reference/` is what the programs say of themselves.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use e2e::process::finish_within;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_reference_is_not_stale() {
    let mut xtask = Command::new(env!("CARGO"));
    xtask.args(["xtask", "docs", "--check"]).current_dir(ROOT);
    let _ = finish_within(&mut xtask, Duration::from_secs(900)).success("cargo xtask docs --check");
}

/// Every document for readers.
fn documents() -> Vec<PathBuf> {
    let docs = Path::new(ROOT).join("docs");
    let of_docs = std::fs::read_dir(docs).expect("docs").map(|entry| entry.expect("entry").path());
    ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .map(|name| Path::new(ROOT).join(name))
        .into_iter()
        .chain(of_docs.filter(|path| path.extension().is_some_and(|end| end == "md")))
        .collect()
}

#[test]
fn every_command_that_a_text_names_exists() {
    let reference = std::fs::read_to_string(Path::new(ROOT).join("docs/reference/commands.md"))
        .expect("the reference");
    let commands: HashSet<&str> =
        reference.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut unknown = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(&path).expect("a document");
        // Every second piece between backticks is code.
        for code in text.split('`').skip(1).step_by(2) {
            let mut words = code.split_whitespace();
            let (Some(program), Some(command)) = (words.next(), words.next()) else { continue };
            let is_ours = ["probe", "analyzer", "lab"].contains(&program);
            let is_command = command.chars().all(|letter| letter.is_ascii_lowercase());
            if is_ours && is_command && !commands.contains(format!("{program} {command}").as_str())
            {
                unknown.push(format!("{}: `{code}`", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "commands that do not exist:\n{}", unknown.join("\n"));
}
