//! The connections of one population as intervals of time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::input::connections::{Address, Connections, Flag, Number, Time, Word};
use crate::population::Members;
use crate::timeline::Timeline;

/// Who ended a connection, and how, as the capture has it.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, schemars::JsonSchema, serde::Serialize,
)]
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

/// When one connection was established. Times are monotonic nanoseconds; `i64::MAX` means "still so
/// when the recording ended", `i64::MIN` "before it began".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) established_from_ns: i64,
    pub(crate) established_to_ns: i64,
    /// Index into [`Lives::endings`].
    ending: u16,
    /// Whether it counts as a connection of the server: not the health poller's own, not a plain
    /// HTTP request.
    pub(crate) counted: bool,
    /// Row in the table of connections.
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

/// Every connection of a population that was ever established, in the order of the table.
#[derive(Debug)]
pub(crate) struct Lives<'a> {
    connections: &'a Connections,
    words: LifeWords,
    all: Vec<Life>,
    endings: Vec<Ending>,
    /// Rows of the population, those that were never established included.
    pub(crate) rows: usize,
    /// Whether any row knows what its first bytes were.
    pub(crate) classes_known: bool,
    pub(crate) left_out_pollers: usize,
    pub(crate) left_out_http: usize,
    /// When counted connections became established, by time.
    opened_ns: Arc<[i64]>,
    /// Counted connections that are over, by when they ended: indices into `all`.
    ended: Vec<u32>,
}

/// Places of the words that a life is told by.
#[derive(Debug)]
struct LifeWords {
    established: Option<usize>,
    close_wait: Option<usize>,
    remote: Option<usize>,
    fin: Option<usize>,
}

impl LifeWords {
    fn new(connections: &Connections) -> Self {
        let place = |column, wanted: &str| {
            connections.words(column).iter().position(|word| **word == *wanted)
        };
        Self {
            established: place(Word::State, "established"),
            close_wait: place(Word::State, "close_wait"),
            remote: place(Word::ClosedBy, "remote"),
            fin: place(Word::ClosedHow, "fin"),
        }
    }

    fn is(
        &self,
        connections: &Connections,
        column: Word,
        wanted: Option<usize>,
        row: usize,
    ) -> bool {
        wanted.is_some() && connections.word_place(column, row) == wanted
    }
}

/// From when to when one was established; `None` for one that never was.
fn established(connections: &Connections, words: &LifeWords, row: usize) -> Option<(i64, i64)> {
    let left = connections.time(Time::LeftEstablished, row);
    // What existed before the recording was established if it left that state later, or is in it
    // still.
    let from_ns = match connections.time(Time::Established, row) {
        Some(at) => at,
        None if connections.flag(Flag::Seeded, row)
            && (left.is_some() || words.is(connections, Word::State, words.established, row)) =>
        {
            i64::MIN
        }
        None => return None,
    };
    let to_ns = left.or_else(|| connections.time(Time::Closed, row)).unwrap_or(i64::MAX);
    Some((from_ns, to_ns))
}

impl<'a> Lives<'a> {
    pub(crate) fn new(
        connections: &'a Connections,
        members: &Members<'_>,
        pollers: &Pollers,
    ) -> Self {
        let classes: Vec<bool> = connections
            .words(Word::Class)
            .iter()
            .map(|class| !matches!(&**class, "unknown" | "silent"))
            .collect();
        let known = |row| connections.word_place(Word::Class, row).is_some_and(|c| classes[c]);
        let http = connections.words(Word::Class).iter().position(|class| **class == *"http");
        let mut lives = Lives {
            connections,
            words: LifeWords::new(connections),
            all: Vec::new(),
            endings: Vec::new(),
            rows: 0,
            classes_known: members.rows().any(known),
            left_out_pollers: 0,
            left_out_http: 0,
            opened_ns: Arc::default(),
            ended: Vec::new(),
        };
        let mut endings = HashMap::new();
        let mut opened_ns = Vec::new();
        let mut ended = Vec::new();
        for row in members.rows() {
            lives.rows += 1;
            let Some((from_ns, to_ns)) = established(connections, &lives.words, row) else {
                continue;
            };
            let poller = polled(connections, pollers, row);
            let plain = !poller
                && lives.classes_known
                && http.is_some()
                && connections.word_place(Word::Class, row) == http;
            let counted = !poller && !plain;
            lives.left_out_pollers += usize::from(poller);
            lives.left_out_http += usize::from(plain);
            if counted {
                opened_ns.extend((from_ns != i64::MIN).then_some(from_ns));
                ended.extend((to_ns != i64::MAX).then_some(lives.all.len() as u32));
            }
            let ways =
                [Word::ClosedBy, Word::ClosedHow].map(|column| connections.word_place(column, row));
            let ending = *endings.entry(ways).or_insert_with(|| lives.new_ending(row));
            lives.all.push(Life {
                established_from_ns: from_ns,
                established_to_ns: to_ns,
                ending,
                counted,
                row: row as u32,
            });
        }
        opened_ns.sort_unstable();
        lives.opened_ns = opened_ns.into();
        // Rows are written as connections end, so that they are nearly in order.
        ended.sort_by_key(|index| lives.ended_ns(*index));
        lives.ended = ended;
        lives
    }

    fn new_ending(&mut self, row: usize) -> u16 {
        let word = |column| self.connections.word(column, row).unwrap_or("unknown").to_owned();
        let ending = Ending { by: word(Word::ClosedBy), how: word(Word::ClosedHow) };
        let known = self.endings.iter().position(|known| *known == ending);
        let index = known.unwrap_or_else(|| {
            self.endings.push(ending);
            self.endings.len() - 1
        });
        // By and how are words from a fixed list; a damaged file may hold more, which share the last.
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    pub(crate) fn ending(&self, life: &Life) -> &Ending {
        &self.endings[usize::from(life.ending)]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Life> + '_ {
        self.all.iter()
    }

    /// The end of the time in which the process held a descriptor on a connection that was over; that
    /// of the established time where it closed at once.
    pub(crate) fn held_to_ns(&self, life: &Life) -> i64 {
        let (connections, words, row) = (self.connections, &self.words, life.row as usize);
        let is = |column, wanted| words.is(connections, column, wanted, row);
        if connections.flag(Flag::DescriptorHeld, row) {
            connections.time(Time::Released, row).unwrap_or(i64::MAX)
        } else if is(Word::State, words.close_wait)
            || (is(Word::ClosedBy, words.remote) && is(Word::ClosedHow, words.fin))
        {
            connections.time(Time::Closed, row).unwrap_or(i64::MAX)
        } else {
            life.established_to_ns
        }
    }

    /// How many of them ended in each way, in the order of [`Ending`].
    pub(crate) fn tally<'l>(
        &self,
        lives: impl Iterator<Item = &'l Life>,
    ) -> impl Iterator<Item = (&Ending, usize)> {
        let mut counts = vec![0; self.endings.len()];
        lives.for_each(|life| counts[usize::from(life.ending)] += 1);
        let mut tally: Vec<_> = self.endings.iter().zip(counts).collect();
        tally.retain(|(_, count)| *count > 0);
        tally.sort_unstable();
        tally.into_iter()
    }

    fn ended_ns(&self, index: u32) -> i64 {
        self.all[index as usize].established_to_ns
    }

    /// All that were ever established over time, the health poller's and plain requests as well.
    pub(crate) fn established_all(&self) -> Timeline {
        let mut before = 0;
        let (mut added, mut gone) = (Vec::new(), Vec::new());
        for life in self.iter() {
            match life.established_from_ns {
                i64::MIN => before += 1,
                from_ns => added.push(from_ns),
            }
            gone.extend((!life.is_open()).then_some(life.established_to_ns));
        }
        added.sort_unstable();
        gone.sort_unstable();
        Timeline::from_ends(before, added.into(), gone.into())
    }

    /// Counted connections over time.
    pub(crate) fn established(&self) -> Timeline {
        let gone = self.ended.iter().map(|index| self.ended_ns(*index)).collect();
        Timeline::from_ends(self.there_before(), Arc::clone(&self.opened_ns), gone)
    }

    /// Counted connections over time, those that are over but held by their process included.
    pub(crate) fn established_or_held(&self) -> Timeline {
        let held_to = |life: &Life| life.established_to_ns.max(self.held_to_ns(life));
        let counted = self.iter().filter(|life| life.counted);
        let mut gone: Vec<i64> = counted.map(held_to).filter(|to| *to != i64::MAX).collect();
        gone.sort_unstable();
        Timeline::from_ends(self.there_before(), Arc::clone(&self.opened_ns), gone.into())
    }

    /// Counted ones that were established when the recording began.
    fn there_before(&self) -> i64 {
        let counted = self.all.iter().filter(|kept| kept.counted).count();
        (counted - self.opened_ns.len()) as i64
    }

    /// Counted connections whose established time ended from `from_ns` to `to_ns`, both included.
    pub(crate) fn ended_between(
        &self,
        from_ns: i64,
        to_ns: i64,
    ) -> impl Iterator<Item = &Life> + '_ {
        let first = self.ended.partition_point(|index| self.ended_ns(*index) < from_ns);
        self.ended[first..]
            .iter()
            .take_while(move |index| self.ended_ns(**index) <= to_ns)
            .map(|index| &self.all[*index as usize])
    }

    /// Counted connections that became established from `from_ns` to `to_ns`, both included.
    pub(crate) fn opened_between(&self, from_ns: i64, to_ns: i64) -> usize {
        let until = |end: i64| self.opened_ns.partition_point(|at| *at <= end);
        let first = self.opened_ns.partition_point(|at| *at < from_ns);
        until(to_ns).saturating_sub(first)
    }
}

/// Whether it was one of the health poller's.
fn polled(connections: &Connections, pollers: &Pollers, row: usize) -> bool {
    let port = connections.small(Number::RemotePort, row);
    let Some(polls) = port.and_then(|port| pollers.get(&port)) else { return false };
    let first = connections.time(Time::FirstSeen, row).unwrap_or(i64::MIN);
    let over = connections.time(Time::Closed, row).unwrap_or(i64::MAX);
    let mut meanwhile = polls.iter().filter(|poll| first <= poll.end_ns && poll.start_ns <= over);
    meanwhile.any(|poll| {
        connections.address(Address::Remote, row).is_some_and(|found| *found == *poll.address)
    })
}
