//! Client results of several tools, told by their content, plain or compressed; what they say, what
//! they cannot say, and lines that cannot be read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn analyzer(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_analyzer")).args(args).current_dir(dir).output().unwrap()
}

fn fixture(name: &str) -> String {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    dir.join(name).display().to_string()
}

fn clients(args: &[&str]) -> Value {
    let output = analyzer(&[&["clients", "--json"], args].concat(), Path::new("."));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(path: &Path, map: &[&str]) -> String {
    let path = path.display().to_string();
    let output = analyzer(&[&["clients", "--client", &path], map].concat(), Path::new("."));
    assert_eq!(output.status.code(), Some(2), "{path}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn limits(report: &Value) -> String {
    report["limits"].to_string()
}

/// Both of k6's formats hold the same run: of six sessions four upgraded, one was refused, and one found
/// nobody who listens.
#[test]
fn k6_by_json_and_by_csv() {
    for (name, format, damaged) in [("k6.json", "k6_json", 65), ("k6.csv", "k6_csv", 56)] {
        let report = clients(&["--client", &fixture(name)]);
        assert_eq!(report["files"][0]["format"], format);
        assert_eq!(report["attempts_are"][0], "WebSocket sessions");
        assert_eq!((&report["attempted"], &report["successful"]), (&6.into(), &4.into()));
        assert_eq!(
            (&report["messages_sent"], &report["messages_received"]),
            (&4.into(), &4.into())
        );
        let errors: Vec<_> = report["errors"].as_array().unwrap().iter().collect();
        assert_eq!(errors.len(), 2);
        for (error, kind) in errors.iter().zip(["http_503", "no response"]) {
            assert_eq!((&error["kind"], &error["count"]), (&kind.into(), &1.into()));
        }
        // Of the four that were upgraded, as k6 wrote them.
        let connect = &report["connect"];
        assert_eq!((&connect["count"], &connect["min_ms"]), (&4.into(), &1.642907.into()));
        assert_eq!(connect["max_ms"], 2.340692);
        let mean = connect["mean_ms"].as_f64().unwrap();
        assert!((mean - 1.9881215).abs() < 1e-6, "{mean}");
        assert_eq!(report["round_trip"]["max_ms"], 0.401416);
        assert_eq!(report["unreadable"], 1);
        assert_eq!(report["unreadable_lines"][0]["line"], damaged);
        assert!(limits(&report).contains("counts sessions that failed as well"));
        assert_eq!(limits(&report).contains("whole seconds"), name == "k6.csv");
    }
    // Six attempts in 0.511 s.
    let rate = clients(&["--client", &fixture("k6.json")])["attempts_per_second"].as_f64().unwrap();
    assert!((rate - 6.0 / 0.511_084).abs() < 0.01, "{rate}");
}

#[test]
fn artillery_counts_errors_twice_and_says_no_connect_times() {
    let report = clients(&["--client", &fixture("artillery.json")]);
    assert_eq!(report["files"][0]["format"], "artillery");
    assert_eq!(report["attempts_are"][0], "virtual users");
    let counts = ["attempted", "successful", "failed", "messages_sent"].map(|name| &report[name]);
    assert_eq!(counts, [&15, &12, &3, &24].map(|n: &i32| Value::from(*n)).each_ref());
    assert_eq!(report["errors"][0]["kind"], "Unexpected server response: 503");
    assert_eq!(report["errors"][0]["count"], 6);
    assert!(limits(&report).contains("6 errors for 3 users that failed"));
    assert!(limits(&report).contains("connect times, local ports"));
    assert!(report["connect"].is_null() && report["round_trip"].is_null());
}

#[test]
fn locusts_files_complement_each_other() {
    let files = ["stats", "stats_history", "failures"].map(|n| fixture(&format!("locust_{n}.csv")));
    let args: Vec<&str> = files.iter().flat_map(|file| ["--client", file]).collect();
    let report = clients(&args);
    let counts = ["attempted", "successful", "failed"].map(|name| report[name].as_i64().unwrap());
    assert_eq!(counts, [72, 55, 17]);
    assert_eq!(report["errors"][0]["count"], 17);
    let trip = &report["round_trip"];
    let ms = |name: &str| trip[name].as_f64().unwrap();
    assert!(ms("min_ms") <= ms("mean_ms") && ms("mean_ms") <= ms("max_ms"), "{trip}");
    assert_eq!((ms("p50_ms"), ms("p95_ms"), ms("p99_ms")), (6.0, 28.0, 76.0));
    // 72 requests, by the history's whole seconds.
    let rate = report["attempts_per_second"].as_f64().unwrap();
    assert!((12.0..=18.0).contains(&rate), "{rate}");
    assert!(limits(&report).contains("rounds percentiles"));
}

#[test]
fn columns_of_any_other_tool_are_named() {
    let map = "time=ts,unit=ms,local_address=peer,local_port=port,outcome=status,\
               connect_ms=took_ms,round_trip_ms=rtt";
    let report = clients(&["--client", &fixture("mapped.csv"), "--map", map]);
    let counts = ["attempted", "successful", "failed"].map(|name| report[name].as_i64().unwrap());
    assert_eq!(counts, [3, 2, 1]);
    assert_eq!(report["round_trip"]["mean_ms"], 0.5);
    assert_eq!(report["connect"]["max_ms"], 7.5);
    assert_eq!(report["errors"][0]["kind"], "503");
    assert_eq!(report["unreadable_lines"][0]["why"], "`none` is no port: expected 1 to 65535");

    // A client that got no answer has no status, and was not served.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unanswered.csv");
    fs::write(&path, "ts,status\n1700000000,101\n1700000001,\n").unwrap();
    let path = path.display().to_string();
    let report = clients(&["--client", &path, "--map", "time=ts,outcome=status"]);
    assert_eq!((&report["successful"], &report["failed"]), (&1.into(), &1.into()));
    assert_eq!(report["errors"][0]["kind"], "no outcome");
    assert!(limits(&report).contains("no connect_ms is named"));

    let path = dir.path().join("lines");
    fs::write(&path, "{\"at\":\"2023-11-14T22:13:20Z\",\"net\":{\"port\":40001},\"ok\":true}\n{\n")
        .unwrap();
    let path = path.display().to_string();
    let report = clients(&["--client", &path, "--map", "time=at,local_port=net.port,outcome=ok"]);
    assert_eq!((&report["successful"], &report["unreadable"]), (&1.into(), &1.into()));
}

#[test]
fn compressed_files_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["k6.json", "k6.csv", "artillery.json", "locust_stats.csv"] {
        let text = fs::read(fixture(name)).unwrap();
        let mut plain = clients(&["--client", &fixture(name)]);
        let gz = dir.path().join(format!("{name}.gz"));
        let file = fs::File::create(&gz).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        let zst = dir.path().join(format!("{name}.zst"));
        fs::write(&zst, zstd::encode_all(text.as_slice(), 1).unwrap()).unwrap();
        for path in [gz, zst] {
            let mut packed = clients(&["--client", &path.display().to_string()]);
            for report in [&mut plain, &mut packed] {
                let report = report.as_object_mut().unwrap();
                // Both name the file that was read.
                report.remove("files");
                report.remove("unreadable_lines");
            }
            assert_eq!(packed, plain, "{}", path.display());
            let whole = fs::read(&path).unwrap();
            let cut = dir.path().join("cut");
            fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
            let message = refused(&cut, &[]);
            assert!(
                message.contains(": the file was cut off; `zcat` or `zstdcat` gives"),
                "{message}"
            );
        }
    }
    let message = refused(&dir.path().join("none"), &[]);
    assert!(message.contains(": look at the path, which starts at the current directory"));
    assert!(refused(dir.path(), &[]).contains(": name a file in it"));
}

/// Three of each kind, and the message of each.
#[test]
fn files_of_nothing_but_bad_lines_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let k6_csv = fs::read_to_string(fixture("k6.csv")).unwrap();
    let k6_heading = k6_csv.lines().next().unwrap();
    let locust = fs::read_to_string(fixture("locust_stats.csv")).unwrap();
    let locust_heading = locust.lines().next().unwrap();
    let unknown = "line 1: of no known format; expected results of lab, k6, Artillery or Locust, or \
                   columns named by --map time=…";
    let columns = locust_heading.split(',').count();
    let cases: Vec<(String, String)> = vec![
        ("a,b\n1,2\n".into(), unknown.into()),
        ("{\"a\":1}\n".into(), unknown.into()),
        ("\n\nplain words\n".into(), unknown.replace("line 1", "line 3")),
        (
            "{\"started_unix_ns\":\"x\",\"outcome\":\"upgraded\"}\n".into(),
            "line 1: invalid type: string \"x\", expected i64; expected JSON lines of lab load"
                .into(),
        ),
        (
            "{\"started_unix_ns\":1,\"outcome\":7}\n".into(),
            "line 1: invalid type: integer `7`, expected a string; expected".into(),
        ),
        (
            "{\"started_unix_ns\":1.5,\"outcome\":\"x\"}\n".into(),
            "line 1: invalid type: floating point `1.5`, expected i64".into(),
        ),
        (
            "{\"type\":\"Point\",\"metric\":\"ws_sessions\",\"data\":{}}\n".into(),
            "line 1: a point without a time; expected k6 --out json: look whether".into(),
        ),
        (
            "{\"type\":\"Dot\",\"metric\":\"ws_sessions\",\"data\":{}}\n".into(),
            "line 1: type `Dot`: expected Metric or Point".into(),
        ),
        (
            "{\"type\":\"Point\",\"metric\":\"ws_sessions\",\"data\":{\"time\":\"noon\",\"value\":1}}\n"
                .into(),
            "line 1: `noon` is no time: expected RFC 3339".into(),
        ),
        (format!("{k6_heading}\nws_sessions\n"), "line 2: 1 columns, and the heading has 19".into()),
        (
            format!("{k6_heading}\nws_sessions,noon,1{}\n", ",".repeat(16)),
            "line 2: `noon` is no time".into(),
        ),
        (
            format!("{k6_heading}\nws_sessions,1700000000,one{}\n", ",".repeat(16)),
            "line 2: column metric_value: `one` is no number".into(),
        ),
        (
            "{\n \"aggregate\": {\n  \"counters\": {\"vusers.created\": 1\n".into(),
            "EOF while parsing an object; expected the report that `artillery run --output` writes"
                .into(),
        ),
        (
            "{\"aggregate\":{\"counters\":[]}}".into(),
            "line 1: invalid type: sequence, expected a map".into(),
        ),
        ("{\"aggregate\":{}}".into(), "line 1: missing field `counters`".into()),
        (
            format!("{locust_heading}\nGET,/,x{}\n", ",".repeat(columns - 3)),
            "line 2: column Request Count: `x` is no number; expected Locust stats".into(),
        ),
        (format!("{locust_heading}\nGET,/\n"), "line 2: 2 columns, and the heading has".into()),
        (
            "Method,Name,Error,Occurrences\nGET,/,boom,many\n".into(),
            "line 2: column Occurrences: `many` is no number; expected Locust failures".into(),
        ),
        (
            "Timestamp,User Count,Total Request Count\nnoon,1,1\n".into(),
            "line 2: `noon` is no time".into(),
        ),
    ];
    for (index, (text, expected)) in cases.iter().enumerate() {
        let path = dir.path().join(format!("{index}"));
        fs::write(&path, text).unwrap();
        let message = refused(&path, &[]);
        assert!(message.contains(expected.as_str()), "{text}\n{message}");
        assert!(message.starts_with(&format!("analyzer: {}: no line is", path.display())));
    }
    let empty = dir.path().join("empty");
    fs::write(&empty, " \n").unwrap();
    assert!(
        refused(&empty, &[]).contains("is empty: expected results of lab, k6, Artillery or Locust")
    );
}

/// The same of files whose columns are named.
#[test]
fn mapped_files_of_nothing_but_bad_lines_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let map = ["--map", "time=ts,local_port=port"];
    for (index, (text, expected)) in [
        ("ts,port\nnoon,1\n", "line 2: `noon` is no time: expected RFC 3339"),
        ("ts,port\n1700000000,0\n", "line 2: `0` is no port: expected 1 to 65535"),
        (
            "ts,port\n1700000000\n",
            "line 2: 1 columns, and the heading has 2; expected CSV by --map",
        ),
        ("{\"ts\":\"noon\",\"port\":1}\n", "line 1: `noon` is no time: expected RFC 3339"),
        ("{\"ts\":1700000000,\"port\":70000}\n", "line 1: `70000` is no port: expected 1 to 65535"),
        ("at,port\n1700000000,1\n", ": no column `ts` for --map: it has at, port\n"),
        ("{\"ts\":1700000000}\n", ": no column `port` for --map: it has ts\n"),
        ("{\"at\":1,\"port\":1}\n{\n", ": no column `ts` for --map: it has at, port\n"),
        ("plain words\n", ": no column `ts` for --map: it has plain words\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.path().join(format!("{index}"));
        fs::write(&path, text).unwrap();
        let message = refused(&path, &map);
        assert!(message.contains(expected), "{text}\n{message}");
    }
}

#[test]
fn thresholds_decide_the_exit() {
    let k6 = fixture("k6.json");
    let code = |rule: &str| {
        let args = ["clients", "--client", &k6, "--threshold", rule];
        let output = analyzer(&args, Path::new("."));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let line = text.lines().find(|line| line.contains("   limit ")).unwrap().to_owned();
        let why = text.lines().skip_while(|other| *other != line).nth(1).unwrap_or_default();
        (output.status.code().unwrap(), line, why.to_owned())
    };
    let (held, line, why) = code("clients.success_rate >= 0.5");
    assert_eq!(
        (held, line.as_str()),
        (0, "✓ clients.success_rate                    0.667   limit >= 0.5")
    );
    assert_eq!(why, "");
    let (crossed, line, _) = code("clients.connect_p99_ms < 2");
    assert!(crossed == 99 && line.starts_with("✗ clients.connect_p99_ms"), "{line}");
    // No capture, no handshakes.
    let (open, line, why) = code("handshake.p99_ms < 50");
    assert!(open == 4 && line.contains("not judged"), "{line}");
    assert_eq!(
        why.trim(),
        "no attempt was recorded: record the service's port while clients connect"
    );
    let output =
        analyzer(&["clients", "--client", &k6, "--threshold", "client.x < 1"], Path::new("."));
    assert_eq!(output.status.code(), Some(2));
}
