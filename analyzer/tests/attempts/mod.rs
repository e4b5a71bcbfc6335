//! Legs of handshakes with known outcomes, and a run of the analyzer on them.

use capture::CaptureWriter;
use capture::schema::{ConnectionRow, KernelRow};
use serde_json::Value;

use crate::common::{MS, S, START, analyzer, blank_row, meta};

/// A client's leg that was upgraded `at` after the start, in a millisecond.
pub fn upgraded(n: usize, at: i64) -> ConnectionRow {
    let t = START + at;
    ConnectionRow {
        first_seen_ns: t,
        syn_received_ns: Some(t),
        syn_ack_sent_ns: Some(t + 10_000),
        established_ns: Some(t + 100_000),
        accepted_ns: Some(t + 150_000),
        request_ns: Some(t + 200_000),
        response_ns: Some(t + 900_000),
        upgraded_ns: Some(t + 900_000),
        first_frame_in_ns: Some(t + 2 * MS),
        http_status: Some(101),
        class: "upgraded",
        state: "established",
        outcome: Some("upgraded".into()),
        ..blank_row(n)
    }
}

/// The same leg, answered with another status after `wait`, and closed.
pub fn answered(n: usize, at: i64, status: u32, wait: i64) -> ConnectionRow {
    let row = upgraded(n, at);
    let response = row.request_ns.unwrap() + wait;
    ConnectionRow {
        response_ns: Some(response),
        upgraded_ns: None,
        first_frame_in_ns: None,
        left_established_ns: Some(response + MS),
        closed_ns: Some(response + MS),
        closed_by: Some("local"),
        closed_how: Some("fin"),
        http_status: Some(status),
        class: "http",
        state: "close",
        outcome: Some(format!("http_{status}").into()),
        ..row
    }
}

/// A leg without an answer, ended after `wait`.
pub fn unanswered(n: usize, at: i64, wait: i64, outcome: &'static str) -> ConnectionRow {
    let row = answered(n, at, 0, wait);
    ConnectionRow {
        response_ns: None,
        http_status: None,
        closed_by: Some("remote"),
        outcome: Some(outcome.into()),
        ..row
    }
}

/// The proxy's own leg to a shard, for the client's leg `n`.
pub fn upstream(n: usize, like: &ConnectionRow, port: u32) -> ConnectionRow {
    let later = |at: Option<i64>| at.map(|at| at + 50_000);
    ConnectionRow {
        cookie: like.cookie + 1_000_000,
        role: "active",
        first_seen_ns: like.request_ns.unwrap_or(START) + 10_000,
        syn_received_ns: None,
        syn_ack_sent_ns: None,
        established_ns: later(like.request_ns),
        accepted_ns: None,
        request_ns: later(like.request_ns).map(|at| at + 10_000),
        response_ns: like.response_ns.map(|at| at - 10_000),
        upgraded_ns: like.upgraded_ns.map(|at| at - 10_000),
        local_port: 30_000 + n as u32,
        remote_port: port,
        port,
        leg_id: Some(n as u64),
        ..like.clone()
    }
}

pub fn linked(n: usize, row: ConnectionRow) -> ConnectionRow {
    ConnectionRow { leg_id: Some(n as u64), ..row }
}

pub struct Run {
    pub code: i32,
    pub report: Value,
}

impl Run {
    pub fn new(rows: &[ConnectionRow], args: &[&str]) -> Self {
        Self::with(rows, args, |_| ())
    }

    /// With other tables as well.
    pub fn with(
        rows: &[ConnectionRow],
        args: &[&str],
        write: impl FnOnce(&mut CaptureWriter),
    ) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
        writer.connections(rows).unwrap();
        let counter = |at_mono_ns, value| KernelRow {
            at_mono_ns,
            netns: 1,
            name: "ListenOverflows".into(),
            value,
        };
        writer.kernel(&[counter(START, 100.0), counter(START + S, 123.0)]).unwrap();
        write(&mut writer);
        writer.finish(&meta()).unwrap();
        let mut all = vec!["handshakes", "run", "--json"];
        all.extend(args);
        let output = analyzer(&all, temp.path());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = analyzer(&["handshakes", "run"], temp.path()).stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        Run {
            code: output.status.code().unwrap(),
            report: serde_json::from_slice(&output.stdout).unwrap(),
        }
    }

    pub fn causes(&self) -> Vec<(&str, u64)> {
        let causes = self.report["causes"].as_array().unwrap();
        causes
            .iter()
            .map(|cause| (cause["name"].as_str().unwrap(), cause["count"].as_u64().unwrap()))
            .collect()
    }
}

/// `of` gives the failing row for every `n` that is hit; the others are upgraded, 100 a second.
pub fn mixed(
    total: usize,
    hit: impl Fn(usize) -> bool,
    of: impl Fn(usize, i64) -> ConnectionRow,
) -> Vec<ConnectionRow> {
    (0..total)
        .map(|n| {
            let at = n as i64 * 10 * MS;
            if hit(n) { of(n, at) } else { upgraded(n, at) }
        })
        .collect()
}
