//! What grows while it should not, live: a baseline, then a checkpoint per interval, and whether the
//! growth is more than a healthy server shows. `analyzer leaks` says the same of a capture, with the
//! robust slopes that many samples allow.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::Serialize;
use status_page::Number;

use super::{
    lines::fit,
    starts::{Start, Starts},
    style::{Style, Tone},
};
use crate::{export::json::SCHEMA_VERSION, process::service::ServiceFacts};

/// Tasks, by the names that servers give them, the best known first.
const TASKS: [&str; 4] =
    ["go_goroutines", "tokio_alive_tasks", "nodejs_active_handles_total", "lab_tasks"];

/// Connections of proxies, by the start and the end of the name.
const CONNECTIONS: [(&str, &str); 4] = [
    ("nginx_connections_active", ""),
    ("haproxy_frontend_scur", ""),
    ("http.", ".downstream_cx_active"),
    ("envoy_http_downstream_cx_active", ""),
];

/// Name, and the short form of the lines.
const SERIES: [(&str, &str); 6] = [
    ("goroutines", "GOR"),
    ("descriptors", "FD"),
    ("memory_mb", "MEM"),
    ("sockets", "SOCK"),
    ("threads", "THR"),
    ("connections", "CONN"),
];

/// Per minute: the target, a warning above, critical above.
const LIMITS: [(&str, [f64; 3]); 2] =
    [("goroutines", [10.0, 20.0, 50.0]), ("descriptors", [5.0, 15.0, 30.0])];

/// No checkpoint for so many intervals is a gap.
const LATE: f64 = 1.5;

/// What was read at one time.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at_unix_ns: i64,
    /// Since the baseline.
    pub(crate) elapsed: Duration,
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) start: Option<Start>,
    pub(crate) error: Option<String>,
}

impl Sample {
    /// `asked`: metrics that are followed under their own names.
    pub(crate) fn new(pages: &[Number], services: &[ServiceFacts], asked: &[String]) -> Self {
        let sum = |is: &dyn Fn(&str) -> bool| {
            let mut found =
                pages.iter().filter(|one| is(&one.name)).map(|one| one.value).peekable();
            found.peek().is_some().then_some(()).map(|()| found.sum::<f64>())
        };
        let named = |name: &str| sum(&|known| known == name);
        let of_kernel = |pick: fn(&ServiceFacts) -> f64| {
            // One that is gone holds nothing, which is no fall to zero.
            let there = services.iter().filter(|service| service.facts.processes > 0);
            there.map(pick).reduce(|sum, one| sum + one)
        };
        let mebibytes = |bytes: f64| bytes / 1_048_576.0;
        let series = [
            ("goroutines", TASKS.iter().find_map(|name| named(name))),
            (
                "descriptors",
                named("process_open_fds").or(of_kernel(|one| one.facts.open_fds as f64)),
            ),
            (
                "memory_mb",
                named("process_resident_memory_bytes")
                    .or(of_kernel(|one| one.facts.resident_bytes as f64))
                    .map(mebibytes),
            ),
            ("sockets", of_kernel(|one| one.facts.sockets as f64)),
            ("threads", of_kernel(|one| one.facts.threads as f64)),
            (
                "connections",
                CONNECTIONS.iter().find_map(|(start, end)| {
                    sum(&|name| name.starts_with(start) && name.ends_with(end))
                }),
            ),
        ];
        let mut values: BTreeMap<String, f64> = series
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        let others = asked.iter().filter(|name| !TASKS.contains(&name.as_str()));
        values.extend(others.filter_map(|name| Some((name.clone(), named(name)?))));
        values.retain(|_, value| value.is_finite());
        let oldest = services.iter().map(|one| one.facts).find(|facts| facts.processes > 0);
        Self {
            values,
            start: named("process_start_time_seconds")
                .map(Start::OfPage)
                .or(oldest.map(|facts| Start::OfOldest(facts.start_unix_s))),
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Ok,
    AboveTarget,
    Warning,
    Critical,
}

impl Level {
    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::AboveTarget | Self::Warning => Tone::Warning,
            Self::Critical => Tone::Bad,
        }
    }

    fn of(name: &str, per_minute: f64) -> Option<Self> {
        let (_, [target, warning, critical]) = LIMITS.iter().find(|(known, _)| *known == name)?;
        Some(if per_minute > *critical {
            Self::Critical
        } else if per_minute > *warning {
            Self::Warning
        } else if per_minute >= *target {
            Self::AboveTarget
        } else {
            Self::Ok
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Since the baseline.
    pub(crate) growth: f64,
    pub(crate) per_minute: f64,
    /// Null for what has no limit.
    pub(crate) level: Option<Level>,
}

/// One line, or one JSON object.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Checkpoint {
    pub(crate) schema_version: &'static str,
    /// `checkpoint`
    pub(crate) r#type: &'static str,
    /// 0 is the baseline.
    pub(crate) number: u64,
    /// Null without `--duration`.
    pub(crate) planned: Option<u64>,
    pub(crate) at_unix_ns: i64,
    pub(crate) minutes: f64,
    pub(crate) values: Vec<Value>,
    /// None of the processes is left that were there at the last checkpoint, as the kernel has it.
    pub(crate) restarted: bool,
    /// A younger process answered than at the last checkpoint: a restart, unless several answer in turn.
    pub(crate) younger_answered: bool,
    /// Why a page had no answer.
    pub(crate) error: Option<String>,
}

impl Checkpoint {
    pub(crate) fn text(&self, style: Style) -> String {
        let lead = match (self.number, self.planned) {
            (0, _) => "Baseline:".to_owned(),
            (number, Some(planned)) => format!("[{number}/{planned}] {}:", minutes(self.minutes)),
            (number, None) => format!("[{number}] {}:", minutes(self.minutes)),
        };
        let parts = self.values.iter().map(|one| {
            let short = SERIES.iter().find(|(name, _)| *name == one.name);
            let name = short.map_or(one.name.as_str(), |(_, short)| short);
            let value = format!("{name}={}", number(one.value));
            if self.number == 0 {
                return value;
            }
            let plus = if one.growth >= 0.0 { "+" } else { "" };
            let rate = one.level.map(|_| format!(", {:+.1}/min", one.per_minute));
            let rate = rate.unwrap_or_default();
            let grown = format!("({plus}{}{rate})", number(one.growth));
            let grown = match one.level {
                Some(level) if level > Level::Ok => style.paint(level.tone(), &grown),
                _ => grown,
            };
            format!("{value} {grown}")
        });
        let mut line = fit(&lead, parts, " ", "  ");
        line.push('\n');
        if self.restarted {
            let _ = writeln!(line, "  {} the process was restarted", style.paint(Tone::Bad, "✗"));
        }
        if self.younger_answered {
            let _ = writeln!(
                line,
                "  {} a younger process answered: a restart, unless an older one answers again",
                style.paint(Tone::Warning, "?")
            );
        }
        if let Some(error) = &self.error {
            let _ = writeln!(line, "  {} {error}", style.paint(Tone::Bad, "✗"));
        }
        line
    }
}

/// The last object: what the whole came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct End {
    pub(crate) schema_version: &'static str,
    /// `end`
    pub(crate) r#type: &'static str,
    pub(crate) checkpoints: u64,
    pub(crate) planned: Option<u64>,
    pub(crate) stopped_by: &'static str,
    /// Each is a reason to fail.
    pub(crate) failures: Vec<String>,
    /// Nothing but a baseline was read.
    pub(crate) inconclusive: bool,
}

impl End {
    pub(crate) fn text(&self, style: Style) -> String {
        let mut text =
            format!("end after {} checkpoints, stopped by {}\n", self.checkpoints, self.stopped_by);
        for failure in &self.failures {
            let _ = writeln!(text, "  {} {failure}", style.paint(Tone::Bad, "✗"));
        }
        if self.inconclusive && self.failures.is_empty() {
            text.push_str("  ? nothing but a baseline was read\n");
        } else if self.failures.is_empty() {
            let _ = writeln!(
                text,
                "  {} nothing grows beyond its target",
                style.paint(Tone::Good, "✓")
            );
        }
        text
    }
}

/// All checkpoints up to now.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    interval: Duration,
    duration: Option<Duration>,
    planned: Option<u64>,
    baseline: BTreeMap<String, f64>,
    starts: Starts,
    answered: Duration,
    last: Vec<Value>,
    taken: u64,
    errors: u64,
    gaps: u64,
}

impl Checkpoints {
    pub(crate) fn new(interval: Duration, duration: Option<Duration>) -> Self {
        let times = |all: Duration| (all.as_secs_f64() / interval.as_secs_f64()).round() as u64;
        Self {
            interval,
            duration,
            planned: duration.map(|all| times(all).max(1)),
            baseline: BTreeMap::new(),
            starts: Starts::default(),
            answered: Duration::ZERO,
            last: Vec::new(),
            taken: 0,
            errors: 0,
            gaps: 0,
        }
    }

    /// How many come after the baseline; at least one. `None` where no duration is given.
    pub(crate) fn planned(&self) -> Option<u64> {
        self.planned
    }

    pub(crate) fn take(&mut self, sample: Sample) -> Checkpoint {
        let number = self.taken;
        self.taken += 1;
        self.errors += u64::from(sample.error.is_some());
        if sample.error.is_none() {
            self.note_gap(sample.elapsed);
        }
        let (restarted, younger_answered) =
            sample.start.map_or((false, false), |start| self.starts.take(start, sample.at_unix_ns));
        let minutes = sample.elapsed.as_secs_f64() / 60.0;
        for (name, value) in &sample.values {
            self.baseline.entry(name.clone()).or_insert(*value);
        }
        let known = SERIES.iter().map(|(name, _)| *name);
        let others = sample.values.keys().map(String::as_str);
        let others = others.filter(|name| SERIES.iter().all(|(known, _)| known != name));
        let values: Vec<Value> = known
            .chain(others)
            .filter_map(|name| {
                let value = *sample.values.get(name)?;
                let growth = value - self.baseline.get(name)?;
                let per_minute = if minutes > 0.0 { growth / minutes } else { 0.0 };
                let level = (number > 0).then(|| Level::of(name, per_minute)).flatten();
                Some(Value { name: name.to_owned(), value, growth, per_minute, level })
            })
            .collect();
        if number > 0 && !values.is_empty() {
            self.last.clone_from(&values);
        }
        Checkpoint {
            schema_version: SCHEMA_VERSION,
            r#type: "checkpoint",
            number,
            planned: self.planned,
            at_unix_ns: sample.at_unix_ns,
            minutes,
            values,
            restarted,
            younger_answered,
            error: sample.error,
        }
    }

    fn note_gap(&mut self, elapsed: Duration) {
        let late = self.interval.mul_f64(LATE);
        self.gaps += u64::from(elapsed.saturating_sub(self.answered) > late);
        self.answered = elapsed;
    }

    /// `elapsed`: since the baseline. `stopped_by` is a signal where it is `early`.
    pub(crate) fn end(mut self, elapsed: Duration, stopped_by: &'static str, early: bool) -> End {
        if elapsed.saturating_sub(self.answered) > self.interval.mul_f64(LATE) {
            self.gaps += 1;
        }
        let mut failures: Vec<String> = self
            .last
            .iter()
            .filter(|value| value.level.is_some_and(|level| level > Level::Ok))
            .map(|value| {
                let limit = LIMITS.iter().find(|(name, _)| *name == value.name);
                let target = limit.map_or(0.0, |(_, limits)| limits[0]);
                let rate = value.per_minute;
                format!("{} grow by {rate:.1} a minute, target below {target}", value.name)
            })
            .collect();
        for (count, noun, what) in [
            (self.errors, "checkpoint", " without an answer of every page"),
            (self.starts.newcomers, "restart", ""),
            (
                status_page::restarts(self.starts.of_page) as u64,
                "restart",
                " by the page's word, unless several processes answer it",
            ),
            (self.gaps, "time", " of more than 1.5 intervals without a checkpoint"),
        ] {
            if count > 0 {
                let plural = if count == 1 { "" } else { "s" };
                failures.push(format!("{count} {noun}{plural}{what}"));
            }
        }
        if early && let Some(planned) = self.duration {
            let planned = humantime::format_duration(planned);
            failures.push(format!("stopped early: {planned} were planned"));
        }
        End {
            schema_version: SCHEMA_VERSION,
            r#type: "end",
            checkpoints: self.taken.saturating_sub(1),
            planned: self.planned,
            stopped_by,
            failures,
            inconclusive: self.last.is_empty(),
        }
    }
}

fn minutes(minutes: f64) -> String {
    if minutes >= 0.95 { format!("{minutes:.0}min") } else { format!("{:.0}s", minutes * 60.0) }
}

/// Whole numbers as they are, others with one digit.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: f64 = 1_700_000_000.0;

    fn at(minutes: u64) -> i64 {
        (BEGUN as i64 + 600 + 60 * minutes as i64) * 1_000_000_000
    }

    fn sample(minutes: u64, goroutines: f64, descriptors: f64) -> Sample {
        Sample {
            elapsed: Duration::from_secs(60 * minutes),
            values: BTreeMap::from([
                ("goroutines".to_owned(), goroutines),
                ("descriptors".to_owned(), descriptors),
            ]),
            at_unix_ns: at(minutes),
            start: Some(Start::OfOldest(BEGUN)),
            ..Sample::default()
        }
    }

    fn checkpoints() -> Checkpoints {
        Checkpoints::new(Duration::from_secs(120), Some(Duration::from_secs(1800)))
    }

    #[test]
    fn lines_read_as_people_expect() {
        let mut all = checkpoints();
        let text = |checkpoint: Checkpoint| checkpoint.text(Style::plain());
        assert_eq!(text(all.take(sample(0, 12.0, 9.0))), "Baseline: GOR=12 FD=9\n");
        all.take(sample(2, 14.0, 9.0));
        all.take(sample(4, 14.0, 9.0));
        assert_eq!(
            text(all.take(sample(6, 78.0, 8.0))),
            "[3/15] 6min: GOR=78 (+66, +11.0/min) FD=8 (-1, -0.2/min)\n"
        );
        let end = all.end(Duration::from_secs(360), "SIGINT", true);
        assert_eq!(
            end.failures,
            [
                "goroutines grow by 11.0 a minute, target below 10",
                "stopped early: 30m were planned"
            ]
        );
    }

    #[test]
    fn a_healthy_run_has_no_failure() {
        let mut all = checkpoints();
        for n in 0..=15 {
            all.take(sample(2 * n, 12.0 + (n % 3) as f64, 9.0));
        }
        let end = all.end(Duration::from_secs(1800), "--duration", false);
        assert_eq!(
            (end.failures.as_slice(), end.inconclusive, end.checkpoints),
            (&[][..], false, 15)
        );
    }

    #[test]
    fn errors_gaps_and_restarts_fail() {
        let mut all = checkpoints();
        all.take(sample(0, 12.0, 9.0));
        all.take(Sample { error: Some("refused".into()), ..sample(2, 12.0, 9.0) });
        // Who had started before the last checkpoint is another of several workers.
        let worker = Some(Start::OfOldest(BEGUN + 200.0));
        assert!(!all.take(Sample { start: worker, ..sample(4, 12.0, 9.0) }).restarted);
        let newcomer = Some(Start::OfOldest(at(4) as f64 / 1e9 + 0.5));
        assert!(all.take(Sample { start: newcomer, ..sample(4, 3.0, 9.0) }).restarted);
        let end = all.end(Duration::from_secs(8 * 60), "--duration", false);
        assert_eq!(
            end.failures,
            [
                "1 checkpoint without an answer of every page",
                "1 restart",
                "2 times of more than 1.5 intervals without a checkpoint"
            ]
        );
        let baseline_only = checkpoints().end(Duration::ZERO, "SIGINT", false);
        assert!(baseline_only.inconclusive && baseline_only.failures.is_empty());
    }

    #[test]
    fn of_a_page_a_restart_is_sure_in_the_end() {
        let told = |starts: &[f64]| {
            let mut all = checkpoints();
            let mut younger = Vec::new();
            for (start, n) in starts.iter().zip(0..) {
                let start = Some(Start::OfPage(*start));
                let checkpoint = all.take(Sample { start, ..sample(2 * n, 12.0, 9.0) });
                assert!(!checkpoint.restarted);
                younger.push(checkpoint.younger_answered);
            }
            let elapsed = Duration::from_secs(120 * (starts.len() as u64 - 1));
            (younger, all.end(elapsed, "--duration", false).failures)
        };
        let (old, new) = (BEGUN, BEGUN + 60.0);
        assert_eq!(told(&[old, new, old, new]), (vec![false, true, false, true], Vec::new()));
        let restart = "1 restart by the page's word, unless several processes answer it";
        let expected = (vec![false, false, true, false], vec![restart.to_owned()]);
        assert_eq!(told(&[old, old + 0.5, new, new]), expected);
    }

    #[test]
    fn levels() {
        let of = |rate| Level::of("descriptors", rate).unwrap();
        let levels = [4.9, 5.0, 15.1, 30.1].map(of);
        assert_eq!(levels, [Level::Ok, Level::AboveTarget, Level::Warning, Level::Critical]);
        assert_eq!(Level::of("memory_mb", 99.0), None);
    }

    #[test]
    fn pages_come_before_what_the_kernel_knows() {
        let pages = status_page::numbers(
            "process_open_fds 42\nhaproxy_frontend_scur{proxy=\"a\"} 3\n\
             haproxy_frontend_scur{proxy=\"b\"} 4\nlab_tasks 5\nopen 6\n",
        );
        let facts = crate::process::facts::Facts {
            processes: 1,
            open_fds: 40,
            sockets: 30,
            resident_bytes: 3 << 20,
            threads: 2,
            ..Default::default()
        };
        let service =
            ServiceFacts { name: "web".into(), port: 3005, facts, container_healthy: None };
        let values = Sample::new(&pages, &[service], &["lab_tasks".into(), "open".into()]).values;
        let expected = [
            ("connections", 7.0),
            ("descriptors", 42.0),
            ("goroutines", 5.0),
            ("memory_mb", 3.0),
            ("open", 6.0),
            ("sockets", 30.0),
            ("threads", 2.0),
        ];
        assert_eq!(values, BTreeMap::from(expected.map(|(name, value)| (name.to_owned(), value))));
    }

    #[test]
    fn of_a_service_that_is_gone_nothing_is_known() {
        let facts = crate::process::facts::Facts::default();
        let gone = ServiceFacts { name: "web".into(), port: 3005, facts, container_healthy: None };
        assert_eq!(Sample::new(&[], &[gone], &[]).values, BTreeMap::new());
    }
}
