//! Colours for people, where there are people and they have not asked for none.

use std::io::IsTerminal;

/// How urgent a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
}

/// Whether to colour what goes to stdout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// As the terminal, `CLICOLOR_FORCE` and, before both, `NO_COLOR` (any value but the empty one) say.
    pub(crate) fn of_stdout() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let wanted = std::io::stdout().is_terminal() || is_set("CLICOLOR_FORCE");
        Self { coloured: wanted && !is_set("NO_COLOR") }
    }

    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    pub(crate) fn is_coloured(self) -> bool {
        self.coloured
    }

    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.coloured {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
