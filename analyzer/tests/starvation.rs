//! Too little CPU, told by what the kernel says of the processes, where their own word does not.

#[allow(dead_code, reason = "other tests of handshakes need more of it")]
mod attempts;
mod common;

use attempts::{Run, mixed, unanswered};
use capture::CaptureWriter;
use capture::schema::MetricRow;
use common::{MS, S, START};

const PAGE: &str = "kernel: lab, port 3005";
const USED: &str = "process_cpu_seconds_total";
const WAITED: &str = "process_run_queue_seconds_total";

/// From 3 to 5 s nobody is answered. Meanwhile the process has, of each second, what is given here.
fn run(used: f64, waited: Option<f64>) -> Run {
    let row = |at: i64, name: &str, value: f64| MetricRow {
        url: PAGE.into(),
        start_mono_ns: START + at * S - MS,
        end_mono_ns: START + at * S,
        name: Some(name.to_owned().into()),
        labels: None,
        value: Some(value),
        error: None,
    };
    let looks = (0..10).flat_map(|at| {
        let seconds = (at - 3).clamp(0, 2) as f64;
        let of_kernel = [Some((USED, used)), waited.map(|waited| (WAITED, waited))];
        of_kernel.into_iter().flatten().map(move |(name, each)| row(at, name, 7.0 + each * seconds))
    });
    let hit = |n: usize| (300..500).contains(&n);
    let rows = mixed(1_000, hit, |n, at| unanswered(n, at, 1_500 * MS, "no_response_client_left"));
    Run::with(&rows, &[], |writer: &mut CaptureWriter| {
        writer.metrics(&looks.collect::<Vec<_>>()).unwrap();
    })
}

#[test]
fn a_process_that_gets_no_processor_is_starved() {
    let starved = run(0.6, Some(0.38));
    assert_eq!(starved.causes(), [("cpu_starvation", 200)]);
    let evidence = starved.report["causes"][0]["evidence_for"].to_string();
    let expected = "by the kernel lab, port 3005 ran 60 % of the time then, and for 38 % was ready \
                    and had no processor";
    assert!(evidence.contains(expected), "{evidence}");
}

#[test]
fn one_that_gets_what_it_wants_is_not() {
    for (why, used, waited) in [
        ("it wanted little", 0.2, Some(0.3)),
        ("it got most of it", 0.8, Some(0.05)),
        ("it has many processors, and waits a little for each", 3.0, Some(0.3)),
        ("a capture from before this was read", 0.6, None),
    ] {
        assert_eq!(run(used, waited).causes(), [("server_hangs", 200)], "{why}");
    }
}
