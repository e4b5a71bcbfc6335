//! `cargo xtask docs`: the reference in `docs/reference/`, from what the programs say of themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{paths, programs};

/// What a reader should know who is about to edit one of the files.
const HEADER: &str = "<!-- written by `cargo xtask docs` from the source; changes go there -->\n";

const PROGRAMS: [&str; 3] = ["probe", "analyzer", "lab"];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Write nothing, and fail where a file is not what would be written
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    programs::build()?;
    let directory = paths::root().join("docs/reference");
    let mut stale = false;
    for (name, text) in [
        ("commands.md", commands()?),
        ("configuration.md", configuration()?),
        ("capture.md", capture()?),
    ] {
        let file = directory.join(name);
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            continue;
        }
        if options.check {
            println!("docs/reference/{name} is stale: `cargo xtask docs` writes it anew");
            stale = true;
        } else {
            fs::create_dir_all(&directory)?;
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            println!("docs/reference/{name}");
        }
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a program prints, as in a pipe 100 columns wide, and whatever is set on this host.
fn printed(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(paths::binary(program)?);
    command.args(arguments).env_clear().env("COLUMNS", "100").stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed: {why}", arguments.join(" "));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The names under "Commands:" of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        // A line that goes on has more before its text.
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    names.collect()
}

fn commands() -> Result<String> {
    let mut text = format!(
        "{HEADER}# Commands\n\nWhat `--help` says, of every command. [configuration.md](configuration.md) has the \
         flags as keys of the file and the environment.\n\n## Exit codes\n\nThe same for every command.\n\n\
         | code | means |\n| ---: | --- |\n{}",
        exit_codes()?
    );
    for program in PROGRAMS {
        let help = printed(program, &["--help"])?;
        section(&mut text, 2, program, &help);
        for name in subcommands(&help) {
            let help = printed(program, &[&name, "--help"])?;
            section(&mut text, 3, &format!("{program} {name}"), &help);
            for inner in subcommands(&help) {
                let help = printed(program, &[&name, &inner, "--help"])?;
                section(&mut text, 4, &format!("{program} {name} {inner}"), &help);
            }
        }
    }
    Ok(text)
}

fn section(text: &mut String, level: usize, title: &str, help: &str) {
    let marks = "#".repeat(level);
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let body = lines.join("\n");
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{marks} {title}\n\n```text\n{}\n```\n", body.trim());
}

/// The variants of `Exit` with what is said of each.
fn exit_codes() -> Result<String> {
    let source = fs::read_to_string(paths::root().join("probe-user/src/exit.rs"))
        .context("cannot read the exit codes")?;
    let variants = source.lines().skip_while(|line| !line.contains("enum Exit"));
    let (mut rows, mut said) = (String::new(), Vec::new());
    for line in variants.map(str::trim).take_while(|line| *line != "}") {
        if let Some(sentence) = line.strip_prefix("/// ") {
            said.push(sentence);
        } else if let Some((_, code)) = line.split_once(" = ") {
            let meaning = std::mem::take(&mut said).join(" ");
            let _ = writeln!(rows, "| {} | {} |", code.trim_end_matches(','), meaning);
        }
    }
    Ok(rows)
}

/// A flag as it can be set, and the commands that have it.
#[derive(Default)]
struct Setting {
    variable: String,
    /// By command, since they may differ.
    defaults: BTreeMap<String, String>,
}

fn configuration() -> Result<String> {
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    for command in subcommands(&printed("probe", &["--help"])?) {
        let nothing = ["--config", "/dev/null"];
        if command == "config" {
            continue;
        }
        let shown = [&["config", "show", &command, "--json"][..], &nothing].concat();
        let shown: Value = serde_json::from_str(&printed("probe", &shown)?)?;
        for flag in shown["settings"].as_array().into_iter().flatten() {
            let text = |key: &str| flag[key].as_str().unwrap_or_default().to_owned();
            let setting = settings.entry(text("key")).or_default();
            setting.variable = text("variable");
            setting.defaults.insert(command.clone(), text("value"));
        }
    }
    let mut text = format!(
        "{HEADER}# Configuration\n\nEvery key of the file, its variable in the environment, and the commands that \
         take it. [../configuration.md](../configuration.md) says which goes before which; \
         [commands.md](commands.md) what each does.\n\n| key | variable | default | commands |\n\
         | --- | --- | --- | --- |\n"
    );
    for (key, setting) in settings {
        let mut by_default: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (command, default) in &setting.defaults {
            by_default.entry(default).or_default().push(command);
        }
        for (default, commands) in by_default {
            let default = if default.is_empty() { "" } else { &format!("`{default}`") };
            let (variable, commands) = (&setting.variable, commands.join(", "));
            let _ = writeln!(text, "| `{key}` | `{variable}` | {default} | {commands} |");
        }
    }
    Ok(text)
}

fn capture() -> Result<String> {
    let version = printed("analyzer", &["schema", "connections"])?;
    let version = version
        .lines()
        .next()
        .and_then(|line| line.split_once(" ("))
        .map(|(_, version)| version.trim_end_matches(')'))
        .context("`analyzer schema` names no version")?;
    let mut text = format!(
        "{HEADER}# Captures\n\nThe tables of {version}, one Arrow IPC stream `<table>.arrows` each, as \
         `analyzer schema` lists them. Types with a question mark may be null: not seen, or not known. `_mono_ns` \
         and the stages' `_ns` are on the host's `CLOCK_MONOTONIC`; table `clock` maps them to Unix time.\n"
    );
    let mut table = String::new();
    for column in lines(&printed("analyzer", &["schema", "--json"])?)? {
        let text_of = |key: &str| column[key].as_str().unwrap_or_default();
        if table != text_of("table") {
            table = text_of("table").to_owned();
            let _ =
                write!(text, "\n## {table}\n\n| column | type | meaning |\n| --- | --- | --- |\n");
        }
        let null = if column["nullable"] == true { "?" } else { "" };
        let (name, kind, meaning) = (text_of("column"), text_of("type"), text_of("meaning"));
        let _ = writeln!(text, "| `{name}` | {kind}{null} | {} |", cell(meaning));
    }
    text.push_str(
        "\n## Outcomes\n\nThe words of the column `outcome`. [../handshakes.md](../handshakes.md) says which hook \
         sees what.\n\n| outcome | is | what was seen |\n| --- | --- | --- |\n",
    );
    for outcome in lines(&printed("analyzer", &["schema", "outcomes", "--json"])?)? {
        let text_of = |key: &str| outcome[key].as_str().unwrap_or_default();
        let (name, kind, evidence) = (text_of("outcome"), text_of("kind"), text_of("evidence"));
        let _ = writeln!(text, "| `{name}` | {kind} | {} |", cell(evidence));
    }
    Ok(text)
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_what_is_said_of_them() {
        let help = "About\n\nCommands:\n  one   does this,\n        and goes on\n  two\n          below\n  \
                    help  Print this message\n\nOptions:\n  three\n";
        assert_eq!(subcommands(help), ["one", "two"]);
    }

    #[test]
    fn every_exit_code_is_told() {
        let codes = exit_codes().unwrap();
        assert!(codes.starts_with("| 0 | Done, thresholds held. |\n"), "{codes}");
        assert_eq!(codes.lines().count(), 8, "{codes}");
    }
}
