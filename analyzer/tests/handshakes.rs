//! Failed handshakes of known causes, each connection by name, and no accusation of healthy ones.

mod attempts;
mod common;

use attempts::{Run, answered, linked, mixed, unanswered, upgraded, upstream};
use capture::CaptureWriter;
use capture::schema::{ConnectionRow, HealthRow};
use common::{MS, PORT, S, START, URL, analyzer, blank_row, meta};
use serde_json::Value;

#[test]
fn a_healthy_run_accuses_nobody() {
    // 500 connects a second; some clients leave politely, some ask for plain HTTP, some still wait.
    let mut rows: Vec<ConnectionRow> = (0..5_000)
        .map(|n| {
            let mut row = upgraded(n, n as i64 * 2 * MS);
            if n % 3 == 0 {
                row.closed_ns = row.upgraded_ns.map(|at| at + 100 * MS);
                row.closed_by = Some("remote");
                row.closed_how = Some(["fin", "rst"][n % 2]);
                row.state = "close";
            }
            row
        })
        .collect();
    for n in 5_000..5_010 {
        rows.push(ConnectionRow { outcome: Some("plain_http".into()), ..answered(n, S, 200, MS) });
        rows.push(ConnectionRow {
            outcome: Some("open".into()),
            closed_ns: None,
            ..unanswered(n + 10, S, MS, "open")
        });
    }
    let run = Run::new(&rows, &["--max-failed", "0"]);
    assert_eq!(run.code, 0);
    assert_eq!(run.causes(), []);
    assert_eq!(run.report["attempts"], 5_010);
    assert_eq!(run.report["upgraded"], 5_000);
    assert_eq!(run.report["open"], 10);
    assert_eq!(run.report["plain_http"], 10);
    let funnel = run.report["services"][0]["funnel"].as_array().unwrap();
    assert_eq!((&funnel[0]["stage"], &funnel[0]["count"]), (&"syn_received".into(), &5_010.into()));
    assert_eq!((&funnel[6]["stage"], &funnel[6]["count"]), (&"upgraded".into(), &5_000.into()));
    let step = &run.report["services"][0]["steps"][3];
    assert_eq!((&step["from"], &step["to"]), (&"request_received".into(), &"response_sent".into()));
    assert_eq!((&step["p50_us"], &step["max_us"]), (&700.0.into(), &700.0.into()));
}

/// Where the kernel left out the event, `established` has the time at which that was noticed: no duration begins or
/// ends there, nor with the begin of an active leg that was met that late.
#[test]
fn what_was_noticed_late_is_no_duration() {
    for role in ["passive", "active"] {
        let rows: Vec<ConnectionRow> = (0..100)
            .map(|n| {
                let row = upgraded(n, n as i64 * MS);
                let (syn_received_ns, syn_ack_sent_ns) = match role {
                    "passive" => (row.syn_received_ns, row.syn_ack_sent_ns),
                    _ => (None, None),
                };
                let is_late = n >= 40;
                let met_ns = if role == "active" && is_late { 800_000 } else { 0 };
                ConnectionRow {
                    role,
                    first_seen_ns: row.first_seen_ns + met_ns,
                    syn_received_ns,
                    syn_ack_sent_ns,
                    established_ns: row.established_ns.map(|at| at + i64::from(is_late) * S),
                    established_is_upper_bound: is_late,
                    ..row
                }
            })
            .collect();
        let run = Run::new(&rows, &[]);
        assert_eq!((&run.report["attempts"], &run.report["upgraded"]), (&100.into(), &100.into()));
        let service = &run.report["services"][0];
        assert_eq!(service["funnel"][2]["count"], 100, "{role}");
        let steps = service["steps"].as_array().unwrap().iter();
        let found: Vec<_> = steps
            .map(|step| {
                let [from, to] = ["from", "to"].map(|name| step[name].as_str().unwrap());
                (from, to, step["count"].as_u64().unwrap(), step["max_us"].as_f64().unwrap())
            })
            .collect();
        let whole = if role == "passive" { 100 } else { 40 };
        let expected = [
            ("syn_received", "established", 40, 100.0),
            ("established", "accepted", 40, 50.0),
            ("established", "request_received", 40, 100.0),
            ("request_received", "response_sent", 100, 700.0),
            ("upgraded", "first_frame", 100, 1_100.0),
            ("syn_received", "upgraded", whole, 900.0),
        ];
        assert_eq!(found, expected, "{role}");
    }
}

/// One status or word, one cause: every connection that was hit, and no other.
#[test]
fn causes_that_leave_no_doubt() {
    type Row = fn(usize, i64) -> ConnectionRow;
    let cases: [(&str, Row); 13] = [
        ("authentication", |n, at| answered(n, at, 401, MS)),
        ("wrong_path", |n, at| answered(n, at, 404, MS)),
        ("forbidden", |n, at| answered(n, at, 403, MS)),
        ("rate_limit", |n, at| answered(n, at, 429, MS)),
        ("not_a_websocket_server", |n, at| answered(n, at, 200, MS)),
        ("proxy_headers", |n, at| answered(n, at, 426, MS)),
        ("wrong_accept_key", |n, at| ConnectionRow {
            outcome: Some("http_101_wrong_accept".into()),
            ..answered(n, at, 101, MS)
        }),
        ("server_hangs", |n, at| unanswered(n, at, 5 * S, "no_response_client_left")),
        ("client_gave_up", |n, at| unanswered(n, at, MS / 10, "no_response_client_left")),
        ("server_closed", |n, at| unanswered(n, at, MS, "no_response_server_reset")),
        ("accept_queue_overflow", |n, at| unanswered(n, at, S, "syn_dropped_accept_queue_full")),
        ("packet_loss", |n, at| unanswered(n, at, S, "syn_ack_timeout")),
        ("closed_right_after_upgrade", |n, at| unanswered(n, at, S, "closed_right_after_upgrade")),
    ];
    for (cause, row) in cases {
        let run = Run::new(&mixed(997, |n| n % 43 == 7, row), &["--max-failed", "22"]);
        assert_eq!(run.causes(), [(cause, 24)], "{cause}");
        assert_eq!(run.code, 99);
        // The first that were hit: numbers 7, 50, 93.
        let examples = run.report["causes"][0]["examples"].as_array().unwrap();
        let cookies: Vec<_> = examples.iter().map(|e| e["cookie"].as_u64().unwrap()).collect();
        assert_eq!(cookies[..3], [8, 51, 94]);
    }
}

#[test]
fn the_kernels_counters_are_evidence() {
    let rows =
        mixed(200, |n| n % 10 == 0, |n, at| unanswered(n, at, S, "ack_dropped_accept_queue_full"));
    let run = Run::new(&rows, &[]);
    assert_eq!(run.causes(), [("accept_queue_overflow", 20)]);
    let evidence = run.report["causes"][0]["evidence_for"].to_string();
    assert!(evidence.contains("the kernel's ListenOverflows grew by 23"), "{evidence}");
}

/// The same 503, told apart by its shape.
#[test]
fn a_503_has_several_causes() {
    // Everything from 3 s to 6 s: a guard.
    let guard = mixed(1_000, |n| (300..600).contains(&n), |n, at| answered(n, at, 503, MS / 2));
    let run = Run::new(&guard, &[]);
    assert_eq!(run.causes(), [("load_shedding", 300)]);
    assert_eq!(run.report["causes"][0]["certainty"], "likely");

    // Whatever comes when 600 are there, and they stay: a limit.
    let limit = mixed(1_000, |n| n >= 600, |n, at| answered(n, at, 503, MS / 2));
    let run = Run::new(&limit, &[]);
    assert_eq!(run.causes(), [("capacity_limit", 400)]);
    let summary = run.report["causes"][0]["summary"].as_str().unwrap();
    assert_eq!(summary, "the server refuses once about 600 connections are upgraded");

    // One in seven, all along.
    let some = mixed(1_000, |n| n % 7 == 3, |n, at| answered(n, at, 503, MS / 2));
    let run = Run::new(&some, &[]);
    assert_eq!(run.causes(), [("refused_in_part", 143)]);
    let decides = |run: &Run| run.report["causes"][0]["would_decide"].to_string();
    assert!(decides(&run).contains("record on the shards as well"), "{}", run.report);

    // The same by the shards behind a balancer, which were recorded.
    let by_shards = balanced(
        1_000,
        |n| n % 7 == 3,
        |n, at| {
            let client = answered(n, at, 503, MS);
            let shard = ConnectionRow {
                http_status: Some(503),
                outcome: Some("http_503".into()),
                response_ns: client.response_ns.map(|at| at - MS / 4),
                upgraded_ns: None,
                ..upstream(n, &client, 3_002)
            };
            (client, Some(shard))
        },
    );
    let run = Run::new(&by_shards, &["--port", "3005"]);
    assert_eq!(run.causes(), [("refused_in_part", 143)]);
    assert!(decides(&run).contains("the logs of the shards that answered"), "{}", run.report);

    // Nobody is let in at all.
    let all = mixed(1_000, |_| true, |n, at| answered(n, at, 503, MS / 2));
    let run = Run::new(&all, &[]);
    assert_eq!(run.causes(), [("no_healthy_upstream", 1_000)]);
    assert_eq!(run.report["causes"][0]["or"], "load_shedding");
}

/// Through a balancer: the client's leg, and the balancer's own to one of three shards.
fn balanced(
    total: usize,
    hit: impl Fn(usize) -> bool,
    of: impl Fn(usize, i64) -> (ConnectionRow, Option<ConnectionRow>),
) -> Vec<ConnectionRow> {
    let mut rows = Vec::new();
    for n in 0..total {
        let at = n as i64 * 10 * MS;
        let (client, shard) = if hit(n) {
            of(n, at)
        } else {
            let client = upgraded(n, at);
            let shard = upstream(n, &client, 3_002 + n as u32 % 3);
            (client, Some(shard))
        };
        match shard {
            Some(shard) => rows.extend([linked(n, client), shard]),
            None => rows.push(client),
        }
    }
    rows
}

#[test]
fn behind_a_balancer() {
    let every = |n: usize| n % 20 == 5;
    // Refused without a SYN to any shard, among successes.
    let race = balanced(1_000, every, |n, at| (answered(n, at, 503, MS / 5), None));
    let run = Run::new(&race, &["--port", "3005"]);
    assert_eq!(run.causes(), [("slot_race", 50)]);
    assert_eq!(run.report["links"]["linked"], 950);
    assert_eq!(run.report["links"]["certain"], 950);
    assert_eq!(run.report["links"]["never_tried"], 50);
    assert_eq!(run.report["attempts"], 1_000);

    // The shard's port is closed.
    let dead = balanced(1_000, every, |n, at| {
        let client = answered(n, at, 502, MS);
        let shard = ConnectionRow {
            established_ns: None,
            request_ns: None,
            response_ns: None,
            http_status: None,
            error: Some("ECONNREFUSED".into()),
            outcome: Some("no_listener".into()),
            closed_ns: client.request_ns.map(|at| at + 20_000),
            ..upstream(n, &client, 3_009)
        };
        (client, Some(shard))
    });
    assert_eq!(Run::new(&dead, &[]).causes(), [("upstream_refused", 50)]);

    // The balancer's timeout: the shard answers after it.
    let slow = balanced(1_000, every, |n, at| {
        let client = answered(n, at, 504, 2 * S + (n as i64 % 5) * MS);
        let shard = ConnectionRow {
            response_ns: client.response_ns.map(|at| at + S),
            ..upstream(n, &client, 3_002)
        };
        (client, Some(shard))
    });
    let run = Run::new(&slow, &[]);
    assert_eq!(run.causes(), [("upstream_timeout", 50)]);
    let summary = run.report["causes"][0]["summary"].as_str().unwrap();
    assert_eq!(summary, "the proxy gave up waiting for the shard after 2.00 s");

    // The shard takes the request and resets.
    let reset = balanced(1_000, every, |n, at| {
        let client = answered(n, at, 502, MS);
        let shard = ConnectionRow {
            response_ns: None,
            http_status: None,
            closed_by: Some("remote"),
            closed_how: Some("rst"),
            outcome: Some("no_response_server_reset".into()),
            ..upstream(n, &client, 3_002)
        };
        (client, Some(shard))
    });
    assert_eq!(Run::new(&reset, &[]).causes(), [("upstream_reset", 50)]);

    // The shard upgraded; the proxy's origin check turned the client away.
    let origin = balanced(1_000, every, |n, at| {
        let client = answered(n, at, 403, MS);
        let shard = ConnectionRow { http_status: Some(101), ..upstream(n, &client, 3_002) };
        (client, Some(shard))
    });
    let run = Run::new(&origin, &[]);
    assert_eq!(run.causes(), [("forbidden", 50)]);
    assert_eq!(
        run.report["causes"][0]["evidence_for"][0],
        "the shard had upgraded 50 of them: the check is in the proxy"
    );
}

#[test]
fn causes_mix_and_are_ranked() {
    let rows = balanced(
        2_000,
        |n| n % 4 == 0,
        |n, at| {
            let client = match n % 16 {
                0 => answered(n, at, 401, MS),
                4 | 8 => answered(n, at, 429, MS),
                _ => unanswered(n, at, S, "unknown"),
            };
            let shard = upstream(n, &client, 3_003);
            (client, Some(shard))
        },
    );
    let run = Run::new(&rows, &[]);
    assert_eq!(run.causes(), [("rate_limit", 250), ("authentication", 125), ("unknown", 125)]);
    let percents: Vec<_> = run.report["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["percent"].as_f64().unwrap())
        .collect();
    assert_eq!(percents, [50.0, 25.0, 25.0]);
}

#[test]
fn a_port_that_is_bound_late() {
    let rows = mixed(
        500,
        |n| n < 97,
        |n, at| ConnectionRow {
            established_ns: None,
            accepted_ns: None,
            request_ns: None,
            ..unanswered(n, at, MS, "no_listener")
        },
    );
    assert_eq!(Run::new(&rows, &[]).causes(), [("port_bound_late", 97)]);
}

/// A server dies, and the probe goes on asking it: both ends of each request are no attempts of clients. Two
/// clients come as well, one of them while a request is under way.
#[test]
fn the_probes_own_requests_to_a_dead_server_are_no_attempts() {
    let refused = |n: usize, at: i64| ConnectionRow {
        established_ns: None,
        accepted_ns: None,
        request_ns: None,
        ..unanswered(n, at, MS, "no_listener")
    };
    let mut rows = mixed(50, |_| false, upgraded);
    let mut polls = Vec::new();
    for n in 0..7 {
        let at = S + n as i64 * S;
        let active = ConnectionRow { role: "active", ..refused(100 + n, at + 1000) };
        rows.push(active);
        // The last one's other end was lost.
        rows.extend((n < 6).then(|| refused(200 + n, at + 2000)));
        polls.push(HealthRow {
            url: URL.into(),
            start_mono_ns: START + at,
            end_mono_ns: START + at + MS,
            local_address: None,
            local_port: None,
            http_status: None,
            error: Some("cannot connect: Connection refused".into()),
            reported: None,
            fields: None,
            kernel_min: None,
            kernel_max: None,
        });
    }
    rows.extend([refused(300, S + 3000), refused(301, 7 * S + 500 * MS)]);
    let temp = tempfile::tempdir().unwrap();
    let mut writer = CaptureWriter::create(&temp.path().join("run"), &meta()).unwrap();
    writer.connections(&rows).unwrap();
    writer.health(&polls).unwrap();
    writer.finish(&meta()).unwrap();
    let output = analyzer(&["handshakes", "run", "--json"], temp.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = ["attempts", "upgraded", "failed"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(counts, [52, 50, 2], "{report}");
}

#[test]
fn waiting_to_be_accepted() {
    let rows = mixed(
        500,
        |n| (200..245).contains(&n),
        |n, at| ConnectionRow {
            accepted_ns: None,
            request_ns: None,
            ..unanswered(n, at, 3 * S, "never_accepted")
        },
    );
    let run = Run::new(&rows, &[]);
    assert_eq!(run.causes(), [("slow_accept", 45)]);
}

/// Whatever is lost, the process is not to blame for it.
#[test]
fn lost_packets() {
    let late = |at: Option<i64>| at.map(|at| at + S);
    let rows = mixed(
        600,
        |n| n < 60,
        |n, at| {
            let left = unanswered(n, at, MS, "no_response_client_left");
            match n % 4 {
                // Neither last ACK nor request came in time, and the FIN came with them.
                0 => ConnectionRow {
                    established_ns: late(left.established_ns),
                    accepted_ns: None,
                    request_ns: late(left.request_ns),
                    left_established_ns: late(left.left_established_ns),
                    closed_ns: late(left.closed_ns),
                    retransmits: Some(2),
                    ..left
                },
                // The request alone did not.
                1 => ConnectionRow {
                    request_ns: late(left.request_ns),
                    left_established_ns: late(left.left_established_ns),
                    closed_ns: late(left.closed_ns),
                    ..left
                },
                // The answer was sent three times, in vain.
                2 => ConnectionRow {
                    upgraded_ns: left.request_ns.map(|at| at + MS),
                    response_ns: left.request_ns.map(|at| at + MS),
                    left_established_ns: left.request_ns.map(|at| at + 900 * MS),
                    closed_ns: left.request_ns.map(|at| at + 900 * MS),
                    retransmits: Some(3),
                    outcome: Some("closed_right_after_upgrade".into()),
                    ..left
                },
                // The process answered, and no packet of it was seen to leave.
                _ => ConnectionRow { bytes_sent: Some(166), ..left },
            }
        },
    );
    let run = Run::new(&rows, &[]);
    assert_eq!(run.causes(), [("packet_loss", 60)]);
    let evidence = run.report["causes"][0]["evidence_for"].to_string();
    for part in [
        "30 of them sent packets again",
        "30 requests came 1000 ms (median) after their SYN",
        "15 answers were sent again until the client left",
        "15 answers were sent by the process, and none of their packets left this host",
    ] {
        assert!(evidence.contains(part), "{part}: {evidence}");
    }
}

#[test]
fn without_attempts_it_says_how_to_record_them() {
    let rows: Vec<ConnectionRow> =
        (0..7).map(|n| ConnectionRow { class: "silent", ..blank_row(n) }).collect();
    let run = Run::new(&rows, &["--max-failed", "0"]);
    assert_eq!(run.code, 4);
    assert_eq!(run.report["attempts"], 0);
    assert_eq!(run.report["untold"], 7);
}

/// Clients from before the recording, to a port that was declared: 7 stay, 5 end, 2 of these are shown by their
/// frames to be WebSockets.
#[test]
fn connections_from_before_the_recording_are_no_attempts() {
    let mut rows = mixed(50, |n| n < 3, |n, at| answered(n, at, 503, MS));
    rows.extend((100..112).map(|n| ConnectionRow {
        seeded: true,
        first_seen_ns: START,
        class: if n < 102 { "upgraded" } else { "unknown" },
        state: if n < 105 { "close" } else { "established" },
        left_established_ns: (n < 105).then_some(START + S),
        closed_ns: (n < 105).then_some(START + S),
        closed_by: (n < 105).then_some("remote"),
        closed_how: (n < 105).then_some("fin"),
        ..blank_row(n)
    }));
    let mut meta = meta();
    meta.selection.websocket_ports = vec![PORT];
    let temp = tempfile::tempdir().unwrap();
    let mut writer = CaptureWriter::create(&temp.path().join("run"), &meta).unwrap();
    writer.connections(&rows).unwrap();
    writer.finish(&meta).unwrap();
    let output = analyzer(&["handshakes", "run", "--json"], temp.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = ["attempts", "upgraded", "failed", "untold"];
    let counts = counts.map(|name| report[name].as_u64().unwrap());
    assert_eq!(counts, [50, 47, 3, 12], "{report}");
}

#[test]
fn shards_and_their_imbalance() {
    // Every second connection of the third shard is turned away.
    let rows = balanced(
        600,
        |n| n % 6 == 2,
        |n, at| {
            let client = answered(n, at, 401, MS);
            let shard = upstream(n, &client, 3_004);
            (client, Some(shard))
        },
    );
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let mut writer = CaptureWriter::create(&dir, &meta()).unwrap();
    writer.connections(&rows).unwrap();
    writer.finish(&meta()).unwrap();
    let run = |args: &[&str]| {
        let mut all = vec!["shards", "run"];
        all.extend(args);
        let output = analyzer(&all, temp.path());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, json) = run(&["--json", "--max-imbalance", "50%"]);
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["imbalance_percent"], 50.0);
    let shards = report["shards"].as_array().unwrap();
    let figures: Vec<_> = shards
        .iter()
        .map(|s| {
            ["port", "attempts", "upgraded", "failed", "peak"].map(|key| s[key].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        figures,
        [[3_002, 200, 200, 0, 200], [3_003, 200, 200, 0, 200], [3_004, 200, 100, 100, 100]]
    );
    assert_eq!(run(&["--max-imbalance", "49%"]).0, Some(99));
    assert_eq!(run(&["--port", "3002", "--max-imbalance", "5%"]).0, Some(4));
    let (_, table) = run(&[]);
    assert!(table.starts_with("run: imbalance 50.0 % at 2023-11-14 22:13:"), "{table}");
}

#[test]
fn runs_are_compared() {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, failures: usize| {
        let rows = mixed(1_000, |n| n % 100 < failures, |n, at| answered(n, at, 429, MS));
        let mut writer = CaptureWriter::create(&temp.path().join(name), &meta()).unwrap();
        writer.connections(&rows).unwrap();
        writer.finish(&meta()).unwrap();
    };
    for (name, failures) in [("before", 20), ("same", 21), ("after", 1)] {
        write(name, failures);
    }
    let beyond_noise = |other: &str| {
        let output = analyzer(&["compare", "before", other, "--json"], temp.path());
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        let figures: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let failed = figures.iter().find(|figure| figure["figure"] == "failed").unwrap();
        (failed["values"][1].as_f64().unwrap(), failed["beyond_noise"].as_bool().unwrap())
    };
    assert_eq!(beyond_noise("same"), (21.0, false));
    assert_eq!(beyond_noise("after"), (1.0, true));
    let table = analyzer(&["compare", "before", "after"], temp.path()).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert!(table.contains("  ≠"));
}
