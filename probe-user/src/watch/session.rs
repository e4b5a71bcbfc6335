//! What is remembered from block to block: where things stood at the start, how the ramp goes, what
//! grows, and whether the threshold was crossed.

use std::time::Duration;

use super::{
    block::{Block, End, Kernel, Phantoms, Ramp, Return, Verdict},
    bracket::Level,
    checkpoint::Checkpoint,
    client_file::Totals,
    failures::Failure,
    metrics::Metrics,
    poll::Poll,
    processes::ProcessesNow,
    resources::{Paths, Resources},
    shards::Shards,
    verdict::{Growth, INVESTIGATE_PERCENT, MaxPhantoms, percent},
};
use crate::{
    clock,
    export::json::SCHEMA_VERSION,
    truth::source::{Backend, Exactness},
};

#[derive(Debug)]
pub(crate) struct Session {
    started_mono_ns: i64,
    kernel_before: i64,
    reported_before: Option<i64>,
    max_phantoms: MaxPhantoms,
    paths: Paths,
    ramp: Option<RampWatch>,
    resources_before: Option<Resources>,
    last: Option<Last>,
    memory: Growth,
    goroutines: Growth,
    worst: Option<Phantoms>,
    blocks: u64,
    crossed_before: bool,
    crossed: bool,
    inconclusive: bool,
}

#[derive(Debug)]
struct Last {
    phantoms: Option<i64>,
    established: i64,
    clients: Option<Totals>,
    /// Whether the received messages grew in the last block.
    received_grew: bool,
}

#[derive(Debug)]
struct RampWatch {
    expected: i64,
    first_mono_ns: Option<i64>,
    done_mono_ns: Option<i64>,
    reached: i64,
}

/// The polls of one block and what stood beside them.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) polls: Vec<Poll>,
    pub(crate) backend: Backend,
    pub(crate) exactness: Exactness,
    pub(crate) silent: i64,
    pub(crate) clients: Option<Totals>,
    pub(crate) processes: Vec<ProcessesNow>,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) growth: Option<Checkpoint>,
    pub(crate) shards: Option<Shards>,
    pub(crate) failures: Option<Vec<Failure>>,
}

impl Session {
    /// `first`: the poll before anything else.
    pub(crate) fn new(
        first: &Poll,
        max_phantoms: MaxPhantoms,
        paths: Paths,
        expected: Option<u64>,
    ) -> Self {
        let answer = first.sample.answer.as_ref().ok();
        Self {
            started_mono_ns: clock::mono_ns(),
            kernel_before: first.level.established,
            reported_before: answer.map(|answer| answer.reported),
            max_phantoms,
            ramp: expected.map(|expected| RampWatch {
                expected: i64::try_from(expected).unwrap_or(i64::MAX),
                first_mono_ns: None,
                done_mono_ns: None,
                reached: 0,
            }),
            resources_before: answer.map(|answer| Resources::read(&answer.fields, &paths)),
            paths,
            last: None,
            memory: Growth::default(),
            goroutines: Growth::default(),
            worst: None,
            blocks: 0,
            crossed_before: false,
            crossed: false,
            inconclusive: false,
        }
    }

    pub(crate) fn kernel_before(&self) -> i64 {
        self.kernel_before
    }

    /// What to say before the first block if the two are apart already.
    pub(crate) fn apart(&self, first: &Poll) -> Option<String> {
        let reported = self.reported_before?;
        let distance = first.bracket.phantoms(reported) + first.bracket.reverse_phantoms(reported);
        (distance > 2 && percent(distance, reported.max(first.level.established)) > 2.0).then(
            || {
                format!(
                    "before it begins, kernel ({}) and reported ({reported}) are {distance} apart \
                 already: is it the right port, container and field?",
                    first.level.established
                )
            },
        )
    }

    /// Takes a level between blocks, for the time of the ramp.
    pub(crate) fn level(&mut self, level: Level) {
        let Some(ramp) = &mut self.ramp else { return };
        let more = level.established - self.kernel_before;
        ramp.reached = ramp.reached.max(more);
        if more > 0 && ramp.first_mono_ns.is_none() {
            ramp.first_mono_ns = Some(level.mono_ns);
        }
        if more >= ramp.expected && ramp.done_mono_ns.is_none() {
            ramp.done_mono_ns = Some(level.mono_ns);
        }
    }

    /// Judges a block.
    pub(crate) fn block(&mut self, seen: Seen) -> Block {
        self.blocks += 1;
        let best = best(&seen.polls);
        let answer = best.sample.answer.as_ref();
        let reported = answer.ok().map(|answer| answer.reported);
        let phantoms = reported.map(|reported| {
            let count = best.bracket.phantoms(reported);
            let reverse = seen
                .polls
                .iter()
                .filter_map(|poll| {
                    let answer = poll.sample.answer.as_ref().ok()?;
                    Some(poll.bracket.reverse_phantoms(answer.reported))
                })
                .min()
                .unwrap_or(0);
            Phantoms { count, percent: percent(count, reported), reverse }
        });
        let mut resources = answer.ok().map(|answer| Resources::read(&answer.fields, &self.paths));
        if let (Some(now), Some(before)) = (&mut resources, &self.resources_before) {
            now.set_per_connection(before, self.kernel_before, best.level.established);
        }
        let degraded = seen.backend == Backend::Ebpf && !seen.exactness.exact;
        let verdict = self.judge(phantoms, reported, degraded);
        let warnings = self.warnings(best.level, phantoms, resources.as_ref(), seen.clients);
        let verdict =
            if verdict == Verdict::Ok && !warnings.is_empty() { Verdict::Warning } else { verdict };
        Block {
            schema_version: SCHEMA_VERSION,
            r#type: "block",
            block: self.blocks,
            at_unix_ns: clock::unix_ns(),
            elapsed_ms: millis(clock::mono_ns() - self.started_mono_ns),
            kernel: Kernel {
                established: best.level.established,
                established_min: best.bracket.min,
                established_max: best.bracket.max,
                plain_http: best.level.plain_http,
                close_wait: best.level.close_wait,
                closed_held: best.level.closed_held,
                silent: seen.silent,
                backend: seen.backend,
                exact: seen.exactness.exact,
                degraded: seen.exactness.degraded,
            },
            reported,
            reported_error: answer.err().map(ToString::to_string),
            phantoms,
            ramp: self.ramp.as_ref().map(RampWatch::now),
            clients: seen.clients,
            next_checks: next_checks(verdict, best.level),
            resources,
            processes: seen.processes,
            metrics: seen.metrics,
            growth: seen.growth,
            shards: seen.shards,
            failures: seen.failures,
            verdict,
            warnings,
        }
    }

    fn judge(
        &mut self,
        phantoms: Option<Phantoms>,
        reported: Option<i64>,
        degraded: bool,
    ) -> Verdict {
        let Some((phantoms, reported)) = phantoms.zip(reported) else {
            return Verdict::Unavailable;
        };
        if degraded {
            self.inconclusive = true;
            return Verdict::Inconclusive;
        }
        if self.worst.is_none_or(|worst| phantoms.count > worst.count) {
            self.worst = Some(phantoms);
        }
        // A server that is busy cleaning up after many at once may be behind for one block; what
        // stays for two is no delay.
        let crossed = self.max_phantoms.is_crossed(phantoms.count, reported);
        self.crossed |= crossed && self.crossed_before;
        self.crossed_before = crossed;
        if phantoms.count > 0 && phantoms.percent >= INVESTIGATE_PERCENT {
            Verdict::Investigate
        } else if crossed {
            Verdict::Warning
        } else {
            Verdict::Ok
        }
    }

    fn warnings(
        &mut self,
        level: Level,
        phantoms: Option<Phantoms>,
        resources: Option<&Resources>,
        clients: Option<Totals>,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        let count = phantoms.map(|phantoms| phantoms.count);
        let last = self.last.take();
        if let (Some(now), Some(before)) = (count, last.as_ref().and_then(|last| last.phantoms))
            && now > before
        {
            warnings.push(format!("phantoms grew from {before} to {now}"));
        }
        if let Some(reverse) = phantoms.map(|phantoms| phantoms.reverse).filter(|&n| n > 0) {
            warnings.push(format!("{reverse} connections are established and not reported"));
        }
        // While connections are added, memory and tasks may grow.
        let more = last.as_ref().is_some_and(|last| level.established > last.established);
        let grow = |growth: &mut Growth, value: Option<f64>, what: &str| {
            let value = value?;
            if more {
                growth.restart(value);
                return None;
            }
            let from = growth.next(value)?;
            Some(format!("{what} grew from {from:.1} to {value:.1} and connections did not"))
        };
        warnings.extend(
            resources.and_then(|resources| {
                grow(&mut self.memory, resources.memory_used_mb, "memory (MB)")
            }),
        );
        warnings.extend(
            resources.and_then(|resources| {
                grow(&mut self.goroutines, resources.goroutines, "goroutines")
            }),
        );
        let received = |totals: &Totals| totals.received_by_open;
        let before = last.as_ref().and_then(|last| last.clients.as_ref()).map(received);
        let now = clients.as_ref().map(received);
        let received_grew = now.zip(before).is_some_and(|(now, before)| now > before);
        if last.as_ref().is_some_and(|last| last.received_grew)
            && !received_grew
            && level.established > self.kernel_before
        {
            warnings.push("received messages stopped growing while connections are open".into());
        }
        self.last =
            Some(Last { phantoms: count, established: level.established, clients, received_grew });
        warnings
    }

    /// Whether the last block is over the threshold: the shutdown check waits for it to settle.
    pub(crate) fn is_unsettled(&self, poll: &Poll) -> bool {
        match &poll.sample.answer {
            Ok(answer) => {
                let phantoms = poll.bracket.phantoms(answer.reported);
                self.max_phantoms.is_crossed(phantoms, answer.reported)
                    || self.reported_before.is_some_and(|before| {
                        answer.reported > before && poll.level.established <= self.kernel_before
                    })
            }
            Err(_) => false,
        }
    }

    /// The end; `last` is the poll after the server had time to settle.
    pub(crate) fn end(mut self, last: &Poll, stopped_by: &'static str, signal_exit: u8) -> End {
        let reported = last.sample.answer.as_ref().ok().map(|answer| answer.reported);
        if let Some(reported) = reported
            && !self.inconclusive
        {
            let count = last.bracket.phantoms(reported);
            self.crossed |= self.max_phantoms.is_crossed(count, reported);
            if self.worst.is_none_or(|worst| count > worst.count) {
                let reverse = last.bracket.reverse_phantoms(reported);
                self.worst = Some(Phantoms { count, percent: percent(count, reported), reverse });
            }
        }
        let exit_code = if self.crossed {
            99
        } else if self.worst.is_none() || self.inconclusive {
            4
        } else {
            signal_exit
        };
        End {
            schema_version: SCHEMA_VERSION,
            r#type: "end",
            at_unix_ns: clock::unix_ns(),
            blocks: self.blocks,
            stopped_by,
            kernel: Return::new(Some(self.kernel_before), Some(last.level.established)),
            reported: Return::new(self.reported_before, reported),
            worst_phantoms: self.worst,
            max_phantoms: self.max_phantoms.to_string(),
            threshold_crossed: self.crossed,
            exit_code,
        }
    }
}

impl RampWatch {
    fn now(&self) -> Ramp {
        let until = self.done_mono_ns.unwrap_or_else(clock::mono_ns);
        let elapsed = self.first_mono_ns.map_or(0, |first| until - first);
        Ramp {
            reached: self.reached.min(self.expected),
            expected: self.expected,
            elapsed_ms: millis(elapsed),
            done: self.done_mono_ns.is_some(),
        }
    }
}

/// The poll to judge by: the one with the fewest phantoms, since a phantom stays and a delay passes;
/// failed ones only if there is no other.
fn best(polls: &[Poll]) -> &Poll {
    let rank = |poll: &&Poll| match &poll.sample.answer {
        Ok(answer) => (0, poll.bracket.phantoms(answer.reported)),
        Err(_) => (1, 0),
    };
    // The last of equals: its numbers are the newest.
    polls.iter().rev().min_by_key(rank).expect("a block has at least one poll")
}

fn millis(nanos: i64) -> u64 {
    u64::try_from(Duration::from_nanos(nanos.max(0).cast_unsigned()).as_millis()).unwrap_or(0)
}

fn next_checks(verdict: Verdict, level: Level) -> Vec<String> {
    if verdict != Verdict::Investigate {
        return Vec::new();
    }
    let mut checks = Vec::new();
    if level.close_wait + level.closed_held > 0 {
        checks.push(
            "some are over and still held: `probe connections --state close_wait --older-than 1m`"
                .into(),
        );
    }
    checks.push("how their connections ended: `probe record`, then `analyzer phantoms`".into());
    checks.push("does the server run its cleanup on every way out: close, reset, timeout?".into());
    checks.push("is the same connection counted twice, or by more than one process?".into());
    checks
}
