//! The table of `docs/security.md`: with its capabilities everything works, and one fewer costs what
//! the table says, by name.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::peer::Peer;
use e2e::probe::{Agent, Of};
use e2e::process::{Finished, binary, finish};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal;
use serde_json::Value;

/// What the unit, the compose file and the manifest grant.
const NEEDED: [&str; 4] = ["sys_admin", "net_admin", "sys_ptrace", "dac_read_search"];

/// `probe` as root with these capabilities only.
fn with(capabilities: &[&str], args: &[&str]) -> Finished {
    let granted: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set=-all{granted}")).arg(binary("probe"));
    finish(command.args(["--agent-socket", "/nonexistent/agent.sock"]).args(args))
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"))
}

/// Established passive connections on the port, in whichever namespace.
fn counted(capabilities: &[&str], port: &str) -> (i64, bool) {
    let counted = with(capabilities, &["count", "--port", port, "--role", "passive", "--json"]);
    assert_eq!(counted.code, Some(0), "{counted}");
    let json = json(&counted);
    assert_eq!(json["backend"], "ebpf", "{json}");
    let rows = json["counts"].as_array().unwrap().iter();
    let held = rows.map(|row| row["established"].as_i64().unwrap()).sum();
    (held, json["exact"].as_bool().unwrap())
}

#[test]
fn one_fewer_costs_what_the_table_says() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("setpriv")]) else { return };
    let all = json(&with(&["all"], &["doctor", "--json"]));
    let enough = with(&NEEDED, &["doctor", "--json"]);
    assert_eq!(enough.code, Some(0), "{enough}");
    assert_eq!(json(&enough)["features"], all["features"]);

    // From before the start, in another namespace and in our own.
    let cable = Cable::new();
    let mut far = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    far.listen("0.0.0.0:18471");
    client.connect("10.77.0.1:18471", 23);
    far.wait_held(23);
    let mut near = Peer::start(&Place::host());
    near.listen("127.0.0.1:18472");
    near.connect("127.0.0.1:18472", 7);

    wait_equal("with all that is needed", &((23, true), (7, true)), || {
        (counted(&NEEDED, "18471"), counted(&NEEDED, "18472"))
    });
    let loading = ["bpf", "perfmon", "net_admin"];
    let own = [&loading[..], &["sys_ptrace", "dac_read_search"]].concat();
    assert_eq!(counted(&own, "18472").0, 7, "the own namespace needs no sys_admin");
    assert_eq!(counted(&own, "18471"), (0, false), "another namespace does");
    let inexact = with(&own, &["count", "--require-exact"]);
    assert_eq!(inexact.code, Some(96), "{inexact}");
    assert!(inexact.stderr.contains("cannot walk the sockets of network namespace"), "{inexact}");
    for missing in ["bpf", "perfmon"] {
        let rest: Vec<&str> = loading.into_iter().filter(|name| *name != missing).collect();
        let refused = with(&rest, &["count", "--require-exact"]);
        assert_eq!(refused.code, Some(96), "{refused}");
        let name = format!("give it what it lacks: CAP_{}", missing.to_uppercase());
        assert!(refused.stderr.contains(&name), "{refused}");
    }
    for missing in NEEDED {
        let rest: Vec<&str> = NEEDED.into_iter().filter(|name| *name != missing).collect();
        let doctor = json(&with(&rest, &["doctor", "--json"]));
        let features = doctor["features"].as_array().unwrap();
        let row = features.iter().find(|row| row["name"] == "capabilities").unwrap();
        let name = format!("no CAP_{}: ", missing.to_uppercase());
        assert!(row["why"].as_str().unwrap().starts_with(&name), "{row}");
        assert_eq!(row["state"], "degraded");
    }
}

#[test]
fn sockets_of_other_users_have_their_process() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("setpriv")]) else { return };
    let scratch = Scratch::new("capabilities");
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    let program = scratch.join("e2e-peer");
    fs::copy(binary("e2e-peer"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", &program]);
    let mut nobody = Peer::with(&mut command);
    nobody.listen("127.0.0.1:18473");
    nobody.connect("127.0.0.1:18473", 1);
    let pid = nobody.pid();
    let owner = |capabilities: &[&str]| {
        let args = ["connections", "--port", "18473", "--role", "passive", "--json"];
        let found = with(capabilities, &args).success("probe connections");
        let rows = found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let rows: Vec<Value> = rows.collect();
        (rows.len(), found.contains(&format!("\"pid\":{pid}")))
    };
    wait_equal("with all that is needed", &(1, true), || owner(&NEEDED));
    for missing in ["sys_ptrace", "dac_read_search"] {
        let rest: Vec<&str> = NEEDED.into_iter().filter(|name| *name != missing).collect();
        assert_eq!(owner(&rest), (1, false), "without {missing}");
    }
}

#[test]
fn the_agent_keeps_no_more_than_it_needs() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    client.connect("10.77.0.1:8080", 23);
    server.wait_held(23);

    let agent = Agent::start();
    let of = Of::port(8080).netns(cable.server.place().inode());
    client.connect("10.77.0.1:8080", 74);
    wait_equal("established", &97, || agent.counts().established(&of));
    agent.counts().assert_exact();

    // Bits of linux/capability.h: dac_read_search, net_admin, sys_ptrace, sys_admin, perfmon, bpf.
    let kept = [2, 12, 19, 21, 38, 39].iter().fold(0_u64, |kept, bit| kept | 1 << bit);
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set) & !kept, 0, "{set} of {}", task.path().display());
        }
        assert_eq!(field("CapEff:") & 1 << 21, 1 << 21, "nothing that is needed is dropped");
        assert_eq!((field("CapInh:"), field("NoNewPrivs:")), (0, 1));
        threads += 1;
    }
    assert!(threads > 1, "the runtime has threads, and none has more than the first");
}
