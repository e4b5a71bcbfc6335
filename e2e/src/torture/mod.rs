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

/// A ring for a few records: most are lost as soon as anything happens.
const TOO_SMALL_RING: &str = "4096";

/// Two acts: with the ring that is meant for it, and with one that is too small.
///
/// # Panics
/// If a part of the machinery fails; what the probe gets wrong is in the report.
pub fn run(options: &Options, mut told: impl FnMut(&Check)) -> Report {
    let mut report = Report::new(options);
    let mut tell = |report: &mut Report, check: Check| {
        told(&check);
        report.take(check);
    };
    for ring in [None, Some(TOO_SMALL_RING)] {
        act(options, ring, &mut report, &mut tell);
    }
    report
}

fn act(
    options: &Options,
    ring: Option<&str>,
    report: &mut Report,
    tell: &mut impl FnMut(&mut Report, Check),
) {
    let act = ring.map_or("ring of 8 MiB", |_| "ring of 4 KiB");
    let agent = Agent::start_with(&ring.map_or(vec![], |bytes| vec!["--ring-bytes", bytes]));
    let fired = fired::Fired::watch(agent.pid());
    let mut world = World::new(options.seed);
    let recording = captured::Recording::start(&agent, &world.ports());
    let end = Instant::now() + options.duration / 2;
    let mut round = 0;
    while round < 3 || Instant::now() < end {
        world.vary(round, options.steering);
        world.churn(options.churn);
        let name = format!("{act}, barrier {}: {}", round + 1, world.settings());
        let barrier = Barrier { agent: &agent, world: &world, fired: &fired, name: &name };
        for check in barrier.checks() {
            tell(report, check);
        }
        round += 1;
    }
    for check in fired.checks(act) {
        tell(report, check);
    }
    report.transitions += fired.transitions();
    let left_out = fired.left_out();
    for check in recording.checks(act, &agent, &world, left_out, ring.is_some()) {
        tell(report, check);
    }
    report.take_vitals(act, &agent);
    report.take_books(&world.books());
}
