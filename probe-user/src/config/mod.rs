//! Settings from four places: the command line goes before the environment, that before the
//! configuration file, and that before the defaults.
//!
//! What the environment and the file say is handed to clap as if it had been typed, so a value means
//! the same wherever it stands, and every flag can be set everywhere.

mod elsewhere;
pub(crate) mod file;
pub(crate) mod flags;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, parser::ValueSource};

use self::{
    file::File,
    flags::{Flag, Kind},
};
use crate::{cli::Cli, error::Error};

/// Names the file, as `--config` does.
const VARIABLE: &str = "PROBE_CONFIG";

/// What was not typed: values by key.
pub(crate) type Settings = BTreeMap<String, Vec<String>>;

/// Why there is no command line.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed is wrong, or asks for help.
    Usage(clap::Error),
    /// The environment or the file.
    Settings(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Settings(error) => error.fmt(f),
        }
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Settings(error)
    }
}

/// Where a setting stands that was not typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The variable's name.
    Environment(String),
    File {
        path: PathBuf,
        line: usize,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// The command line of this process, completed from the environment and the file. `bare` is the
/// command where none was typed.
///
/// # Errors
/// [`Failure`]: what was typed, or what the environment or the file says, is no use.
pub(crate) fn load(bare: &str) -> Result<Cli, Failure> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for misspelt in misspelt(&command(), names) {
        eprintln!("probe: environment variable {misspelt}");
    }
    complete(std::env::args_os().collect(), bare)
}

fn complete(mut typed: Vec<OsString>, bare: &str) -> Result<Cli, Failure> {
    let root = command();
    let mut settings = Settings::new();
    // What lacks may stand in the file; what is wrong is said by the second look.
    let mut seen = root.clone().ignore_errors(true).try_get_matches_from(&typed)?;
    if seen.subcommand_name().is_none() && root.clone().try_get_matches_from(&typed).is_ok() {
        typed.push(bare.into());
        seen = root.clone().ignore_errors(true).try_get_matches_from(&typed)?;
    }
    if let Some((name, own)) = seen.subcommand()
        && let Some(flags) = flags::of_command(&root, name)
    {
        let named = named_file(&seen);
        let file = File::read(&root, named.as_deref())?;
        let mut words: Vec<OsString> = Vec::new();
        for flag in flags.iter().filter(|flag| !is_typed(own, flag)) {
            if let Some((values, _)) = setting(&root, name, flag, &file)? {
                words.extend(flag.words(&values).into_iter().map(OsString::from));
                settings.insert(flag.key(), values);
            }
        }
        let end = typed.iter().position(|word| word == "--").unwrap_or(typed.len());
        typed.splice(end..end, words);
    }
    let matches = root.clone().try_get_matches_from(typed);
    let matches = matches.map_err(|error| elsewhere::told(error, &root, seen.subcommand_name()))?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok(Cli { settings, ..cli })
}

/// Keys whose values differ.
pub(crate) fn changed(before: &Settings, after: &Settings) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

/// The command line's definition, with a word on settings at the end of each command's help.
pub(crate) fn command() -> Command {
    let mut root = Cli::command();
    let names: Vec<String> =
        flags::commands(&root).map(|command| command.get_name().to_owned()).collect();
    for name in names {
        let flags = flags::of_command(&root, &name).unwrap_or_default();
        let Some(flag) = flags.first() else { continue };
        let more = format!(
            "Every flag is also a key of {} and a variable: --{}, {}, {}.",
            file::DEFAULT,
            flag.long,
            flag.key(),
            flag.variable()
        );
        root = root.mut_subcommand(name, |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            command.after_help(format!("{help}\n\n{more}"))
        });
    }
    root
}

/// Variables that are nearly settings, and which. Others may be somebody else's.
fn misspelt(root: &Command, names: impl Iterator<Item = String>) -> Vec<String> {
    let flags = flags::commands(root).filter_map(|of| flags::of_command(root, of.get_name()));
    let known: BTreeSet<String> = flags
        .flatten()
        .map(|flag| flag.variable())
        .chain([VARIABLE.to_owned()])
        .filter_map(|name| Some(name.strip_prefix(flags::VARIABLES)?.to_owned()))
        .collect();
    names
        .filter_map(|name| {
            let own = name.strip_prefix(flags::VARIABLES).filter(|own| !known.contains(*own))?;
            let meant = file::alike(own, known.iter().cloned())?;
            Some(format!("{name} is no setting; did you mean {}{meant}?", flags::VARIABLES))
        })
        .collect()
}

/// The file that the command line or the environment names.
fn named_file(matches: &ArgMatches) -> Option<PathBuf> {
    let typed = matches.try_get_one::<PathBuf>(flags::CONFIG).ok().flatten().cloned();
    typed.or_else(variable)
}

/// The file that the environment names.
pub(crate) fn variable() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn is_typed(matches: &ArgMatches, flag: &Flag) -> bool {
    // A flag that all commands share is in every command's matches.
    matches!(matches.try_contains_id(&flag.id), Ok(true))
        && matches.value_source(&flag.id) == Some(ValueSource::CommandLine)
}

/// What the environment says of a flag, else what the file says.
///
/// # Errors
/// [`Error::Input`] where the variable's value is no use.
pub(crate) fn setting(
    root: &Command,
    command: &str,
    flag: &Flag,
    file: &File,
) -> Result<Option<(Vec<String>, Origin)>, Error> {
    let variable = flag.variable();
    if let Some(value) = std::env::var_os(&variable).filter(|value| !value.is_empty()) {
        let values = of_variable(flag.kind, &value)
            .and_then(|values| flags::check(root, command, &flag.words(&values)).map(|()| values))
            .map_err(|fault| {
                Error::input(
                    format!("environment variable {variable}: {fault}"),
                    format!("set it to what --{} takes, or unset it", flag.long),
                )
            })?;
        return Ok(Some((values, Origin::Environment(variable))));
    }
    Ok(file.entry(command, flag).map(|entry| {
        (entry.values.clone(), Origin::File { path: file.path.clone(), line: entry.line })
    }))
}

/// A list is written with commas.
fn of_variable(kind: Kind, value: &OsStr) -> Result<Vec<String>, String> {
    let text = value.to_str().ok_or("the value is no UTF-8")?;
    match (kind, text.to_lowercase().as_str()) {
        (Kind::Switch, "1" | "true" | "yes" | "on") => Ok(vec!["true".into()]),
        (Kind::Switch, "0" | "false" | "no" | "off") => Ok(vec!["false".into()]),
        (Kind::Switch, _) => Err(format!("expected true or false, not {text:?}")),
        (Kind::One, _) => Ok(vec![text.into()]),
        (Kind::Many, _) => Ok(text.split(',').map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_told_and_others_are_let_be() {
        let names = ["PROBE_HELTH", "PROBE_HEALTH", "PROBE_CONFIG", "PROBE_SERVICE_HOST", "HELTH"];
        let told = misspelt(&command(), names.into_iter().map(str::to_owned));
        assert_eq!(told, ["PROBE_HELTH is no setting; did you mean PROBE_HEALTH?"]);
    }
}
