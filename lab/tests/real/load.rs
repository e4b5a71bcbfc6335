//! `lab load` against servers that answer well, badly, or not at all; and `churn` against `sink`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::Value;

use crate::common::{Server, lab, lines, load, run};

/// A server that reads one request per connection and answers with these bytes.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = head.map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn outcomes(address: &str, args: &[&str]) -> Value {
    let shape = ["--connections", "3", "--hold", "0s", "--ramp", "1000/s", "--min-success", "0"];
    load(address, &[&shape, args].concat())["outcomes"].clone()
}

#[test]
fn outcomes_are_told_apart() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let wrong_key = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
    for (address, outcome) in [
        (refused, "reset_before_established"),
        (answering(""), "no_response_server_closed"),
        (answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), "http_503"),
        (answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "http_200"),
        (answering(wrong_key), "http_101_wrong_accept"),
        (answering("220 mail.example ESMTP\r\n"), "not_http"),
    ] {
        assert_eq!(outcomes(&address, &[]), serde_json::json!({ outcome: 3 }));
    }
}

#[test]
fn a_silent_server_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let outcomes = outcomes(&address, &["--handshake-timeout", "200ms"]);
    assert_eq!(outcomes, serde_json::json!({ "no_response_client_left": 3 }));
}

#[test]
fn a_load_of_nobody_is_no_success() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("ws://{}/", listener.local_addr().unwrap())
    };
    let load = ["load", "--url", &nobody, "--connections", "3", "--ramp", "1000/s"];
    let refused = run(&load);
    assert_eq!(refused.status.code(), Some(99));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("none of 3 connections was upgraded"), "{said}");
    assert!(run(&[&load[..], &["--min-success", "0"]].concat()).status.success());
}

#[test]
fn a_token_is_asked_for() {
    let server = Server::start(&["serve", "--listen", "127.0.0.1:0", "--token", "open-sesame"]);
    assert_eq!(outcomes(server.address(), &[])["http_401"], 3);
    assert_eq!(outcomes(server.address(), &["--token", "open-sesame"])["upgraded"], 3);
}

/// Times of the environment are milliseconds where they have no unit, and a flag goes before it.
#[test]
fn a_load_is_told_by_the_environment() {
    let server = Server::start(&["serve", "--listen", "127.0.0.1:0", "--token", "open-sesame"]);
    let load = |args: &[&str]| -> Value {
        let output = lab(&[&["load", "--json"], args].concat())
            .env("WS_URL", format!("ws://{}/", server.address()))
            .env("AUTH_TOKEN", "open-sesame")
            .env("MAX_CONNECTIONS", "7")
            .env("TEST_DURATION", "1500")
            .env("MESSAGE_FREQUENCY", "100")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let summary = load(&[]);
    assert_eq!(summary["outcomes"], serde_json::json!({"upgraded": 7}), "{summary}");
    assert!(summary["duration_s"].as_f64().unwrap() >= 1.5, "{summary}");
    assert!(summary["messages_sent"].as_u64().unwrap() >= 7, "{summary}");
    let other = ["--connections", "2", "--token", "other", "--hold", "0s", "--min-success", "0"];
    let summary = load(&other);
    assert_eq!(summary["outcomes"], serde_json::json!({"http_401": 2}), "{summary}");
}

/// A signed token opens the server until it expires; another secret's, or none, does not.
#[test]
fn a_signed_token_is_checked() {
    let server = Server::start(&["serve", "--listen", "127.0.0.1:0", "--jwt-secret", "s3cret"]);
    let token = |args: &[&str]| {
        let output = run(&[&["token", "--user", "alice"], args].concat());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let outcome = |token: &str| outcomes(server.address(), &["--token", token]);
    assert_eq!(outcome(&token(&["--secret", "s3cret"]))["upgraded"], 3);
    assert_eq!(outcome(&token(&["--secret", "s3cret", "--valid", "0s"]))["http_401"], 3);
    assert_eq!(outcome(&token(&["--secret", "other"]))["http_401"], 3);
    assert_eq!(outcomes(server.address(), &[])["http_401"], 3);
}

#[test]
fn a_full_server_answers_503() {
    let server = Server::start(&["serve", "--listen", "127.0.0.1:0", "--max-connections", "7"]);
    let shape = ["--connections", "10", "--hold", "500ms", "--ramp", "100/s"];
    let outcomes = load(server.address(), &shape)["outcomes"].clone();
    assert_eq!(outcomes, serde_json::json!({ "upgraded": 7, "http_503": 3 }));
}

#[test]
fn messages_are_echoed_and_timed() {
    let server = Server::start(&["serve", "--listen", "127.0.0.1:0"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("results.jsonl");
    let talk = ["--message-interval", "200ms", "--heartbeat", "300ms", "--hold", "3s"];
    let shape = ["--connections", "23", "--ramp", "1000/s", "-o", out.to_str().unwrap()];
    let summary = load(server.address(), &[&shape[..], &talk].concat());
    let records = lines(&out);
    assert_eq!(records.len(), 23);
    let sum = |field: &str| records.iter().map(|r| r[field].as_u64().unwrap()).sum::<u64>();
    for field in ["messages_sent", "messages_received", "heartbeats_sent", "heartbeats_answered"] {
        assert_eq!(summary[field], sum(field), "{field}");
        assert!(sum(field) >= 23 * 2, "{field}");
    }
    for record in &records {
        let rtt = |name: &str| record[name].as_f64().unwrap();
        assert!(rtt("rtt_min_us") <= rtt("rtt_mean_us"));
        assert!(rtt("rtt_mean_us") <= rtt("rtt_max_us"));
        let times = ["started_unix_ns", "connected_unix_ns", "upgraded_unix_ns", "closed_unix_ns"];
        let times: Vec<_> = times.iter().map(|name| record[name].as_i64().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(record["close_code"], 1000);
    }
}

#[test]
fn churn_and_sink_count_the_same() {
    let server = Server::start(&["sink", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let to = ["--to", &server.addresses[0], "--to", &server.addresses[1]];
    let output =
        run(&[&["churn", "--json", "--count", "1997", "--end", "rst:101"], &to[..]].concat());
    let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&totals["opened"], &totals["established"]), (&1997.into(), &1997.into()));
    assert_eq!((&totals["ended_fin"], &totals["ended_rst"]), (&1896.into(), &101.into()));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn bad_usage_says_what_is_expected() {
    for (args, code, text) in [
        (&["load", "--url", "wss://127.0.0.1/"][..], 2, "speaks no TLS; expected ws://host:port"),
        (&["load", "--url", "ws://127.0.0.1:1/", "--ramp", "fast"], 2, "a rate such as 100/s"),
        (
            &["load", "--url", "ws://127.0.0.1:1/", "--end", "rst:60", "--end", "fin:50%"],
            2,
            "more than the 100",
        ),
        (&["serve", "--fault", "leak"], 2, "expected one of app-leak-on-rst"),
        (&["serve", "--listen", "192.0.2.1:80"], 2, "choose an address that this host has"),
        (&["run", "nothing", "-o", "x"], 2, "expected one of demo"),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
    }
}
