//! The torture run: connections opened and ended in every way there is, by several processes in several
//! namespaces and cgroups; now and then all of them pause, and the probe's counts are held against
//! what the kernel says by other ways.
//!
//! `cargo xtask torture` runs it for minutes.

pub mod attach;
mod barrier;
mod captured;
mod fired;
mod kernel;
pub mod load;
mod opened;
mod report;
mod world;

use std::time::{Duration, Instant};

use barrier::Barrier;
pub use report::{Check, Report};
use world::World;

use crate::probe::Agent;

/// How long, and by which lot.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub duration: Duration,
    /// Between barriers.
    pub churn: Duration,
    /// In every other round packets are steered to all CPUs.
    pub steering: bool,
}

/// Of the ring that records come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ring {
    /// For 900,000 records, more than half a minute of the churn: none may be lost, however seldom the agent
    /// gets a processor beside it.
    Large,
    /// For a few records: most are lost as soon as anything happens.
    TooSmall,
}

impl Ring {
    fn bytes(self) -> &'static str {
        match self {
            Self::Large => "268435456",
            Self::TooSmall => "4096",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Large => "ring of 256 MiB",
            Self::TooSmall => "ring of 4 KiB",
        }
    }
}

/// Two acts: with a ring that must hold everything, and with one that can't.
///
/// # Panics
/// If a part of the machinery fails; what the probe gets wrong is in the report.
pub fn run(options: &Options, mut told: impl FnMut(&Check)) -> Report {
    let mut report = Report::new(options);
    let mut tell = |report: &mut Report, check: Check| {
        told(&check);
        report.take(check);
    };
    for ring in [Ring::Large, Ring::TooSmall] {
        act(options, ring, &mut report, &mut tell);
    }
    report
}

fn act(
    options: &Options,
    ring: Ring,
    report: &mut Report,
    tell: &mut impl FnMut(&mut Report, Check),
) {
    let act = ring.name();
    let agent = Agent::start_with(&["--ring-bytes", ring.bytes()]);
    let mut fired = fired::Fired::watch(agent.pid());
    let mut world = World::new(options.seed);
    let recording = captured::Recording::start(&agent, &world.ports());
    let end = Instant::now() + options.duration / 2;
    let mut opened = opened::Opened::default();
    let mut round = 0;
    while round < 3 || Instant::now() < end {
        world.vary(round, options.steering);
        world.churn(options.churn);
        let name = format!("{act}, barrier {}: {}", round + 1, world.settings());
        let barrier =
            Barrier { agent: &agent, world: &world, fired: &fired, opened: &opened, name: &name };
        let (checks, until_now, ended) = barrier.checks();
        for check in checks {
            tell(report, check);
        }
        opened = until_now;
        fired.begin(ended);
        round += 1;
    }
    report.transitions += fired.transitions();
    for check in recording.checks(ring, &agent, &world, &opened) {
        tell(report, check);
    }
    report.take_vitals(act, &agent);
    report.take_books(&world.books());
}
