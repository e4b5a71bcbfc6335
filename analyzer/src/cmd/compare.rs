//! `analyzer compare`: runs side by side, and what changed beyond noise.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::{self, Judging};
use crate::error::Outcome;
use crate::input::recording::Recording;
use crate::leak::report::{self as leak, LeakReport, Plan};
use crate::population::Population;
use crate::report::build;
use crate::report::handshake::{self, HandshakeReport};
use crate::report::model::SCHEMA_VERSION;
use crate::report::{shard, terminal};

/// A value with the interval in which the true one lies in 99.7 of 100 such runs, of a slope in 95; of no
/// width where it is a plain count.
type Measured = (f64, f64, f64);

/// One figure of every run.
#[derive(Debug, Serialize)]
struct Figure {
    schema_version: &'static str,
    figure: String,
    unit: &'static str,
    values: Vec<Option<f64>>,
    /// Some run's interval lies apart from the first run's.
    beyond_noise: bool,
}

impl Figure {
    /// Value and interval of each run; `None` where it has none.
    fn new(figure: impl Into<String>, unit: &'static str, runs: &[Option<Measured>]) -> Self {
        let apart = |first: Measured, other: Measured| first.2 < other.1 || other.2 < first.1;
        let beyond_noise =
            runs.first().copied().flatten().is_some_and(|first| {
                runs.iter().skip(1).flatten().any(|other| apart(first, *other))
            });
        Figure {
            schema_version: SCHEMA_VERSION,
            figure: figure.into(),
            unit,
            values: runs.iter().map(|run| run.map(|(value, _, _)| value)).collect(),
            beyond_noise,
        }
    }
}

pub(crate) fn run(args: &cli::Compare) -> anyhow::Result<Outcome> {
    let mut runs = Vec::new();
    let mut imbalances = Vec::new();
    let mut phantoms = Vec::new();
    let mut leaks = Vec::new();
    for dir in &args.captures {
        for recording in Recording::open_all(dir)? {
            let population = Population::of_filter(&recording, &args.filter)?;
            runs.push(handshake::of(&recording, &population));
            let everything = Population::of_filter(&recording, &cli::Filter::default())?;
            imbalances.push(shard::of(&recording, &everything)?.imbalance_percent);
            let servers = build::servers(&recording, &Judging::of(&args.filter))?;
            phantoms.push(servers.iter().filter_map(|server| server.phantoms.peak).max());
            let of_server = servers.first().map_or(&population, |server| &server.population);
            leaks.push(leak::of(Some((&recording, of_server)), &servers, &[], &Plan::default())?);
        }
    }
    let mut figures = figures(&runs);
    let exact = |values: &mut dyn Iterator<Item = Option<f64>>| -> Vec<Option<Measured>> {
        values.map(|value| value.map(|value| (value, value, value))).collect()
    };
    figures.push(Figure::new("imbalance of the shards", "%", &exact(&mut imbalances.into_iter())));
    let most = &mut phantoms.into_iter().map(|count| count.map(|count| count as f64));
    figures.push(Figure::new("phantoms, most", "", &exact(most)));
    figures.extend(SLOPES.iter().filter_map(|(name, unit)| slopes(&leaks, name, unit)));
    let mut out = terminal::stdout(args.json);
    if args.json {
        for figure in &figures {
            serde_json::to_writer(&mut out, figure)?;
            out.write_all(b"\n")?;
        }
    } else {
        write_table(&mut out, &runs, &figures)?;
    }
    out.flush()?;
    Ok(Outcome::Held)
}

/// What must not grow, and the unit of its slope.
const SLOPES: [(&str, &str); 3] =
    [("goroutines", "/min"), ("descriptors", "/min"), ("memory_mb", "MiB/min")];

/// Of one number in every run; `None` where no run has it.
fn slopes(leaks: &[Option<LeakReport>], name: &str, unit: &'static str) -> Option<Figure> {
    let of = |report: &LeakReport| {
        let trend = &report.followed.iter().find(|one| one.name == name)?.trend;
        Some((trend.per_minute?, trend.low_per_minute?, trend.high_per_minute?))
    };
    let values: Vec<Option<Measured>> =
        leaks.iter().map(|report| report.as_ref().and_then(of)).collect();
    values
        .iter()
        .any(Option::is_some)
        .then(|| Figure::new(format!("{name} grow by"), unit, &values))
}

fn figures(runs: &[HandshakeReport]) -> Vec<Figure> {
    let every = |of: &dyn Fn(&HandshakeReport) -> Option<Measured>| -> Vec<Option<Measured>> {
        runs.iter().map(of).collect()
    };
    let exact = |count: usize| Some((count as f64, count as f64, count as f64));
    let mut figures = vec![
        Figure::new("attempts", "", &every(&|run| exact(run.attempts))),
        Figure::new("failed", "%", &every(&|run| share(run.failed, run.attempts))),
    ];
    let mut causes: Vec<&str> = Vec::new();
    for ranked in runs.iter().flat_map(|run| &run.causes) {
        if !causes.contains(&ranked.cause.name) {
            causes.push(ranked.cause.name);
        }
    }
    for cause in causes {
        let of = |run: &HandshakeReport| {
            let found = run.causes.iter().find(|ranked| ranked.cause.name == cause);
            share(found.map_or(0, |ranked| ranked.cause.count), run.attempts)
        };
        figures.push(Figure::new(format!("  {cause}"), "%", &every(&of)));
    }
    // Of the services that clients ask; those are listed first.
    let front =
        |run: &HandshakeReport| run.services.iter().find(|s| s.role == "passive").map(|s| s.port);
    let mut steps: Vec<(&str, &str)> = Vec::new();
    for step in runs.iter().flat_map(|run| &run.services).flat_map(|service| &service.steps) {
        if !steps.contains(&(step.from, step.to)) {
            steps.push((step.from, step.to));
        }
    }
    for (from, to) in steps {
        let of = |run: &HandshakeReport| {
            let service = run.services.iter().find(|service| Some(service.port) == front(run))?;
            let step = service.steps.iter().find(|step| (step.from, step.to) == (from, to))?;
            Some((step.p50_us / 1e3, step.p50_low_us / 1e3, step.p50_high_us / 1e3))
        };
        figures.push(Figure::new(format!("{from} → {to}, p50"), "ms", &every(&of)));
    }
    figures
}

/// A share with the interval of Wilson's score at three standard deviations, in percent.
fn share(part: usize, whole: usize) -> Option<Measured> {
    const Z: f64 = 3.0;
    if whole == 0 {
        return None;
    }
    let (n, p) = (whole as f64, part as f64 / whole as f64);
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let margin = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some((100.0 * p, 100.0 * (centre - margin).max(0.0), 100.0 * (centre + margin).min(1.0)))
}

fn write_table(
    out: &mut impl Write,
    runs: &[HandshakeReport],
    figures: &[Figure],
) -> io::Result<()> {
    let names: Vec<String> = runs.iter().map(|run| last_chars(&run.capture, 14)).collect();
    writeln!(out, "{:42} {}", "", row(names.iter().cloned()))?;
    for figure in figures {
        let name = match figure.unit {
            "" => figure.figure.clone(),
            unit => format!("{}, {unit}", figure.figure),
        };
        let values = figure.values.iter().map(|value| match value {
            None => "–".to_owned(),
            Some(value) if figure.unit.is_empty() => format!("{value}"),
            Some(value) if figure.unit == "%" => format!("{value:.1}"),
            Some(value) => format!("{value:.3}"),
        });
        let mark = if figure.beyond_noise { "  ≠" } else { "" };
        writeln!(out, "{name:42} {}{mark}", row(values))?;
    }
    writeln!(
        out,
        "≠: some run differs from the first by more than chance (99.7 %, slopes 95 %) would make it"
    )
}

fn row(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| format!("{cell:>14}")).collect::<Vec<_>>().join(" ")
}

fn last_chars(text: &str, count: usize) -> String {
    let skip = text.chars().count().saturating_sub(count);
    text.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_told_from_change() {
        let figure = |a, b| Figure::new("failed", "%", &[share(a, 1_000), share(b, 1_000)]);
        assert!(!figure(50, 60).beyond_noise);
        assert!(figure(50, 150).beyond_noise);
        assert!(!figure(0, 0).beyond_noise);
        assert!(!Figure::new("x", "", &[None, Some((1.0, 1.0, 1.0))]).beyond_noise);
        let (percent, low, high) = share(0, 100).unwrap();
        assert_eq!((percent, low), (0.0, 0.0));
        assert!((8.0..9.0).contains(&high));
    }
}
