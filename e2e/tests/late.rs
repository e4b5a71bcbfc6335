//! Connections whose events the kernel left out: what is known of them says when it is not sharp.

use std::io::{Read, Write};
use std::net::Shutdown;

use e2e::machine::{Need, require};
use e2e::maps::{EXIST, Maps, Pair};
use e2e::net::Place;
use e2e::probe::{Agent, Of};
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use e2e::truth::wait_equal;
use probe_common::connection::Connection;
use probe_common::state;

/// `established` is told as an upper bound where its event was left out: of a connection that is found at a packet, of
/// one that is behind at a packet, of one that is behind at its next event. Beside them one of which all was seen.
#[test]
fn established_that_was_not_seen_is_an_upper_bound() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let agent = Agent::start();
    let scratch = Scratch::new("late");
    let socket = agent.socket().to_string_lossy();
    let recording = Recording::start(&scratch.join("capture"), &["--agent-socket", &socket]);
    let mut maps = Maps::open();
    let host = Place::host().inode();
    let mut pairs = [(); 4].map(|()| Pair::new());
    for pair in &pairs {
        let of = Of::port(pair.port()).netns(host);
        wait_equal("accepted", &1, || agent.counts().accepted(&of));
    }
    let client = |pair: &Pair| pair.client.local_addr().unwrap().port();

    let [found, behind_at_packet, behind_at_event, _seen] = &mut pairs;
    let all_established_ns = monotonic_ns();
    maps.connections.remove(&maps.find(found).sk).unwrap();
    let mut put_back = |pair: &Pair| {
        let entry = maps.find_from(client(pair));
        let before = Connection { state: state::SYN_SENT, established_ns: 0, ..entry };
        maps.connections.insert(entry.sk, before, EXIST).unwrap();
    };
    put_back(behind_at_packet);
    put_back(behind_at_event);
    found.send();
    behind_at_packet.client.write_all(b"x").unwrap();
    behind_at_packet.server.read_exact(&mut [0]).unwrap();
    behind_at_event.client.shutdown(Shutdown::Both).unwrap();

    let ends = pairs.each_ref().map(|pair| (client(pair), pair.port()));
    drop(pairs);
    for (_, port) in ends {
        wait_equal("closed", &2, || agent.counts().closed_on(&(port..port + 1)));
    }
    let recorded = recording.stop();
    let established = |row: &serde_json::Value| {
        let late = row["established_ns"].as_i64().unwrap() > all_established_ns;
        let left = row["left_established_ns"].as_i64() >= row["established_ns"].as_i64();
        (row["established_is_upper_bound"].as_bool().unwrap(), late, left)
    };
    let passive = ends.map(|(client, port)| established(recorded.passive(client, port)));
    let active = ends.map(|(client, port)| established(recorded.active(client, port)));
    let (bound, sharp) = ((true, true, true), (false, false, true));
    assert_eq!(passive, [bound, sharp, sharp, sharp], "servers' ends");
    assert_eq!(active, [sharp, bound, bound, sharp], "clients' ends");
}

fn monotonic_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
