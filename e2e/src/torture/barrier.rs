//! What must be equal while nothing moves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fired::{Fired, Round};
use super::kernel::{self, Totals};
use super::opened::Opened;
use super::report::Check;
use super::world::{Named, World};
use crate::probe::{Agent, Counts};

/// Until the last FINs have gone their way on a busy machine; then what differs, differs.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Barrier<'a> {
    pub(super) agent: &'a Agent,
    pub(super) world: &'a World,
    pub(super) fired: &'a Fired,
    /// At the barrier before.
    pub(super) opened: &'a Opened,
    pub(super) name: &'a str,
}

/// The probe's counts and the kernel's, of one moment.
struct Moment {
    counts: Counts,
    ours: Totals,
    sockets: Vec<kernel::Socket>,
    curr_estab: Vec<i64>,
    opened: Opened,
    round: Round,
}

impl Barrier<'_> {
    /// And what the next round begins with.
    pub(super) fn checks(&self) -> (Vec<Check>, Opened, Round) {
        let places = self.world.places();
        let deadline = Instant::now() + PATIENCE;
        // The first moment at which all is equal, else the last.
        loop {
            let moment = self.look(&places);
            let mut checks = self.compare(&places, &moment);
            // Of an event that was left out just before an audit this says no until the next.
            checks.push(Check::exact(self.name, &moment.counts));
            if checks.iter().all(|check| check.holds) || Instant::now() > deadline {
                return (checks, moment.opened, moment.round);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn look(&self, places: &[Named]) -> Moment {
        let sockets = kernel::sockets(places);
        let curr_estab = places.iter().map(|named| kernel::curr_estab(&named.place)).collect();
        let counts = self.agent.counts();
        let inodes: Vec<u64> = places.iter().map(|named| named.place.inode()).collect();
        let mut ours = Totals::new();
        for row in counts.all() {
            let (netns, cgroup_id) = (number(row, "netns") as u64, number(row, "cgroup_id") as u64);
            if !inodes.contains(&netns) {
                continue;
            }
            for (state, count) in row["states"].as_object().into_iter().flatten() {
                let is_whole = kernel::STATES.contains(&kernel::ss_name(state).as_str());
                if let Some(count) = count.as_i64().filter(|_| is_whole) {
                    *ours.entry((netns, cgroup_id, state.clone())).or_default() += count;
                }
            }
        }
        ours.retain(|_, count| *count != 0);
        let found_late = self.agent.vital("found_late");
        let opened = Opened::read(&self.world.loads, &counts, &sockets, found_late);
        Moment { counts, ours, sockets, curr_estab, opened, round: self.fired.round() }
    }

    fn compare(&self, places: &[Named], moment: &Moment) -> Vec<Check> {
        let listed = kernel::count(&moment.sockets);
        let mut checks = Vec::new();
        for (named, curr_estab) in places.iter().zip(&moment.curr_estab) {
            let netns = named.place.inode();
            let check = |what: &str, ours: i64, kernel: i64| {
                Check::equal(self.name, &format!("{}: {what}", named.name), ours, kernel)
            };
            let of = |totals: &Totals| -> ByState {
                totals
                    .iter()
                    .filter(|((of, ..), _)| *of == netns)
                    .map(|((_, cgroup, state), count)| ((*cgroup, state.clone()), *count))
                    .collect()
            };
            let (ours, theirs) = (of(&moment.ours), of(&listed));
            let what = "sockets, by cgroup and state = ss";
            let mut by_state = check(what, ours.values().sum(), theirs.values().sum());
            if ours != theirs {
                by_state.fail(self.first_difference(netns, &moment.sockets, &ours, &theirs));
            }
            checks.push(by_state);

            let state = |name: &str| -> i64 {
                ours.iter().filter(|((_, state), _)| state == name).map(|(_, count)| count).sum()
            };
            let mut expected = state("established");
            if self.world.curr_estab_has_close_wait {
                expected += state("close_wait");
            }
            checks.push(check("established = CurrEstab", expected, *curr_estab));
        }
        let (loads, round) = (&self.world.loads, &moment.round);
        checks.extend(moment.opened.checks(self.name, loads, self.opened, round));
        checks.extend(round.checks(self.name, self.world.steered));
        checks
    }

    /// A socket that one side has and the other has not, or has in another state.
    fn first_difference(
        &self,
        netns: u64,
        sockets: &[kernel::Socket],
        ours: &ByState,
        theirs: &ByState,
    ) -> String {
        let states = kernel::STATES.map(|state| match state {
            "listening" => "listen".to_owned(),
            other => other.replace('-', "_"),
        });
        let held = self.agent.connections(&["--state", &states.join(",")]);
        let held: BTreeMap<u64, &Value> = held
            .iter()
            // Mini sockets come from sock_diag, and have lost their cgroup.
            .filter(|row| row["cgroup_id"] != 0)
            .filter(|row| number(row, "netns") as u64 == netns)
            .filter_map(|row| Some((row["cookie"].as_u64()?, row)))
            .collect();
        let mut differences = Vec::new();
        for socket in sockets
            .iter()
            .filter(|socket| socket.netns == netns)
            .filter(|socket| kernel::STATES.contains(&socket.ss_state().as_str()))
        {
            match held.get(&socket.cookie) {
                Some(row) if row["state"] == socket.state => {}
                Some(row) => differences.push(format!("{} here, {socket:?}", row["state"])),
                None => differences.push(format!("not counted: {socket:?}")),
            }
        }
        for (cookie, row) in held {
            if !sockets.iter().any(|socket| socket.cookie == cookie) {
                differences.push(format!("counted, and not there: {row}"));
            }
        }
        let first = differences.first().map_or("none", String::as_str);
        format!(
            "counted {ours:?}, ss {theirs:?}; {} sockets differ, the first: {first}",
            differences.len()
        )
    }
}

/// Sockets of one namespace by cgroup and state.
type ByState = BTreeMap<(u64, String), i64>;

pub(super) fn number(row: &Value, field: &str) -> i64 {
    row[field].as_i64().unwrap_or_else(|| panic!("no number {field} in {row}"))
}
