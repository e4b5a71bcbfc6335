//! Random clients whose ports are used again and again, by a clock of their own, against what is known
//! of them: each is joined with its own connection, and those that were not recorded with none.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use capture::CaptureWriter;
use capture::meta::Meta;
use capture::schema::{ClockRow, ConnectionRow};
use common::{MS, S, START, START_UNIX, analyzer, blank_row, meta, random};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// How an end looks to the client, and to the kernel. Any may come with any, so that a client that is
/// joined with another's connection shows.
const CLIENT_ENDS: [(&str, &str); 4] =
    [("client", "close_frame"), ("client", "rst"), ("server", "fin"), ("network", "error")];
const KERNEL_ENDS: [(&str, &str); 4] =
    [("remote", "fin"), ("local", "fin"), ("remote", "rst"), ("local", "timeout")];

/// A client of a port. Times in milliseconds.
#[derive(Clone, Debug)]
struct Use {
    /// Since the end of the one before on the same port.
    after: i64,
    length: i64,
    client_end: usize,
    kernel_end: usize,
    recorded: bool,
    /// What the kernel side noticed late that it was established.
    late: i64,
}

#[derive(Clone, Debug)]
struct Course {
    /// By port.
    uses: Vec<Vec<Use>>,
    without_address: usize,
    /// What the clients' clock is ahead, in milliseconds.
    ahead: i64,
}

fn courses() -> impl Strategy<Value = Course> {
    let recorded = prop::bool::weighted(0.8);
    let late = prop_oneof![Just(0), 1..1_000i64];
    let one = (250..2_000i64, 5..1_500i64, 0..4usize, 0..4usize, recorded, late).prop_map(
        |(after, length, client_end, kernel_end, recorded, late)| Use {
            after,
            length,
            client_end,
            kernel_end,
            recorded,
            late: late.min(length - 1),
        },
    );
    let uses = prop::collection::vec(prop::collection::vec(one, 1..8), 1..9);
    (uses, 0..4usize, -5_000..5_000i64).prop_map(|(uses, without_address, ahead)| Course {
        uses,
        without_address,
        ahead,
    })
}

/// Every use with its port and its start in milliseconds. The first port's only one is recorded, so
/// that the clocks can be aligned.
fn timeline(course: &Course) -> Vec<(u16, i64, Use)> {
    let sure =
        Use { after: 300, length: 40, client_end: 0, kernel_end: 0, recorded: true, late: 0 };
    let ports = std::iter::once(vec![sure]).chain(course.uses.iter().cloned());
    let mut all = Vec::new();
    for (port, uses) in (20_000..).zip(ports) {
        let mut at = 0;
        for one in uses {
            at += one.after;
            all.push((port, at, one.clone()));
            at += one.length;
        }
    }
    all
}

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn write_capture(all: &[(u16, i64, Use)], dir: &Path) {
    let mut writer = CaptureWriter::create(dir, &meta()).unwrap();
    let length = 60 * S;
    let clock = |at| ClockRow { mono_ns: START + at, unix_ns: START_UNIX + at };
    writer.clock(&[clock(0), clock(length)]).unwrap();
    let mut rows = Vec::new();
    for (port, at, one) in all.iter().filter(|(_, _, one)| one.recorded) {
        let (by, how) = KERNEL_ENDS[one.kernel_end];
        let established = START + (at + 1) * MS;
        let closed = START + (at + one.length) * MS;
        let row = ConnectionRow {
            remote_address: IpAddr::V4(CLIENT),
            remote_port: u32::from(*port),
            first_seen_ns: established - MS / 2,
            established_ns: Some(established + one.late * MS),
            established_is_upper_bound: one.late != 0,
            left_established_ns: Some(closed),
            closed_ns: Some(closed),
            closed_by: Some(by),
            closed_how: Some(how),
            ..blank_row(rows.len())
        };
        // The same port of another host, at the same time.
        let other = ConnectionRow {
            remote_address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 8)),
            closed_how: Some("unlike"),
            ..blank_row(rows.len() + 1)
        };
        let other = ConnectionRow { remote_port: row.remote_port, ..other };
        rows.extend([row, other]);
    }
    writer.connections(&rows).unwrap();
    writer.finish(&Meta { ended_mono_ns: Some(START + length), ..meta() }).unwrap();
}

fn write_results(course: &Course, all: &[(u16, i64, Use)], path: &Path) {
    let on_client = |ms: i64| START_UNIX + (ms + course.ahead) * MS;
    let mut lines = String::new();
    for (port, at, one) in all {
        let (by, end) = CLIENT_ENDS[one.client_end];
        let line = json!({
            "started_unix_ns": on_client(*at),
            "connected_unix_ns": on_client(at + 1),
            "upgraded_unix_ns": on_client(at + 2),
            "closed_unix_ns": on_client(at + one.length),
            "local_address": CLIENT,
            "local_port": port,
            "outcome": "upgraded",
            "ended_by": by,
            "end": end,
        });
        let _ = writeln!(lines, "{line}");
    }
    for _ in 0..course.without_address {
        let line = json!({ "started_unix_ns": on_client(5), "outcome": "unknown" });
        let _ = writeln!(lines, "{line}");
    }
    fs::write(path, lines).unwrap();
}

#[test]
fn every_client_is_joined_with_its_own_connection() {
    let mut runner = TestRunner::new(random(24));
    let result = runner.run(&courses(), |course| {
        let all = timeline(&course);
        let temp = tempfile::tempdir().unwrap();
        write_capture(&all, &temp.path().join("run"));
        write_results(&course, &all, &temp.path().join("clients.jsonl"));
        let output =
            analyzer(&["clients", "run", "--client", "clients.jsonl", "--json"], temp.path());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();

        let recorded = all.iter().filter(|(_, _, one)| one.recorded).count();
        prop_assert_eq!(
            (&report["matched"], &report["unmatched"], &report["without_address"]),
            (&recorded.into(), &(all.len() - recorded).into(), &course.without_address.into())
        );
        let offset_ms = report["clock"]["offset_ns"].as_i64().unwrap() / MS;
        prop_assert!((offset_ms - course.ahead).abs() <= 1, "{}", offset_ms);
        let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (_, _, one) in all.iter().filter(|(_, _, one)| one.recorded) {
            let ((by, end), (kernel_by, how)) =
                (CLIENT_ENDS[one.client_end], KERNEL_ENDS[one.kernel_end]);
            let client = format!("upgraded, ended by {by}: {end}");
            *expected.entry((client, format!("{how} from {kernel_by}"))).or_default() += 1;
        }
        let views = report["views"].as_array().unwrap().iter();
        let found: BTreeMap<(String, String), u64> = views
            .map(|view| {
                let word = |name: &str| view[name].as_str().unwrap().to_owned();
                ((word("client"), word("kernel")), view["count"].as_u64().unwrap())
            })
            .collect();
        prop_assert_eq!(found, expected);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
