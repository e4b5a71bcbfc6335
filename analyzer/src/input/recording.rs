//! A capture, read into columns.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use capture::meta::Meta;
use capture::schema::Table;
use capture::{Capture, ReadError};
use polars::io::SerReader;
use polars::io::ipc::IpcStreamReader;
use polars::prelude::DataFrame;

use crate::clock::HostClock;
use crate::error::InputError;
use crate::input::archive::{self, Unpacked};
use crate::input::connections::Connections;
use crate::input::fleet::{self, FleetCapture};

/// An interval in which the recorder lost something, or may have.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) from_ns: i64,
    pub(crate) to_ns: i64,
    pub(crate) reason: String,
    /// 0 where it is not known that anything was.
    pub(crate) count: u64,
}

/// More than a recorder has reasons for; whoever made the capture is not to make us read for ever.
const MOST_LOSSES: usize = 1000;

/// What a loss is called: nothing need be gone where counts or rows are merely uncertain.
pub(crate) fn loss_words(count: u64, reason: &str) -> String {
    if count == 0 { format!("uncertain ({reason})") } else { format!("{count} lost ({reason})") }
}

/// In the recorder's reasons where rows of connections are missing.
const ROWS_MISSING: [&str; 5] = [
    "connection records were lost",
    "connection records did not reach",
    "connections were not counted",
    "not written: ",
    "the agent ended",
];

impl Loss {
    fn take_in(&mut self, next: Self) {
        self.from_ns = self.from_ns.min(next.from_ns);
        self.to_ns = self.to_ns.max(next.to_ns);
        self.count = self.count.saturating_add(next.count);
        self.reason = next.reason;
    }

    /// Whether rows of connections are missing, rather than what their packets said or a look at the counts.
    pub(crate) fn is_of_connections(&self) -> bool {
        ROWS_MISSING.iter().any(|words| self.reason.contains(words))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) cgroup_id: u64,
    pub(crate) container_id: Option<String>,
    pub(crate) name: String,
}

/// A capture in memory.
#[derive(Debug)]
pub(crate) struct Recording {
    /// As the user named it.
    pub(crate) name: String,
    pub(crate) meta: Meta,
    pub(crate) connections: Connections,
    pub(crate) counts: DataFrame,
    pub(crate) health: DataFrame,
    pub(crate) metrics: DataFrame,
    /// The server's own list of connections.
    pub(crate) listed: DataFrame,
    /// By how much each of the kernel's own counters grew, over all namespaces.
    pub(crate) kernel_growth: BTreeMap<String, f64>,
    /// The largest difference between the probe's count and the kernel's own; `None` if none was held
    /// against the other.
    pub(crate) worst_drift: Option<f64>,
    pub(crate) clock: HostClock,
    pub(crate) loss: Vec<Loss>,
    pub(crate) containers: Vec<Container>,
    pub(crate) truncated: Truncated,
}

impl Recording {
    /// The capture in a directory or a tar archive, or every capture of a fleet's.
    pub(crate) fn open_all(dir: &Path) -> anyhow::Result<Vec<Self>> {
        sources(dir)?.map(|source| Self::read(&source?)).collect()
    }

    /// The same, each with the rows of `connections` as they were recorded, every column of them.
    pub(crate) fn open_all_with_rows(dir: &Path) -> anyhow::Result<Vec<(Self, DataFrame)>> {
        let with_rows = |source: Result<Source, InputError>| {
            let source = source?;
            Ok((Self::read(&source)?, source.frame(Table::Connections, &mut Truncated::new())?))
        };
        sources(dir)?.map(with_rows).collect()
    }

    /// All captures in these directories.
    pub(crate) fn open_each(dirs: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        let each =
            dirs.iter().map(|dir| Self::open_all(dir)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(each.into_iter().flatten().collect())
    }

    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        Self::read(&Source::Directory(Capture::open(dir).map_err(InputError::from)?))
    }

    fn read(source: &Source) -> anyhow::Result<Self> {
        let mut truncated = Vec::new();
        let connections = source.connections(&mut truncated)?;
        let mut read = |table| source.frame(table, &mut truncated);
        let counts = read(Table::Counts)?;
        let health = read(Table::Health)?;
        let metrics = read(Table::Metrics)?;
        let listed = read(Table::Listed)?;
        let kernel = read(Table::Kernel)?;
        let clock = read(Table::Clock)?;
        let loss = read(Table::Loss)?;
        let containers = read(Table::Containers)?;
        let meta = source.meta().clone();
        let pairs =
            clock.column("mono_ns")?.i64()?.iter().zip(clock.column("unix_ns")?.i64()?.iter());
        Ok(Self {
            name: source.name(),
            clock: HostClock::new(
                (meta.started_mono_ns, meta.started_unix_ns),
                pairs.filter_map(|(mono, unix)| Some((mono?, unix?))).collect(),
            ),
            kernel_growth: kernel_growth(&kernel)?,
            worst_drift: worst_drift(&kernel)?,
            loss: losses(&loss)?,
            containers: container_list(&containers)?,
            meta,
            connections,
            counts,
            health,
            metrics,
            listed,
            truncated,
        })
    }

    /// The recorder did not come to write its end, or has not yet.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.meta.ended_mono_ns.is_none()
    }

    /// When the recording ended; where it was cut off, the last time anything was written down.
    pub(crate) fn ended_ns(&self) -> anyhow::Result<i64> {
        if let Some(ended) = self.meta.ended_mono_ns {
            return Ok(ended);
        }
        let last = |table: &DataFrame, column: &str| -> anyhow::Result<Option<i64>> {
            Ok(table.column(column)?.i64()?.iter().flatten().max())
        };
        let ends = [last(&self.counts, "at_mono_ns")?, last(&self.health, "end_mono_ns")?];
        Ok(ends.into_iter().flatten().max().unwrap_or(self.meta.started_mono_ns))
    }

    /// One number of the health bodies over time, by the end of its path: monotonic time and value.
    /// Where several paths end so (one per shard), their sum.
    pub(crate) fn health_numbers(&self, path_end: &str) -> anyhow::Result<Vec<(i64, f64)>> {
        let at = self.health.column("end_mono_ns")?.i64()?;
        let fields = self.health.column("fields")?.str()?;
        let numbers = at.iter().zip(fields.iter()).filter_map(|(at, fields)| {
            let fields: BTreeMap<String, f64> = serde_json::from_str(fields?).ok()?;
            let found = fields.iter().filter(|(path, _)| path.ends_with(path_end));
            let values: Vec<f64> = found.map(|(_, value)| *value).collect();
            (!values.is_empty()).then_some((at?, values.iter().sum()))
        });
        Ok(numbers.collect())
    }

    /// Every number of the last health body whose path begins so.
    pub(crate) fn last_health_numbers(
        &self,
        path_start: &str,
    ) -> anyhow::Result<BTreeMap<String, f64>> {
        let fields = self.health.column("fields")?.str()?;
        let last = fields.iter().flatten().rfind(|text| text.contains(path_start));
        let fields: BTreeMap<String, f64> =
            last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Ok(fields.into_iter().filter(|(path, _)| path.starts_with(path_start)).collect())
    }

    /// The container's name for a cgroup, or `cgroup <id>`.
    pub(crate) fn container_name(&self, cgroup_id: u64) -> String {
        let found = self.containers.iter().rev().find(|known| known.cgroup_id == cgroup_id);
        found.map_or_else(|| format!("cgroup {cgroup_id}"), |known| known.name.clone())
    }
}

type Sources = Box<dyn Iterator<Item = Result<Source, InputError>>>;

fn sources(dir: &Path) -> Result<Sources, InputError> {
    if dir.is_file() {
        return Ok(Box::new(std::iter::once(archive::open(dir).map(Source::Archive))));
    }
    Ok(match fleet::captures(dir)? {
        Some(captures) => Box::new(captures.map(|capture| Ok(Source::Fleet(capture?)))),
        None => Box::new(std::iter::once(Ok(Source::Directory(Capture::open(dir)?)))),
    })
}

/// Where a capture is read from.
enum Source {
    Directory(Capture),
    Archive(Unpacked),
    Fleet(FleetCapture),
}

impl Source {
    fn meta(&self) -> &Meta {
        match self {
            Source::Directory(capture) | Source::Archive(Unpacked { capture, .. }) => {
                capture.meta()
            }
            Source::Fleet(capture) => &capture.meta,
        }
    }

    fn name(&self) -> String {
        match self {
            Source::Directory(capture) => capture.dir().display().to_string(),
            Source::Archive(unpacked) => unpacked.name.clone(),
            Source::Fleet(capture) => capture.name(),
        }
    }

    fn connections(&self, truncated: &mut Truncated) -> Result<Connections, InputError> {
        match self {
            Source::Directory(capture) | Source::Archive(Unpacked { capture, .. }) => {
                let file = capture.table(Table::Connections)?;
                truncated.extend(file.truncated_at().map(|at| (Table::Connections.name(), at)));
                Connections::read(|columns| Ok(file.batches(columns)?))
            }
            Source::Fleet(capture) => {
                Connections::read(|columns| capture.batches(Table::Connections, columns))
            }
        }
    }

    fn frame(&self, table: Table, truncated: &mut Truncated) -> anyhow::Result<DataFrame> {
        let columns = table.columns().to_vec();
        match self {
            Source::Directory(capture) | Source::Archive(Unpacked { capture, .. }) => {
                let file = capture.table(table).map_err(InputError::from)?;
                truncated.extend(file.truncated_at().map(|at| (table.name(), at)));
                frame(table, file.batches(columns).map_err(InputError::from)?)
            }
            Source::Fleet(capture) => frame(table, capture.batches(table, columns)?),
        }
    }
}

/// Tables that end in the middle, and the byte.
type Truncated = Vec<(&'static str, u64)>;

/// Polars has no maker from Arrow's batches, and its own reader takes sizes in a file on trust: it reads
/// what the capture's reader has held to be sound.
fn frame(
    table: Table,
    batches: impl Iterator<Item = Result<RecordBatch, ReadError>>,
) -> anyhow::Result<DataFrame> {
    let mut batches = batches.peekable();
    let schema = match batches.peek() {
        Some(Ok(first)) => first.schema(),
        _ => table.schema(),
    };
    let mut stream = StreamWriter::try_new(Vec::new(), &schema)?;
    for batch in batches {
        stream.write(&batch.map_err(InputError::from)?)?;
    }
    Ok(IpcStreamReader::new(Cursor::new(stream.into_inner()?)).finish()?)
}

/// Last value less the first, of each counter and namespace.
fn kernel_growth(table: &DataFrame) -> anyhow::Result<BTreeMap<String, f64>> {
    let at = table.column("at_mono_ns")?.i64()?;
    let netns = table.column("netns")?.u32()?;
    let name = table.column("name")?.str()?;
    let value = table.column("value")?.f64()?;
    let mut ends: BTreeMap<(&str, u32), [(i64, f64); 2]> = BTreeMap::new();
    for row in 0..table.height() {
        if let (Some(at), Some(netns), Some(name), Some(value)) =
            (at.get(row), netns.get(row), name.get(row), value.get(row))
        {
            let [first, last] = ends.entry((name, netns)).or_insert([(at, value); 2]);
            if at < first.0 {
                *first = (at, value);
            }
            if at >= last.0 {
                *last = (at, value);
            }
        }
    }
    let mut growth = BTreeMap::new();
    for ((name, _), [first, last]) in ends {
        *growth.entry(name.to_owned()).or_insert(0.0) += last.1 - first.1;
    }
    Ok(growth)
}

fn worst_drift(table: &DataFrame) -> anyhow::Result<Option<f64>> {
    let names = table.column("name")?.str()?;
    let values = table.column("value")?.f64()?;
    let drifts = names.iter().zip(values.iter()).filter(|(name, _)| *name == Some("drift"));
    Ok(drifts.filter_map(|(_, value)| Some(value?.abs())).max_by(f64::total_cmp))
}

fn losses(table: &DataFrame) -> anyhow::Result<Vec<Loss>> {
    let from = table.column("from_mono_ns")?.i64()?;
    let to = table.column("to_mono_ns")?.i64()?;
    let reason = table.column("reason")?.str()?;
    let count = table.column("count")?.u64()?;
    let rows = (0..table.height()).filter_map(|row| {
        Some(Loss {
            from_ns: from.get(row)?,
            to_ns: to.get(row)?,
            reason: reason.get(row).unwrap_or("unknown").to_owned(),
            count: count.get(row).unwrap_or(0),
        })
    });
    let mut losses = Losses::default();
    rows.for_each(|loss| losses.add(loss));
    Ok(losses.all)
}

/// As they are told: the recorder writes of a loss once a second for as long as it goes on. What follows
/// without a gap, and differs in numbers only, is one.
#[derive(Default)]
struct Losses {
    all: Vec<Loss>,
    /// The last with these words.
    by_words: HashMap<String, usize>,
}

impl Losses {
    fn add(&mut self, next: Loss) {
        let words = next.reason.replace(|character: char| character.is_ascii_digit(), "");
        let goes_on = |index: &usize| {
            let last = &self.all[*index];
            last.from_ns <= next.to_ns && next.from_ns <= last.to_ns
        };
        match self.by_words.get(&words).copied().filter(goes_on) {
            Some(index) => self.all[index].take_in(next),
            None if self.all.len() < MOST_LOSSES => {
                self.by_words.insert(words, self.all.len());
                self.all.push(next);
            }
            // The last one stands for all that are too many, and for rows that are missing before others.
            None => {
                let last = &mut self.all[MOST_LOSSES - 1];
                if !last.is_of_connections() || next.is_of_connections() {
                    last.take_in(next);
                } else {
                    let reason = last.reason.clone();
                    last.take_in(Loss { reason, ..next });
                }
            }
        }
    }
}

fn container_list(table: &DataFrame) -> anyhow::Result<Vec<Container>> {
    let cgroup = table.column("cgroup_id")?.u64()?;
    let id = table.column("container_id")?.str()?;
    let name = table.column("name")?.str()?;
    Ok((0..table.height())
        .filter_map(|row| {
            Some(Container {
                cgroup_id: cgroup.get(row)?,
                container_id: id.get(row).map(str::to_owned),
                name: name.get(row).unwrap_or("unknown").to_owned(),
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8]) {
        let directory = tempfile::tempdir().unwrap();
        let meta = fuzz::corpus("capture_meta").remove(0);
        std::fs::write(directory.path().join(capture::meta::META_FILE), meta).unwrap();
        let table = Table::Connections;
        std::fs::write(directory.path().join(table.file_name()), bytes).unwrap();
        let capture = Capture::open(directory.path()).unwrap();
        match Source::Directory(capture).frame(table, &mut Truncated::new()) {
            Ok(frame) => assert!(frame.height() <= 1000, "{} rows of 3", frame.height()),
            Err(error) => assert!(error.downcast_ref::<InputError>().is_some(), "{error}"),
        }
    }

    #[test]
    fn what_was_found_is_read_again() {
        fuzz::corpus("capture_table").iter().for_each(|bytes| check(bytes));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// A capture comes from another machine.
        #[test]
        fn hostile_tables(bytes in fuzz::damaged(fuzz::corpus("capture_table"))) {
            check(&bytes);
        }
    }
}
