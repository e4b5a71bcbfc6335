//! The recording that runs meanwhile: its rows against the kernel's totals, and the way of each record.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array as _, RecordBatch};
use capture::Capture;
use capture::schema::Table;

use super::Ring;
use super::opened::Opened;
use super::report::Check;
use super::world::{Load, World};
use crate::probe::Agent;
use crate::process::{Running, Signal};
use crate::scratch::Scratch;

/// For records that are on their way, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `probe record` by way of the agent.
pub(super) struct Recording {
    scratch: Scratch,
    process: Running,
}

impl Recording {
    pub(super) fn start(agent: &Agent, ports: &str) -> Self {
        let scratch = Scratch::new("torture");
        let mut command = agent.command("record");
        command.args(["-o", &scratch.join("capture"), "--port", ports]);
        let process = Running::start(&mut command);
        process.wait_stderr("recording");
        Self { scratch, process }
    }

    /// Waits until the last records have come through the ring and the agent to the files; if they never
    /// do, the checks say so.
    fn settle(&self, agent: &Agent, world: &World) {
        let directory = self.scratch.join("capture");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let closed: i64 =
                world.loads.iter().map(|load| agent.counts().closed_on(&load.ports)).sum();
            let written: i64 =
                rows(Path::new(&directory), &world.loads).iter().map(|rows| rows.ended).sum();
            let vitals = agent.vitals();
            let taken = vitals["records_delivered"] == vitals["records_submitted"];
            if taken && written + lost(agent) >= closed || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Ends it. `opened`: what the probe has counted.
    pub(super) fn checks(
        self,
        ring: Ring,
        agent: &Agent,
        world: &World,
        opened: &Opened,
    ) -> Vec<Check> {
        let act = ring.name();
        self.settle(agent, world);
        let finished = self.process.stop(Signal::INT);
        assert_eq!(finished.code, Some(130), "{finished}");
        let vital = |name: &str| agent.vital(name);
        let lost = lost(agent);
        let rows = rows(Path::new(&self.scratch.join("capture")), &world.loads);
        let mut checks = Vec::new();
        if ring == Ring::Large {
            for ((load, rows), counted) in world.loads.iter().zip(&rows).zip(&opened.loads) {
                for (what, ours, counted, more) in [
                    ("established", rows.established, counted.established, opened.found_late),
                    ("attempts to connect", rows.attempted, counted.attempted, 0),
                ] {
                    let what = format!("{}: rows of the capture = counted, {what}", load.name);
                    checks.push(Check::between(act, &what, ours, counted, (0, more)));
                }
            }
        }
        let counts = agent.counts();
        let sum = |of: fn(&Rows) -> i64| -> i64 { rows.iter().map(of).sum() };
        let distinct = rows.iter().map(|rows| rows.identities.len() as i64).sum();
        let what = "rows of the capture = different sockets and generations";
        checks.push(Check::equal(act, what, sum(|rows| rows.counted), distinct));
        let closed: i64 = world.loads.iter().map(|load| counts.closed_on(&load.ports)).sum();
        let connections_lost = lost - vital("stray_syns") + sum(|rows| rows.stray);
        // Among theirs, too, are SYNs to where nobody listens: their own ends of these are counted.
        let of_others = counts.closed() - closed;
        let what = "rows of what is over + connections lost = connections over";
        let ours = sum(|rows| rows.ended) + connections_lost;
        let more = of_others + opened.found_late;
        checks.push(Check::between(act, what, ours, closed, (of_others, more)));
        // Other programs of the host end connections, too: read before and after.
        let taken = || vital("records_submitted") + vital("records_lost") - vital("stray_syns");
        let before = taken();
        let closed = agent.counts().closed();
        let after = taken();
        let what = "connections over = records handed on + lost";
        checks.push(Check::equal(act, what, closed, closed.clamp(before, after)));
        let before = vital("records_delivered");
        let submitted = vital("records_submitted");
        // The agent looks into the ring some twenty times a second.
        let after = (0..100)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                vital("records_delivered")
            })
            .find(|delivered| *delivered >= submitted)
            .unwrap_or_else(|| vital("records_delivered"));
        let what = "records handed on by the kernel = taken from the ring";
        checks.push(Check::equal(act, what, submitted.clamp(before, after), submitted));
        let said =
            agent.counts().0["degraded"].to_string().contains("connection records were lost");
        let what = format!("{lost} records lost, and the probe says so");
        checks.push(Check::equal(act, &what, i64::from(said), i64::from(lost > 0)));
        checks.push(match ring {
            Ring::Large => Check::equal(act, "records lost", lost, 0),
            Ring::TooSmall => {
                let lost_some = i64::from(vital("records_lost") > 0);
                Check::equal(act, "the small ring has lost records", lost_some, 1)
            }
        });
        checks
    }
}

/// Records that the agent did not get, or could not hand on.
fn lost(agent: &Agent) -> i64 {
    let vitals = agent.vitals();
    vitals["records_lost"] + vitals["records_undelivered"]
}

/// Rows of the capture on the ports of one load.
#[derive(Clone, Debug, Default)]
struct Rows {
    /// Of connections that were counted.
    counted: i64,
    identities: HashSet<(u64, u32)>,
    /// A SYN to a port where nobody listens has a row, and was no connection.
    stray: i64,
    /// Of connections that were counted and are over.
    ended: i64,
    established: i64,
    attempted: i64,
}

/// In the order of the loads.
fn rows(directory: &Path, loads: &[Load]) -> Vec<Rows> {
    let capture = Capture::open(directory).unwrap_or_else(|e| panic!("{e}"));
    let mut rows = vec![Rows::default(); loads.len()];
    for batch in capture.batches(Table::Connections).unwrap_or_else(|e| panic!("{e}")) {
        count(&batch.unwrap_or_else(|e| panic!("{e}")), loads, &mut rows);
    }
    rows
}

fn count(batch: &RecordBatch, loads: &[Load], rows: &mut [Rows]) {
    let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no {name}"));
    let port = column("port").as_primitive::<UInt32Type>();
    let cookie = column("cookie").as_primitive::<UInt64Type>();
    let generation = column("generation").as_primitive::<UInt32Type>();
    let outcome = column("outcome").as_string::<i32>();
    let role = column("role").as_string::<i32>();
    let established = column("established_ns");
    let closed = column("closed_ns");
    for index in 0..batch.num_rows() {
        let port = u16::try_from(port.value(index)).unwrap_or(0);
        let load = loads.iter().position(|load| load.ports.contains(&port));
        let Some(rows) = load.map(|load| &mut rows[load]) else { continue };
        let (was_established, is_active) =
            (established.is_valid(index), role.value(index) == "active");
        rows.established += i64::from(was_established);
        rows.attempted += i64::from(is_active);
        // A SYN that became no socket has a row, and was no connection.
        let was_counted = cookie.value(index) != 0;
        if was_counted {
            rows.counted += 1;
            rows.identities.insert((cookie.value(index), generation.value(index)));
        } else if outcome.is_valid(index) && outcome.value(index) == "no_listener" {
            rows.stray += 1;
        }
        rows.ended += i64::from(was_counted && closed.is_valid(index));
    }
}
