//! The commands of the README and the docs, run in order as they stand there, on a balancer with
//! three shards and clients that come and go. Only durations are shortened, and `sudo` is left out.
//!
//! A block that is not run here says so in a comment on the line before it: `<!-- not run: why -->`,
//! or `<!-- run by FILE -->`. One whose commands end with a verdict says which: `<!-- ends with 4 -->`, or 99.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::{Netns, Place};
use e2e::process::{Running, binary, finish, finish_within};
use e2e::scratch::Scratch;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Commands that go on until they are told to stop do so after this.
const SHORT: &str = "3s";

/// Exit codes that are answers: inconclusive, and a threshold that was crossed.
const VERDICTS: [i32; 2] = [4, 99];

/// A block of commands.
struct Block {
    /// File and line, for messages.
    at: String,
    /// Why it is not run, or by whom.
    excuse: Option<String>,
    /// The exit code of each of its commands.
    ends_with: i32,
    text: String,
}

/// README.md, CONTRIBUTING.md and docs/*.md.
fn documents() -> Vec<String> {
    let docs = fs::read_dir(format!("{ROOT}/docs")).unwrap().flatten();
    let docs = docs.map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()));
    let mut all: Vec<String> = docs.filter(|name| name.ends_with(".md")).collect();
    all.extend(["README.md", "CONTRIBUTING.md"].map(str::to_owned));
    all.sort();
    all
}

fn blocks(document: &str) -> Vec<Block> {
    let text = fs::read_to_string(format!("{ROOT}/{document}")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| **line == "```sh") {
        let body = lines[index + 1..].iter().take_while(|line| **line != "```");
        let before = index.checked_sub(1).map_or("", |before| lines[before]);
        let comment = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let verdict = comment.and_then(|comment| comment.strip_prefix("ends with "));
        let verdict =
            verdict.and_then(|code| code.parse().ok()).filter(|code| VERDICTS.contains(code));
        blocks.push(Block {
            at: format!("{document}:{}", index + 1),
            excuse: comment.filter(|_| verdict.is_none()).map(str::to_owned),
            ends_with: verdict.unwrap_or(0),
            text: body.map(|line| format!("{line}\n")).collect(),
        });
    }
    blocks
}

/// One command each; a backslash joins lines, and what waits does so briefly.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ").replace("sudo ", "").replace("target/debug/", "");
    let shortened = joined.lines().map(|line| {
        let mut words: Vec<&str> = line.split(' ').collect();
        let waits = words.first() == Some(&"probe");
        if let Some(at) = words.iter().position(|word| waits && *word == "--duration") {
            words[at + 1] = SHORT;
        }
        words.join(" ")
    });
    shortened.filter(|line| !line.is_empty()).collect()
}

#[test]
fn a_block_that_is_not_run_says_why() {
    for block in documents().iter().flat_map(|document| blocks(document)) {
        let Some(excuse) = &block.excuse else { continue };
        let by = excuse.strip_prefix("run by ");
        let is_told = by.is_some_and(|file| Path::new(ROOT).join(file).is_file())
            || excuse.strip_prefix("not run: ").is_some_and(|why| why.len() > 8);
        assert!(
            is_told,
            "{}: {excuse:?} is none of `not run: why`, `run by FILE`, `ends with 4`, `ends with 99`",
            block.at
        );
    }
}

#[test]
fn every_other_block_runs() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let netns = Netns::new();
    let place = netns.place();
    let _server = lab::Server::start(
        &place,
        &["balance", "--listen", "127.0.0.1:3005", "--spawn-shards", "--workers", "1"],
    );
    let _clients = clients(&place);
    let binaries = binary("probe").parent().unwrap().display().to_string();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());

    let (mut run, mut wrong) = (0, Vec::new());
    for document in documents() {
        let scratch = Scratch::new("docs");
        files(scratch.path());
        for block in blocks(&document).iter().filter(|block| block.excuse.is_none()) {
            for command in commands(&block.text) {
                let mut shell = place.command("sh");
                shell.args(["-c", &command]).current_dir(scratch.path());
                shell.env("PATH", &path).env("NO_COLOR", "1");
                let finished = finish_within(&mut shell, Duration::from_secs(120));
                if finished.code != Some(block.ends_with) {
                    wrong.push(format!("{}: `{command}`: {finished}", block.at));
                }
                run += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(run > 10, "only {run} commands were found to be run");
}

/// Some stay, others come and go for as long as this lives.
fn clients(place: &Place) -> [Running; 2] {
    let load = format!("{} load --url ws://127.0.0.1:3005/ --ramp 50/s", binary("lab").display());
    let start = |script: &str| Running::start(place.command("sh").args(["-c", script]));
    let stay = start(&format!("exec {load} --connections 23 --hold 600s"));
    let go = start(&format!("while {load} --connections 20 --hold 1s; do :; done"));
    [stay, go]
}

/// What the docs take for given: a load tool's results.
fn files(directory: &Path) {
    let k6 = format!("{ROOT}/analyzer/tests/clients/k6.json");
    let packed = directory.join("k6.json.gz");
    let script = format!("gzip -c {k6} >{}", packed.display());
    let _ = finish(Command::new("sh").args(["-c", &script])).success("gzip");
}
