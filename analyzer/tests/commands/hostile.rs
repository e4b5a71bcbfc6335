//! A capture comes from another machine, and so may be made to hang, to fill the memory, or to steer the
//! terminal of who reads it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use capture::CaptureWriter;
use capture::cell::Comm;
use capture::meta::{META_FILE, Meta, Selection};
use capture::schema::{
    ClockRow, ConnectionRow, ContainerRow, HealthRow, LossRow, MetricRow, Table,
};

use crate::common::{CGROUP, S, START, START_UNIX, analyzer, blank_row, meta};
use crate::refused;
use crate::scene::Scene;

/// What turns a terminal's text red, sets its title, or clears it.
const ESCAPES: &str = "\u{1b}[31m\u{1b}]0;title\u{7}\u{9b}2J\r";

fn ended() -> Meta {
    Meta { ended_mono_ns: Some(START + 10 * S), ..meta() }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    // Nobody reads how the server was asked for its list.
    let tables = Table::ALL.into_iter().filter(|table| *table != Table::Listings);
    for name in tables.map(Table::file_name).chain([META_FILE.to_owned()]) {
        for make in [pipe, zeros] {
            let run = temp.path().join("run");
            CaptureWriter::create(&run, &ended()).unwrap().finish(&ended()).unwrap();
            fs::remove_file(run.join(&name)).unwrap();
            make(&run.join(&name));
            let (code, message) = refused(&["report", "run"], temp.path());
            assert_eq!(
                (code, message),
                (2, format!("analyzer: cannot read run/{name}: it is no regular file"))
            );
            fs::remove_dir_all(&run).unwrap();
        }
    }
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn zeros(path: &Path) {
    symlink("/dev/zero", path).unwrap();
}

#[test]
fn a_million_losses_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = CaptureWriter::create(&temp.path().join("run"), &ended()).unwrap();
    // Each with a reason of its own, at the same time; and one reason, with gaps.
    let letters = |n: i64| n.to_string().bytes().map(|digit| char::from(digit + 50)).collect();
    for n in 0..500_000 {
        let row = |reason: String, from: i64| LossRow {
            from_mono_ns: START + from,
            to_mono_ns: START + from + 1,
            reason: reason.into(),
            count: 1,
        };
        writer.loss(&[row(letters(n), 0), row("one".into(), 2 * n)]).unwrap();
    }
    writer.finish(&ended()).unwrap();
    let output = analyzer(&["report", "run"], temp.path());
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

/// Every text that a capture has, as somebody could write it.
fn write_steering(dir: &Path) {
    let text = || format!("x{ESCAPES}");
    let meta = Meta {
        host: text(),
        kernel: text(),
        boot_id: text(),
        probe_version: text(),
        command_line: vec![text(), text()],
        backend: text(),
        hooks: vec![text()],
        degraded: vec![text()],
        selection: Selection {
            containers: vec![text()],
            roles: vec![text()],
            health_urls: vec![text()],
            metrics_urls: vec![text()],
            table_urls: vec![text()],
            ..Selection::default()
        },
        ..ended()
    };
    let mut writer = CaptureWriter::create(dir, &meta).unwrap();
    let clock = |ns| ClockRow { mono_ns: START + ns, unix_ns: START_UNIX + ns };
    writer.clock(&[clock(0), clock(10 * S)]).unwrap();
    let container = ContainerRow {
        cgroup_id: CGROUP,
        first_seen_mono_ns: START,
        path: Some(text().into()),
        runtime: text().into(),
        container_id: Some(text().into()),
        name: text().into(),
    };
    writer.containers(&[container]).unwrap();
    let row = |n| ConnectionRow {
        comm: Some(Comm(*b"x\x1b[31m\r\x07\0\0\0\0\0\0\0\0")),
        state: ESCAPES,
        class: ESCAPES,
        outcome: Some(text().into()),
        http_status: Some(503),
        http_reason: Some(text().into()),
        closed_by: Some(ESCAPES),
        closed_how: Some(ESCAPES),
        error: Some(text().into()),
        established_ns: Some(START + S),
        left_established_ns: Some(START + 4 * S),
        closed_ns: Some(START + 4 * S),
        ..blank_row(n)
    };
    writer.connections(&(0..20).map(row).collect::<Vec<_>>()).unwrap();
    let loss = |n| LossRow {
        from_mono_ns: START + n * S,
        to_mono_ns: START + n * S + 1,
        reason: format!("x{n}{ESCAPES}").into(),
        count: 1,
    };
    writer.loss(&(0..2).map(loss).collect::<Vec<_>>()).unwrap();
    for second in 0..10 {
        let (at, fields) = (START + second * S, format!("{{\".x\\u001b[31m\":{second}}}"));
        let health = HealthRow {
            url: text().into(),
            start_mono_ns: at,
            end_mono_ns: at + 1,
            local_address: None,
            local_port: None,
            http_status: Some(200),
            error: (second > 7).then(|| text().into()),
            reported: Some(40 + 3 * second),
            fields: Some(fields.into()),
            kernel_min: None,
            kernel_max: None,
        };
        writer.health(&[health]).unwrap();
        writer.counts(&[Scene::new(10 * S).counts(second * S)]).unwrap();
        let metric = |name: String| MetricRow {
            url: text().into(),
            start_mono_ns: at,
            end_mono_ns: at + 1,
            name: Some(name.into()),
            labels: Some(text().into()),
            value: Some(50.0 * second as f64),
            error: None,
        };
        writer.metrics(&[metric("go_goroutines".into()), metric(text())]).unwrap();
    }
    writer.finish(&meta).unwrap();
}

#[test]
fn no_text_of_a_capture_steers_a_terminal() {
    let temp = tempfile::tempdir().unwrap();
    write_steering(&temp.path().join("run"));
    fs::write(
        temp.path().join("clients.jsonl"),
        format!("{{\"type\":\"x{0}\"}}\nx{0}\n", ESCAPES.replace('\r', "")),
    )
    .unwrap();
    fs::write(temp.path().join("steps.toml"), format!("[thresholds]\n\"x{ESCAPES}\" = 3\n"))
        .unwrap();
    for arguments in [
        &["report", "run", "-o", "out"][..],
        &["phantoms", "run"],
        &["handshakes", "run"],
        &["shards", "run"],
        &["leaks", "run"],
        &["leaks", "run", "--markdown"],
        &["clients", "run", "--client", "clients.jsonl"],
        &["compare", "run", "run"],
        &["connections", "run"],
        &["connections", "run", "--summary"],
        &["report", "run", "--container", "nope"],
        &["report", "run", "--thresholds", "steps.toml"],
        &["export", "run", "--parquet", "fleet"],
        &["phantoms", "fleet"],
    ] {
        let output = analyzer(arguments, temp.path());
        for said in [&output.stdout, &output.stderr] {
            assert_plain(&format!("{arguments:?}"), &String::from_utf8_lossy(said));
        }
    }
    for file in ["report.md", "report.html"] {
        assert_plain(file, &fs::read_to_string(temp.path().join("out").join(file)).unwrap());
    }
}

#[track_caller]
fn assert_plain(what: &str, text: &str) {
    let steering = text.lines().find(|line| line.contains(char::is_control));
    assert_eq!(steering, None, "{what}");
}
