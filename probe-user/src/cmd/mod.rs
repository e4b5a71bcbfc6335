//! One file per subcommand.

pub(crate) mod checkpoints;
pub(crate) mod config;
pub(crate) mod connections;
pub(crate) mod count;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod record;
pub(crate) mod serve;
pub(crate) mod stop;
mod table;
pub(crate) mod top;
pub(crate) mod watch;

use std::io::{self, Write};

use crate::filter::Filter;

/// Prints to stdout. A reader that has enough (`| head`) is no failure of ours.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Said where no row is left. A mistyped port looks the same as a server without clients otherwise;
/// who asks for a state leaves out who waits for connections.
fn nothing(filter: &Filter) -> &'static str {
    if filter.is_everything() {
        "no connections\n"
    } else if !filter.states.is_empty() {
        "no connection matches these filters\n"
    } else {
        "nothing matches these filters, neither connections nor who waits for them: `probe count` alone shows all that is there\n"
    }
}

/// Prints one JSON document on a line of its own.
fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string(document)?))
}
