//! `probe config`: whether the settings are any use, and what they are.

use std::path::Path;

use clap::Command;
use serde_json::json;

use crate::{
    cli::{Config, ConfigTask},
    cmd::{print, print_json, table},
    config::{
        self,
        file::File,
        flags::{self, Flag},
        setting,
    },
    error::Error,
    exit::Exit,
    export::json::SCHEMA_VERSION,
};

/// One line of `probe config show`.
struct Shown {
    command: String,
    key: String,
    variable: String,
    value: Option<String>,
    from: String,
}

pub(crate) fn run(named: Option<&Path>, arguments: &Config) -> anyhow::Result<Exit> {
    let root = config::command();
    let variable = config::variable();
    let named = named.or(variable.as_deref());
    match &arguments.task {
        ConfigTask::Check { file } => {
            let file = File::read(&root, file.as_deref().or(named))?;
            if file.path.as_os_str().is_empty() {
                print(&format!("{} is not there: the defaults hold\n", config::file::DEFAULT))?;
            } else {
                let keys = file.entries.len();
                let s = if keys == 1 { "" } else { "s" };
                print(&format!("{}: {keys} key{s}, no fault\n", file.path.display()))?;
            }
        }
        ConfigTask::Show { command, json } => {
            let shown = show(&root, &File::read(&root, named)?, command.as_deref())?;
            if *json {
                print_settings(&shown)?;
            } else {
                print(&text(&shown))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Everything that is set, or every flag of one command.
fn show(root: &Command, file: &File, only: Option<&str>) -> Result<Vec<Shown>, Error> {
    let known = || flags::commands(root).map(|command| command.get_name().to_owned());
    if let Some(only) = only.filter(|only| !known().any(|name| name == *only)) {
        let known: Vec<String> = known().collect();
        return Err(Error::input(
            format!("no command {only:?} that has settings"),
            format!("expected one of {}", known.join(", ")),
        ));
    }
    let mut shown = Vec::new();
    for command in known().filter(|name| only.is_none_or(|only| only == *name)) {
        for flag in flags::of_command(root, &command).unwrap_or_default() {
            let (value, from) = match setting(root, &command, &flag, file)? {
                Some((values, origin)) => (Some(values.join(",")), origin.to_string()),
                None if only.is_none() => continue,
                None => (default(root, &command, &flag), "default".into()),
            };
            shown.push(Shown {
                command: command.clone(),
                key: flag.key(),
                variable: flag.variable(),
                value,
                from,
            });
        }
    }
    Ok(shown)
}

fn default(root: &Command, command: &str, flag: &Flag) -> Option<String> {
    let own = flags::commands(root).find(|own| own.get_name() == command)?;
    let argument = own.get_arguments().chain(root.get_arguments()).find(|a| *a.get_id() == flag.id);
    let values: Vec<String> = argument?
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|value| !value.is_empty())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn text(shown: &[Shown]) -> String {
    if shown.is_empty() {
        return "nothing is set: the defaults hold (`probe config show COMMAND` has them)\n".into();
    }
    let mut table = table::new(["COMMAND", "KEY", "VALUE", "FROM"], &[]);
    for line in shown {
        table.add_row([
            table::text(&line.command),
            table::text(&line.key),
            table::text(line.value.as_deref().unwrap_or("-")),
            table::text(&line.from),
        ]);
    }
    table::render(&table)
}

fn print_settings(shown: &[Shown]) -> anyhow::Result<()> {
    let settings: Vec<_> = shown
        .iter()
        .map(|line| {
            json!({
                "command": line.command,
                "key": line.key,
                "variable": line.variable,
                "value": line.value,
                "from": line.from,
            })
        })
        .collect();
    print_json(&json!({ "schema_version": SCHEMA_VERSION, "settings": settings }))
}
