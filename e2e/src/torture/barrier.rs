//! What must be equal while nothing moves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fired::Fired;
use super::kernel::{self, Totals};
use super::report::Check;
use super::world::{Load, Named, World};
use crate::probe::{Agent, Counts};

/// Until the last FINs have gone their way on a busy machine; then what differs, differs.
const PATIENCE: Duration = Duration::from_secs(30);

/// States that `probe count` reads from sock_diag, mini sockets included.
const LEFT_OVER: [&str; 3] = ["syn_recv", "fin_wait_2", "time_wait"];

pub(super) struct Barrier<'a> {
    pub(super) agent: &'a Agent,
    pub(super) world: &'a World,
    pub(super) fired: &'a Fired,
    pub(super) name: &'a str,
}

/// The probe's counts and the kernel's, of one moment.
struct Moment {
    counts: Counts,
    ours: Totals,
    sockets: Vec<kernel::Socket>,
    curr_estab: Vec<i64>,
}

impl Barrier<'_> {
    pub(super) fn checks(&self) -> Vec<Check> {
        let places = self.world.places();
        let deadline = Instant::now() + PATIENCE;
        // The first moment at which all is equal, else the last.
        loop {
            let moment = self.look(&places);
            let mut checks = self.compare(&places, &moment);
            if checks.iter().all(|check| check.holds) || Instant::now() > deadline {
                checks.push(Check::exact(self.name, &moment.counts));
                return checks;
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
        for row in rows(&counts) {
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
        Moment { counts, ours, sockets, curr_estab }
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
        let left_out = self.fired.left_out();
        for load in &self.world.loads {
            checks.extend(self.opened(load, moment, left_out));
        }
        checks
    }

    /// Ever opened on the ports of a load, by whichever role.
    fn opened(&self, load: &Load, moment: &Moment, left_out: i64) -> [Check; 2] {
        let check = |what: &str, ours: i64, fired: u64| {
            let what = format!("{}: {what}", load.name);
            Check::within(self.name, &what, ours, fired.cast_signed(), left_out)
        };
        let of_load = || {
            rows(&moment.counts).filter(|row| {
                u16::try_from(number(row, "port")).is_ok_and(|port| load.ports.contains(&port))
            })
        };
        let established = of_load().map(|row| number(row, "established_total")).sum();
        let half_closed =
            moment.sockets.iter().filter(|socket| socket.is_half_closed_to(&load.ports)).count();
        let others: i64 = of_load()
            .filter(|row| row["role"] == "active")
            .map(|row| {
                // What is left over of connections is counted among those that are over.
                let states = row["states"].as_object().into_iter().flatten();
                let open = states.filter(|(state, _)| !LEFT_OVER.contains(&state.as_str()));
                let open: i64 = open.filter_map(|(_, count)| count.as_i64()).sum();
                number(row, "closed_total") + open
            })
            .sum();
        let attempted = others + half_closed as i64;
        [
            check("ever established = fired to ESTABLISHED", established, load.established.read()),
            check("attempts to connect = fired to SYN_SENT", attempted, load.attempted.read()),
        ]
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

fn rows(counts: &Counts) -> impl Iterator<Item = &Value> {
    counts.0["counts"].as_array().into_iter().flatten()
}

fn number(row: &Value, field: &str) -> i64 {
    row[field].as_i64().unwrap_or_else(|| panic!("no number {field} in {row}"))
}
