//! What grows is found with its rate; what has stopped growing, is noise, or came with load is not
//! accused; and a run that proves nothing says so.

mod common;
mod scene;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use capture::schema::{KERNEL_PAGE, MetricRow};
use common::{S, START, START_UNIX, analyzer};
use scene::{Conn, Scene};
use serde_json::Value;

/// Code, and the report of one capture or log.
fn leaks(args: &[&str], dir: &Path) -> (i32, Value) {
    let output = analyzer(&[&["leaks", "--json"], args].concat(), dir);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

fn text(args: &[&str], dir: &Path) -> String {
    let output = analyzer(&[&["leaks"], args].concat(), dir);
    String::from_utf8(output.stdout).unwrap()
}

fn followed<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["followed"].as_array().unwrap();
    all.iter().find(|found| found["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"))
}

/// A metric and its value at a second.
type Metric = (&'static str, fn(i64) -> f64);

/// Half an hour, a page every 10 s: values by the second.
fn prometheus_log(seconds: impl Iterator<Item = i64>, values: &[Metric]) -> String {
    let mut log = String::new();
    for second in seconds {
        let _ = writeln!(log, "# {}", 1_700_000_000 + second);
        for (name, of) in values {
            let _ = writeln!(log, "{name} {}", of(second));
        }
    }
    log
}

fn noise(second: i64) -> f64 {
    ((second / 10 * 7) % 5 - 2) as f64
}

#[test]
fn a_leak_of_goroutines_has_its_rate_and_a_plateau_none() {
    let dir = tempfile::tempdir().unwrap();
    let values: &[Metric] = &[
        ("go_goroutines", |s| 12.0 + (s / 60 * 30) as f64 + noise(s)),
        ("process_open_fds", |s| 9.0 + (s.min(300) / 10) as f64 + noise(s)),
        ("process_resident_memory_bytes", |s| 32_505_856.0 + noise(s) * 4096.0),
        ("process_start_time_seconds", |_| 1.6e9),
    ];
    let log = prometheus_log((0..=1800).step_by(10), values);
    fs::write(dir.path().join("metrics.log"), log).unwrap();
    let args = ["--log", "metrics.log", "--interval", "2m", "--duration", "30m"];
    let (code, report) = leaks(&args, dir.path());
    assert_eq!(code, 99);
    let goroutines = followed(&report, "goroutines");
    assert_eq!((&goroutines["shape"], &goroutines["level"]), (&"growth".into(), &"warning".into()));
    let rate = goroutines["per_minute"].as_f64().unwrap();
    assert!((rate - 30.0).abs() < 0.5, "{rate}");
    assert_eq!(followed(&report, "descriptors")["shape"], "plateau");
    assert_eq!(followed(&report, "memory_mb")["level"], "ok");
    assert_eq!(report["stability"]["restarts"], 0);
    assert_eq!(report["checkpoints"].as_array().unwrap().len(), 16);

    let shown = text(&args, dir.path());
    let line = |start: &str| {
        let found = shown.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start}: {shown}")).to_owned()
    };
    assert_eq!(line("Baseline:"), "Baseline: GOR=10 FD=7 MEM=31.0");
    // The fourth minute has 132, less two and a noise of one.
    assert!(line("[2/15] 4min:").starts_with("[2/15] 4min: GOR="), "{shown}");
    assert!(line("[15/15] 30min: GOR=").contains("/min) FD="));
    assert!(line("✗ leaks.goroutines_per_minute").ends_with("limit < 10"));
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");

    let output = analyzer(&[&["leaks", "--markdown"], &args[..]].concat(), dir.path());
    let markdown = String::from_utf8(output.stdout).unwrap();
    assert!(
        markdown.contains("| Metric | Baseline | Final | Growth | Rate/min | Target | Status |")
    );
    assert!(markdown.contains("| < 10 | ! warning, growing |"), "{markdown}");
    assert!(markdown.contains("**Connection reuse**: not known; name a pool's"), "{markdown}");
    // Started at 1.6e9, last seen at 1.7e9 + 1800: 100,001,800 s.
    let stability = markdown.lines().find(|line| line.starts_with("**Stability**")).unwrap();
    assert!(
        stability.ends_with("observed for 30.0 min, up for 3years 2months 19h 9m 28s."),
        "{stability}"
    );
    assert!(markdown.contains("**Conclusion** (! warning): There is a leak: goroutines grow by"));
}

#[test]
fn a_healthy_run_holds_and_a_stopped_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let values: &[Metric] =
        &[("go_goroutines", |s| 50.0 + noise(s)), ("process_open_fds", |s| 20.0 + noise(s))];
    let path = dir.path().join("log");
    fs::write(&path, prometheus_log((0..=1800).step_by(10), values)).unwrap();
    let args = ["--log", "log", "--interval", "2m", "--duration", "30m", "--preset", "smoke-30m"];
    let (code, report) = leaks(&args, dir.path());
    assert_eq!((code, &report["gaps"]), (0, &Value::Array(vec![])));

    // Twelve minutes of thirty.
    fs::write(&path, prometheus_log((0..=720).step_by(10), values)).unwrap();
    assert_eq!(leaks(&args, dir.path()).0, 99);
    let markdown = text(&[&args[..], &["--markdown"]].concat(), dir.path());
    assert!(markdown.contains("\n**Conclusion** (✗ not stable): Nothing that was"), "{markdown}");
    // No checkpoint for more than one and a half intervals.
    let seconds = (0..=1800).step_by(10).filter(|s| !(600..1000).contains(s));
    fs::write(&path, prometheus_log(seconds, values)).unwrap();
    let (code, report) = leaks(&args, dir.path());
    assert_eq!((code, report["gaps"].as_array().unwrap().len()), (99, 1));
    // Without a preset as well, if checkpoints were asked for so often.
    let usual = ["--log", "log", "--interval", "2m"];
    let text = text(&usual, dir.path());
    assert_eq!(leaks(&usual, dir.path()).0, 99);
    assert!(
        text.contains("✗ leaks.gaps                                  1   limit == 0\n"),
        "{text}"
    );
    // The process was another one from then on.
    let restarted: &[Metric] = &[
        ("go_goroutines", |s| 50.0 + noise(s)),
        ("process_start_time_seconds", |s| if s < 900 { 1.6e9 } else { 1.7e9 }),
    ];
    fs::write(&path, prometheus_log((0..=1800).step_by(10), restarted)).unwrap();
    let (code, report) = leaks(&args, dir.path());
    assert_eq!((code, &report["stability"]["restarts"]), (99, &1.into()));
    // Three pages tell no rate: 4, not 0.
    fs::write(&path, prometheus_log((0..=240).step_by(120), values)).unwrap();
    let rule = ["--log", "log", "--threshold", "leaks.goroutines_per_minute < 10"];
    assert_eq!(leaks(&rule, dir.path()).0, 4);
    let open = self::text(&rule, dir.path());
    assert!(
        open.contains("\n    nothing of this name was followed long enough: record with"),
        "{open}"
    );
    let markdown = self::text(&[&rule[..], &["--markdown"]].concat(), dir.path());
    assert!(
        markdown.contains("\n- leaks.goroutines\\_per\\_minute: nothing of this"),
        "{markdown}"
    );
    let other = ["--log", "log", "--threshold", "leaks.heap_per_minute < 10"];
    assert_eq!(leaks(&other, dir.path()).0, 4);
}

/// How long a cleanup takes is no leak, however it grows; what it may be is for a threshold to say, and that
/// shows its unit.
#[test]
fn a_number_of_the_users_choice_is_judged_by_the_users_threshold_alone() {
    let dir = tempfile::tempdir().unwrap();
    let values: &[Metric] =
        &[("go_goroutines", |s| 50.0 + noise(s)), ("cleanup_ms", |s| 3.0 + (s / 10) as f64)];
    fs::write(dir.path().join("log"), prometheus_log((0..=1800).step_by(10), values)).unwrap();
    let args = ["--log", "log", "--series", "cleanup_ms=cleanup_ms"];
    let (code, report) = leaks(&args, dir.path());
    let cleanup = followed(&report, "cleanup_ms");
    assert_eq!((code, &cleanup["level"]), (0, &"no_target".into()));
    assert_eq!(
        report["conclusion"],
        "Nothing that was followed grows beyond its target. Also growing, without a target: \
         cleanup_ms grow by 6.0 a minute (a threshold on it decides)."
    );
    let limited = |rule| text(&[&args[..], &["--threshold", rule]].concat(), dir.path());
    let line = "✗ leaks.cleanup_ms_per_minute          6 ms/min   limit < 1\n";
    assert!(limited("leaks.cleanup_ms_per_minute < 1").contains(line));
    let line = "✓ leaks.cleanup_ms_final                 183 ms   limit < 500\n";
    assert!(limited("leaks.cleanup_ms_final < 500").contains(line));
}

/// Ten clients a second come and go, and every second end leaks a phantom and two tasks.
#[test]
fn growth_goes_with_phantoms_in_a_capture() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(120 * S);
    for n in 0..240 {
        let conn = Conn::open(n * S / 2).ended(n * S / 2 + 3 * S, "remote", "rst");
        // Only in the first and the third quarter.
        let leaks = n % 2 == 0 && (n < 60 || (120..180).contains(&n));
        scene.conns.push(match leaks {
            // The process keeps every other one's descriptor as well.
            true if n % 4 == 0 => conn.leaked().held(),
            true => conn.leaked(),
            false => conn,
        });
    }
    scene.fields = Some(|at| {
        let second = (at / S - 3).max(0);
        let leaked = second.min(30) + (second - 60).clamp(0, 30);
        format!("{{\".checks.goroutines.current\":{}}}", 20 + 2 * leaked)
    });
    scene.write(&dir.path().join("run"));
    let (code, report) = leaks(&["run"], dir.path());
    assert_eq!(code, 99);
    assert_eq!(followed(&report, "phantoms")["final"], 60.0);
    assert_eq!(followed(&report, "goroutines")["growth"], 120.0);
    assert_eq!(followed(&report, "sockets_close_wait")["final"], 30.0);
    let related = report["related"][0].as_str().unwrap();
    assert!(related.starts_with("goroutines grow by 2.0"), "{related}");
    assert!(related.contains("for each phantom, in the same stretches of time"), "{related}");
    // The established ones are load.
    assert_eq!(followed(&report, "sockets_established")["level"], "ok");

    let output = analyzer(&["report", "run", "--preset", "smoke-30m", "-o", "out"], dir.path());
    assert_eq!(output.status.code(), Some(99));
    let out = dir.path().join("out");
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    let markdown = fs::read_to_string(out.join("report.md")).unwrap();
    for text in [html.as_str(), &markdown.replace('\\', "")] {
        assert!(text.contains("leaks.goroutines_per_minute"), "{text}");
        assert!(text.contains("There is a leak: goroutines grow by"));
    }
}

/// Ten clients a second come, and stay; each takes two tasks, and none is leaked. Every tenth is counted, and
/// is not there: that is no load.
#[test]
fn what_comes_with_the_load_is_not_accused() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(60 * S);
    for n in 0..200 {
        let conn = Conn::open(10 * S + n * S / 10);
        let phantom = n % 10 == 3;
        scene.conns.push(if phantom {
            let at = conn.from + S / 20;
            conn.ended(at, "remote", "rst").leaked()
        } else {
            conn
        });
    }
    scene.fields = Some(|at| {
        let clients = ((at - 10 * S).max(0) / (S / 10)).min(200);
        format!("{{\".goroutines\":{}}}", 1 + 2 * clients)
    });
    scene.length = 35 * S;
    scene.write(&dir.path().join("run"));
    let rule = ["run", "--threshold", "leaks.goroutines_per_minute < 10"];
    let (code, report) = leaks(&rule, dir.path());
    let goroutines = followed(&report, "goroutines");
    assert_eq!((&goroutines["growth"], &goroutines["with_load"]), (&400.0.into(), &true.into()));
    assert_eq!((&goroutines["level"], code), (&"unknown".into(), 4));
    let phantoms = followed(&report, "phantoms");
    assert_eq!((&phantoms["final"], &phantoms["with_load"]), (&20.0.into(), &false.into()));
    let conclusion = report["conclusion"].as_str().unwrap();
    assert!(conclusion.starts_with("There is a leak: phantoms grow by "), "{conclusion}");
    let load = "Grows with the open connections, which may be load: goroutines.";
    assert!(conclusion.contains(load), "{conclusion}");
    let shown = text(&rule, dir.path());
    assert!(shown.contains("\n    chance or the connections that opened explain this"), "{shown}");
}

/// Eight tabs at once, and nobody comes after them: no rate tells a step, and what it left is there to the end.
#[test]
fn phantoms_that_stay_are_a_leak_though_no_more_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(60 * S);
    scene.conns =
        (0..8).map(|_| Conn::open(5 * S).ended(8 * S, "remote", "fin").leaked()).collect();
    scene.write(&dir.path().join("run"));
    let (_, report) = leaks(&["run"], dir.path());
    let phantoms = followed(&report, "phantoms");
    assert_eq!((&phantoms["final"], &phantoms["level"]), (&8.0.into(), &"warning".into()));
    assert_eq!(phantoms["shape"], "plateau");
    let said = "There is a leak: phantoms grew by 8 in 1 s, and stayed.";
    assert_eq!(report["conclusion"], said);
}

/// A server that dies explains what else there is to see, and stands first.
#[test]
fn a_server_that_dies_is_the_headline() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut scene = Scene::new(30 * S);
    scene.conns = (0..23).map(|n| Conn::open(n * S / 10).ended(20 * S, "local", "rst")).collect();
    let processes = |second: i64| MetricRow {
        url: format!("{KERNEL_PAGE}web, port 3005").into(),
        start_mono_ns: START + second * S,
        end_mono_ns: START + second * S,
        name: Some("processes".into()),
        labels: None,
        value: Some(if second < 20 { 1.0 } else { 0.0 }),
        error: None,
    };
    scene.metrics = (0..30).map(processes).collect();
    scene.write(&run);
    let clients: String = (0..23)
        .map(|n| {
            let (from, to) = (START_UNIX + n * S / 10, START_UNIX + 20 * S);
            format!(
                "{{\"started_unix_ns\":{from},\"upgraded_unix_ns\":{from},\"closed_unix_ns\":{to},\
                 \"outcome\":\"upgraded\",\"ended_by\":\"server\",\"end\":\"rst\"}}\n"
            )
        })
        .collect();
    fs::write(dir.path().join("clients"), clients).unwrap();
    let args = ["report", "run", "--client", "clients", "--json", "--preset", "smoke-30m"];
    let output = analyzer(&args, dir.path());
    assert_eq!(output.status.code(), Some(99));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"]["headline"], "the server stopped listening: web, port 3005");
    let said = "web, port 3005 was gone from 22:13:40 UTC, and did not come back. 23 connections \
                ended by the server or the network.";
    let sentences = report["verdict"]["sentences"].as_array().unwrap();
    assert_eq!(sentences[0], said);
}

/// A number that the probe itself read of the processes that listen on a port.
fn of_kernel(name: &'static str, second: i64, value: f64) -> MetricRow {
    MetricRow {
        url: format!("{KERNEL_PAGE}web, port 3005").into(),
        start_mono_ns: START + second * S,
        end_mono_ns: START + second * S,
        name: Some(name.into()),
        labels: None,
        value: Some(value),
        error: None,
    }
}

/// The oldest of several workers ends, and the next was there already; only who started after the last look
/// proves that nobody of before is left.
#[test]
fn a_restart_is_a_process_that_was_not_there_before() {
    let dir = tempfile::tempdir().unwrap();
    let begun = START_UNIX as f64 / 1e9;
    let restarts = |start: &dyn Fn(i64) -> f64| {
        let mut scene = Scene::new(30 * S);
        let looks = (0..30).flat_map(|s| {
            [("process_start_time_seconds", start(s)), ("process_threads", 3.0)]
                .map(|(name, value)| of_kernel(name, s, value))
        });
        scene.metrics = looks.collect();
        let run = dir.path().join("run");
        let _ = fs::remove_dir_all(&run);
        scene.write(&run);
        let (_, report) = leaks(&["run"], dir.path());
        (report["stability"]["restarts"].clone(), report["conclusion"].to_string())
    };
    let workers = |s| if s < 9 { begun - 90.0 } else { begun - 60.0 };
    assert_eq!(restarts(&workers).0, 0, "the oldest of two workers ended");
    assert_eq!(restarts(&|s| begun + if s < 9 { -90.0 } else { -100.0 }).0, 0);
    let (count, said) = restarts(&|s| begun + if s < 9 { -90.0 } else { 8.25 });
    assert_eq!(count, 1);
    assert!(said.contains("The process was restarted once."), "{said}");
    let thrice = |s| match s {
        0..9 => begun - 90.0,
        9..13 => begun + 8.25,
        13..23 => begun + 12.5,
        _ => begun + 22.75,
    };
    let (count, said) = restarts(&thrice);
    assert_eq!(count, 3);
    assert!(said.contains("The process was restarted 3 times."), "{said}");
}

/// A page that several processes answer in turn, as behind a balancer, tells of none that was replaced.
#[test]
fn processes_that_answer_in_turn_are_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let turns: &[Metric] = &[
        ("process_start_time_seconds", |s| if s % 40 < 20 { 1.6e9 } else { 1.65e9 }),
        ("go_goroutines", |s| 50.0 + noise(s)),
    ];
    fs::write(dir.path().join("log"), prometheus_log((0..=1800).step_by(10), turns)).unwrap();
    let (_, report) = leaks(&["--log", "log"], dir.path());
    assert_eq!(report["stability"]["restarts"], 0);
}

/// What Docker's check said each second.
#[test]
fn the_health_of_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(30 * S);
    let healthy = |second: i64| MetricRow {
        url: format!("{KERNEL_PAGE}web, port 3005").into(),
        start_mono_ns: START + second * S,
        end_mono_ns: START + second * S,
        name: Some("container_healthy".into()),
        labels: None,
        value: Some(if (13..20).contains(&second) { 0.0 } else { 1.0 }),
        error: None,
    };
    scene.metrics = (0..30).map(healthy).collect();
    scene.write(&dir.path().join("run"));
    let (_, report) = leaks(&["run"], dir.path());
    let looks = ["container_looks", "container_unhealthy"].map(|name| &report["stability"][name]);
    assert_eq!(looks, [&30.into(), &7.into()] as [&Value; 2]);
    let markdown = text(&["run", "--markdown"], dir.path());
    assert!(
        markdown.contains(" answers unhealthy, container unhealthy in 7 of 30 looks"),
        "{markdown}"
    );
}

/// Two clients a second come and go, and each leaves a task behind; the requests for the health body, which
/// are connections as well, do not.
#[test]
fn growth_goes_with_clients_that_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(120 * S);
    for n in 0..200 {
        scene.conns.push(Conn::open(n * S / 2).ended(n * S / 2 + 3 * S, "remote", "fin"));
    }
    scene.fields =
        Some(|at| format!("{{\".goroutines\":{}}}", 20 + (at / S - 3).clamp(0, 100) * 2));
    scene.write(&dir.path().join("run"));
    let (code, report) = leaks(&["run"], dir.path());
    assert_eq!(code, 99);
    let related = report["related"].as_array().unwrap();
    assert_eq!(related.len(), 1, "{related:?}");
    let related = related[0].as_str().unwrap();
    assert!(
        related.starts_with("goroutines grow by 1.00 for each connection that ended, "),
        "{related}"
    );
}

/// A pool that opens a connection for each request, where it should use them again.
#[test]
fn a_pool_that_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let pool = |idle: f64, reuse: f64| -> Vec<(String, String)> {
        let mut log = String::new();
        for second in (0..=1800).step_by(10) {
            let _ = writeln!(log, "# {}", 1_700_000_000 + second);
            let _ = writeln!(log, "pool_idle_connections {idle}\npool_reuse_percent {reuse}");
        }
        fs::write(dir.path().join("log"), log).unwrap();
        let (code, report) = leaks(&["--log", "log"], dir.path());
        let thresholds = report["thresholds"].as_array().unwrap().iter();
        let states: Vec<_> = thresholds
            .filter(|one| one["name"].as_str().unwrap().starts_with("leaks.pool_"))
            .map(|one| {
                (one["limit"].as_str().unwrap().into(), one["state"].as_str().unwrap().into())
            })
            .collect();
        let crossed = states.iter().any(|(_, state)| state == "crossed");
        let said = [" No idle connection is left in the pool.", " Only 80.0 % of the pool's"];
        let conclusion = report["conclusion"].as_str().unwrap();
        assert_eq!(said.map(|one| conclusion.contains(one)), [idle == 0.0, reuse == 80.0]);
        assert_eq!(code, if crossed { 99 } else { 0 }, "{report}");
        states
    };
    let of = |idle: &str, reuse: &str| {
        [("> 0", idle), ("> 80", reuse)].map(|(limit, state)| (limit.into(), state.into())).to_vec()
    };
    assert_eq!(pool(3.0, 97.5), of("held", "held"));
    assert_eq!(pool(0.0, 80.0), of("crossed", "crossed"));
}

/// Of a proxy there are its connections, and of a page without them the numbers that it has, and the line that
/// could not be read.
#[test]
fn the_pages_of_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let page = |minute: i64, active: &str| {
        format!(
            "{}\nActive connections: {active} \nserver accepts handled requests\n 5 5 9 \n\
             Reading: 0 Writing: 1 Waiting: 2 \n",
            1_700_000_000 + 60 * minute
        )
    };
    let log = dir.path().join("log");
    fs::write(&log, (0..5).map(|n| page(n, &(3 + n).to_string())).collect::<String>()).unwrap();
    let shown = text(&["--log", "log", "--interval", "2m"], dir.path());
    assert!(shown.contains("\nBaseline: CONN=3\n[1/2] 2min: CONN=5 (+2)\n"), "{shown}");

    fs::write(&log, page(0, "many")).unwrap();
    let output = analyzer(&["leaks", "--log", "log"], dir.path());
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "analyzer: nothing was followed over time: name a number with --series NAME=PATH, of \
         nginx_connections_accepted, nginx_connections_handled, nginx_connections_reading, \
         nginx_connections_waiting, nginx_connections_writing, nginx_http_requests_total\n\
         unreadable: log:2: expected a sample such as `go_goroutines 12`, or a time\n"
    );
}

#[test]
fn nothing_to_follow_is_inconclusive_and_nothing_to_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = analyzer(&["leaks"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message, "analyzer: nothing to read: name a capture, or a log with --log\n");
    for (log, why) in [
        ("<html>busy</html>\n", "line 1: expected a sample such as `go_goroutines 12`"),
        ("1700000000\ngo_goroutines twelve\n", "line 2: expected a sample such as"),
        ("1700000000\ngo_goroutines{a=\"b 12\n", "line 2: expected a sample such as"),
        ("{\"time\":\"noon\",\"goroutines\":1}\n", "line 1: `noon` is no time"),
        ("{\"time\":1700000000,\n", "line 1: EOF while parsing"),
        ("{\"goroutines\":1}\n", "line 1: no time: expected a field time, timestamp"),
    ] {
        fs::write(dir.path().join("log"), log).unwrap();
        let output = analyzer(&["leaks", "--log", "log"], dir.path());
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).unwrap();
        let start = "analyzer: log: no line has a number with a time; ";
        assert!(message.starts_with(&format!("{start}{why}")), "{log}{message}");
    }
}
