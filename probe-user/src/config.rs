//! Settings of the agent from a TOML file and from the environment.
//!
//! Both are turned into the flags that they are named after and go before those of the command line,
//! so that there is one definition of each setting, one check of its value, and the last one wins:
//! file, then environment, then flags.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Arg, CommandFactory, Parser};
use toml::{Table, Value};

use crate::{
    cli::{Cli, Command},
    error::Error,
};

/// Read where no other file is named, if it is there.
pub(crate) const FILE: &str = "/etc/groundtruth/config.toml";
/// What the names of variables begin with: `--health-timeout` is `PROBE_HEALTH_TIMEOUT`.
const PREFIX: &str = "PROBE_";

/// Parses the command line, for `serve` with the settings of file and environment.
///
/// # Errors
/// [`Error::Input`]: what is wrong with the file.
pub(crate) fn parse() -> Result<Cli, Error> {
    let cli = Cli::parse();
    let Some(Command::Serve(serve)) = &cli.command else { return Ok(cli) };
    let mut settings = match &serve.config {
        Some(file) => from_file(file)?,
        None if Path::new(FILE).exists() => from_file(Path::new(FILE))?,
        None => Vec::new(),
    };
    settings.extend(from_environment(|name| std::env::var_os(name)));
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let serve = arguments.iter().position(|argument| argument == "serve").unwrap_or(0);
    arguments.splice(serve + 1..serve + 1, settings);
    Ok(Cli::parse_from(arguments))
}

/// Checks a file as `serve` would; returns how many settings it has.
///
/// # Errors
/// [`Error::Input`]: which key, and what was expected.
pub(crate) fn check(file: &Path) -> Result<usize, Error> {
    let settings = from_file(file)?;
    let arguments = ["probe", "serve"].map(OsString::from).into_iter();
    match Cli::try_parse_from(arguments.chain(settings.iter().cloned())) {
        Ok(_) => Ok(settings.len()),
        Err(error) => {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Err(Error::input(
                format!("{}: {text}", file.display()),
                "the keys are the flags of `probe serve --help`, with _ for -",
            ))
        }
    }
}

/// The flags of `serve` that may stand in a file.
fn flags() -> Vec<Arg> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").map(|serve| serve.get_arguments().cloned());
    let global = command.get_arguments().filter(|flag| flag.is_global_set()).cloned();
    serve
        .into_iter()
        .flatten()
        .chain(global)
        .filter(|flag| !matches!(flag.get_id().as_str(), "config" | "help"))
        .collect()
}

fn from_file(file: &Path) -> Result<Vec<OsString>, Error> {
    let refused = |what: String, next: &str| {
        Error::input(format!("{}: {what}", file.display()), next.to_owned())
    };
    let text = fs::read_to_string(file).map_err(|error: io::Error| {
        refused(error.to_string(), "name a file that can be read, with --config")
    })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        refused(error.to_string().trim_end().to_owned(), "expected TOML: key = \"value\"")
    })?;
    let flags = flags();
    let names: Vec<&str> = flags.iter().map(|flag| flag.get_id().as_str()).collect();
    let mut settings = Vec::new();
    for (key, value) in &table {
        let Some(flag) = flags.iter().find(|flag| flag.get_id().as_str() == key) else {
            let nearest = names
                .iter()
                .max_by(|a, b| strsim::jaro(a, key).total_cmp(&strsim::jaro(b, key)))
                .copied()
                .unwrap_or_default();
            return Err(refused(
                format!("no setting {key:?}: did you mean {nearest:?}?"),
                &format!("there are: {}", names.join(", ")),
            ));
        };
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            other => {
                let kind = other.type_str();
                return Err(refused(
                    format!("{key} is of type {kind}"),
                    "expected a string such as \"2s\", or a whole number",
                ));
            }
        };
        settings.push(setting(flag, &value.into()));
    }
    Ok(settings)
}

fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    flags()
        .iter()
        .filter_map(|flag| {
            let name = format!("{PREFIX}{}", flag.get_id().as_str().to_uppercase());
            Some(setting(flag, &variable(&name)?))
        })
        .collect()
}

/// `--flag=value`
fn setting(flag: &Arg, value: &OsString) -> OsString {
    let mut setting = OsString::from(format!("--{}=", flag.get_long().unwrap_or_default()));
    setting.push(value);
    setting
}

/// The file that `config check` looks at if none is named.
pub(crate) fn default_file() -> PathBuf {
    FILE.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<usize, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, text).unwrap();
        let shown = file.display().to_string();
        check(&file).map_err(|error| error.to_string().replace(&shown, "FILE"))
    }

    #[test]
    fn settings_are_the_flags() {
        let text = "listen = \"127.0.0.1:9000\"\ninterval = \"5s\"\nagent_socket = \"/tmp/a\"\n";
        assert_eq!(checked(text), Ok(3));
        assert_eq!(checked(""), Ok(0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("lisen = \"x\"", "FILE: no setting \"lisen\": did you mean \"listen\"?"),
            ("listen = true", "FILE: listen is of type boolean"),
            ("listen = \"nowhere\"", "FILE: invalid value 'nowhere' for '--listen <ADDR>'"),
            ("interval = \"1ms\"", "too short: expected 100ms or more"),
            ("listen 3", "FILE: TOML parse error at line 1"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(part), "{part:?} in {error}");
        }
    }

    #[test]
    fn variables_are_named_after_flags() {
        let found = from_environment(|name| (name == "PROBE_HEALTH_TIMEOUT").then(|| "7s".into()));
        assert_eq!(found, ["--health-timeout=7s"]);
    }
}
