//! Leak scenarios: a server that keeps a manager for every connection, and loses sight of some. Each
//! leaks for the reason that it is named after.

use std::time::Duration;

mod cold_start;
mod emergency;
mod judge;
mod key_mismatch;
mod reconnects;
mod run;
mod slow_cleanup;
mod tabs;

pub(crate) use run::{Options, run};

/// One scenario: loads that run at the same time, each of a user of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaks {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    loads: &'static [Load],
    /// `--preset` of the report.
    preset: &'static str,
}

/// The preset for the managers of one user.
const ONE_USER: &str = "managers-50";

/// Connections of one user, who meets the bug of the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// User, and `--manager-bug`.
    bug: &'static str,
    /// The same with `--fixed`; empty for a server that has no bug for anybody.
    fixed: &'static str,
    connections: u64,
    /// `--ramp` of the clients.
    ramp: &'static str,
    /// How long each connection stays; for `--time-scale 1`.
    stay: Duration,
}

pub(super) static ALL: &[Leaks] = &[
    tabs::SCENARIO,
    cold_start::SCENARIO,
    reconnects::SCENARIO,
    key_mismatch::SCENARIO,
    slow_cleanup::SCENARIO,
    emergency::SCENARIO,
    Leaks {
        name: "all",
        about: "the first five leaks above, at the same time",
        // Several users' managers need more memory than one's.
        preset: "managers-100",
        loads: &[
            tabs::LOAD,
            cold_start::LOAD,
            reconnects::LOAD,
            key_mismatch::LOAD,
            slow_cleanup::LOAD,
        ],
    },
];

/// The part of `--help` that lists every scenario.
pub(super) fn help() -> String {
    let lines = ALL.iter().map(|one| format!("  {:24} {}\n", one.name, one.about));
    format!("Leaks (a server with managers, at most 20 a user):\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::manager::bug;
    use crate::units::Ramp;

    #[test]
    fn every_load_meets_its_bug() {
        for scenario in ALL {
            for load in scenario.loads {
                bug(load.bug).unwrap();
                assert!(load.fixed.is_empty() || bug(load.fixed).is_ok());
                load.ramp.parse::<Ramp>().unwrap();
            }
        }
    }
}
