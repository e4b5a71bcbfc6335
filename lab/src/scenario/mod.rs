//! Scenarios: a server, clients and a fault of known size, watched by `probe` and judged by
//! `analyzer`. A scenario is data (`table`); everything that runs it is shared.

use std::fmt::Write as _;
use std::time::Duration;

use crate::fault::{FaultSpec, Side};

mod clients;
mod directory;
pub(crate) mod handshake;
mod judge;
pub(crate) mod leak;
mod network;
mod programs;
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
    /// Several, one after the other.
    Sequence(&'static Sequence),
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
    /// Instead of the hold: each connection stays so long, and others come, for as long as the hold.
    churn: Option<Duration>,
    /// `--max-phantoms` of the report.
    max_phantoms: u64,
    /// `--preset` of the report.
    preset: Option<&'static str>,
    /// Checkpoints of the report lie so far apart.
    checkpoints: Option<Duration>,
    /// What the analyzer must find: kind of phantom, and how many.
    expect: Option<(&'static str, u64)>,
    verdict: Verdict,
}

/// What the exit code of a run goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// 0 if what was found equals what was done, whatever the analyzer's thresholds say.
    Truth,
    /// What was found must equal what was done; then the thresholds.
    TruthAndThresholds,
    /// The thresholds alone, as with anybody's server.
    Thresholds,
}

/// Scenarios one after the other, with a pause in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) of: &'static [&'static str],
    /// For `--time-scale 1`.
    pub(crate) pause: Duration,
}

/// What `lab run custom` was asked for, where it differs from its defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Custom {
    pub(crate) connections: Option<u64>,
    pub(crate) ramp: Option<u32>,
    pub(crate) hold: Option<Duration>,
    pub(crate) message_interval: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
}

impl Scenario {
    pub(crate) fn is_custom(&self) -> bool {
        self.name == table::CUSTOM
    }

    /// Judged by thresholds as anybody's server is. It has no fault of its own, and may be given some.
    pub(crate) fn is_load(&self) -> bool {
        self.verdict == Verdict::Thresholds
    }

    /// A server's fault strikes in every shard of a balancer.
    pub(crate) fn takes(&self, fault: &FaultSpec) -> bool {
        fault.side() == Side::Server || self.balancer_slots.is_some()
    }

    /// With so many times the clients, at least one, and slots to fit.
    #[must_use]
    pub(crate) fn scaled_to(self, count_scale: f64) -> Self {
        let connections = (self.connections as f64 * count_scale).ceil() as u64;
        let slots = |slots: u32| (f64::from(slots) * count_scale).ceil() as u32;
        Scenario { connections, balancer_slots: self.balancer_slots.map(slots), ..self }
    }

    #[must_use]
    pub(crate) fn with(self, custom: &Custom) -> Self {
        Scenario {
            connections: custom.connections.unwrap_or(self.connections),
            ramp: custom.ramp.unwrap_or(self.ramp),
            hold: custom.hold.unwrap_or(self.hold),
            message_interval: custom.message_interval.or(self.message_interval),
            heartbeat: custom.heartbeat.or(self.heartbeat),
            ..self
        }
    }
}

/// The scenario called `name`.
pub(crate) fn find(name: &str) -> Result<Chosen, String> {
    let phantoms = table::ALL.iter().map(|one| (one.name, Chosen::Phantoms(one)));
    let handshakes = handshake::ALL.iter().map(|one| (one.name, Chosen::Handshakes(one)));
    let leaks = leak::ALL.iter().map(|one| (one.name, Chosen::Leaks(one)));
    let sequences = table::SEQUENCES.iter().map(|one| (one.name, Chosen::Sequence(one)));
    let mut all = phantoms.chain(handshakes).chain(leaks).chain(sequences);
    all.clone().find(|(known, _)| *known == name).map(|(_, chosen)| chosen).ok_or_else(|| {
        let names: Vec<_> = all.by_ref().map(|(known, _)| known).collect();
        format!("`{name}` is no scenario: expected one of {}", names.join(", "))
    })
}

/// The part of `--help` that lists every scenario.
pub(crate) fn help() -> String {
    let loads = |one: &&Scenario| one.is_load();
    let mut text = String::from("Load:\n");
    for scenario in table::ALL.iter().filter(loads) {
        let _ = writeln!(text, "  {:24} {}", scenario.name, scenario.about);
    }
    for sequence in table::SEQUENCES {
        let _ = writeln!(text, "  {:24} {}", sequence.name, sequence.about);
    }
    text.push_str("\nPhantoms:\n");
    for scenario in table::ALL.iter().filter(|one| !loads(one)) {
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
        for sequence in table::SEQUENCES {
            assert!(sequence.of.iter().all(|name| find(name).is_ok()), "{}", sequence.name);
        }
        assert!(find("no-such").unwrap_err().contains("expected one of"));
    }
}
