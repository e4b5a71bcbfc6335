//! Every cause of failed handshakes on a known set of connections, alone and mixed: the report ranks it
//! first, explains each connection by it, and says nothing against the healthy ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use e2e::document::write_section;
use e2e::lab;
use e2e::machine::{Need, require};
use e2e::process::{binary, finish};
use serde_json::Value;

const NONE: &str = "none";
const HEADING: &str = "## Causes";

/// A scenario of `lab run`, and the causes in the order in which they must be ranked, with how many
/// connections each explains; `None` where timing decides how many clients are hit.
type Case = (&'static str, &'static [(&'static str, Option<u64>)]);

const CASES: &[Case] = &[
    ("healthy-500", &[]),
    ("slot-race", &[("slot_race", Some(40))]),
    ("slot-leak", &[("slot_leak", Some(80))]),
    ("slots-exhausted", &[("slots_exhausted", Some(80))]),
    ("balancer-sheds-load", &[("load_shedding", None)]),
    ("drop-upgrade-header", &[("proxy_headers", Some(40))]),
    ("drop-key-header", &[("proxy_headers", Some(40))]),
    ("rewrite-accept", &[("wrong_accept_key", Some(40))]),
    ("refuse-after-upgrade", &[("forbidden", Some(40))]),
    ("upstream-refused", &[("upstream_refused", Some(40))]),
    ("shard-bound-late", &[("port_bound_late", None)]),
    ("upstream-unreachable", &[("upstream_unreachable", Some(40))]),
    ("upstream-reset", &[("upstream_reset", None)]),
    ("upstream-closed", &[("upstream_reset", None)]),
    ("upstream-hangs", &[("upstream_timeout", None)]),
    ("upstream-slow", &[("upstream_timeout", None)]),
    ("no-ephemeral-port", &[("ephemeral_port_exhaustion", None)]),
    ("balancer-no-descriptors", &[("descriptor_exhaustion", None)]),
    ("unauthorized", &[("authentication", None)]),
    ("forbidden-origin", &[("forbidden", None)]),
    ("wrong-path", &[("wrong_path", None)]),
    ("not-a-websocket-server", &[("not_a_websocket_server", None)]),
    ("shard-capacity", &[("capacity_limit", Some(80))]),
    ("rate-limit", &[("rate_limit", None)]),
    ("capacity-limit", &[("capacity_limit", Some(80))]),
    ("task-guard", &[("load_shedding", None)]),
    ("shed-load", &[("load_shedding", None)]),
    ("not-http", &[("not_http", Some(40))]),
    ("wrong-accept", &[("wrong_accept_key", Some(40))]),
    ("reset-after-request", &[("server_closed", Some(40))]),
    ("close-after-upgrade", &[("closed_right_after_upgrade", Some(40))]),
    ("hang", &[("server_hangs", Some(40))]),
    ("client-gave-up", &[("client_gave_up", Some(40))]),
    ("port-bound-late", &[("port_bound_late", None)]),
    ("accept-stall", &[("slow_accept", None)]),
    ("accept-slow", &[("slow_accept", None)]),
    ("accept-queue-overflow", &[("accept_queue_overflow", None)]),
    ("no-descriptors", &[("descriptor_exhaustion", None)]),
    ("cpu-starvation", &[("cpu_starvation", None)]),
    ("packet-loss", &[("packet_loss", Some(40))]),
    ("mixed-two", &[("slot_race", Some(40)), ("authentication", None)]),
    (
        "mixed-three",
        &[("slot_race", Some(40)), ("proxy_headers", None), ("upstream_timeout", None)],
    ),
    ("mixed-shapes", &[("load_shedding", None), ("slot_race", None), ("upstream_refused", None)]),
];

#[test]
fn every_cause_is_named_and_nobody_is_accused() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut matrix = Matrix::default();
    for (scenario, expected) in CASES {
        // It exits 1 where what was done and found differ, which the matrix shows.
        let run = lab::scenario(scenario, &[]);
        matrix.add(scenario, expected, &run.summary, &ranked(&run));
    }
    let text = matrix.to_markdown();
    println!("{text}");
    if let Some(path) = std::env::var_os("HANDSHAKE_MATRIX") {
        write_section(Path::new(&path), HEADING, &text);
    }
    assert!(matrix.wrong.is_empty(), "{}", matrix.wrong.join("\n"));
    assert!(matrix.accuracy() >= 99.5, "{:.2} %", matrix.accuracy());
}

/// The causes as `analyzer handshakes` ranks them: name, `or`, count.
fn ranked(run: &lab::Scenario) -> Vec<(String, Option<String>, u64)> {
    let clients = std::fs::read_to_string(run.path("results.jsonl")).expect("clients' results");
    let first = clients.lines().next().unwrap_or_default();
    let first: Value = serde_json::from_str(first).expect("a client's result");
    let mut command = std::process::Command::new(binary("analyzer"));
    command.arg("handshakes").arg(run.path("capture")).args(["--json", "--port"]);
    command.arg(first["remote_port"].to_string());
    let text = finish(&mut command).success("analyzer handshakes");
    let report: Value = serde_json::from_str(text.trim()).expect("one JSON object");
    let causes = report["causes"].as_array().expect("causes");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    causes
        .iter()
        .map(|cause| {
            let name = text(&cause["name"]).expect("a name");
            (name, text(&cause["or"]), cause["count"].as_u64().expect("a count"))
        })
        .collect()
}

/// Connections by scenario, by what was done to them, and by what the report says of them.
#[derive(Default)]
struct Matrix {
    cells: BTreeMap<(&'static str, String, String), u64>,
    connections: u64,
    right: f64,
    wrong: Vec<String>,
}

impl Matrix {
    fn add(
        &mut self,
        scenario: &'static str,
        expected: &[(&str, Option<u64>)],
        run: &Value,
        ranked: &[(String, Option<String>, u64)],
    ) {
        let found = &run["handshakes"];
        let mut wrong = |what: String| self.wrong.push(format!("{scenario}: {what}: {found:#}"));
        let connections = found["connections"].as_u64().expect("a count");
        let accuracy = found["accuracy_percent"].as_f64().expect("a share");
        if run["equal"] != true {
            wrong("found is not done".to_owned());
        }
        if ranked.len() < expected.len() || (expected.is_empty() && !ranked.is_empty()) {
            wrong(format!("{} causes", ranked.len()));
        }
        for (nth, ((cause, count), (name, or, found))) in expected.iter().zip(ranked).enumerate() {
            let named = name == cause || or.as_deref() == Some(*cause);
            // Behind the first, causes of about the same size may change places.
            let elsewhere = nth > 0 && ranked.iter().any(|(name, ..)| name == cause);
            if !named && !elsewhere {
                wrong(format!("{cause} is not ranked {}", nth + 1));
            }
            if named && count.is_some_and(|count| count != *found) {
                wrong(format!("{cause} explains {found}, not {count:?}"));
            }
        }
        self.connections += connections;
        self.right += accuracy / 100.0 * connections as f64;
        for (done, row) in found["causes"].as_object().expect("rows") {
            for (said, count) in row.as_object().expect("cells") {
                let key = (scenario, done.clone(), said.clone());
                *self.cells.entry(key).or_default() += count.as_u64().expect("a count");
            }
        }
    }

    fn accuracy(&self) -> f64 {
        100.0 * self.right / self.connections as f64
    }

    fn to_markdown(&self) -> String {
        let healthy = self.cells.iter().filter(|((_, done, _), _)| done == NONE);
        let accused: u64 =
            healthy.filter(|((_, _, said), _)| said != NONE).map(|(_, count)| count).sum();
        let mut text = format!(
            "{HEADING}\n\nWritten by `e2e/tests/causes.rs`. Of {} connections {:.2} % are explained by \
             what was done to them,\nand have the outcome that their clients saw; {accused} healthy ones \
             are accused of anything. Each row: a\nscenario of `lab run`, what was done to its \
             connections, what the report says of them, and how many.\n\n\
             | scenario | done | found | connections |\n| --- | --- | --- | ---: |\n",
            self.connections,
            self.accuracy(),
        );
        for ((scenario, done, said), count) in &self.cells {
            let _ = writeln!(text, "| {scenario} | `{done}` | `{said}` | {count} |");
        }
        text
    }
}
