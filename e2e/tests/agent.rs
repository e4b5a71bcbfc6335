//! The agent: what it serves, what survives its restart, and what it leaves behind.

use std::path::Path;

use e2e::machine::{Need, require, tool};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{self, Agent, Of};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal;

#[test]
fn a_restart_loses_no_count() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let of = Of::port(8080).netns(cable.server.place().inode());

    let mut agent = Agent::start();
    client.connect("10.77.0.1:8080", 100);
    server.wait_held(100);
    wait_equal("before the restart", &(100, 100), || {
        let counts = agent.counts();
        (counts.established(&of), counts.accepted(&of))
    });

    agent.terminate();
    // While nobody is there to look, the programs go on counting.
    client.connect("10.77.0.1:8080", 23);
    server.wait_held(123);
    client.fin(60);
    server.wait_reaped(Reaped { fin: 60, ..Reaped::default() });
    agent.start_again();
    wait_equal("after the restart", &(63, 123), || {
        let counts = agent.counts();
        (counts.established(&of), counts.accepted(&of))
    });
    agent.counts().assert_exact();
}

#[test]
fn stopped_for_good_it_leaves_nothing_loaded() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("bpftool")]) else { return };
    let mounts = || std::fs::read_to_string("/proc/mounts").unwrap();
    let before = mounts();
    let agent = Agent::start();
    let ours = ["prog", "map", "link"].map(|kind| (kind, probe::kernel_ids(agent.pid(), kind)));
    let still_there = || {
        ours.each_ref().map(|(kind, ids)| {
            let text = tool("bpftool", &[kind, "list", "--json"]);
            let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
            let listed = listed.as_array().unwrap().iter();
            listed.filter(|one| ids.contains(&one["id"].as_u64().unwrap())).count()
        })
    };
    let all = ours.each_ref().map(|(_, ids)| ids.len());
    assert!(all.iter().all(|count| *count > 0), "{all:?}");
    assert_eq!(still_there(), all);
    drop(agent);
    // The kernel frees them a moment after the last reference is gone.
    wait_equal("programs, maps and links", &[0, 0, 0], still_there);
    assert!(!Path::new("/sys/fs/bpf/groundtruth").exists());
    assert_eq!(mounts(), before);
}

#[track_caller]
fn assert_second_is_refused(agent: &Agent, socket: &str) {
    let second = probe::run(&["serve", "--agent-socket", socket, "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(2), "{second}");
    let told = format!("probe: an agent is already running, pid {}\n", agent.pid());
    assert!(second.stderr.starts_with(&told), "{second}");
}

/// Records can be read only once: two agents on one set of programs would each lose the other's.
#[test]
fn a_second_agent_is_refused_on_another_socket_too() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let agent = Agent::start();
    let scratch = Scratch::new("second-agent");
    let socket = scratch.join("agent.sock");
    assert_second_is_refused(&agent, &socket);
    // Nor is what it counts with taken from under it.
    let purge = probe::run(&["stop", "--purge", "--agent-socket", &socket]);
    assert_eq!(purge.code, Some(2), "{purge}");
    assert!(purge.stderr.contains(&format!("already running, pid {}", agent.pid())), "{purge}");
    assert!(Path::new("/sys/fs/bpf/groundtruth").is_dir());
}

/// What is locked is what they would share, not a file that may be removed.
#[test]
fn a_second_agent_is_refused_also_where_the_runtime_directory_is_gone() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let agent = Agent::start();
    let _ = std::fs::remove_dir_all("/run/groundtruth");
    assert_second_is_refused(&agent, &Scratch::new("second-agent").join("agent.sock"));
}

/// Nor is it enough to remove that, and the first says what it has lost by it.
#[test]
fn a_second_agent_is_refused_also_where_the_pins_are_gone() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let agent = Agent::start();
    let says_so = || {
        let counts = agent.counts();
        counts.assert_exact();
        let degraded = counts.0["degraded"].to_string();
        degraded.contains("was removed: these counts end with this agent")
    };
    assert!(!says_so());
    let pins = Path::new("/sys/fs/bpf/groundtruth");
    let ours = std::fs::read_dir(pins).unwrap().next().unwrap().unwrap().path();
    tool("rm", &["-r", "/sys/fs/bpf/groundtruth"]);
    assert_second_is_refused(&agent, &Scratch::new("second-agent").join("agent.sock"));
    assert!(says_so());
    // Another's, at the same place.
    std::fs::create_dir_all(ours.join("ready")).unwrap();
    assert!(says_so());
}

#[test]
fn metrics_and_json_say_the_same() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let agent = Agent::start();
    client.connect("10.77.0.1:8080", 23);
    server.wait_held(23);
    let of = Of::port(8080).netns(cable.server.place().inode());
    wait_equal("counts", &23, || agent.counts().established(&of));

    assert_eq!(agent.get("/v1/counts?port=8080").established(&of), 23);
    // Labels name containers and ports; namespaces would make too many series.
    let metrics = agent.text("/metrics");
    let line = "groundtruth_connections{container=\"host\",runtime=\"host\",port=\"8080\",\
                role=\"passive\",state=\"established\"} 23";
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
    assert!(!agent.text("/healthz").trim().is_empty());
}
