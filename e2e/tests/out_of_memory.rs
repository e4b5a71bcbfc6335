//! The kernel kills for lack of memory: what the server shares its cgroup with, then the server itself.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::cgroup::MemoryLimit;
use e2e::lab;
use e2e::machine::{Need, require_beside_others};
use e2e::net::Place;
use e2e::process::{Running, Signal, binary, finish, finish_within};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal_within;
use serde_json::Value;

const MEBIBYTES: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn kills_are_counted_and_the_servers_own_is_a_crash() {
    let Some(_machine) = require_beside_others(&[Need::Bpf]) else { return };
    let (place, scratch) = (Place::host(), Scratch::new("memory"));
    let group = MemoryLimit::new("memory", MEBIBYTES);
    let server = lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0", "--managers"]);
    fs::write(group.procs(), server.pid().to_string()).expect("the server may enter");
    let address = server.address();

    let capture = scratch.join("capture");
    let mut record = Command::new(binary("probe"));
    record.args(["record", "-o", &capture, "--interval", "200ms"]);
    let record = Running::start(record.args(["--port", &address.port().to_string()]));
    record.wait_stderr("recording");
    let analyze = |args: &[&str]| {
        let mut analyzer = Command::new(binary("analyzer"));
        finish(analyzer.args(["leaks", &capture]).args(args))
    };
    let kills_and_crashes = || {
        let leaks: Value = serde_json::from_str(&analyze(&["--json"]).stdout).unwrap_or_default();
        let stability = &leaks["stability"];
        Some((stability["oom_kills"].as_u64()?, stability["crashes"].as_array()?.len()))
    };
    wait_equal_within(PATIENCE, "a healthy server", &Some((0, 0)), kills_and_crashes);

    // Without a newline, tail keeps all that it reads.
    let greedy = format!("echo $$ > {} && exec tail /dev/zero", group.procs());
    let greedy = finish_within(Command::new("sh").args(["-c", &greedy]), PATIENCE);
    assert_eq!(greedy.signal, Some(9), "{greedy}");
    wait_equal_within(PATIENCE, "another was killed", &Some((1, 0)), kills_and_crashes);

    // Each manager has a mebibyte, and each user may have twenty.
    let loads: Vec<Running> = (0..4)
        .map(|user| {
            let url = format!("ws://{address}/?user={user}");
            let mut load = lab::command(&place);
            load.args(["load", "--url", &url, "--connections", "20", "--hold", "10m"]);
            Running::start(load.args(["-o", &scratch.join(&user.to_string())]))
        })
        .collect();
    wait_equal_within(PATIENCE, "the server was killed", &Some((2, 1)), kills_and_crashes);
    drop(loads);
    assert_eq!(record.stop(Signal::INT).code, Some(130));
    let leaks = analyze(&[]);
    assert_eq!(leaks.code, Some(99), "{leaks}");
    let words = leaks.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("2 processes were killed for lack of memory."), "{leaks}");
    assert!(words.contains(&format!("lab, port {} was gone from ", address.port())), "{leaks}");
}
