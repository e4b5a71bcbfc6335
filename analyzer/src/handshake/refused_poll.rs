//! The probe's own requests that found nobody. What was refused has no local port in the tables of polls,
//! so its connections are told by when they began; no client tried them.

use polars::prelude::DataFrame;

use crate::input::connections::{Connections, Number, Time, Word};
use crate::input::recording::Recording;
use crate::population::url_port;

/// Several pages of one server are asked at about the same time.
const AT_ONCE: usize = 16;

#[derive(Debug)]
struct Poll {
    start_ns: i64,
    end_ns: i64,
    port: u16,
    /// The roles whose end is found: a connection on one host has two.
    found: Vec<Option<usize>>,
}

/// In order of time.
#[derive(Debug)]
pub(super) struct RefusedPolls(Vec<Poll>);

impl RefusedPolls {
    pub(super) fn new(recording: &Recording) -> Self {
        let tables = [&recording.health, &recording.metrics];
        let mut polls: Vec<Poll> =
            tables.into_iter().filter_map(|table| failed(table).ok()).flatten().collect();
        polls.sort_by_key(|poll| poll.start_ns);
        Self(polls)
    }

    /// Whether a leg that nobody listened to was one of these, each of which has one end of a role.
    pub(super) fn take(&mut self, connections: &Connections, row: usize) -> bool {
        let (Some(at), Some(port)) =
            (connections.time(Time::FirstSeen, row), connections.small(Number::Port, row))
        else {
            return false;
        };
        let role = connections.word_place(Word::Role, row);
        let begun = self.0.partition_point(|poll| poll.start_ns <= at);
        let fits = |poll: &&mut Poll| {
            at <= poll.end_ns && u32::from(poll.port) == port && !poll.found.contains(&role)
        };
        let poll = self.0[..begun].iter_mut().rev().take(AT_ONCE).find(fits);
        poll.map(|poll| poll.found.push(role)).is_some()
    }
}

fn failed(table: &DataFrame) -> anyhow::Result<Vec<Poll>> {
    let (url, error) = (table.column("url")?.str()?, table.column("error")?.str()?);
    let start = table.column("start_mono_ns")?.i64()?;
    let end = table.column("end_mono_ns")?.i64()?;
    let rows = (0..table.height()).filter(|row| error.get(*row).is_some());
    let poll = |row| {
        let (start_ns, end_ns) = (start.get(row)?, end.get(row)?);
        Some(Poll { start_ns, end_ns, port: url_port(url.get(row)?)?, found: Vec::new() })
    };
    Ok(rows.filter_map(poll).collect())
}
