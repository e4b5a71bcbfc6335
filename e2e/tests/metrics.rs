//! `/metrics`, its documentation, and what is shipped to be run on it, against a real Prometheus.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::lab;
use e2e::machine::{Need, require, require_beside_others, tool};
use e2e::net::Place;
use e2e::probe::{Agent, Of};
use e2e::process::{Running, binary, finish};
use e2e::scratch::Scratch;
use serde_json::Value;

const DOCS: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../packaging/grafana/groundtruth.json");
const RULES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus/groundtruth.rules.yml");
const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts.yml");
const PROMETHEUS: &str = "127.0.0.1:19465";

/// What appears only once something was audited, or upgraded.
const LATER: [&str; 3] =
    ["groundtruth_drift", "groundtruth_audited_sockets", "groundtruth_handshakes"];

/// Names and kinds of the table in the docs.
fn documented() -> BTreeSet<(String, String)> {
    DOCS.lines()
        .filter_map(|line| line.strip_prefix("| `groundtruth_"))
        .map(|rest| {
            let mut cells = rest.split('|').map(str::trim);
            let name = cells.next().unwrap_or_default().trim_end_matches('`');
            (format!("groundtruth_{name}"), cells.next().unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn every_metric_is_documented_and_promtool_finds_nothing() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("promtool")]) else { return };
    let server = lab::Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let agent = Agent::start();
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", server.address()), "--connections", "1"]);
    let _load = Running::start(load.args(["--hold", "10m"]));
    let deadline = Instant::now() + Duration::from_secs(60);
    let text = loop {
        let text = agent.text("/metrics");
        if LATER.iter().all(|name| text.contains(&format!("# TYPE {name}"))) {
            break text;
        }
        assert!(Instant::now() < deadline, "never audited, or never upgraded:\n{text}");
        std::thread::sleep(Duration::from_millis(500));
    };
    let served: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    assert_eq!(served, documented());

    let scratch = Scratch::new("metrics");
    let file = scratch.join("metrics.txt");
    std::fs::write(&file, &text).unwrap();
    let checked =
        finish(Command::new("sh").args(["-c", &format!("promtool check metrics < {file}")]));
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{checked}");
}

/// 23 that stay and 20 that are refused; then all are over, and nothing is told twice.
#[test]
fn every_handshake_is_counted_once() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let start = |arguments: &[&str]| {
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        lab::Server::start(&Place::host(), &[&serve[..], arguments].concat())
    };
    let (holds, refuses) = (start(&[]), start(&["--fault", "shed-load"]));
    let agent = Agent::start();
    let load = |server: &lab::Server, connections: &str| {
        let mut load = lab::command(&Place::host());
        load.args(["load", "--url", &format!("ws://{}/", server.address()), "--hold", "10m"]);
        Running::start(load.args(["--connections", connections]))
    };
    let counted = |what: &str| {
        let text = agent.text("/metrics");
        let value = |server: &lab::Server, name: &str, label: &str| {
            let port = format!("port=\"{}\",role=\"passive\"", server.address().port());
            let line = text.lines().find(|line| {
                line.starts_with(name) && line.contains(&port) && line.contains(label)
            });
            line.and_then(|line| line.rsplit(' ').next()).unwrap_or("none").to_owned()
        };
        let total = "groundtruth_handshakes_total{";
        // A time that no hook saw is in no histogram.
        let timed = value(&holds, "groundtruth_handshake_seconds_count{", "");
        assert!(timed == "none" || timed.parse::<u64>().is_ok_and(|timed| timed <= 23), "{timed}");
        let seen = [
            value(&holds, total, "outcome=\"upgraded\""),
            value(&refuses, total, "outcome=\"http_503\""),
            value(&refuses, "groundtruth_handshake_seconds_count{", ""),
        ];
        if seen == ["23", "20", "none"] && timed != "none" {
            Ok(())
        } else {
            Err(format!("{what}: {seen:?}"))
        }
    };
    let (stay, refused) = (load(&holds, "23"), load(&refuses, "20"));
    wait("all counted while they are open", || counted("open"));
    drop((stay, refused));
    let port = holds.address().port();
    let established = || agent.counts().established(&Of::port(port));
    wait("all over", || match established() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    });
    // The ends have arrived once one that began after them has.
    let last = load(&refuses, "1");
    wait("the last one", || match counted("over") {
        Err(seen) if seen.contains("\"21\"") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(last);
    let seen = counted("in the end").unwrap_err();
    assert!(seen.ends_with("[\"23\", \"21\", \"none\"]"), "{seen}");
}

#[test]
fn shipped_rules_and_panels_work_on_a_real_prometheus() {
    let needs = [Need::Bpf, Need::Program("prometheus"), Need::Program("promtool")];
    let Some(_machine) = require(&needs) else { return };
    tool("promtool", &["check", "rules", RULES]);
    let server = |arguments: &[&str]| {
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        lab::Server::start(&Place::host(), &[&serve[..], arguments].concat())
    };
    let servers =
        [server(&[]), server(&["--fault", "shed-load"]), server(&["--fault", "never-close"])];
    let _agent = Agent::start();
    // Percentiles are of handshakes that go on. Without a close frame the third server never closes.
    let ends = [(&servers[0], "close-frame"), (&servers[1], "close-frame"), (&servers[2], "fin")];
    let loads = ends.map(|(server, end)| {
        let load = format!(
            "while {} load --url ws://{}/ --connections 5 --hold 1500ms --end {end}; do :; done",
            binary("lab").display(),
            server.address()
        );
        Running::start(Command::new("sh").args(["-c", &load]))
    });
    let scratch = Scratch::new("prometheus");
    let _prometheus = prometheus(&scratch, &format!("rule_files: [{RULES}]"), &[]);

    // Three samples make a rate; the audit's come after ten seconds.
    wait("data of each panel", || {
        let found = queries().iter().map(|query| (query.clone(), ask(query))).collect::<Vec<_>>();
        let is_number = |value: &Value| value["value"][1] != "NaN";
        let is_missing = |answer: &Option<Vec<Value>>| !answer.iter().flatten().any(is_number);
        match found.iter().find(|(_, answer)| is_missing(answer)) {
            Some((query, answer)) => Err(format!("{query}: {answer:?}")),
            None => Ok(()),
        }
    });
    let not_closed = ask("sum(groundtruth_connections{state=\"close_wait\"})").unwrap();
    assert_ne!(not_closed[0]["value"][1], "0");
    drop(loads);
    let exact = ask("groundtruth_exact{job=\"groundtruth\"}").unwrap();
    assert_eq!(exact[0]["value"][1], "1");
    wait("healthy rules", || {
        let rules = api("/api/v1/rules").ok_or("no answer")?;
        let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> =
            groups.iter().flat_map(|group| group["rules"].as_array().cloned()).flatten().collect();
        let recorded = rules.iter().filter(|rule| rule["type"] == "recording").count();
        assert_eq!((rules.len(), recorded), (14, 6));
        match rules.iter().find(|rule| rule["health"] != "ok") {
            Some(rule) => Err(rule.to_string()),
            None => Ok(()),
        }
    });
    wait("what is recorded for the fleet", || {
        let minimum = ask("job:groundtruth_exact:min").unwrap_or_default();
        let sums = ask("container_port_role_state:groundtruth_connections:sum").unwrap_or_default();
        match minimum.first().filter(|_| !sums.is_empty()) {
            Some(minimum) if minimum["value"][1] == "1" => Ok(()),
            _ => Err(format!("{minimum:?} {}", sums.len())),
        }
    });
}

/// Each where it must, and not where it must not, by Prometheus' own tool.
#[test]
fn every_alert_fires() {
    let Some(_machine) = require_beside_others(&[Need::Program("promtool")]) else { return };
    tool("promtool", &["test", "rules", ALERTS]);
    let names = |file: &str, key: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(file).unwrap();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix(key));
        names.map(|name| name.trim_start_matches(' ').to_owned()).collect()
    };
    assert_eq!(names(RULES, "- alert:"), names(ALERTS, "alertname:"));
}

/// A Prometheus that asks for native histograms gets them, and counts and quantiles as in the classic
/// ones.
#[test]
fn a_prometheus_takes_native_histograms() {
    let needs = [Need::Bpf, Need::Program("prometheus")];
    let Some(_machine) = require(&needs) else { return };
    let server = lab::Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let agent = Agent::start();
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", server.address()), "--connections", "23"]);
    let _load = Running::start(load.args(["--hold", "10m"]));
    let labels = format!("port=\"{}\",role=\"passive\"", server.address().port());
    let classic = |name: &str| -> Vec<(String, f64)> {
        let name = format!("groundtruth_handshake_seconds_{name}{{");
        let text = agent.text("/metrics");
        let found = text.lines().filter(|line| line.starts_with(&name) && line.contains(&labels));
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse().unwrap();
        found.map(|line| (line.to_owned(), value(line))).collect()
    };
    // A time that no hook saw is in no histogram: all that will come are there once they stay.
    let upgraded = || {
        let text = agent.text("/metrics");
        let total = text.lines().any(|line| {
            line.starts_with("groundtruth_handshakes_total{")
                && line.contains(&labels)
                && line.ends_with("outcome=\"upgraded\"} 23")
        });
        if total { Ok(()) } else { Err(text) }
    };
    wait("23 upgraded", upgraded);
    let scratch = Scratch::new("native");
    let (count, sum) = (classic("count")[0].1, classic("sum")[0].1);
    assert!((1.0..=23.0).contains(&count), "{count}");

    let _prometheus =
        prometheus(&scratch, "rule_files: []", &["--enable-feature=native-histograms"]);
    let series = format!("groundtruth_handshake_seconds{{{labels}}}");
    let number =
        |query: String| -> Option<f64> { ask(&query)?.first()?["value"][1].as_str()?.parse().ok() };
    wait("the native histogram", || match number(format!("histogram_count({series})")) {
        Some(found) if found == count => Ok(()),
        other => Err(format!("{other:?}, not {count}")),
    });
    assert_eq!(number(format!("histogram_sum({series})")), Some(sum));
    // It is the native one: a classic one is a series per bucket.
    assert_eq!(ask(&format!("groundtruth_handshake_seconds_bucket{{{labels}}}")), Some(vec![]));
    // The median lies in the classic bucket that has it, or as much beside it as a native one is wide.
    let buckets = classic("bucket");
    let at = buckets.iter().position(|(_, under)| *under >= count / 2.0).unwrap();
    let bound = |index: usize| -> f64 {
        let (_, rest) = buckets[index].0.split_once("le=\"").unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    };
    let low = if at == 0 { 0.0 } else { bound(at - 1) };
    let median = number(format!("histogram_quantile(0.5, {series})")).unwrap();
    let width = 2f64.powf(0.125);
    assert!((low / width..=bound(at) * width).contains(&median), "{median} {buckets:?}");
    let _ = server.stop();
}

/// A Prometheus that scrapes the agent every second.
fn prometheus(scratch: &Scratch, more: &str, flags: &[&str]) -> Running {
    let config = scratch.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n{more}\n\
         scrape_configs:\n- job_name: groundtruth\n  static_configs: [{{targets: ['127.0.0.1:19464']}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={config}"));
    command.arg(format!("--storage.tsdb.path={}", scratch.join("data")));
    command.arg(format!("--web.listen-address={PROMETHEUS}")).args(flags);
    Running::start(&mut command)
}

/// Every panel's query, with Grafana's variables as Grafana fills them in.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap().clone())
        .map(|target| {
            let query = target["expr"].as_str().unwrap();
            query.replace("$container", ".*").replace("$__rate_interval", "1m")
        })
        .collect()
}

fn ask(query: &str) -> Option<Vec<Value>> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = api(&format!("/api/v1/query?query={encoded}"))?;
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"].as_array().cloned()
}

fn api(path: &str) -> Option<Value> {
    let url = format!("http://{PROMETHEUS}{path}");
    let finished = finish(Command::new("busybox").args(["wget", "-q", "-O", "-", &url]));
    serde_json::from_str(&finished.stdout).ok()
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(why) = done() {
        assert!(Instant::now() < deadline, "never: {what}: {why}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
