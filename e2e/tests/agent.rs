//! The agent: what it serves, what survives its restart, and what it leaves behind.

use e2e::machine::{Need, require, tool};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{Agent, Of};
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
    let loaded = || {
        let text = tool("bpftool", &["prog", "list", "--json"]);
        let programs: serde_json::Value = serde_json::from_str(&text).unwrap();
        programs.as_array().unwrap().len()
    };
    let before = loaded();
    let agent = Agent::start();
    assert!(loaded() > before);
    drop(agent);
    wait_equal("programs loaded", &before, loaded);
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
    let metrics = agent.text("/metrics");
    let netns = format!("netns=\"{}\"", cable.server.place().inode());
    let value = metrics
        .lines()
        .find(|line| {
            line.contains("established")
                && line.contains(&netns)
                && line.contains("port=\"8080\"")
                && line.contains("role=\"passive\"")
                && !line.contains("_total")
        })
        .and_then(|line| line.rsplit(' ').next());
    assert_eq!(value, Some("23"), "{metrics}");
    assert!(!agent.text("/healthz").trim().is_empty());
}
