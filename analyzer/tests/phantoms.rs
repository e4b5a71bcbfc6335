//! Known numbers of phantoms of each kind, found as such, and none on healthy runs.

mod common;
mod scene;

use capture::schema::ListedRow;
use common::{MS, PORT, S, START, START_UNIX, URL, analyzer, blank_row};
use scene::{Conn, Scene};
use serde_json::Value;

/// Runs `analyzer report` on a scene: exit code and report.
fn report(scene: &Scene, args: &[&str]) -> (i32, Value) {
    let temp = tempfile::tempdir().unwrap();
    scene.write(&temp.path().join("run"));
    let mut all = vec!["report", "run", "--json"];
    all.extend(args);
    let output = analyzer(&all, temp.path());
    let code = output.status.code().unwrap();
    assert!(matches!(code, 0 | 4 | 99), "exit {code}: {}", String::from_utf8_lossy(&output.stderr));
    (code, serde_json::from_slice(&output.stdout).unwrap())
}

/// The only server's only finding.
fn only_finding(report: &Value) -> &Value {
    let findings = report["captures"][0]["servers"][0]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    &findings[0]
}

/// 1,000 clients at 100/s, which stay for a minute; 45 die by RST from 31 s to 33 s, and the server
/// keeps them on its count.
fn leak_on_rst(clients: i64, leaked: i64) -> Scene {
    let mut scene = Scene::new(60 * S);
    for n in 0..clients {
        let mut conn = Conn::open(n * 10 * MS);
        if n % (clients / leaked) == 0 && n / (clients / leaked) < leaked {
            let nth = n / (clients / leaked);
            conn = conn.ended(31 * S + nth * 2 * S / leaked, "remote", "rst").leaked();
        }
        scene.conns.push(conn);
    }
    scene
}

/// It is no count to hold anything against, nor may it make sums overflow.
#[test]
fn what_is_reported_beyond_any_count_is_no_answer() {
    for beyond in [i64::MAX - 1_000, i64::MIN] {
        let mut scene = leak_on_rst(100, 5);
        scene.adjust.push((0, beyond));
        let (code, report) = report(&scene, &[]);
        assert_eq!((code, &report["verdict"]["state"]), (4, &"inconclusive".into()));
    }
}

#[test]
fn forty_five_of_a_thousand_leak_on_rst() {
    let (code, report) = report(&leak_on_rst(1_000, 45), &[]);
    assert_eq!(code, 99);
    assert_eq!(report["verdict"]["state"], "crossed");
    assert_eq!(report["verdict"]["headline"], "45 phantoms: application leak");
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "application_leak");
    assert_eq!(finding["count"], 45);
    assert_eq!(finding["at_end"], 45);
    assert_eq!(finding["percent"], 4.5);
    assert_eq!(finding["certainty"], "certain");
    assert_eq!(
        finding["cause"],
        "the server does not clean up after connections that end by rst from the remote end"
    );
    assert_eq!(finding["cause_certainty"], "likely");
    let births = finding["births"].as_array().unwrap();
    assert_eq!(births.len(), 1);
    assert_eq!(births[0]["count"], 45);
    assert_eq!(births[0]["ended"][0]["by"], "remote");
    assert_eq!(births[0]["ended"][0]["how"], "rst");
    assert_eq!(births[0]["ended"][0]["count"], 45);
    let from = births[0]["from_unix_ns"].as_i64().unwrap();
    let to = births[0]["to_unix_ns"].as_i64().unwrap();
    assert!((29 * S..=31 * S).contains(&(from - START_UNIX)));
    assert!((33 * S..=34 * S).contains(&(to - START_UNIX)));
    // The very connections: every 22nd, from 10000 on.
    assert_eq!(finding["examples_are_named"], true);
    assert_eq!(finding["examples"][1]["remote_port"], 10_022);
    let episodes = finding["episodes"].as_array().unwrap();
    assert_eq!(episodes.len(), 1);
    assert_eq!(episodes[0]["ongoing"], true);
    assert_eq!(episodes[0]["peak"], 45);
    assert_eq!(episodes[0]["growth_per_minute"], 0.0);
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["basis"], "connections");
    assert_eq!(server["left_out_health_polls"], 60);
    assert_eq!(server["agreement"]["compared"], server["agreement"]["equal"]);
    assert_eq!(server["last"]["kernel_high"], 955);
    assert_eq!(server["last"]["reported"], 1_000);
}

#[test]
fn odd_numbers_are_found_exactly() {
    for (clients, leaked) in [(100, 1), (997, 23), (5_000, 997)] {
        let (code, report) = report(&leak_on_rst(clients, leaked), &[]);
        assert_eq!(code, 99);
        assert_eq!(only_finding(&report)["count"], leaked);
    }
}

#[test]
fn limits_decide_the_exit_code() {
    let scene = leak_on_rst(1_000, 45);
    for (limit, expected) in [("45", 0), ("44", 99), ("4.5%", 0), ("4.4%", 99)] {
        assert_eq!(report(&scene, &["--max-phantoms", limit]).0, expected, "{limit}");
    }
}

/// 200 connects and 200 closes a second, and a server that is right, if a millisecond late.
fn healthy_churn() -> Scene {
    let mut scene = Scene::new(30 * S);
    scene.health_every = 200 * MS;
    for n in 0..6_000 {
        let from = n * 5 * MS;
        let how = ["fin", "rst"][n as usize % 2];
        let by = ["remote", "local"][n as usize / 2 % 2];
        scene.conns.push(Conn::open(from).ended(from + 1_700 * MS, by, how));
    }
    scene
}

#[test]
fn a_healthy_server_under_churn_is_not_accused() {
    let (code, report) = report(&healthy_churn(), &[]);
    assert_eq!(code, 0, "{}", report["verdict"]);
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["findings"].as_array().unwrap().len(), 0);
    assert_eq!(server["phantoms"]["peak"], 0);
    assert_eq!(server["reverse_phantoms"]["peak"], 0);
    assert_eq!(server["judged"], 150);
    assert_eq!(report["verdict"]["headline"], "no phantoms");
}

/// The server's list names who was left behind, also where a request for a page had the port of one of them
/// later on, and is still under way.
#[test]
fn a_list_names_those_that_were_left_behind() {
    let mut scene = leak_on_rst(100, 23);
    for conn in &mut scene.conns {
        conn.class = "upgraded";
    }
    let listed = |n: usize| {
        let row = blank_row(n);
        ListedRow {
            url: URL.into(),
            remote_address: row.remote_address,
            remote_port: row.remote_port,
            first_start_mono_ns: START,
            first_end_mono_ns: START + MS,
            last_start_mono_ns: START + 59 * S,
            last_end_mono_ns: START + 59 * S + MS,
            gone_mono_ns: None,
            copies: 1,
        }
    };
    let leaked = |n: &usize| scene.conns[*n].reported_until.is_none();
    scene.listed = (0..scene.conns.len()).filter(leaked).map(listed).collect();
    assert_eq!((scene.listed.len(), scene.listed[0].remote_port), (23, blank_row(0).remote_port));
    let mut page = Conn::open(59 * S);
    (page.class, page.remote_port) = ("http", Some(blank_row(0).remote_port));
    (page.reported_from, page.reported_until) = (None, None);
    scene.conns.push(page);
    let (_, report) = report(&scene, &[]);
    let finding = only_finding(&report);
    assert_eq!((&finding["count"], &finding["examples_are_named"]), (&23.into(), &true.into()));
    let said = finding["evidence_for"].to_string();
    assert!(
        said.contains("the server's own list still has 23 connections that are over"),
        "{said}"
    );
}

/// A balancer's own number is held against its own port, though the shards' were recorded as well; and so
/// where the rows are missing, and the counters decide.
#[test]
fn a_balancers_shards_are_no_connections_of_its_own() {
    for lost_rows in [0, 1_000] {
        let balancer = Scene { shard_port: Some(PORT + 1), lost_rows, ..healthy_churn() };
        let (code, report) = report(&balancer, &[]);
        let server = &report["captures"][0]["servers"][0];
        assert_eq!(server["population"]["ports"], serde_json::json!([PORT]));
        assert_eq!(server["reverse_phantoms"]["peak"], 0, "{}", report["verdict"]);
        assert_eq!(code, 0, "{}", report["verdict"]);
        // Who wants both gets both.
        let both = format!("{PORT},{}", PORT + 1);
        let temp = tempfile::tempdir().unwrap();
        balancer.write(&temp.path().join("run"));
        let output = analyzer(&["report", "run", "--port", &both], temp.path());
        assert_eq!(output.status.code(), Some(99));

        let leaking = Scene { shard_port: Some(PORT + 1), lost_rows, ..leak_on_rst(1_000, 45) };
        let server = &self::report(&leaking, &[]).1["captures"][0]["servers"][0];
        assert_eq!(server["phantoms"]["at_end"], 45);
    }
}

/// Connections that were there before the recording, and end in it.
#[test]
fn connections_from_before_the_recording_count() {
    let mut scene = Scene::new(30 * S);
    for n in 0..997 {
        let mut conn = Conn::open(-S);
        conn.seeded = true;
        scene.conns.push(if n < 23 {
            conn.ended(12 * S + n * MS, "remote", "fin").leaked()
        } else {
            conn
        });
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let finding = only_finding(&report);
    assert_eq!((&finding["count"], &finding["kind"]), (&23.into(), &"application_leak".into()));
    assert_eq!(report["captures"][0]["servers"][0]["series"][0]["kernel_low"], 997);
}

#[test]
fn phantoms_from_before_the_first_sample_have_no_known_cause() {
    let mut scene = Scene::new(20 * S);
    scene.conns = (0..100).map(|n| Conn::open(n * MS)).collect();
    scene.adjust.push((0, 23));
    let (_, report) = report(&scene, &[]);
    let finding = only_finding(&report);
    assert_eq!(finding["count"], 23);
    assert_eq!(finding["births"][0]["before_first_sample"], true);
    assert_eq!(finding["cause_certainty"], "unknown");
    assert!(finding["cause"].is_null());
}

/// Amid 5,000 healthy closes by FIN, a steady leak on RST: only RST is blamed, and the growth told.
#[test]
fn a_steady_leak_amid_churn() {
    let mut scene = Scene::new(120 * S);
    for n in 0..5_000 {
        let from = n * 20 * MS;
        scene.conns.push(Conn::open(from).ended(from + 3 * S, "remote", "fin"));
    }
    for n in 0..30 {
        let from = 10 * S + n * 3 * S;
        scene.conns.push(Conn::open(from).ended(from + S, "remote", "rst").leaked());
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "application_leak");
    // All connections have ended by 120 s, so the last samples see the leak alone.
    assert_eq!(finding["at_end"], 30);
    let growth = finding["episodes"][0]["growth_per_minute"].as_f64().unwrap();
    assert!((15.0..25.0).contains(&growth), "{growth}");
}

#[test]
fn descriptors_that_are_never_closed() {
    let mut scene = Scene::new(60 * S);
    for n in 0..500 {
        let conn = Conn::open(n * 10 * MS);
        scene.conns.push(if n < 45 {
            conn.ended(20 * S + n * 10 * MS, "remote", "fin").leaked().held()
        } else {
            conn
        });
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "descriptor_leak");
    assert_eq!((&finding["count"], &finding["at_end"]), (&45.into(), &45.into()));
    assert_eq!(finding["certainty"], "certain");
    assert_eq!(report["captures"][0]["servers"][0]["phantoms"]["peak"], 45);
    assert_eq!(finding["examples"][0]["state"], "close_wait");
    assert_eq!(
        finding["evidence_for"][0],
        "at the end 45 sockets were over and still held by their process: 45 in close_wait, \
         0 closed with an open descriptor"
    );
}

#[test]
fn half_open_connections_are_told_by_unanswered_probes() {
    let mut scene = Scene::new(60 * S);
    for n in 0..200 {
        let mut conn = Conn::open(n * 10 * MS);
        conn.unanswered_probes = if n < 23 { 4 } else { u32::from(n % 2 == 0) };
        scene.conns.push(conn);
    }
    for n in 0..7 {
        scene.conns.push(Conn::open(n * MS).ended(40 * S, "timeout", "timeout"));
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "half_open");
    assert_eq!((&finding["count"], &finding["at_end"]), (&30.into(), &23.into()));
    // Reported and established are equal, and 23 of them are not there.
    assert_eq!(report["captures"][0]["servers"][0]["phantoms"]["peak"], 23);
}

#[test]
fn connections_that_the_server_never_entered() {
    let mut scene = Scene::new(60 * S);
    for n in 0..500 {
        let mut conn = Conn::open(n * 20 * MS);
        if n % 20 == 19 {
            conn.reported_from = None;
        }
        scene.conns.push(conn);
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "reverse_phantom");
    assert_eq!(finding["count"], 25);
    assert_eq!(finding["cause"], "the server did not enter some connections");
    assert_eq!(report["captures"][0]["servers"][0]["phantoms"]["peak"], 0);
}

#[test]
fn closes_that_count_twice() {
    let mut scene = Scene::new(60 * S);
    for n in 0..500 {
        let conn = Conn::open(n * 10 * MS);
        scene.conns.push(if n < 45 {
            let to = 20 * S + n * 100 * MS;
            scene.adjust.push((to + MS, -1));
            conn.ended(to, "remote", "rst")
        } else {
            conn
        });
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "double_decrement");
    assert_eq!(finding["count"], 45);
    assert_eq!(finding["certainty"], "likely");
    assert_eq!(
        finding["cause"],
        "a close is counted twice when a connection ends by rst from the remote end"
    );
}

#[test]
fn a_negative_report_is_certain() {
    let mut scene = Scene::new(40 * S);
    for n in 0..100 {
        let to = 20 * S + n * 10 * MS;
        scene.conns.push(Conn::open(n * 10 * MS).ended(to, "local", "fin"));
        if n < 23 {
            scene.adjust.push((to + MS, -1));
        }
    }
    let (_, report) = report(&scene, &[]);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "double_decrement");
    assert_eq!((&finding["count"], &finding["certainty"]), (&23.into(), &"certain".into()));
}

/// Plain HTTP requests by somebody else to the same port leave by their class.
#[test]
fn other_http_requests_do_not_count_where_classes_are_known() {
    let mut scene = Scene::new(30 * S);
    for n in 0..100 {
        let mut conn = Conn::open(n * 10 * MS);
        conn.class = "upgraded";
        scene.conns.push(conn);
    }
    for _ in 0..3 {
        let mut monitor = Conn::open(5 * S);
        monitor.class = "http";
        monitor.reported_from = None;
        scene.conns.push(monitor);
    }
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 0, "{report:#}");
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["left_out_http"], 3);
    assert_eq!(server["last"]["kernel_high"], 100);
}

#[test]
fn over_a_loss_nothing_is_concluded() {
    let mut scene = leak_on_rst(1_000, 45);
    scene.loss.push((0, 60 * S));
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 4);
    assert_eq!(report["verdict"]["state"], "inconclusive");
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["judged"], 0);
    assert_eq!(server["inconclusive"][0]["why"], "7 lost (ring full)");
    assert!(server["phantoms"]["peak"].is_null());
}

/// The recorder tells once a second: one line for each time that it went on, with all that was lost.
#[test]
fn a_loss_that_goes_on_is_one() {
    let mut scene = leak_on_rst(1_000, 45);
    let second = |at: i64| (at * S, (at + 1) * S);
    scene.loss.extend((10..40).chain(50..55).map(second));
    let (_, report) = report(&scene, &[]);
    let losses = report["captures"][0]["quality"]["losses"].as_array().unwrap();
    let lengths: Vec<(i64, i64)> = losses
        .iter()
        .map(|loss| {
            let at = |name: &str| loss[name].as_i64().unwrap();
            ((at("to_unix_ns") - at("from_unix_ns")) / S, at("count"))
        })
        .collect();
    assert_eq!(lengths, [(30, 30 * 7), (5, 5 * 7)]);
}

#[test]
fn what_is_uncertain_is_not_called_lost() {
    let mut scene = leak_on_rst(1_000, 45);
    scene.loss.push((0, 60 * S));
    scene.lost = 0;
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 4);
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["inconclusive"][0]["why"], "uncertain (ring full)");
    let temp = tempfile::tempdir().unwrap();
    scene.write(&temp.path().join("run"));
    analyzer(&["report", "run", "-o", "out"], temp.path());
    for page in ["report.md", "report.html"] {
        let page = std::fs::read_to_string(temp.path().join("out").join(page)).unwrap();
        assert!(page.contains("uncertain (ring full) from "), "{page}");
        assert!(!page.contains("lost (ring full)"), "{page}");
    }
}

/// Rows are missing, and nobody said so: the counters tell, and are used instead.
#[test]
fn rows_that_disagree_with_the_counters_are_not_trusted() {
    let mut scene = leak_on_rst(1_000, 45);
    scene.lost_rows = 300;
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["basis"], "counts");
    assert_eq!(only_finding(&report)["count"], 45);
}

/// A record was lost and with it a connection's whole life, of which the loss marks the end: the others agree with the
/// counters all the same.
#[test]
fn where_records_were_lost_the_counters_are_used() {
    let mut scene = Scene::new(300 * S);
    scene.conns.push(Conn::open(100 * S).ended(102 * S + 400 * MS, "remote", "fin"));
    scene.conns.extend((0..40).map(|_| Conn::open(S)));
    scene.lost_rows = 1;
    scene.loss.push((102 * S, 103 * S));
    scene.loss_reason = "1 connection records were lost: they came faster than they were read";
    let (code, report) = report(&scene, &["--max-phantoms", "0"]);
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["basis"], "counts", "{}", server["agreement"]);
    assert_eq!((code, &server["phantoms"]["peak"]), (0, &serde_json::json!(0)));
}

/// A sample's interval reaches back by the settle time, and to the next second's counts where these are used: a loss
/// in any of that lets nothing be judged.
#[test]
fn a_loss_anywhere_in_what_is_compared_counts() {
    let unjudged = |loss, lost_rows, args: &[&str]| {
        let mut scene = leak_on_rst(1_000, 45);
        (scene.loss, scene.lost_rows) = (vec![loss], lost_rows);
        let server = report(&scene, args).1["captures"][0]["servers"][0].clone();
        let expected = if lost_rows == 0 { "connections" } else { "counts" };
        assert_eq!(server["basis"], expected);
        server["inconclusive"][0]["count"].as_u64().unwrap_or(0)
    };
    // Samples are at 10.5 s, 11.5 s and so on.
    let (just_before, just_after) =
        ((10 * S + 300 * MS, 10 * S + 400 * MS), (10 * S + 900 * MS, 11 * S));
    assert_eq!(unjudged(just_before, 0, &[]), 1);
    assert_eq!(unjudged(just_before, 0, &["--settle", "50ms"]), 0);
    assert_eq!(unjudged(just_before, 0, &["--settle", "1s"]), 1);
    assert_eq!(unjudged(just_after, 0, &[]), 0);
    assert_eq!(unjudged(just_after, 300, &[]), 1);
}

/// Killed with -9: connections that were open have no row, and the counters are used.
#[test]
fn a_capture_that_was_cut_off_is_judged_by_its_counters() {
    let mut scene = leak_on_rst(1_000, 45);
    scene.finished = false;
    let (code, report) = report(&scene, &[]);
    assert_eq!(code, 99);
    assert_eq!(only_finding(&report)["count"], 45);
    assert_eq!(report["captures"][0]["quality"]["cut_off"], true);

    let mut healthy = healthy_churn();
    healthy.finished = false;
    assert_eq!(self::report(&healthy, &[]).0, 0);
}

/// Of short connections only the last seconds' have no row yet, of a capture that is read while it is
/// written as well: where the others agree with the counters, these do not.
#[test]
fn the_end_of_short_connections_that_was_cut_off_is_no_leak() {
    let mut scene = Scene::new(1_000 * S);
    for n in 0..2_000 {
        let from = n * S / 2;
        let conn = Conn::open(from);
        // At the cut, ten are open.
        scene.conns.push(conn.ended(from + 5 * S, "remote", "fin"));
    }
    scene.finished = false;
    let (code, report) = report(&scene, &[]);
    let server = &report["captures"][0]["servers"][0];
    assert_eq!(server["basis"], "counts");
    assert_eq!((code, &server["findings"]), (0, &serde_json::json!([])));
    let notes = server["notes"].to_string();
    assert!(notes.contains("the recording was cut off, and connections that were open"), "{notes}");
}

/// Ten a second come and go, so that most samples allow a difference of one; twice, a minute apart, a
/// busy server was late for one sample.
#[test]
fn two_late_answers_in_churn_are_no_phantom() {
    let mut scene = Scene::new(180 * S);
    for n in 0..1_750 {
        let from = n * 100 * MS;
        scene.conns.push(Conn::open(from).ended(from + 5 * S + 50 * MS, "remote", "fin"));
    }
    for late in [60, 120] {
        scene.adjust.extend([(late * S, -2), (late * S + S, 2)]);
    }
    let (code, report) = report(&scene, &["--max-phantoms", "0"]);
    let server = &report["captures"][0]["servers"][0];
    let series = server["series"].as_array().unwrap();
    let late = series.iter().filter(|sample| sample["reverse_phantoms"] != 0).count();
    assert_eq!((code, late), (0, 2), "{}", server["findings"]);
    assert_eq!(server["findings"], serde_json::json!([]));
}

/// The server answered all along; what could not be held against its answers is no gap in them.
#[test]
fn counts_that_were_lost_are_no_gap_of_the_server() {
    let mut scene = healthy_churn();
    scene.loss.push((8 * S, 20 * S));
    let gaps = ["--interval", "2s", "--duration", "30s", "--threshold", "leaks.gaps == 0"];
    let (code, report) = report(&scene, &gaps);
    let thresholds = report["thresholds"].as_array().unwrap();
    let gaps = thresholds.iter().find(|one| one["name"] == "leaks.gaps").unwrap();
    assert_eq!((&gaps["measured"], &gaps["state"]), (&0.0.into(), &"held".into()));
    // And what was lost is not passed over.
    let server = &report["captures"][0]["servers"][0];
    let lost: u64 = server["inconclusive"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["count"].as_u64())
        .sum();
    // One of them for the time that it reaches back.
    assert_eq!((code, lost), (0, 61));
}

/// Three runs beside each other: a leak, the same again, and without it.
#[test]
fn before_beside_after_a_fix() {
    let temp = tempfile::tempdir().unwrap();
    let leaking: fn(i64) -> String = |at| format!("{{\".goroutines\":{}}}", 20 + at / S);
    let flat: fn(i64) -> String = |_| "{\".goroutines\":20}".to_owned();
    for (name, leaked, fields) in
        [("before", 45, leaking), ("again", 45, leaking), ("after", 0, flat)]
    {
        let mut scene = if leaked > 0 { leak_on_rst(1_000, leaked) } else { healthy_churn() };
        scene.fields = Some(fields);
        scene.write(&temp.path().join(name));
    }
    let output = analyzer(&["compare", "before", "again", "after", "--json"], temp.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let figure = |name: &str| figures.iter().find(|one| one["figure"] == name).unwrap();
    let phantoms = figure("phantoms, most");
    assert_eq!(phantoms["values"], serde_json::json!([45.0, 45.0, 0.0]));
    assert_eq!(phantoms["beyond_noise"], true);
    let growth = figure("goroutines grow by");
    assert_eq!((&growth["unit"], &growth["values"][2]), (&"/min".into(), &0.0.into()));
    for leaking in 0..2 {
        let rate = growth["values"][leaking].as_f64().unwrap();
        assert!((rate - 60.0).abs() < 0.5, "{growth}");
    }
    assert_eq!(growth["beyond_noise"], true);
    let alike = analyzer(&["compare", "before", "again"], temp.path()).stdout;
    let alike = String::from_utf8(alike).unwrap();
    let line = |start| alike.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(
        !line("phantoms, most").ends_with('≠') && !line("goroutines").ends_with('≠'),
        "{alike}"
    );
}
