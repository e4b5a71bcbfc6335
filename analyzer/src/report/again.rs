//! The commands that print a section's figures again: the report's own options, as far as they bear on it.

/// Options of `analyzer report` that another command takes as well.
pub(crate) const PHANTOMS: [&str; 7] = [
    "--port",
    "--container",
    "--role",
    "--settle",
    "--max-phantoms",
    "--max-reverse-phantoms",
    "--max-unclosed",
];
pub(crate) const HANDSHAKES: [&str; 4] = ["--port", "--container", "--role", "--max-failed"];
pub(crate) const LEAKS: [&str; 7] =
    ["--port", "--container", "--role", "--log", "--series", "--interval", "--duration"];
pub(crate) const CLIENTS: [&str; 5] = ["--port", "--container", "--role", "--client", "--map"];

/// Options without a value: of the report, and of what counts the connections.
const FLAGS: [&str; 2] = ["--json", "--summary"];

/// A command line of `analyzer report`, taken apart.
#[derive(Debug)]
pub(crate) struct Again<'a> {
    words: &'a [String],
    captures: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Again<'a> {
    /// `words` begin with the program and `report`.
    pub(crate) fn new(words: &'a [String]) -> Self {
        let mut again = Again { words, captures: Vec::new(), options: Vec::new() };
        let mut rest = words.iter().skip(2).map(String::as_str);
        while let Some(word) = rest.next() {
            if FLAGS.contains(&word) {
                continue;
            }
            if word == "--" {
                again.captures.extend(rest.by_ref());
            } else if let Some((name, value)) = word.split_once('=').filter(|_| is_option(word)) {
                again.options.push((name, value));
            } else if is_option(word) && (word.starts_with("--") || word.len() == 2) {
                again.options.extend(rest.next().map(|value| (word, value)));
            } else if !is_option(word) {
                again.captures.push(word);
            }
        }
        again
    }

    /// `analyzer SUBCOMMAND` of one capture. Of `options` those that the report was given are taken, and
    /// flags as they are.
    pub(crate) fn command(&self, subcommand: &str, capture: &str, options: &[&str]) -> String {
        self.line(subcommand, &[capture], options)
    }

    /// The same of all captures.
    pub(crate) fn of_all(&self, subcommand: &str, options: &[&str]) -> String {
        self.line(subcommand, &self.captures, options)
    }

    /// The report's own command.
    pub(crate) fn whole(&self) -> String {
        let words = self.words.get(1..).unwrap_or_default();
        format!("analyzer {}", shell_words(words))
    }

    fn line(&self, subcommand: &str, captures: &[&str], options: &[&str]) -> String {
        let mut words = vec!["analyzer", subcommand];
        words.extend(captures);
        for (name, value) in self.options.iter().filter(|(name, _)| options.contains(name)) {
            words.extend([*name, *value]);
        }
        words.extend(options.iter().filter(|option| FLAGS.contains(option)));
        shell_words(&words)
    }
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// Words for a POSIX shell, quoted where they must be.
pub(crate) fn shell_words<W: AsRef<str>>(words: &[W]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,=@%+".contains(c);
    let quoted = |word: &str| {
        if !word.is_empty() && word.chars().all(plain) {
            return word.to_owned();
        }
        format!("'{}'", word.replace('\'', r"'\''"))
    };
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_keeps_what_bears_on_it() {
        let words = [
            "/x/analyzer",
            "report",
            "my runs/1",
            "run2",
            "--port=3005",
            "--client",
            "a's.csv",
            "-o",
            "out",
            "--preset",
            "quick",
            "--json",
            "--interval",
            "2m",
            "-oelse",
        ]
        .map(str::to_owned);
        let again = Again::new(&words);
        assert_eq!(
            again.command("leaks", "run2", &LEAKS),
            "analyzer leaks run2 --port 3005 --interval 2m"
        );
        assert_eq!(
            again.of_all("clients", &CLIENTS),
            r"analyzer clients 'my runs/1' run2 --port 3005 --client 'a'\''s.csv'"
        );
        assert_eq!(
            again.command("connections", "run2", &["--summary"]),
            "analyzer connections run2 --summary"
        );
        assert!(again.whole().starts_with("analyzer report 'my runs/1' run2 --port=3005 --client"));
    }
}
