//! What a server reports held against what the kernel counted at that time.
//!
//! A health sample is an interval: whatever the server said was true for it at some instant between
//! the request's start and the answer's end. It may have noticed opens and closes a little late, so
//! the interval reaches back by the settle time. Only what lies outside the lowest and the highest
//! kernel count in it is a phantom or a reverse phantom.

use capture::reader::MOST;
use polars::prelude::{BooleanChunked, DataFrame, SortMultipleOptions};
use schemars::JsonSchema;
use serde::Serialize;

use crate::input::recording::{Loss, Recording, loss_words};
use crate::lives::{Lives, Poll, Pollers};
use crate::population::Population;
use crate::timeline::{Timeline, sustained};

/// Samples in a row for which an excess must last before it is more than a late clean-up.
const SUSTAINED_SAMPLES: usize = 2;

/// So many samples in a row may tell nothing of an excess that was there before.
const MOST_SILENT: usize = 10;

/// How far a count read once a second may lie from the events around it: the reader may be delayed
/// between taking the time and reading the counters.
const TICK_SLACK_NS: i64 = 100_000_000;

/// The longest time between two rounds of counts.
const TICK_NS: i64 = 1_200_000_000;

/// Where the kernel's side of a comparison came from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Basis {
    /// Every connection's own times: exact to the nanosecond.
    Connections,
    /// The lowest and highest count that the probe saw during the poll.
    Poll,
    /// Counts once a second.
    Counts,
}

/// One health request and what it shows.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
    pub(crate) judged: Judged,
}

#[derive(Clone, Debug)]
pub(crate) enum Judged {
    Yes(Comparison),
    /// No usable answer, and why.
    Unavailable(String),
    /// Something was lost in it.
    Inconclusive(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) reported: i64,
    pub(crate) kernel_low: i64,
    pub(crate) kernel_high: i64,
    /// Reported, and not established.
    pub(crate) phantoms: i64,
    /// Of these, as many as the process holds sockets for whose connection is over.
    pub(crate) descriptor_phantoms: i64,
    /// Established, and not reported.
    pub(crate) reverse: i64,
}

/// How well the connections' own times agree with the kernel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct Agreement {
    /// Seconds for which both were there.
    pub(crate) compared: usize,
    pub(crate) equal: usize,
}

/// One server's reports beside the kernel's counts.
#[derive(Debug)]
pub(crate) struct Joined<'a> {
    pub(crate) population: Population,
    pub(crate) basis: Basis,
    pub(crate) agreement: Agreement,
    pub(crate) lives: Lives<'a>,
    pub(crate) samples: Vec<Sample>,
    /// Kernel state of the population once a second: ended, but the process has not closed.
    pub(crate) held_counts: Timeline,
    pub(crate) settle_ns: i64,
    pub(crate) count_rows: usize,
}

impl<'a> Joined<'a> {
    pub(crate) fn new(
        recording: &'a Recording,
        population: Population,
        url: &str,
        settle_ns: i64,
    ) -> anyhow::Result<Self> {
        let connections = &recording.connections;
        let counts = recording.counts.filter(&population.mask(&recording.counts)?)?;
        let pollers = pollers(&recording.health)?;
        let lives = Lives::new(connections, &population.members(connections), &pollers);
        let ticks = count_timeline(&counts, &["established"])?;
        let agreement = agreement(&lives.established_all(), &ticks);
        let as_polled = population.is_as_polled(recording, url);
        let polled = if as_polled { poll_extremes(recording, url)? } else { Vec::new() };
        // One second in a hundred may have been read late; more than that, and rows are missing: the
        // ring was full. Where the recorder was cut off, those that were open have none; and a row that was lost
        // takes a whole life along, of which its loss marks the end.
        let agrees = agreement.compared > 0 && agreement.equal * 100 >= agreement.compared * 99;
        let lost = recording.loss.iter().any(Loss::is_of_connections);
        let basis = if agrees && !lost && !recording.is_cut_off() {
            Basis::Connections
        } else if polled.iter().flatten().next().is_some() {
            Basis::Poll
        } else {
            Basis::Counts
        };
        let kernel = KernelSide {
            basis,
            established: lives.established(),
            with_held: lives.established_or_held(),
            ticks: if lives.classes_known {
                count_timeline(&counts, &["established", "-class_http"])?
            } else {
                ticks
            },
            held_ticks: count_timeline(&counts, &["close", "close_wait"])?,
        };
        let recorded = lives.rows + counts.height() > 0;
        let samples = samples(recording, url, recorded.then_some(&kernel), &polled, settle_ns)?;
        Ok(Self {
            population,
            basis,
            agreement,
            samples,
            held_counts: kernel.held_ticks,
            settle_ns,
            count_rows: counts.height(),
            lives,
        })
    }

    /// A quantity per sample, freed of what lasts only one of them. A sample that is lower than the
    /// one before by no more than the kernel's count moved in its interval tells nothing: the
    /// difference may be there as before. Many such in a row do tell: of one that is there, some would
    /// have shown it.
    pub(crate) fn sustained(&self, of: impl Fn(&Comparison) -> i64) -> Vec<Option<i64>> {
        let (mut last, mut silent) = (0, 0);
        let values: Vec<_> = self
            .samples
            .iter()
            .map(|sample| {
                let comparison = sample.comparison()?;
                let value = of(comparison);
                let moved = comparison.kernel_high - comparison.kernel_low;
                if value < last && last - value <= moved && silent < MOST_SILENT {
                    silent += 1;
                    return None;
                }
                (last, silent) = (value, 0);
                Some(value)
            })
            .collect();
        sustained(&values, SUSTAINED_SAMPLES)
    }

    pub(crate) fn judged(&self) -> impl DoubleEndedIterator<Item = (&Sample, &Comparison)> {
        self.samples.iter().filter_map(|s| Some((s, s.comparison()?)))
    }
}

impl Sample {
    pub(crate) fn comparison(&self) -> Option<&Comparison> {
        match &self.judged {
            Judged::Yes(comparison) => Some(comparison),
            Judged::Unavailable(_) | Judged::Inconclusive(_) => None,
        }
    }
}

/// The kernel's counts of one population over time, by way of each basis.
struct KernelSide {
    basis: Basis,
    established: Timeline,
    with_held: Timeline,
    ticks: Timeline,
    held_ticks: Timeline,
}

impl KernelSide {
    /// The end of what a sample is compared with: the count after it bounds it as well as the one before.
    fn until_ns(&self, sample_end_ns: i64) -> i64 {
        sample_end_ns + if self.basis == Basis::Connections { 0 } else { TICK_NS }
    }

    fn compare(
        &self,
        reported: i64,
        from_ns: i64,
        to_ns: i64,
        polled: Option<(i64, i64)>,
    ) -> Comparison {
        let (low, high, high_with_held) = if self.basis == Basis::Connections {
            let (low, high) = self.established.extremes(from_ns, to_ns);
            (low, high, self.with_held.extremes(from_ns, to_ns).1)
        } else {
            let (low, high) = self.ticks.extremes(from_ns, to_ns);
            let (_, held) = self.held_ticks.extremes(from_ns, to_ns);
            let (low, high) = match polled {
                Some((polled_low, polled_high)) => (low.min(polled_low), high.max(polled_high)),
                // The poller's own connection may or may not be among them.
                None => ((low - 1).max(0), high),
            };
            (low, high, high + held)
        };
        let phantoms = (reported - high).max(0);
        Comparison {
            reported,
            kernel_low: low,
            kernel_high: high,
            phantoms,
            descriptor_phantoms: phantoms - (reported - high_with_held).max(0),
            reverse: (low - reported).max(0),
        }
    }
}

/// The URLs that were polled, in order of appearance.
pub(crate) fn health_urls(recording: &Recording) -> anyhow::Result<Vec<String>> {
    let mut urls: Vec<String> = Vec::new();
    for url in recording.health.column("url")?.str()?.iter().flatten() {
        if !urls.iter().any(|known| known == url) {
            urls.push(url.to_owned());
        }
    }
    Ok(urls)
}

fn of_url(health: &DataFrame, url: &str) -> anyhow::Result<DataFrame> {
    let mask: BooleanChunked =
        health.column("url")?.str()?.iter().map(|found| found == Some(url)).collect();
    let stable = SortMultipleOptions::default().with_maintain_order(true);
    Ok(health.filter(&mask)?.sort(["start_mono_ns"], stable)?)
}

/// Which connections were health polls, as far as the samples say.
pub(crate) fn pollers(health: &DataFrame) -> anyhow::Result<Pollers> {
    let mut pollers = Pollers::new();
    let address = health.column("local_address")?.str()?;
    let port = health.column("local_port")?.u32()?;
    let start = health.column("start_mono_ns")?.i64()?;
    let end = health.column("end_mono_ns")?.i64()?;
    for row in 0..health.height() {
        if let (Some(address), Some(port), Some(start_ns), Some(end_ns)) =
            (address.get(row), port.get(row), start.get(row), end.get(row))
        {
            pollers.entry(port).or_default().push(Poll {
                address: address.to_owned(),
                start_ns,
                end_ns,
            });
        }
    }
    Ok(pollers)
}

/// `kernel_min` and `kernel_max` of each sample.
fn poll_extremes(recording: &Recording, url: &str) -> anyhow::Result<Vec<Option<(i64, i64)>>> {
    let health = of_url(&recording.health, url)?;
    let low = health.column("kernel_min")?.i64()?.iter();
    let high = health.column("kernel_max")?.i64()?.iter();
    Ok(low.zip(high).map(|(low, high)| Some((low?, high?))).collect())
}

fn samples(
    recording: &Recording,
    url: &str,
    kernel: Option<&KernelSide>,
    polled: &[Option<(i64, i64)>],
    settle_ns: i64,
) -> anyhow::Result<Vec<Sample>> {
    let health = of_url(&recording.health, url)?;
    let start = health.column("start_mono_ns")?.i64()?;
    let end = health.column("end_mono_ns")?.i64()?;
    let reported = health.column("reported")?.i64()?;
    let error = health.column("error")?.str()?;
    let status = health.column("http_status")?.u32()?;
    let mut samples = Vec::with_capacity(health.height());
    for row in 0..health.height() {
        let (Some(start_ns), Some(end_ns)) = (start.get(row), end.get(row)) else { continue };
        let from_ns = start_ns - settle_ns;
        let to_ns = kernel.map_or(end_ns, |kernel| kernel.until_ns(end_ns));
        let judged = match (reported.get(row), error.get(row)) {
            (_, Some(error)) => Judged::Unavailable(error.to_owned()),
            (None, None) => Judged::Unavailable(match status.get(row) {
                Some(status) => format!("status {status}, no connection count in the answer"),
                None => "no answer".to_owned(),
            }),
            (Some(reported), None) if reported.unsigned_abs() > MOST => Judged::Unavailable(
                format!("the answer says {reported} connections: more than any host holds"),
            ),
            (Some(reported), None) => match loss_in(&recording.loss, from_ns, to_ns) {
                Some(loss) => Judged::Inconclusive(loss_words(loss.count, &loss.reason)),
                None => match kernel {
                    Some(kernel) => {
                        let polled = polled.get(row).copied().flatten();
                        Judged::Yes(kernel.compare(reported, from_ns, to_ns, polled))
                    }
                    None => Judged::Unavailable("no such connections were recorded".to_owned()),
                },
            },
        };
        samples.push(Sample { start_ns, end_ns, judged });
    }
    Ok(samples)
}

fn loss_in(losses: &[Loss], from_ns: i64, to_ns: i64) -> Option<&Loss> {
    losses.iter().find(|loss| loss.from_ns <= to_ns && from_ns <= loss.to_ns)
}

/// The sum of columns of `counts` over time (`-name` is taken off). Rows are only written when they
/// changed, so each key's last one holds until its next.
pub(crate) fn count_timeline(counts: &DataFrame, columns: &[&str]) -> anyhow::Result<Timeline> {
    let at = counts.column("at_mono_ns")?.i64()?;
    let cgroup = counts.column("cgroup_id")?.u64()?;
    let netns = counts.column("netns")?.u32()?;
    let port = counts.column("port")?.u32()?;
    let role = counts.column("role")?.str()?;
    let mut values = Vec::with_capacity(columns.len());
    for name in columns {
        let (sign, name) = name.strip_prefix('-').map_or((1, *name), |name| (-1, name));
        values.push((sign, counts.column(name)?.i64()?));
    }
    let mut last = std::collections::HashMap::new();
    let mut changes = Vec::with_capacity(counts.height());
    for row in 0..counts.height() {
        let Some(at_ns) = at.get(row) else { continue };
        let value: i64 =
            values.iter().map(|(sign, column)| sign * column.get(row).unwrap_or(0)).sum();
        let key = (cgroup.get(row), netns.get(row), port.get(row), role.get(row));
        let before = last.insert(key, value).unwrap_or(0);
        changes.push((at_ns, value - before));
    }
    Ok(Timeline::from_changes(0, changes))
}

/// Holds the connections' own times against the counters, second by second.
fn agreement(rows: &Timeline, ticks: &Timeline) -> Agreement {
    let mut agreement = Agreement::default();
    for (at_ns, count) in ticks.steps() {
        let (low, high) = rows.extremes(at_ns - TICK_SLACK_NS, at_ns + TICK_SLACK_NS);
        agreement.compared += 1;
        agreement.equal += usize::from((low..=high).contains(&count));
    }
    agreement
}
