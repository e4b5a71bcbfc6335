//! Scenarios of failed handshakes: a cause that hits a known set of clients, recorded by `probe` and
//! explained by `analyzer`. Each client's connection is then held against the truth by name.

use std::time::Duration;

mod cause;
mod judge;
mod run;
mod table;

pub(crate) use run::{Options, run};
pub(super) use table::ALL;

/// What the clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// `lab serve`.
    Server,
    /// `lab balance` with three shards of its own.
    Balancer,
}

/// One scenario. The hold is for `--time-scale 1`; rates and the faults' own times are never scaled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshakes {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    front: Front,
    /// Connections of each load; one load begins when the one before has ended.
    waves: &'static [u64],
    /// Connections per second.
    ramp: u32,
    /// From the end of the ramp.
    hold: Duration,
    /// More arguments of `lab serve` or `lab balance`.
    setup: &'static [&'static str],
    /// Those of them that make handshakes fail; left out by `--fixed`.
    faults: &'static [&'static str],
    /// More arguments of `lab load`.
    clients: &'static [&'static str],
    /// The recording begins before the server is there, and without its health.
    late: bool,
    /// A single thread serves everybody.
    one_thread: bool,
    /// The first of so many addresses of the clients hears nothing while they connect.
    deaf_sources: Option<u8>,
    /// Cause by the name in the truth, where this scenario gives it another one than usual.
    causes: &'static [(&'static str, &'static str)],
    /// Cause of clients that failed and that no line of the truth names, by what they saw.
    unnamed: &'static [(&'static str, &'static str)],
    /// The cause that must be ranked first; none where nothing fails.
    first: Option<&'static str>,
}

/// The part of `--help` that lists every scenario.
pub(super) fn help() -> String {
    let lines = ALL.iter().map(|one| format!("  {:24} {}\n", one.name, one.about));
    format!("Failed handshakes (--fault adds more):\n{}", lines.collect::<String>())
}
