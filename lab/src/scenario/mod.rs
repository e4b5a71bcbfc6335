//! Scenarios: a server, clients and a fault of known size, watched by `probe` and judged by
//! `analyzer`. A scenario is data (`table`); everything that runs it is shared.

use std::fmt::Write as _;
use std::time::Duration;

mod directory;
pub(crate) mod handshake;
mod judge;
pub(crate) mod leak;
mod network;
mod run;
mod table;

pub(crate) use run::{Options, run};

/// A scenario of either kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chosen {
    /// Servers that report what is not there.
    Phantoms(&'static Scenario),
    /// Clients that are turned away.
    Handshakes(&'static handshake::Handshakes),
    /// Servers that keep what they should let go.
    Leaks(&'static leak::Leaks),
}

/// One scenario. Times are for `--time-scale 1`; rates are never scaled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    connections: u64,
    /// Connections per second.
    ramp: u32,
    /// From the end of the ramp.
    hold: Duration,
    heartbeat: Option<Duration>,
    message_interval: Option<Duration>,
    /// The server's own pings, and how long it waits for the pong.
    server_ping: Option<(Duration, Duration)>,
    /// Slots per shard, where a balancer with three shards is the server.
    balancer_slots: Option<u32>,
    /// `--fault` of the server; left out by `--fixed`.
    faults: &'static [&'static str],
    /// `--end` of the clients, `end_at` after the ramp.
    ends: &'static [&'static str],
    end_at: Duration,
    /// So many more clients stand behind a link that goes down `end_at` after the ramp.
    cut_off: u64,
    /// `probe watch` prints a block so often; none if it does not run.
    watch: Option<Duration>,
    /// `--min-success` of the clients, in percent.
    min_success: u32,
    /// `--max-phantoms` of the report.
    max_phantoms: u64,
    /// What the analyzer must find: kind of phantom, and how many.
    expect: Option<(&'static str, u64)>,
    /// Exit 0 if what was found equals what was done, whatever the analyzer's thresholds say.
    exit_by_truth: bool,
}

/// The scenario called `name`.
pub(crate) fn find(name: &str) -> Result<Chosen, String> {
    let phantoms = table::ALL.iter().map(|one| (one.name, Chosen::Phantoms(one)));
    let handshakes = handshake::ALL.iter().map(|one| (one.name, Chosen::Handshakes(one)));
    let leaks = leak::ALL.iter().map(|one| (one.name, Chosen::Leaks(one)));
    let mut all = phantoms.chain(handshakes).chain(leaks);
    all.clone().find(|(known, _)| *known == name).map(|(_, chosen)| chosen).ok_or_else(|| {
        let names: Vec<_> = all.by_ref().map(|(known, _)| known).collect();
        format!("`{name}` is no scenario: expected one of {}", names.join(", "))
    })
}

/// The part of `--help` that lists every scenario.
pub(crate) fn help() -> String {
    let mut text = String::from("Phantoms:\n");
    for scenario in table::ALL {
        let _ = writeln!(text, "  {:24} {}", scenario.name, scenario.about);
    }
    text.push('\n');
    text.push_str(&leak::help());
    text.push('\n');
    text.push_str(&handshake::help());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::EndSpec;
    use crate::fault::FaultSpec;

    #[test]
    fn every_row_is_usable() {
        for scenario in table::ALL {
            for fault in scenario.faults {
                FaultSpec::of_server(fault).unwrap();
            }
            for end in scenario.ends {
                end.parse::<EndSpec>().unwrap();
            }
            assert!(scenario.end_at <= scenario.hold, "{}", scenario.name);
            let Ok(Chosen::Phantoms(found)) = find(scenario.name) else {
                panic!("{} is not found", scenario.name)
            };
            assert_eq!(found.name, scenario.name);
        }
        assert!(find("no-such").unwrap_err().contains("expected one of"));
    }
}
