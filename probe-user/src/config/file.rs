//! The configuration file: keys that are flags, at the top for every command that has them, in a
//! table for that command alone.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::Command;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::flags::{self, Flag, Kind};
use crate::error::Error;

/// Read where no other is named, if it is there.
pub(crate) const DEFAULT: &str = "/etc/groundtruth/probe.toml";

/// Names closer than this are taken for slips of the pen.
const ALIKE: f64 = 0.8;

/// One key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `None`: for every command that has the flag.
    command: Option<String>,
    key: String,
    pub(crate) values: Vec<String>,
    /// From 1.
    pub(crate) line: usize,
}

/// A file without faults, or none at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    /// Empty where no file is read.
    pub(crate) path: PathBuf,
    pub(crate) entries: Vec<Entry>,
}

impl File {
    /// Reads the file that was named, or else the default one if it is there.
    ///
    /// # Errors
    /// [`Error::Input`] with every fault of the file.
    pub(crate) fn read(root: &Command, named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(DEFAULT));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(root, path, &text),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("probe: {DEFAULT} may not be read by this user: going without it");
                Ok(Self::default())
            }
            Err(error) => Err(Error::input(
                format!("cannot read the configuration {}: {error}", path.display()),
                "name a file that can be read with --config, or leave it out",
            )),
        }
    }

    fn parse(root: &Command, path: &Path, text: &str) -> Result<Self, Error> {
        let mut reader = Reader { root, text, entries: Vec::new(), faults: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => reader.document(table.get_ref()),
            Err(error) => {
                let line = line(text, error.span().unwrap_or_default());
                reader.faults.push((line, format!("no TOML: {}", error.message())));
            }
        }
        let Reader { mut faults, mut entries, .. } = reader;
        if faults.is_empty() {
            entries.sort_by_key(|entry| entry.line);
            return Ok(Self { path: path.into(), entries });
        }
        faults.sort();
        let faults: Vec<String> = faults
            .iter()
            .map(|(line, fault)| format!("{}:{line}: {fault}", path.display()))
            .collect();
        Err(Error::input(
            faults.join("\n"),
            "mend it (`probe config check`), or go without: --config /dev/null",
        ))
    }

    /// What the file says of a flag; the command's own table goes before the top.
    pub(crate) fn entry(&self, command: &str, flag: &Flag) -> Option<&Entry> {
        let key = flag.key();
        let mut found = self.entries.iter().filter(|entry| {
            entry.key == key && entry.command.as_deref().is_none_or(|own| own == command)
        });
        found.clone().find(|entry| entry.command.is_some()).or_else(|| found.next())
    }
}

/// Reads on after a fault, so that all are told at once.
struct Reader<'a> {
    root: &'a Command,
    text: &'a str,
    entries: Vec<Entry>,
    faults: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn document(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let (name, at) = (key.get_ref().as_ref(), line(self.text, key.span()));
            if let DeValue::Table(inner) = value.get_ref() {
                if flags::of_command(self.root, name).is_some() {
                    self.command(name, inner);
                } else {
                    let known = flags::commands(self.root).map(|c| c.get_name().to_owned());
                    let like = nearest(name, known);
                    self.faults.push((at, format!("no command [{name}]{like}")));
                }
                continue;
            }
            let commands: Vec<(String, Flag)> = flags::commands(self.root)
                .filter_map(|command| {
                    let flags = flags::of_command(self.root, command.get_name())?;
                    let flag = flags.into_iter().find(|flag| flag.key() == name)?;
                    Some((command.get_name().to_owned(), flag))
                })
                .collect();
            if commands.is_empty() {
                let known: Vec<String> = flags::commands(self.root)
                    .filter_map(|command| flags::of_command(self.root, command.get_name()))
                    .flatten()
                    .map(|flag| flag.key())
                    .collect();
                self.faults.push((at, format!("no key {name:?}{}", nearest(name, known))));
                continue;
            }
            self.entry(None, name, value, &commands);
        }
    }

    fn command(&mut self, command: &str, table: &DeTable<'_>) {
        let flags = flags::of_command(self.root, command).unwrap_or_default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match flags.iter().find(|flag| flag.key() == name) {
                Some(flag) => {
                    self.entry(Some(command), name, value, &[(command.to_owned(), flag.clone())]);
                }
                None => {
                    let like = nearest(name, flags.iter().map(Flag::key));
                    let at = line(self.text, key.span());
                    self.faults.push((at, format!("no key {name:?} in [{command}]{like}")));
                }
            }
        }
    }

    /// `meant`: the commands that the key is for, each with its flag.
    fn entry(
        &mut self,
        command: Option<&str>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        meant: &[(String, Flag)],
    ) {
        let at = line(self.text, value.span());
        let mut fault = None;
        for (name, flag) in meant {
            let checked = values(flag.kind, value.get_ref())
                .and_then(|values| flags::check(self.root, name, &flag.words(&values)));
            fault = fault.or(checked.err());
        }
        match (fault, meant.first()) {
            (Some(fault), _) => self.faults.push((at, format!("{key}: {fault}"))),
            (None, Some((_, flag))) => self.entries.push(Entry {
                command: command.map(str::to_owned),
                key: key.to_owned(),
                values: values(flag.kind, value.get_ref()).unwrap_or_default(),
                line: at,
            }),
            (None, None) => {}
        }
    }
}

fn values(kind: Kind, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(set)) => Ok(vec![set.to_string()]),
        (Kind::Switch, other) => Err(format!("expected true or false, not {}", a(other))),
        (_, DeValue::Array(list)) => {
            list.iter().map(|item| one(item.get_ref())).collect::<Result<_, _>>()
        }
        (_, value) => Ok(vec![one(value)?]),
    }
}

fn one(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        other => Err(format!("expected a string, a number or a list of them, not {}", a(other))),
    }
}

fn a(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    format!("{} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}

fn nearest(name: &str, known: impl IntoIterator<Item = String>) -> String {
    match alike(name, known) {
        Some(known) => format!("; did you mean {known:?}?"),
        None => "; `probe config show COMMAND` lists what there is".into(),
    }
}

/// What is meant by a name that is none.
pub(super) fn alike(name: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (strsim::jaro(name, &known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(score, _)| *score >= ALIKE)
        .map(|(_, known)| known)
}

fn line(text: &str, span: Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn parse(text: &str) -> Result<File, String> {
        let root = Cli::command();
        File::parse(&root, Path::new("probe.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn faults_have_their_line_and_the_nearest_name() {
        for (text, expected) in [
            ("helth = \"x\"", "probe.toml:1: no key \"helth\"; did you mean \"health\"?"),
            (
                "[serve]\nlisten = 5\nlistne = \"x\"",
                "probe.toml:3: no key \"listne\" in [serve]; did you mean \"listen\"?",
            ),
            (
                "\n[srve]\nlisten = \"127.0.0.1:1\"",
                "probe.toml:2: no command [srve]; did you mean \"serve\"?",
            ),
            ("[record]\nlisten = \"127.0.0.1:1\"", "probe.toml:2: no key \"listen\" in [record]"),
            (
                "qqq = 1",
                "probe.toml:1: no key \"qqq\"; `probe config show COMMAND` lists what there is",
            ),
            ("config = \"x\"", "probe.toml:1: no key \"config\""),
            ("json = 1", "probe.toml:1: json: expected true or false, not an integer"),
            (
                "port = true",
                "probe.toml:1: port: expected a string, a number or a list of them, not a boolean",
            ),
            (
                "port = 0",
                "probe.toml:1: port: invalid value '0' for '--port <3005,3002-3004>': \"0\" is no port: expected 1 to 65535",
            ),
            (
                "# \n\nrole = [\"server\"]",
                "probe.toml:3: role: invalid value 'server' for '--role <ROLE>' [possible values: passive, active, unknown]",
            ),
            ("a = \n", "probe.toml:1: no TOML: "),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let said = parse("helth = 1\n[serve]\nlistne = 1\n").unwrap_err();
        assert_eq!(said.lines().count(), 3, "{said}");
    }

    #[test]
    fn a_table_goes_before_the_top() {
        let file = parse("port = [3005, \"3002-3004\"]\n[count]\nport = 80\n").unwrap();
        let flags = flags::of_command(&Cli::command(), "count").unwrap();
        let port = flags.iter().find(|flag| flag.id == "ports").unwrap();
        assert_eq!(file.entry("count", port).unwrap().values, ["80"]);
        assert_eq!(file.entry("watch", port).unwrap().values, ["3005", "3002-3004"]);
        assert_eq!(file.entry("watch", port).unwrap().line, 1);
    }
}
