//! Network namespaces that no process lives in any more and that are mounted nowhere, while their sockets are
//! open: counted to the end, and where nothing can look at them the verdict says so.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::Duration;

use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::peer::{Peer, Reaped};
use e2e::probe::{self, Agent, Of};
use e2e::truth::{ss, wait_equal, wait_equal_within};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

const SERVICE: &str = "10.77.0.1:8080";
/// Two audits are further apart the longer one takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Connections from a place that belong to this process, which lives elsewhere.
fn connect_in(place: &Place, service: &'static str, count: usize) -> Vec<TcpStream> {
    let namespace = File::open(place.path()).unwrap();
    let inside = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        (0..count).map(|_| TcpStream::connect(service).unwrap()).collect()
    };
    std::thread::spawn(inside).join().unwrap()
}

/// Whether the kernel opens a namespace that is held by its sockets alone: Linux 6.18 does.
fn can_be_opened() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.starts_with("6.18.")
}

#[test]
fn the_doctor_says_whether_they_can_be_looked_at() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let said = probe::run(&["doctor", "--json"]).success("probe doctor");
    let said: Value = serde_json::from_str(&said).unwrap();
    let features = said["features"].as_array().unwrap();
    let row = features.iter().find(|row| row["name"] == "network namespaces").unwrap();
    assert_eq!(row["state"], if can_be_opened() { "ok" } else { "degraded" }, "{row}");
}

#[test]
fn sockets_that_are_all_that_is_left_of_a_namespace_are_counted_and_audited() {
    const HELD: usize = 500;
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let Cable { server: near, client: far } = Cable::new();
    let mut server = Peer::start(&near.place());
    server.listen("0.0.0.0:8080");
    let agent = Agent::start();
    let of = Of::port(8080).active().netns(far.place().inode());
    let held = connect_in(&far.place(), SERVICE, HELD);
    server.wait_held(HELD);
    wait_equal_within(PATIENCE, "both ends audited", &true, || {
        agent.vitals().get("audited_sockets").is_some_and(|audited| *audited >= 2 * HELD as i64)
    });
    drop(far);
    let audits = agent.vital("audits");
    // One may have begun before.
    wait_equal_within(PATIENCE, "audited again", &true, || agent.vital("audits") >= audits + 2);
    let counts = agent.counts();
    counts.assert_exact();
    assert_eq!(counts.established(&of), HELD as i64);
    let degraded = counts.0["degraded"].to_string();
    let told = degraded.contains("500 sockets are counted by their events alone");
    assert_eq!(told, !can_be_opened(), "{degraded}");
    let audited = agent.vital("audited_sockets");
    assert_eq!(audited < 2 * HELD as i64, told, "{audited} audited; {degraded}");
    drop(held);
    server.wait_reaped(Reaped { fin: HELD, ..Reaped::default() });
    wait_equal("in the end", &0, || agent.counts().established(&of));
}

#[test]
fn orphans_of_a_killed_process_are_counted_to_their_end() {
    const ORPHANS: usize = 23;
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let Cable { server: near, client: far } = Cable::new();
    let mut server = Peer::start(&near.place());
    let mut client = Peer::start(&far.place());
    server.listen("0.0.0.0:8080");
    let agent = Agent::start();
    let of = Of::port(8080).active().netns(far.place().inode());
    client.connect(SERVICE, ORPHANS);
    server.wait_held(ORPHANS);
    // Nobody answers their FINs.
    near.lose(1.0);
    drop(client);
    wait_equal("orphans by ss", &ORPHANS, || ss(&far.place(), "fin-wait-1", ""));
    drop(far);
    let counts = agent.counts();
    counts.assert_exact();
    assert_eq!(counts.state(&of, "fin_wait_1"), ORPHANS as i64);
    near.lose(0.0);
    server.wait_reaped(Reaped { fin: ORPHANS, ..Reaped::default() });
    let states = ["established", "fin_wait_1", "fin_wait_2", "closing", "last_ack", "close"];
    wait_equal("in any state", &0, || {
        let counts = agent.counts();
        states.iter().map(|state| counts.state(&of, state)).sum::<i64>()
    });
    agent.counts().assert_exact();
}
