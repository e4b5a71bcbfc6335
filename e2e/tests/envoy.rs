//! Envoy before three servers: its own numbers, by each of its pages, are the kernel's.

use std::process::Command;
use std::time::Duration;

use e2e::envoy::{self, Envoy, route};
use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::{Place, free_port};
use e2e::process::{Running, Signal, binary, finish};
use e2e::scratch::Scratch;
use e2e::truth::{ss, wait_equal, wait_equal_within};
use serde_json::{Value, json};

const FIRST: usize = 23;
const MORE: usize = 18;
const PATIENCE: Duration = Duration::from_secs(60);

fn load(port: u16, connections: usize, results: &str) -> Running {
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://127.0.0.1:{port}/"), "--hold", "10m"]);
    load.args(["--connections", &connections.to_string(), "-o", results]);
    Running::start(&mut load)
}

fn analyze(args: &[&str]) -> Value {
    let finished = finish(Command::new(binary("analyzer")).args(args).arg("--json"));
    serde_json::from_str(&finished.stdout).unwrap_or_default()
}

/// Every value of a series that `analyzer leaks` makes of the capture so far.
fn values(capture: &str, series: &str) -> Vec<usize> {
    let leaks = analyze(&["leaks", capture, "--series", &format!("chosen={series}")]);
    let followed = leaks["followed"].as_array().into_iter().flatten();
    let points =
        followed.filter(|one| one["name"] == "chosen").flat_map(|one| one["points"].as_array());
    points.flatten().map(|point| point[1].as_f64().expect("a number") as usize).collect()
}

#[test]
fn envoys_own_numbers_are_the_kernels() {
    let needs = [Need::Bpf, Need::Program("envoy")];
    let Some(_machine) = require_beside_others(&needs) else { return };
    let (place, scratch) = (Place::host(), Scratch::new("envoy"));
    let servers =
        [(); 3].map(|()| lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]));
    let shards = servers.each_ref().map(|server| server.address().port());
    let proxy = free_port();
    let routes = [route("/", "shards", json!({ "timeout": "0s" }))];
    let envoy = Envoy::start(
        &scratch,
        free_port(),
        &[envoy::listener(proxy, "ws", &routes)],
        &[envoy::cluster("shards", &shards, json!({}))],
    );

    let capture = scratch.join("capture");
    let ports = [&[proxy], &shards[..]].concat().iter().map(u16::to_string).collect::<Vec<_>>();
    let mut record = Command::new(binary("probe"));
    record.args(["record", "-o", &capture, "--interval", "200ms", "--port", &ports.join(",")]);
    // An upgrade ends up to `delayed_close_timeout` before its connection, which the kernel counts.
    let filter = "/stats?format=json&filter=^http.ws.downstream_cx_active$";
    record.args(["--health", &envoy.admin(filter), "--reported", ".stats[0].value"]);
    record.args(["--metrics", &envoy.admin("/stats")]);
    record.args(["--metrics", &envoy.admin("/stats/prometheus")]);
    let record = Running::start(&mut record);
    record.wait_stderr("recording");

    let on_every_page = |count: usize, what: &str| {
        let established = |ports: &[u16]| {
            ports
                .iter()
                .map(|port| ss(&place, "established", &format!("sport = :{port}")))
                .sum::<usize>()
        };
        wait_equal(what, &[count; 2], || [established(&[proxy]), established(&shards)]);
        for series in [
            "http.ws.downstream_cx_active",
            "http.ws.downstream_cx_upgrades_active",
            "cluster.shards.upstream_cx_active",
            // What the admin interface counts of itself would make one more.
            "envoy_http_downstream_cx_active",
            "envoy_http_downstream_cx_upgrades_active",
            "envoy_cluster_upstream_cx_active",
        ] {
            wait_equal_within(PATIENCE, &format!("{what}: {series}"), &Some(count), || {
                values(&capture, series).last().copied()
            });
        }
    };
    let first = load(proxy, FIRST, &scratch.join("first.jsonl"));
    on_every_page(FIRST, "some");
    let more = load(proxy, MORE, &scratch.join("more.jsonl"));
    on_every_page(FIRST + MORE, "all");
    let _ = first.stop(Signal::INT);
    on_every_page(MORE, "some have left");
    let _ = more.stop(Signal::INT);
    on_every_page(0, "none");
    assert_eq!(record.stop(Signal::INT).code, Some(130));

    let first = scratch.join("first.jsonl");
    let report = [
        "report",
        &capture,
        "--client",
        &first,
        "--port",
        &ports[0],
        "-o",
        &scratch.join("report"),
    ];
    let report = analyze(&report);
    let capture = &report["captures"][0];
    let server = &capture["servers"][0];
    let samples = server["series"].as_array().expect("samples");
    assert_eq!(server["judged"], samples.len(), "{server}");
    for sample in samples {
        assert_eq!(
            (&sample["phantoms"], &sample["reverse_phantoms"]),
            (&json!(0), &json!(0)),
            "{sample}"
        );
    }
    let most = samples.iter().filter_map(|sample| sample["reported"].as_u64()).max();
    assert_eq!(most, Some((FIRST + MORE) as u64));
    let all = FIRST + MORE;
    let links = json!({ "linked": all, "certain": all, "never_tried": 0 });
    assert_eq!(capture["handshakes"]["links"], links);
    // Of all the pages' numbers that of the listener, not that of the admin interface.
    let followed = capture["leaks"]["followed"].as_array().expect("series");
    let of_proxy = followed.iter().find(|one| one["name"] == "proxy_connections").expect("it");
    assert!(
        of_proxy["source"].as_str().expect("its page").ends_with(" http.ws.downstream_cx_active")
    );
    assert_eq!(of_proxy["peak"].as_f64(), Some(all as f64));
    let clients = &report["clients"];
    assert_eq!((&clients["matched"], &clients["unmatched"]), (&FIRST.into(), &0.into()));
}
