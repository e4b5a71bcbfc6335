//! The connections of one population as intervals of time.

use std::collections::HashMap;

use polars::prelude::DataFrame;

use crate::timeline::Timeline;

/// Who ended a connection, and how, as the capture has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub(crate) struct Ending {
    /// `local`, `remote`, `timeout` or `unknown`.
    pub(crate) by: String,
    /// `fin`, `rst`, `timeout`, `error` or `unknown`.
    pub(crate) how: String,
}

impl Ending {
    /// `by rst from the remote end`, to stand after "45 connections ended".
    pub(crate) fn phrase(&self) -> String {
        match (self.by.as_str(), self.how.as_str()) {
            (_, "timeout") | ("timeout", _) => "by timeout, the remote end silent".to_owned(),
            ("unknown", "unknown") => "in a way that was not seen".to_owned(),
            ("unknown", how) => format!("by {how}"),
            (by, "unknown") => format!("from the {by} end"),
            (by, how) => format!("by {how} from the {by} end"),
        }
    }
}

/// When one connection was what. Times are monotonic nanoseconds; `i64::MAX` means "still so when
/// the recording ended".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) established_from_ns: i64,
    pub(crate) established_to_ns: i64,
    /// The end of the time in which the process held a descriptor on a connection that was over;
    /// `established_to_ns` where it closed at once.
    pub(crate) held_to_ns: i64,
    /// Index into [`Lives::endings`].
    ending: u16,
    /// Whether it counts as a connection of the server: not the health poller's own, not a plain
    /// HTTP request.
    pub(crate) counted: bool,
    /// Row in the table that it was made from.
    pub(crate) row: u32,
}

impl Life {
    pub(crate) fn is_open(&self) -> bool {
        self.established_to_ns == i64::MAX
    }
}

/// The health polls made from each local port.
pub(crate) type Pollers = HashMap<u32, Vec<Poll>>;

/// One health poll: from which address, and when.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) address: String,
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
}

/// Every connection that was ever established, in the order of the table.
#[derive(Debug)]
pub(crate) struct Lives {
    pub(crate) lives: Vec<Life>,
    endings: Vec<Ending>,
    /// Whether any row knows what its first bytes were.
    pub(crate) classes_known: bool,
    pub(crate) left_out_pollers: usize,
    pub(crate) left_out_http: usize,
    /// Ends of counted connections, by time: time and index into `lives`.
    ended: Vec<(i64, u32)>,
}

impl Lives {
    /// From rows of `connections`.
    pub(crate) fn new(table: &DataFrame, pollers: &Pollers) -> anyhow::Result<Self> {
        let text = |name: &str| -> anyhow::Result<_> { Ok(table.column(name)?.str()?.iter()) };
        let time = |name: &str| -> anyhow::Result<_> { Ok(table.column(name)?.i64()?.iter()) };
        let classes_known = text("class")?
            .any(|class| class.is_some_and(|class| class != "unknown" && class != "silent"));
        let mut lives = Lives {
            lives: Vec::with_capacity(table.height()),
            endings: Vec::new(),
            classes_known,
            left_out_pollers: 0,
            left_out_http: 0,
            ended: Vec::new(),
        };
        let (mut state, mut class) = (text("state")?, text("class")?);
        let (mut closed_by, mut closed_how) = (text("closed_by")?, text("closed_how")?);
        let mut remote = text("remote_address")?;
        let mut remote_port = table.column("remote_port")?.u32()?.iter();
        let mut seeded = table.column("seeded")?.bool()?.iter();
        let mut held = table.column("fd_held_at_close")?.bool()?.iter();
        let (mut first, mut established) = (time("first_seen_ns")?, time("established_ns")?);
        let (mut left, mut closed) = (time("left_established_ns")?, time("closed_ns")?);
        let mut released = time("released_ns")?;
        for row in 0..table.height() as u32 {
            // Every iterator steps once per row, also for rows that are passed over.
            let state = state.next().flatten().unwrap_or("unknown");
            let class = class.next().flatten().unwrap_or("unknown");
            let by = closed_by.next().flatten();
            let how = closed_how.next().flatten();
            let remote = (remote.next().flatten(), remote_port.next().flatten());
            let seeded = seeded.next().flatten() == Some(true);
            let held = held.next().flatten() == Some(true);
            let first = first.next().flatten().unwrap_or(i64::MIN);
            let established = established.next().flatten();
            let left = left.next().flatten();
            let closed = closed.next().flatten();
            let released = released.next().flatten();

            // What existed before the recording was established if it left that state later, or is
            // in it still.
            let from = match established {
                Some(at) => at,
                None if seeded && (left.is_some() || state == "established") => i64::MIN,
                None => continue,
            };
            let to = left.or(closed).unwrap_or(i64::MAX);
            let over = closed.unwrap_or(i64::MAX);
            let held_to = if held {
                released.unwrap_or(i64::MAX)
            } else if state == "close_wait" || (by == Some("remote") && how == Some("fin")) {
                over
            } else {
                to
            };
            let polls = remote.1.and_then(|port| pollers.get(&port));
            let poller = polls.is_some_and(|polls| {
                polls.iter().any(|poll| {
                    remote.0 == Some(poll.address.as_str())
                        && first <= poll.end_ns
                        && poll.start_ns <= over
                })
            });
            let http = !poller && classes_known && class == "http";
            lives.left_out_pollers += usize::from(poller);
            lives.left_out_http += usize::from(http);
            let ending = lives.ending_index(by, how);
            lives.lives.push(Life {
                established_from_ns: from,
                established_to_ns: to,
                held_to_ns: held_to,
                ending,
                counted: !poller && !http,
                row,
            });
        }
        lives.ended = (0u32..)
            .zip(&lives.lives)
            .filter(|(_, life)| life.counted && !life.is_open())
            .map(|(index, life)| (life.established_to_ns, index))
            .collect();
        lives.ended.sort_unstable();
        Ok(lives)
    }

    fn ending_index(&mut self, by: Option<&str>, how: Option<&str>) -> u16 {
        let (by, how) = (by.unwrap_or("unknown"), how.unwrap_or("unknown"));
        let known = self.endings.iter().position(|ending| ending.by == by && ending.how == how);
        let index = known.unwrap_or_else(|| {
            self.endings.push(Ending { by: by.to_owned(), how: how.to_owned() });
            self.endings.len() - 1
        });
        // By and how are words from a fixed list; a damaged file may hold more, which share the last.
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    pub(crate) fn ending(&self, life: &Life) -> &Ending {
        &self.endings[usize::from(life.ending)]
    }

    /// Established connections over time: all of them, or the counted ones.
    pub(crate) fn established(&self, counted_only: bool) -> Timeline {
        self.timeline(counted_only, |life| (life.established_from_ns, life.established_to_ns))
    }

    /// Counted connections over time, those that are over but held by their process included.
    pub(crate) fn established_or_held(&self) -> Timeline {
        self.timeline(true, |life| {
            (life.established_from_ns, life.established_to_ns.max(life.held_to_ns))
        })
    }

    fn timeline(&self, counted_only: bool, span: impl Fn(&Life) -> (i64, i64)) -> Timeline {
        let mut before = 0;
        let mut changes = Vec::with_capacity(self.lives.len() * 2);
        for life in self.lives.iter().filter(|life| life.counted || !counted_only) {
            let (from, to) = span(life);
            if from == i64::MIN {
                before += 1;
            } else {
                changes.push((from, 1));
            }
            if to != i64::MAX {
                changes.push((to, -1));
            }
        }
        Timeline::from_changes(before, changes)
    }

    /// Counted connections whose established time ended from `from_ns` to `to_ns`, both included.
    pub(crate) fn ended_between(
        &self,
        from_ns: i64,
        to_ns: i64,
    ) -> impl Iterator<Item = &Life> + '_ {
        let first = self.ended.partition_point(|(at, _)| *at < from_ns);
        self.ended[first..]
            .iter()
            .take_while(move |(at, _)| *at <= to_ns)
            .map(|(_, index)| &self.lives[*index as usize])
    }

    /// Counted connections that became established from `from_ns` to `to_ns`, both included.
    pub(crate) fn opened_between(&self, from_ns: i64, to_ns: i64) -> usize {
        self.lives
            .iter()
            .filter(|life| life.counted && (from_ns..=to_ns).contains(&life.established_from_ns))
            .count()
    }
}
