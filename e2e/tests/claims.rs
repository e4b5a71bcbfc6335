//! Whoever ends an entry that another socket has left at an address claims that first.

use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::machine::{Need, require};
use e2e::maps::{GONE, Maps, PATIENCE, Pair};
use e2e::net::Place;
use e2e::probe::{Agent, Of};
use e2e::process::{Running, Signal};
use e2e::scratch::Scratch;
use e2e::truth::{wait_equal, wait_equal_within};
use probe_common::handshake::{self, Handshake};
use probe_common::key::ListenerKey;
use probe_common::loss::Stat;

/// Neither a packet nor a walk touches the entry, nor do they insert one, until the claim is given back.
#[test]
fn what_is_claimed_is_left_to_who_has_the_claim() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let agent = Agent::start();
    let mut pair = Pair::new();
    let of = Of::port(pair.port()).netns(Place::host().inode());
    let mut maps = Maps::open();
    wait_equal("accepted", &1, || agent.counts().accepted(&of));
    let entry = maps.find(&pair);
    let repairs = |maps: &Maps| {
        [Stat::StaleHealed, Stat::Forgotten, Stat::FoundLate].map(|which| maps.statistic(which))
    };
    let before = repairs(&maps);

    maps.claim(entry.sk);
    assert!(maps.leave_stale(entry));
    pair.send();
    maps.wait_walked();
    assert_eq!(maps.whose(entry.sk), Some(GONE), "the entry under the claim");
    // Who has the claim takes it out.
    let stale = maps.connections.get(&entry.sk, 0).unwrap();
    maps.connections.remove(&entry.sk).unwrap();
    pair.send();
    maps.wait_walked();
    assert_eq!(maps.whose(entry.sk), None, "an entry was inserted under the claim");
    assert_eq!(repairs(&maps), before);
    assert_eq!(agent.counts().established(&of), 1);

    maps.connections.insert(entry.sk, stale, 0).unwrap();
    maps.unclaim(entry.sk);
    pair.send();
    assert_eq!(maps.whose(entry.sk), Some((entry.cookie, entry.remote_port)));
    let [stale_healed, forgotten, found_late] = before;
    assert_eq!(repairs(&maps), [stale_healed + 1, forgotten, found_late + 1]);
    let counts = agent.counts();
    assert_eq!((counts.established(&of), counts.accepted(&of)), (1, 2));
    assert_eq!(counts.closed_on(&(pair.port()..pair.port() + 1)), 1);
    wait_equal_within(PATIENCE, "exact", &true, || agent.counts().0["exact"] == true);
}

/// A claim that was not given back keeps nobody out for longer than until the next walk, a listener that is no more is
/// forgotten by then, and a handshake that its connection has is none that failed.
#[test]
fn what_stayed_behind_is_taken_out() {
    /// Ports that nobody uses: of a listener that is gone, of a handshake that failed, and of one that did not.
    const GONE_LISTENER: u16 = 2;
    const FAILED: u16 = 3;
    const TAKEN_OVER: u16 = 4;
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let agent = Agent::start();
    let mut pair = Pair::new();
    let netns = Place::host().inode() as u32;
    let of = Of::port(pair.port()).netns(netns.into());
    let mut maps = Maps::open();
    wait_equal("accepted", &1, || agent.counts().accepted(&of));
    let entry = maps.find(&pair);

    maps.claims.insert(entry.sk, 1, 0).unwrap();
    assert!(maps.leave_stale(entry));
    let listener = |port| ListenerKey { netns, port, pad: 0 };
    maps.listeners.insert(listener(GONE_LISTENER), 1, 0).unwrap();
    for (local_port, flags) in [(TAKEN_OVER, handshake::flag::TAKEN_OVER), (FAILED, 0)] {
        let pair = handshake::Pair { local_port, ..handshake::Pair::of(&entry) };
        let handshake = Handshake { syn_ns: 1, syns: 1, flags, ..Handshake::default() };
        maps.handshakes.insert(pair, handshake, 0).unwrap();
    }
    maps.wait_walked();
    assert_eq!(maps.claims.get(&entry.sk, 0).ok(), None, "the claim");
    pair.send();
    let whose = || maps.whose(entry.sk);
    wait_equal("the socket", &Some((entry.cookie, entry.remote_port)), whose);
    let is_known = |port| maps.listeners.get(&listener(port), 0).is_ok();
    assert_eq!([pair.port(), GONE_LISTENER].map(is_known), [true, false], "listeners");
    let failed = |metrics: &str, port: u16| {
        let port = format!("port=\"{port}\"");
        let mut lines = metrics.lines();
        lines.any(|line| line.starts_with("groundtruth_handshakes_total") && line.contains(&port))
    };
    wait_equal("handshakes", &0, || maps.handshakes.keys().count());
    wait_equal("failed", &[true, false], || {
        let metrics = agent.text("/metrics");
        [FAILED, TAKEN_OVER].map(|port| failed(&metrics, port))
    });
}

/// Packets on one processor and what a walk calls on another end the same stale entries, as fast as both can: each is
/// ended once, and the socket that lives there is counted once.
#[test]
fn two_that_end_the_same_entries_end_each_once() {
    const TIMES: u64 = 20_000;
    let Some(_machine) = require(&[Need::Bpf, Need::Program("bpftool")]) else { return };
    let agent = Agent::start();
    let pair = Pair::new();
    let port = pair.port();
    let of = Of::port(port).netns(Place::host().inode());
    let mut maps = Maps::open();
    wait_equal("accepted", &1, || agent.counts().accepted(&of));
    let first = maps.find(&pair);
    let ended = |maps: &Maps| maps.statistic(Stat::StaleHealed) + maps.statistic(Stat::Forgotten);
    let before = ended(&maps);

    // An Ethernet header, and what the program reads: address, cookie, a walk to come, no releases.
    let mut packet = vec![0; 14];
    for word in [first.sk, GONE.0, u64::from(u32::MAX), 0] {
        packet.extend(word.to_ne_bytes());
    }
    let scratch = Scratch::new("claims");
    let file = scratch.join("packet");
    fs::write(&file, packet).unwrap();
    let mut forget = Command::new("bpftool");
    forget.args(["prog", "run", "name", "forget", "repeat", "4294967295", "data_in", &file]);
    let mut forget = Running::start(&mut forget);

    let is_over = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                (&pair.server).write_all(b"x").unwrap();
            }
            pair.server.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| io::copy(&mut &pair.client, &mut io::sink()).unwrap());
        let times = (0..TIMES).take_while(|_| {
            let followed = maps.wait_followed(first);
            followed.is_some_and(|entry| maps.leave_stale(entry))
        });
        let times = times.count();
        maps.wait_followed(first);
        is_over.store(true, Ordering::Relaxed);
        times as u64
    });
    assert!(forget.is_running(), "it has tried all the time");
    forget.stop(Signal::KILL);
    assert_eq!(times, TIMES, "after each the socket is followed again");
    assert_eq!(ended(&maps) - before, TIMES, "ended");
    let counts = agent.counts();
    assert_eq!(counts.accepted(&of), 1 + TIMES.cast_signed());
    assert_eq!(agent.total("established", port, "passive"), 1 + TIMES);
    assert_eq!(counts.closed_on(&(port..port + 1)), TIMES.cast_signed());
    drop(pair);
    wait_equal("in the end", &0, || agent.counts().established(&of));
    wait_equal_within(PATIENCE, "exact", &true, || agent.counts().0["exact"] == true);
}
