//! What a missing hook costs: switched off one by one, `probe doctor` names the columns of a capture that
//! are empty or say less, and a recording differs in exactly those.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe;
use e2e::process::{binary, finish};
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use e2e::truth::{ss, wait_equal};
use serde_json::Value;

const WEBSOCKET: &str = "10.77.0.1:8392";
const PLAIN: &str = "10.77.0.1:8393";

/// Hooks that can be done without.
const HOOKS: [&str; 7] = [
    "tp_btf/tcp_destroy_sock",
    "tp_btf/tcp_receive_reset",
    "tp_btf/tcp_send_reset",
    "cgroup_skb/egress",
    "cgroup_skb/ingress",
    "cgroup/sock_release",
    "fexit/inet_csk_accept",
];

/// What stands in each column, of all rows together: how often a word, or a number at all.
type Columns = BTreeMap<String, BTreeMap<String, usize>>;

fn columns(rows: &[Value]) -> Columns {
    let mut columns = Columns::new();
    for row in rows {
        let role = &row["role"];
        for (name, value) in row.as_object().into_iter().flatten() {
            // Times, sizes and names of one run are there or not; codes are told apart.
            let value = match value {
                Value::Number(_) if name != "http_status" => "a number".to_owned(),
                other => other.to_string(),
            };
            let column = columns.entry(name.clone()).or_default();
            *column.entry(format!("{role} {value}")).or_default() += 1;
        }
    }
    columns
}

fn differing(one: &Columns, other: &Columns) -> BTreeSet<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

/// Records connections that end in known ways, without a hook.
fn record(without: Option<&str>) -> Columns {
    let arguments: Vec<&str> = without.iter().flat_map(|hook| ["--without-hook", hook]).collect();
    let scratch = Scratch::new("hooks");
    let cable = Cable::new();
    for end in [&cable.server, &cable.client] {
        end.steer_packets(Cable::DEVICE, "0");
    }
    let server = lab::Server::start(&cable.server.place(), &["serve", "--listen", WEBSOCKET]);
    let mut plain = Peer::start(&cable.server.place());
    plain.listen(PLAIN);
    let mut client = Peer::start(&cable.client.place());
    let ports =
        [&["--port", "8392,8393", "--agent-socket", "/nonexistent/agent.sock"], &arguments[..]];
    let recording = Recording::start(&scratch.join("capture"), &ports.concat());

    let url = format!("ws://{WEBSOCKET}/");
    let load = lab::run(
        &cable.client.place(),
        &[
            "load",
            "--url",
            &url,
            "--connections",
            "8",
            "--hold",
            "2s",
            "--end",
            "rst:3",
            "--end-at",
            "1s",
            "--message-interval",
            "100ms",
        ],
        Duration::from_secs(60),
    );
    assert_eq!(load["upgraded"], 8, "{load}");
    client.connect(PLAIN, 9);
    plain.wait_held(9);
    client.fin(4);
    plain.wait_reaped(Reaped { fin: 4, ..Reaped::default() });
    client.rst(5);
    plain.wait_reaped(Reaped { rst: 5, ..Reaped::default() });
    drop(server);
    wait_equal("connections that are not over", &0, || {
        let states =
            ["established", "close-wait", "last-ack", "fin-wait-1", "fin-wait-2", "closing"];
        let ends = [cable.server.place(), cable.client.place()];
        let open = |place| states.iter().map(|state| ss(place, state, "")).sum::<usize>();
        ends.iter().map(open).sum()
    });
    let mut rows = recording.stop().rows;
    // The filter is by port, and others may use the same.
    let ends = [cable.server.place().inode(), cable.client.place().inode()];
    rows.retain(|row| row["netns"].as_u64().is_some_and(|netns| ends.contains(&netns)));
    assert_eq!(rows.len(), 2 * (8 + 9), "without {without:?}: {rows:#?}");
    columns(&rows)
}

/// What `probe doctor` says of each hook: whether it is there, and the columns that it costs.
fn doctor(arguments: &[&str]) -> BTreeMap<String, (bool, BTreeSet<String>)> {
    let text = finish(probe::command().args(["doctor", "--json"]).args(arguments));
    let text = text.success("probe doctor");
    let doctor: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(doctor["exact_counts"], true, "{text}");
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let of = |feature: &Value| {
        let columns = feature["columns"].as_array().expect("columns");
        (word(&feature["name"]), (feature["state"] == "ok", columns.iter().map(word).collect()))
    };
    doctor["features"].as_array().expect("features").iter().map(of).collect()
}

#[test]
fn the_doctor_predicts_what_a_recording_lacks() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let granted = doctor(&[]);
    let whole = record(None);
    assert_eq!(differing(&whole, &record(None)), BTreeSet::new(), "two runs alike");
    let mut wrong = Vec::new();
    for hook in HOOKS {
        let (there, columns) = doctor(&["--without-hook", hook]).remove(hook).expect("its line");
        assert!(!there, "{hook} is switched off");
        let found = differing(&whole, &record(Some(hook)));
        // Where the host does not grant it anyway, nothing changes.
        let predicted = if granted[hook].0 { columns } else { BTreeSet::new() };
        if found != predicted {
            wrong.push(format!("{hook}: differs in {found:?}, predicted {predicted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_counts_cannot_do_without_is_no_choice() {
    let mut command = Command::new(binary("probe"));
    let refused = finish(command.args(["doctor", "--without-hook", "tp_btf/inet_sock_set_state"]));
    assert_eq!(refused.code, Some(2), "{refused}");
    // Each other one is switched off above.
    let others = format!("expected one of {}", HOOKS.join(", "));
    assert!(refused.stderr.lines().any(|line| line.ends_with(&others)), "{others}: {refused}");
}
