//! Random servers against a brute-force oracle: for every health sample the connections are counted at
//! every millisecond of its interval, and the report must say the same.

mod common;
mod scene;

use std::fs;

use common::{MS, S, START_UNIX, analyzer, random};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use scene::{Conn, Scene};
use serde_json::Value;

const LENGTH: i64 = 12 * S;
/// `--settle`, which is given so that the oracle does not follow a default.
const SETTLE: i64 = 180 * MS;

/// How the server takes the end of a connection.
#[derive(Clone, Copy, Debug)]
enum Cleanup {
    Done,
    Missed,
    /// It never closes its end either; the connection is over all the same.
    Held,
}

/// Lives of clients in milliseconds with what comes of their end, and what the server miscounts.
type Course = (Vec<(i64, i64, Cleanup)>, Vec<(i64, i64)>);

fn courses() -> impl Strategy<Value = Course> {
    let cleanup = prop_oneof![
        6 => Just(Cleanup::Done),
        1 => Just(Cleanup::Missed),
        1 => Just(Cleanup::Held),
    ];
    let lives = prop::collection::vec((0..11_900i64, 1..6_000i64, cleanup), 0..25);
    let adjusted = prop::collection::vec((0..12_000i64, -3..=3i64), 0..4);
    (lives, adjusted)
}

fn scene((lives, adjusted): &Course) -> Scene {
    let mut scene = Scene::new(LENGTH);
    for &(from, length, cleanup) in lives {
        let conn = Conn::open(from * MS).ended((from + length) * MS, "remote", "rst");
        scene.conns.push(match cleanup {
            Cleanup::Done => conn,
            Cleanup::Missed => conn.leaked(),
            Cleanup::Held => conn.leaked().held(),
        });
    }
    scene.adjust = adjusted.iter().map(|(at, by)| (at * MS, *by)).collect();
    scene
}

/// Lowest and highest count of established connections from `from` to `to`.
fn extremes(scene: &Scene, from: i64, to: i64) -> (i64, i64) {
    let times = (from.max(0)..=to).step_by(MS as usize);
    let counts: Vec<i64> = times.map(|at| scene.established_at(at)).collect();
    (*counts.iter().min().unwrap(), *counts.iter().max().unwrap())
}

#[test]
fn every_sample_is_held_against_what_the_kernel_had_in_its_interval() {
    let mut runner = TestRunner::new(random(24));
    let result = runner.run(&courses(), |course| {
        let scene = scene(&course);
        let temp = tempfile::tempdir().unwrap();
        scene.write(&temp.path().join("run"));
        let settle = format!("{}ms", SETTLE / MS);
        let output = analyzer(&["report", "run", "-o", "out", "--settle", &settle], temp.path());
        prop_assert!(output.status.code().is_some_and(|code| code != 1 && code != 2));
        let report: Value =
            serde_json::from_slice(&fs::read(temp.path().join("out/report.json")).unwrap())
                .unwrap();
        let server = &report["captures"][0]["servers"][0];
        prop_assert_eq!(&server["basis"], "connections");
        let series = server["series"].as_array().unwrap();
        prop_assert_eq!(series.len() as i64, LENGTH / S);
        for (sample, point) in series.iter().enumerate() {
            // As the scene polls: two milliseconds in the middle of each second.
            let start = sample as i64 * S + S / 2;
            let end = start + 2 * MS;
            prop_assert_eq!(point["at_unix_ns"].as_i64(), Some(START_UNIX + end));
            let (low, high) = extremes(&scene, start - SETTLE, end);
            let reported = point["reported"].as_i64().unwrap();
            prop_assert_eq!(
                (&point["kernel_low"], &point["kernel_high"]),
                (&low.into(), &high.into()),
                "sample {}",
                sample
            );
            prop_assert_eq!(&point["phantoms"], (reported - high).max(0));
            prop_assert_eq!(&point["reverse_phantoms"], (low - reported).max(0));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
