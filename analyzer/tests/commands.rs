//! The commands as a user runs them: files written, rows printed, bad input refused with help.

mod common;
#[path = "commands/hostile.rs"]
mod hostile;
#[path = "commands/paths.rs"]
mod paths;
mod scene;
mod schema;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use common::{MS, S, START_UNIX, analyzer};
use scene::{Conn, Scene};
use serde_json::Value;

fn scene() -> Scene {
    let mut scene = Scene::new(20 * S);
    for n in 0..100 {
        let conn = Conn::open(n * 10 * MS);
        scene.conns.push(match n {
            0..23 => conn.ended(10 * S + n * MS, "remote", "rst").leaked(),
            23..30 => conn.ended(10 * S, "remote", "fin").leaked().held(),
            _ => conn,
        });
    }
    scene
}

fn stdout(args: &[&str], dir: &Path) -> String {
    let output = analyzer(args, dir);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and message.
fn refused(args: &[&str], dir: &Path) -> (i32, String) {
    let output = analyzer(args, dir);
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    let message = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), message.trim_end().to_owned())
}

#[test]
fn report_writes_three_files_that_say_the_same() {
    let temp = tempfile::tempdir().unwrap();
    scene().write(&temp.path().join("run"));
    let output =
        analyzer(&["report", "run", "-o", "out/deep", "--max-phantoms", "50%"], temp.path());
    assert_eq!(output.status.code(), Some(0));
    let out = temp.path().join("out/deep");
    let json: Value = serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
    let markdown = fs::read_to_string(out.join("report.md")).unwrap();
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(json["captures"][0]["servers"][0]["findings"].as_array().unwrap().len(), 2);
    for text in [&markdown, &html] {
        assert!(text.contains("23 × application leak"));
        assert!(text.contains("7 × descriptor leak"));
    }
    // Offline: nothing is fetched.
    for fetched in ["src=", "href=", "url(", "@import"] {
        assert!(!html.contains(fetched), "{fetched}");
    }
    let terminal = String::from_utf8(output.stdout).unwrap();
    assert!(terminal.lines().all(|line| line.chars().count() <= 100), "{terminal}");
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_the_threads() {
    let temp = tempfile::tempdir().unwrap();
    let mut scene = scene();
    scene.fields = Some(|at| format!("{{\".goroutines\":{}}}", 20 + at / S));
    scene.write(&temp.path().join("run"));
    let mut lines = String::new();
    for (n, conn) in scene.conns.iter().enumerate() {
        let start = START_UNIX + conn.from;
        let _ = writeln!(
            lines,
            r#"{{"started_unix_ns":{},"upgraded_unix_ns":{},"local_address":"10.0.0.9","local_port":{},"outcome":"upgraded"}}"#,
            start - 1000,
            start + 1000,
            10_000 + n,
        );
    }
    fs::write(temp.path().join("clients.jsonl"), lines).unwrap();
    let run = |threads: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_analyzer"))
            .args(["report", "run", "-o", "out", "--client", "clients.jsonl", "--json"])
            .env("POLARS_MAX_THREADS", threads)
            .current_dir(temp.path())
            .output()
            .unwrap();
        (output.stdout, fs::read(temp.path().join("out/report.html")).unwrap())
    };
    let once = run("1");
    assert!(!once.0.is_empty());
    assert_eq!(once, run("1"));
    assert_eq!(once, run("7"));
}

/// Every value of a report is one that its schema has, and nothing that the schema demands is missing.
#[test]
fn the_report_is_what_its_schema_says() {
    let temp = tempfile::tempdir().unwrap();
    let mut scene = scene();
    scene.fields = Some(|at| format!("{{\".goroutines\":{}}}", 20 + at / S));
    scene.write(&temp.path().join("run"));
    let schema: Value = serde_json::from_str(&stdout(&["schema", "report"], temp.path())).unwrap();
    assert_eq!(schema["title"], "Report");
    let clients = format!("{}/tests/clients/k6.json", env!("CARGO_MANIFEST_DIR"));
    let args = ["report", "run", "-o", "out", "--client", &clients, "--json"];
    let report: Value = serde_json::from_slice(&analyzer(&args, temp.path()).stdout).unwrap();
    assert!(report["captures"][0]["leaks"].is_object() && report["clients"].is_object());
    let mut wrong = Vec::new();
    schema::hold_against(&report, &schema, &schema, "report", &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let mut other = report.clone();
    other["verdict"]["state"] = "perhaps".into();
    other["captures"][0]["more"] = 1.into();
    other["thresholds"][0].as_object_mut().unwrap().remove("limit");
    schema::hold_against(&other, &schema, &schema, "report", &mut wrong);
    assert_eq!(wrong.len(), 3, "{}", wrong.join("\n"));
}

#[test]
fn phantoms_prints_findings() {
    let temp = tempfile::tempdir().unwrap();
    scene().write(&temp.path().join("run"));
    let text = stdout(&["phantoms", "run"], temp.path());
    assert!(text.starts_with("✗  23 phantoms: application leak\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let lines: Vec<Value> = stdout(&["phantoms", "run", "--json"], temp.path())
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = lines.iter().map(|line| (&line["kind"], &line["count"])).collect();
    let expected = [("application_leak", 23), ("descriptor_leak", 7)];
    assert_eq!(kinds.len(), 2);
    for ((kind, count), (expected_kind, expected_count)) in kinds.into_iter().zip(expected) {
        assert_eq!((kind, count), (&expected_kind.into(), &expected_count.into()));
    }
}

#[test]
fn connections_as_table_csv_and_json_lines() {
    let temp = tempfile::tempdir().unwrap();
    scene().write(&temp.path().join("run"));
    // 100 clients and 20 health polls.
    let json = stdout(&["connections", "run", "--json"], temp.path());
    assert_eq!(json.lines().count(), 120);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    let schema = stdout(&["schema", "connections", "--json"], temp.path());
    assert_eq!(first.as_object().unwrap().len(), schema.lines().count());
    assert_eq!(first["port"], 3005);
    assert_eq!(first["seeded"], false);
    assert!(first["http_status"].is_null());

    let csv = stdout(&["connections", "run", "--csv", "--state", "close_wait"], temp.path());
    assert_eq!(csv.lines().count(), 8);
    assert!(csv.starts_with("cookie,generation,netns,"));
    let table = stdout(
        &["connections", "run", "--port", "1-3000,3005", "--container", "web", "--state", "close"],
        temp.path(),
    );
    assert_eq!(table.lines().count(), 1 + 23 + 20);
    assert!(table.lines().all(|line| line.chars().count() <= 100));
    let none = stdout(&["connections", "run", "--port", "80", "--json"], temp.path());
    assert_eq!(none, "");
    let chosen =
        stdout(&["connections", "run", "--columns", "remote_port,state", "--csv"], temp.path());
    assert_eq!(chosen.lines().next(), Some("remote_port,state"));
}

/// Clients whose clock is three seconds behind, one of them twice on the same port, one that never
/// reached the host, one without an address, and a last line that was cut off.
#[test]
fn clients_are_joined_by_address() {
    let temp = tempfile::tempdir().unwrap();
    let scene = scene();
    scene.write(&temp.path().join("run"));
    let mut lines = String::new();
    let mut line = |from: i64, port: &str, outcome: &str, closed: Option<i64>| {
        let started = START_UNIX + from - 3 * S;
        let closed = closed.map_or("null".to_owned(), |at| (START_UNIX + at - 3 * S).to_string());
        let _ = writeln!(
            lines,
            r#"{{"started_unix_ns":{},"connected_unix_ns":{},"upgraded_unix_ns":{},"closed_unix_ns":{closed},"local_address":"10.0.0.9","local_port":{port},"outcome":"{outcome}","ended_by":"client","end":"rst","messages_sent":2,"messages_received":1,"unknown_field":[1]}}"#,
            started - 80_000,
            started + 20_000,
            started + 120_000,
        );
    };
    for (n, conn) in scene.conns.iter().enumerate() {
        line(conn.from, &(10_000 + n).to_string(), "upgraded", conn.to);
    }
    line(5 * S, "45000", "unknown", None);
    line(6 * S, "null", "no_local_port", None);
    lines.push_str(r#"{"started_unix_ns":17000"#);
    fs::write(temp.path().join("clients.jsonl"), lines).unwrap();

    let output = analyzer(&["report", "run", "--client", "clients.jsonl", "--json"], temp.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let clients = &report["clients"];
    assert_eq!(clients["attempted"], 102);
    assert_eq!(clients["matched"], 100);
    assert_eq!(clients["unmatched"], 1);
    assert_eq!(clients["without_address"], 1);
    assert_eq!(clients["messages_sent"], 204);
    assert_eq!(clients["unreadable"], 1);
    assert_eq!(clients["unreadable_lines"][0]["line"], 103);
    let offset = clients["clock"]["offset_ns"].as_i64().unwrap();
    let uncertainty = clients["clock"]["uncertainty_ns"].as_i64().unwrap();
    assert!((offset + 3 * S).abs() <= uncertainty, "{offset} ± {uncertainty}");
    assert_eq!(uncertainty, 100_000);
    let views = clients["views"].as_array().unwrap();
    let count = |client: &str, kernel: &str| {
        let found = views.iter().find(|v| v["client"] == client && v["kernel"] == kernel);
        found.map_or(0, |view| view["count"].as_i64().unwrap())
    };
    assert_eq!(count("upgraded, ended by client: rst", "rst from remote"), 23);
    assert_eq!(count("upgraded", "still open"), 70);
}

/// Clients whose clocks are set wrong, or drift: the offset is found, and the stages of connecting
/// are as long as they were.
#[test]
fn client_clocks_are_aligned() {
    let temp = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(60 * S);
    scene.conns = (0..100).map(|n| Conn::open(n * 500 * MS)).collect();
    scene.write(&temp.path().join("run"));
    for (ahead, ppm) in [(-3 * S, 0.0), (250 * MS, 0.0), (0, 100.0), (-3 * S, -100.0)] {
        let by_client = |host: i64| START_UNIX + host + ahead + (host as f64 * ppm / 1e6) as i64;
        let mut lines = String::new();
        for (n, conn) in scene.conns.iter().enumerate() {
            let _ = writeln!(
                lines,
                r#"{{"started_unix_ns":{},"upgraded_unix_ns":{},"local_address":"10.0.0.9","local_port":{},"outcome":"upgraded"}}"#,
                by_client(conn.from - 100_000 - (n as i64 % 7) * 10_000),
                by_client(conn.from + 200_000 + (n as i64 % 5) * 10_000),
                10_000 + n,
            );
        }
        fs::write(temp.path().join("clients.jsonl"), lines).unwrap();
        let text = stdout(&["clients", "run", "--client", "clients.jsonl", "--json"], temp.path());
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["matched"], 100);
        let clock = &report["clock"];
        assert_eq!(clock["steady"], true, "{clock}");
        let drift = clock["drift_ppm"].as_f64().unwrap();
        assert!((drift - ppm).abs() < 2.0, "{clock}");
        let (offset, uncertainty) =
            (clock["offset_ns"].as_i64().unwrap(), clock["uncertainty_ns"].as_i64().unwrap());
        assert!((offset - ahead).abs() <= uncertainty && uncertainty < 400_000, "{clock}");
    }
}

/// The same of clients without addresses: only when they began is known. Fifty a second for four seconds, and
/// after a pause once more.
#[test]
fn client_clocks_are_aligned_without_addresses() {
    let temp = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(60 * S);
    scene.conns = (0..400).map(|n| Conn::open(n * 20 * MS + n / 200 * 20 * S)).collect();
    scene.write(&temp.path().join("run"));
    for ahead in [-3 * S, 250 * MS] {
        let mut rows = "began\n".to_owned();
        for (n, conn) in (0..).zip(&scene.conns) {
            let began = START_UNIX + conn.from + ahead - (n * 7 % 5) * MS;
            let _ = writeln!(rows, "{began}");
        }
        fs::write(temp.path().join("clients.csv"), rows).unwrap();
        let args = ["clients", "run", "--client", "clients.csv", "--map", "time=began,unit=ns"];
        let text = stdout(&[&args[..], &["--json"]].concat(), temp.path());
        let report: Value = serde_json::from_str(&text).unwrap();
        let clock = &report["clock"];
        assert_eq!((&clock["told_by"], &clock["matched"]), (&"starts".into(), &400.into()));
        let (offset, uncertainty) =
            (clock["offset_ns"].as_i64().unwrap(), clock["uncertainty_ns"].as_i64().unwrap());
        assert!((offset - ahead).abs() <= uncertainty && uncertainty <= 250 * MS, "{clock}");
        let said = stdout(&args, temp.path());
        assert!(said.contains("told only from when attempts began"), "{said}");
    }
}

#[test]
fn bad_input_is_refused_with_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    scene().write(&dir.join("run"));
    fs::write(dir.join("empty.jsonl"), "\n").unwrap();
    fs::write(dir.join("csv.jsonl"), "time,status\n1,200\n").unwrap();
    fs::create_dir(dir.join("nothing")).unwrap();

    let nowhere =
        "analyzer: nowhere is not there: expected the directory that `probe record -o` wrote";
    assert_eq!(refused(&["report", "nowhere"], dir), (2, nowhere.to_owned()));
    fs::create_dir(dir.join("of-the-lab")).unwrap();
    fs::rename(dir.join("run"), dir.join("of-the-lab/capture")).unwrap();
    let (code, message) = refused(&["report", "of-the-lab"], dir);
    assert_eq!(code, 2);
    assert!(message.ends_with("; name the one in it, of-the-lab/capture"), "{message}");
    fs::rename(dir.join("of-the-lab/capture"), dir.join("run")).unwrap();
    let no_capture = "analyzer: nothing is no capture: expected the directory that `probe record -o` \
                      wrote, with a meta.json in it";
    assert_eq!(refused(&["phantoms", "nothing"], dir), (2, no_capture.to_owned()));
    assert_eq!(
        refused(&["report", "run", "--client", "empty.jsonl"], dir),
        (
            2,
            "analyzer: empty.jsonl is empty: expected results of lab, k6, Artillery or Locust"
                .to_owned()
        )
    );
    assert_eq!(
        refused(&["report", "run", "--client", "csv.jsonl"], dir),
        (
            2,
            "analyzer: csv.jsonl: no line is a client result; line 1: of no known format; expected \
             results of lab, k6, Artillery or Locust, or columns named by --map time=…"
                .to_owned()
        )
    );
    assert_eq!(
        refused(&["phantoms", "run", "--container", "db"], dir),
        (2, "analyzer: no container is called db in run: it has web".to_owned())
    );
    assert_eq!(
        refused(&["connections", "run", "--columns", "cookie,colour"], dir),
        (2, "analyzer: connections has no column colour: `analyzer schema` lists them".to_owned())
    );
    let (code, message) = refused(&["report", "run", "--max-phantoms", "few"], dir);
    assert_eq!(code, 2);
    assert!(message.contains("expected a count such as 20, or a share such as 2%, not `few`"));
    let (code, message) = refused(&["report", "run", "--settle", "soon"], dir);
    assert_eq!(code, 2);
    assert!(message.contains("--settle"), "{message}");
    fs::write(dir.join("file"), "").unwrap();
    let (code, message) = refused(&["report", "run", "-o", "file"], dir);
    assert_eq!(
        (code, message.as_str()),
        (
            2,
            "analyzer: cannot write file: File exists (os error 17): make room there, or choose another place"
        )
    );

    // Damage within a whole message: the frame is right, the columns are not.
    let path = dir.join("run/health.arrows");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(100);
    fs::write(&path, &bytes).unwrap();
    let output = analyzer(&["report", "run", "--json"], dir);
    assert_eq!(output.status.code(), Some(4));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["captures"][0]["quality"]["truncated_tables"][0]["table"], "health");
    fs::write(&path, "garbage").unwrap();
    let (code, message) = refused(&["report", "run"], dir);
    assert_eq!(code, 2);
    assert!(message.contains("health.arrows is no health table"), "{message}");
}

#[test]
fn a_wrong_port_says_which_ports_there_are() {
    let temp = tempfile::tempdir().unwrap();
    scene().write(&temp.path().join("run"));
    let output = analyzer(&["phantoms", "run", "--port", "9999"], temp.path());
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("ports with accepted connections: 3005 (120)"), "{text}");
    assert!(text.contains("choose one with --port"), "{text}");
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn text_from_elsewhere_is_escaped() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    scene().write(&dir);
    let path = dir.join("meta.json");
    let meta = fs::read_to_string(&path).unwrap();
    let hostile = "<script>alert(1)</script>\\u001b[2J|x";
    fs::write(&path, meta.replace("testhost", hostile)).unwrap();
    let output = analyzer(&["report", "run"], temp.path());
    assert_eq!(output.status.code(), Some(99));
    let html = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(!html.contains("<script>alert"));
    assert!(html.contains("&lt;script&gt;alert(1)"));
    let markdown = fs::read_to_string(dir.join("report.md")).unwrap();
    assert!(markdown.contains(r"\<script\>alert(1)\</script\>?\[2J\|x"), "{markdown}");
}

#[test]
fn the_help_of_every_command_has_examples_that_parse() {
    let temp = tempfile::tempdir().unwrap();
    scene().write(&temp.path().join("run1"));
    scene().write(&temp.path().join("run2"));
    fs::write(temp.path().join("results.jsonl"), "{\"started_unix_ns\":1,\"outcome\":\"x\"}\n")
        .unwrap();
    fs::write(temp.path().join("metrics.log"), "# 1700000000\ngo_memstats_heap_inuse_bytes 5\n")
        .unwrap();
    for command in [
        "report",
        "phantoms",
        "handshakes",
        "shards",
        "leaks",
        "clients",
        "thresholds",
        "compare",
        "connections",
        "schema",
    ] {
        let help = stdout(&[command, "--help"], temp.path());
        let examples: Vec<&str> =
            help.lines().filter_map(|line| line.trim().strip_prefix("analyzer ")).collect();
        assert!(examples.len() >= 2, "{help}");
        for example in examples {
            let args = words(example);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let code = analyzer(&args, temp.path()).status.code();
            assert!(matches!(code, Some(0 | 4 | 99)), "{example}: {code:?}");
        }
    }
}

/// The words of a command line up to a pipe, without the quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        for word in part.split_whitespace() {
            if ["|", ">"].contains(&word) {
                return words;
            }
            words.push(word.to_owned());
        }
    }
    words
}
