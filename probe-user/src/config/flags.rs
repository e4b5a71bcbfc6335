//! What can be set: every flag of every command, from the command line's own definition. A flag that
//! is added there is a key and an environment variable without further ado.

use clap::{Arg, ArgAction, Command};

/// Says which file is read, so it is none of that file's keys.
pub(super) const CONFIG: &str = "config";

/// How the names of variables begin.
pub(super) const VARIABLES: &str = "PROBE_";

/// How many values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None: it is there or not.
    Switch,
    One,
    /// May be repeated.
    Many,
}

/// One flag of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// As in clap's matches.
    pub(crate) id: String,
    /// `health-timeout`
    pub(crate) long: String,
    pub(crate) kind: Kind,
}

impl Flag {
    fn of(argument: &Arg) -> Option<Self> {
        let long = argument.get_long().filter(|&long| long != CONFIG)?;
        let kind = match argument.get_action() {
            ArgAction::Set => Kind::One,
            ArgAction::Append => Kind::Many,
            ArgAction::SetTrue => Kind::Switch,
            _ => return None, // --help and --version
        };
        Some(Self { id: argument.get_id().to_string(), long: long.to_owned(), kind })
    }

    /// In the file: `health_timeout`.
    pub(crate) fn key(&self) -> String {
        self.long.replace('-', "_")
    }

    /// In the environment: `PROBE_HEALTH_TIMEOUT`.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLES}{}", self.key().to_uppercase())
    }

    /// On the command line. A value that begins with a dash stays a value.
    pub(super) fn words(&self, values: &[String]) -> Vec<String> {
        let long = &self.long;
        match self.kind {
            Kind::Switch if values.iter().all(|value| value == "true") => vec![format!("--{long}")],
            Kind::Switch => Vec::new(),
            Kind::One => vec![format!("--{long}={}", values.join(","))],
            Kind::Many => values.iter().map(|value| format!("--{long}={value}")).collect(),
        }
    }
}

/// Commands that have settings: those that do something on this host for a user.
pub(crate) fn commands(root: &Command) -> impl Iterator<Item = &Command> {
    root.get_subcommands().filter(|command| !command.is_hide_set() && !command.has_subcommands())
}

/// Flags of a command, and those that all commands share; `None` where there is no such command.
pub(crate) fn of_command(root: &Command, name: &str) -> Option<Vec<Flag>> {
    let command = commands(root).find(|command| command.get_name() == name)?;
    let shared = root.get_arguments().filter(|argument| argument.is_global_set());
    Some(command.get_arguments().chain(shared).filter_map(Flag::of).collect())
}

/// What clap has against a command with these words; that something else is missing or in the way
/// is not their fault.
pub(super) fn check(root: &Command, command: &str, words: &[String]) -> Result<(), String> {
    use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};

    let line = [root.get_name(), command].into_iter().chain(words.iter().map(String::as_str));
    match root.clone().try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ArgumentConflict | MissingRequiredArgument) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or(&text);
            let words: Vec<&str> = first.split_whitespace().collect();
            Err(words.join(" ").trim_start_matches("error: ").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_flag_of_every_command_can_be_set() {
        let root = Cli::command();
        for command in commands(&root) {
            let flags = of_command(&root, command.get_name()).unwrap();
            // What clap itself would list under "Options", of this command and of all.
            for argument in command.get_opts().chain(root.get_opts()) {
                let long = argument.get_long().expect("a flag without a long name has no key");
                let is_about = matches!(long, "help" | "version" | CONFIG);
                let found = flags.iter().any(|flag| flag.long == long);
                assert!(found != is_about, "{} --{long}", command.get_name());
            }
            for switch in command.get_arguments().filter(|a| !a.get_action().takes_values()) {
                let long = switch.get_long().unwrap();
                assert!(flags.iter().any(|flag| flag.long == long), "--{long}");
            }
        }
        let serve = of_command(&root, "serve").unwrap();
        let listen = serve.iter().find(|flag| flag.id == "listen").unwrap();
        assert_eq!((listen.key(), listen.variable()), ("listen".into(), "PROBE_LISTEN".into()));
        assert!(of_command(&root, "generate").is_none());
    }
}
