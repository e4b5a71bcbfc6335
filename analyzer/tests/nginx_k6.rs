//! A run of k6 through nginx, recorded by `probe` (`nginx_k6/record.sh` makes it anew): 43 sessions on a
//! server that refuses about a fifth, nginx's own number of connections, and the kernel's, in one report.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn analyzer(of: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_analyzer"));
    command.current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/nginx_k6"));
    command.args([of, "capture", "--client", "k6.json.gz", "--port", "18080"]);
    command
}

fn report(into: &Path, more: &[&str]) -> Output {
    analyzer("report").args(more).arg("-o").arg(into).output().unwrap()
}

/// `analyzer clients` knows what the kernel saw as well.
#[test]
fn handshakes_are_judged_beside_clients() {
    let rules =
        ["--threshold", "handshake.failed_percent < 5", "--threshold", "handshake.p99_ms > 0"];
    let output = analyzer("clients").args(rules).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(99), "{text}");
    assert!(text.contains("✗ handshake.failed_percent               20.9 %   limit < 5"), "{text}");
    assert!(text.contains("✓ handshake.p99_ms"), "{text}");
}

#[test]
fn k6_nginx_and_the_kernel_in_one_report() {
    let temp = tempfile::tempdir().unwrap();
    // What nginx reports includes the two requests that ask it.
    let output = report(temp.path(), &["--max-phantoms", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"]["headline"], "9 of 43 handshakes failed");
    assert_eq!(report["verdict"]["state"], "held");

    // k6's own summary said 43 sessions, of which 34 sent a message and got an answer.
    let clients = &report["clients"];
    assert_eq!(clients["files"][0]["format"], "k6_json");
    for side in [clients, &clients["kernel"]] {
        assert_eq!((&side["attempted"], &side["successful"]), (&43.into(), &34.into()), "{side}");
        assert_eq!(side["failed"], 9);
    }
    assert_eq!(
        (&clients["messages_sent"], &clients["messages_received"]),
        (&34.into(), &34.into())
    );
    let refused = serde_json::json!([{ "kind": "http_503", "count": 9 }]);
    assert_eq!(clients["errors"], refused);
    // The kernel's clock starts at the SYN, k6's before.
    let p50 = |side: &Value| side["connect"]["p50_ms"].as_f64().unwrap();
    assert!(0.0 < p50(&clients["kernel"]) && p50(&clients["kernel"]) < p50(clients), "{clients}");

    // Without addresses, and on one host: by when the sessions began, its clock is none but the host's.
    let clock = &clients["clock"];
    assert_eq!((&clock["told_by"], &clock["matched"]), (&"starts".into(), &43.into()));
    let ns = |name: &str| clock[name].as_i64().unwrap();
    assert!(ns("offset_ns").abs() <= ns("uncertainty_ns"), "{clock}");
    assert!(ns("uncertainty_ns") <= 200_000_000, "{clock}");

    let capture = &report["captures"][0];
    // nginx hands the clients' keys on: each leg to it has one to the server behind it.
    let links = serde_json::json!({ "linked": 43, "certain": 43, "never_tried": 0 });
    assert_eq!(capture["handshakes"]["links"], links);

    let server = &capture["servers"][0];
    let samples = server["series"].as_array().unwrap();
    assert_eq!(server["judged"], samples.len());
    let mut held = 0;
    for sample in samples {
        let count = |name: &str| sample[name].as_i64().unwrap();
        let beside = count("reported") - count("kernel_high");
        assert!((1..=2).contains(&beside), "{sample}");
        held = held.max(count("kernel_low"));
    }
    assert_eq!(held, 34);
    assert_eq!(server["findings"][0]["count"], 2);

    let followed = capture["leaks"]["followed"].as_array().unwrap();
    let active = followed.iter().find(|one| one["name"] == "proxy_connections").unwrap();
    assert!(active["source"].as_str().unwrap().ends_with("/stub_status nginx_connections_active"));
    assert!([35.0, 36.0].contains(&active["peak"].as_f64().unwrap()), "{active}");
}

/// A round trip of more than 50 ms is a finding, and stands on the first screen.
#[test]
fn a_slow_round_trip_is_told_first() {
    let temp = tempfile::tempdir().unwrap();
    let locust = ["--client", "../clients/locust_stats.csv", "--max-phantoms", "2", "--json"];
    let output = report(temp.path(), &locust);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sentences = report["verdict"]["sentences"].as_array().unwrap();
    assert_eq!(sentences.last().unwrap(), "The slowest round trip took 75.9 ms.");
}

#[test]
fn a_fifth_that_fails_is_beyond_a_threshold() {
    let temp = tempfile::tempdir().unwrap();
    let limit = |limit| ["--max-phantoms", "2", "--threshold", limit];
    let output = report(temp.path(), &limit("clients.success_rate > 0.99"));
    assert_eq!(output.status.code(), Some(99));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("✗ clients.success_rate"), "{text}");

    // Between warning and failure the run passes, and everything says that it was close.
    let output = report(temp.path(), &limit("clients.errors_percent <= 25, warn < 1"));
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = "! clients.errors_percent                 20.9 %   limit <= 25, warn < 1\n";
    assert!(text.contains(line) && text.starts_with("!  9 of 43 handshakes failed"), "{text}");
    let read = |name: &str| std::fs::read_to_string(temp.path().join(name)).unwrap();
    let markdown = read("report.md");
    assert!(
        markdown.contains("| ! | clients.errors\\_percent | 20.9 % | \\<= 25, warn \\< 1 |"),
        "{markdown}"
    );
    let json: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(
        (&json["verdict"]["state"], &json["thresholds"][3]["state"]),
        (&"warning".into(), &"warning".into())
    );
    let html = read("report.html");
    assert!(html.contains("every threshold held, with a warning"), "no warning");
    assert!(html.contains("<li class=\"warning\"><span class=\"mark\">!</span>"), "no warning");
}
