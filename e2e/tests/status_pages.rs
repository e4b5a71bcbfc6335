//! Status pages of servers that are not ours, and what the kernel says of the processes: recorded, and
//! followed live, with numbers that are known.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::{Place, free_port};
use e2e::nginx::Nginx;
use e2e::process::{Finished, Running, Signal, binary, finish, finish_within};
use e2e::scratch::Scratch;
use e2e::truth::{ss, wait_equal, wait_equal_within};
use serde_json::Value;

const BY_NGINX: usize = 23;
const BY_HAPROXY: usize = 19;

fn load(port: u16, connections: usize, results: &str) -> Running {
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://127.0.0.1:{port}/"), "--hold", "10m"]);
    load.args(["--connections", &connections.to_string(), "-o", results]);
    Running::start(&mut load)
}

fn analyze(args: &[&str]) -> Finished {
    finish(Command::new(binary("analyzer")).args(args))
}

/// What `analyzer leaks` makes of a capture that may still be written; null as long as it has nothing.
fn leaks(capture: &str) -> Value {
    let args = ["leaks", capture, "--json", "--series", "haproxy=haproxy_server_scur"];
    let finished = analyze(&args);
    serde_json::from_str(&finished.stdout).unwrap_or_default()
}

/// Values of one series, in order of time.
fn values(leaks: &Value, name: &str) -> Vec<f64> {
    let followed = leaks["followed"].as_array().into_iter().flatten();
    let points =
        followed.filter(|one| one["name"] == name).flat_map(|one| one["points"].as_array());
    points.flatten().map(|point| point[1].as_f64().unwrap()).collect()
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn proxies_and_processes_are_recorded() {
    let needs = [Need::Bpf, Need::Program("nginx"), Need::Program("haproxy")];
    let Some(_machine) = require_beside_others(&needs) else { return };
    let (place, scratch) = (Place::host(), Scratch::new("status-pages"));
    let server = lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]);
    let address = server.address();
    let (nginx_port, haproxy_port) = (free_port(), free_port());
    let _nginx = Nginx::start(
        &place,
        nginx_port,
        &format!(
            "server {{ listen 127.0.0.1:{nginx_port}; location = /stub_status {{ stub_status; }}\n\
             location / {{ proxy_pass http://{address}; proxy_http_version 1.1;\n\
             proxy_read_timeout 1h; proxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection upgrade; }} }}"
        ),
    );
    let configuration = scratch.join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n \
         timeout tunnel 1h\nfrontend ws\n bind 127.0.0.1:{haproxy_port}\n stats enable\n \
         stats uri /stats\n default_backend shards\nbackend shards\n server s1 {address}\n"
    );
    fs::write(&configuration, text).unwrap();
    let mut haproxy = Command::new("haproxy");
    let _haproxy = Running::start(haproxy.args(["-db", "-f", &configuration]));
    let listening = || ss(&place, "listening", &format!("sport = :{haproxy_port}"));
    wait_equal("haproxy listens", &1, || listening().min(1));

    let capture = scratch.join("capture");
    let mut record = Command::new(binary("probe"));
    record.args(["record", "-o", &capture, "--interval", "200ms", "--port"]);
    record.arg(format!("{},{nginx_port},{haproxy_port}", address.port()));
    for page in [
        format!("http://127.0.0.1:{nginx_port}/stub_status"),
        format!("http://127.0.0.1:{haproxy_port}/stats;csv"),
    ] {
        record.args(["--metrics", &page]);
    }
    let record = Running::start(&mut record);
    record.wait_stderr("recording");
    let port = address.port();
    let fds = format!("descriptors_{port}");
    // The processes are read before the first client comes.
    let is_read = || !values(&leaks(&capture), &fds).is_empty();
    wait_equal_within(PATIENCE, "the processes are read", &true, is_read);
    let results = [scratch.join("nginx.jsonl"), scratch.join("haproxy.jsonl")];
    let loads =
        [load(nginx_port, BY_NGINX, &results[0]), load(haproxy_port, BY_HAPROXY, &results[1])];
    let held = || ss(&place, "established", &format!("sport = :{port}"));
    wait_equal("all are there", &(BY_NGINX + BY_HAPROXY), held);
    let grown = |leaks: &Value, name: &str| {
        let values = values(leaks, name);
        Some(values.iter().copied().fold(0.0, f64::max) - values.first()?)
    };
    wait_equal_within(
        PATIENCE,
        "all are on the pages",
        &(true, true, Some((BY_NGINX + BY_HAPROXY) as f64)),
        || {
            let leaks = leaks(&capture);
            let has = |name: &str, value: usize| values(&leaks, name).contains(&(value as f64));
            // The request for nginx's page is a connection as well.
            let nginx = has("proxy_connections", BY_NGINX + 1);
            (nginx, has("haproxy", BY_HAPROXY), grown(&leaks, &fds))
        },
    );
    for load in loads {
        let _ = load.stop(Signal::INT);
    }
    // A server that dies while it is recorded is a finding.
    drop(server);
    let crashes = || leaks(&capture)["stability"]["crashes"].clone();
    wait_equal_within(PATIENCE, "it is gone", &Some(1), || crashes().as_array().map(Vec::len));
    assert_eq!(record.stop(Signal::INT).code, Some(130));
    assert_eq!(crashes()[0]["service"], format!("lab, port {port}"));
    assert!(crashes()[0]["back_unix_ns"].is_null());
    let finished = analyze(&["leaks", &capture]);
    assert_eq!(finished.code, Some(99), "{finished}");
    let words = finished.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("lab, port {port} was gone from ")), "{finished}");

    // The clients' own results, joined with the same capture.
    let front = nginx_port.to_string();
    let finished =
        analyze(&["clients", &capture, "--client", &results[0], "--port", &front, "--json"]);
    let clients: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&clients["matched"], &clients["unmatched"]), (&BY_NGINX.into(), &0.into()));
}

fn watch(port: u16, more: &[&str]) -> Command {
    let mut watch = Command::new(binary("probe"));
    watch.args(["watch", "--metrics", &format!("http://127.0.0.1:{port}/metrics")]);
    watch.args(["--metric", "lab_tasks"]).args(more);
    watch
}

/// The reasons to fail, of the last object of `--json`.
fn failures(finished: &Finished) -> String {
    let last = finished.stdout.lines().last().unwrap();
    serde_json::from_str::<Value>(last).unwrap()["failures"].to_string()
}

#[test]
fn checkpoints_live() {
    let Some(_machine) = require_beside_others(&[Need::Root]) else { return };
    let (place, scratch) = (Place::host(), Scratch::new("checkpoints"));
    let server = lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]);
    let port = server.address().port();

    // Long intervals: on a busy machine a late checkpoint would be a failure, as it should.
    let mut quiet = watch(port, &["--interval", "5s", "--duration", "10s"]);
    let quiet = finish_within(&mut quiet, PATIENCE);
    assert_eq!(quiet.code, Some(0), "{quiet}");
    let text = &quiet.stdout;
    assert!(text.starts_with("Baseline: GOR="), "{quiet}");
    let last = text.lines().find(|line| line.starts_with("[2/2] 10s: GOR=")).expect("the last");
    assert!(last.contains(" (+0, +0.0/min) FD="), "{quiet}");
    assert!(text.ends_with("\n  ✓ nothing grows beyond its target\n"), "{quiet}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{quiet}");

    // Tasks and descriptors that come and stay.
    let growing = Running::start(&mut watch(port, &["--interval", "1s", "--json"]));
    growing.wait_stdout("\"number\":0");
    let clients = load(port, BY_NGINX, &scratch.join("results.jsonl"));
    growing.wait_stdout(&format!("\"growth\":{BY_NGINX}.0"));
    let grown = growing.stop(Signal::INT);
    assert_eq!(grown.code, Some(99), "{grown}");
    assert!(failures(&grown).contains("descriptors grow by "), "{grown}");
    let _ = clients.stop(Signal::INT);

    let arguments = ["--interval", "1s", "--duration", "10m", "--json"];
    let early = Running::start(&mut watch(port, &arguments));
    early.wait_stdout("\"number\":1");
    drop(server);
    early.wait_stdout("\"error\":\"http");
    let early = early.stop(Signal::INT);
    assert_eq!(early.code, Some(99), "{early}");
    assert!(failures(&early).contains("stopped early: 10m were planned"), "{early}");
    assert!(failures(&early).contains("without an answer of every page"), "{early}");
}
