//! Figures while a load runs, and the summary after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::death::{CutOff, Death};
use super::record::{End, EndedBy, Record};
use crate::progress::clock;

/// Counters that the connections move; the printer reads them.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) started: AtomicU64,
    pub(super) connected: AtomicU64,
    pub(super) upgraded: AtomicU64,
    /// Upgraded and not ended.
    pub(super) open: AtomicI64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Live {
    /// One line for standard error.
    pub(super) fn line(&self, since: Instant, total: u64, failed: u64) -> String {
        format!(
            "{}  {}/{total} upgraded · {} open · {failed} failed · {} sent · {} received",
            clock(since.elapsed()),
            self.upgraded.load(Ordering::Relaxed),
            self.open.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        )
    }

    /// Behind a progress bar.
    pub(super) fn few_words(&self, failed: u64) -> String {
        format!("{} open · {failed} failed", self.open.load(Ordering::Relaxed))
    }
}

/// Percentiles of one kind of time, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    min_us: f64,
    p50_us: f64,
    p95_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Spread {
    fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let last = times.len().checked_sub(1)?;
        // The nearest rank: a value that was measured.
        let at = |p: f64| times[((times.len() as f64 * p).ceil() as usize).clamp(1, last + 1) - 1];
        Some(Spread {
            min_us: times[0],
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            max_us: times[last],
        })
    }
}

/// Totals of a load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    schema_version: u32,
    url: String,
    pub(crate) connections: u64,
    pub(crate) upgraded: u64,
    success_percent: f64,
    duration_s: f64,
    ramp_s: f64,
    outcomes: BTreeMap<String, u64>,
    /// How upgraded connections ended: `client_rst`, `server_close_frame`, ….
    ends: BTreeMap<String, u64>,
    /// Null if it did not.
    pub(super) server_died: Option<Death>,
    /// Null if the server died, or none were.
    pub(super) cut_off: Option<CutOff>,
    messages_sent: u64,
    messages_received: u64,
    heartbeats_sent: u64,
    heartbeats_answered: u64,
    rtt_count: u64,
    rtt_min_us: Option<f64>,
    rtt_mean_us: Option<f64>,
    rtt_max_us: Option<f64>,
    connect: Option<Spread>,
    upgrade: Option<Spread>,
}

impl Summary {
    pub(super) fn of(url: String, records: &[Record], duration: Duration, ramp: Duration) -> Self {
        let mut outcomes = BTreeMap::new();
        let mut ends = BTreeMap::new();
        for record in records {
            *outcomes.entry(record.outcome.clone()).or_default() += 1;
            if let (true, Some(by), Some(end)) = (record.upgraded(), record.ended_by, record.end) {
                *ends.entry(end_name(by, end)).or_default() += 1;
            }
        }
        let sum = |field: fn(&Record) -> u64| records.iter().map(field).sum::<u64>();
        let upgraded = records.iter().filter(|r| r.upgraded()).count() as u64;
        let rtt_count = sum(|r| r.rtt_count);
        let rtt_sum: f64 =
            records.iter().filter_map(|r| Some(r.rtt_mean_us? * r.rtt_count as f64)).sum();
        let rtt_min_us = records.iter().filter_map(|r| r.rtt_min_us).min_by(f64::total_cmp);
        let rtt_max_us = records.iter().filter_map(|r| r.rtt_max_us).max_by(f64::total_cmp);
        Summary {
            schema_version: 1,
            url,
            connections: records.len() as u64,
            upgraded,
            success_percent: 100.0 * upgraded as f64 / records.len().max(1) as f64,
            duration_s: duration.as_secs_f64(),
            ramp_s: ramp.as_secs_f64(),
            outcomes,
            ends,
            server_died: None,
            cut_off: None,
            messages_sent: sum(|r| r.messages_sent),
            messages_received: sum(|r| r.messages_received),
            heartbeats_sent: sum(|r| r.heartbeats_sent),
            heartbeats_answered: sum(|r| r.heartbeats_answered),
            rtt_count,
            rtt_min_us,
            rtt_mean_us: rtt_min_us
                .zip(rtt_max_us)
                .map(|(min, max)| (rtt_sum / rtt_count as f64).clamp(min, max)),
            rtt_max_us,
            connect: Spread::of(records.iter().filter_map(Record::connect_us).collect()),
            upgrade: Spread::of(records.iter().filter_map(Record::upgrade_us).collect()),
        }
    }

    pub(crate) fn success_percent(&self) -> f64 {
        self.success_percent
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("connections", format!("{} in {:.1} s", self.connections, self.ramp_s));
        row("upgraded", format!("{} ({:.2} %)", self.upgraded, self.success_percent));
        for (outcome, count) in self.outcomes.iter().filter(|(name, _)| *name != "upgraded") {
            row(&format!("  {outcome}"), count.to_string());
        }
        for (end, count) in &self.ends {
            row(&format!("ended: {}", end.replace('_', " ")), count.to_string());
        }
        if let Some(death) = self.server_died {
            row("server died", death.text());
        }
        if let Some(cut_off) = self.cut_off {
            row("cut off", cut_off.text());
        }
        row(
            "messages",
            format!("{} sent, {} received", self.messages_sent, self.messages_received),
        );
        row(
            "heartbeats",
            format!("{} sent, {} answered", self.heartbeats_sent, self.heartbeats_answered),
        );
        if let (Some(min), Some(mean), Some(max)) =
            (self.rtt_min_us, self.rtt_mean_us, self.rtt_max_us)
        {
            row("round trip", format!("min {} · mean {} · max {} ms", ms(min), ms(mean), ms(max)));
        }
        for (name, spread) in [("TCP connect", self.connect), ("upgrade", self.upgrade)] {
            if let Some(s) = spread {
                let (p50, p95, p99, max) = (ms(s.p50_us), ms(s.p95_us), ms(s.p99_us), ms(s.max_us));
                row(name, format!("p50 {p50} · p95 {p95} · p99 {p99} · max {max} ms"));
            }
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Left);
        }
        table.trim_fmt()
    }
}

fn ms(us: f64) -> String {
    format!("{:.2}", us / 1e3)
}

fn end_name(by: EndedBy, end: End) -> String {
    let by = match by {
        EndedBy::Client => "client",
        EndedBy::Server => "server",
        EndedBy::Network => "network",
    };
    let end = match end {
        End::CloseFrame => "close_frame",
        End::Fin => "fin",
        End::Rst => "rst",
        End::Silent => "silent",
        End::Error => "error",
    };
    format!("{by}_{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let spread = Spread::of((1..=100).map(f64::from).collect()).unwrap();
        assert_eq!((spread.min_us, spread.p50_us, spread.p99_us), (1.0, 50.0, 99.0));
        assert_eq!(spread.max_us, 100.0);
        assert!(Spread::of(Vec::new()).is_none());
    }
}
