//! There are 16,384 counters, and a host sees more containers and ports than that in its life: what is no more
//! gives its counter back, and no total of a service falls by it.

use std::process::Command;
use std::time::Duration;

use e2e::cgroup::Cgroup;
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{Agent, Counts, Of};
use e2e::process::Running;
use e2e::truth::{curr_estab, wait_equal, wait_equal_within};
use serde_json::Value;

const SERVER: &str = "10.77.0.1";
const SERVICE: &str = "10.77.0.1:8080";
const PATIENCE: Duration = Duration::from_secs(60);

/// Up to so many stay in use.
const KEPT: i64 = 1024;

#[track_caller]
fn wait_given_back(agent: &Agent) {
    wait_equal_within(PATIENCE, "few counters are in use", &true, || {
        agent.vital("count_slots_in_use") <= KEPT
    });
}

/// Established, seen from the side that connected, over all ports.
fn connected(counts: &Counts, netns: u64) -> i64 {
    counts.established(&Of::any_port().netns(netns).active())
}

#[test]
fn a_port_scan_uses_up_no_counters() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    let client_netns = cable.client.place().inode();
    server.listen(SERVICE);
    let agent = Agent::start();
    client.connect(SERVICE, 23);
    server.wait_held(23);
    let passive = Of::port(8080).netns(cable.server.place().inode());
    // Twice as many as there are counters, one after the other.
    for scan in 1..=2 {
        assert_eq!(client.try_each(SERVER, 20_000..=40_000), 0);
        let counts = agent.counts();
        counts.assert_exact();
        assert_eq!((counts.established(&passive), counts.accepted(&passive)), (23, 23), "{scan}");
        assert_eq!(connected(&counts, client_netns), 23, "scan {scan}");
        wait_given_back(&agent);
    }
    // Each port has a counter of its own again.
    server.listen_each(SERVER, 41_000..=41_004);
    assert_eq!(client.try_each(SERVER, 41_000..=41_004), 5);
    let counts = agent.counts();
    counts.assert_exact();
    for port in 41_000..=41_004 {
        let of = Of::port(port).netns(client_netns).active();
        assert_eq!(counts.established(&of), 1, "port {port}");
    }
    assert_eq!(agent.vital("count_slots_full"), 0);
}

/// Kills the agent at this call of bpf(2) from now on.
fn killed_by(call: u32, agent: &Agent) -> Running {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "trace=bpf", "-e"]);
    strace.arg(format!("inject=bpf:signal=KILL:when={call}"));
    let strace = Running::start(strace.arg("-p").arg(agent.pid().to_string()));
    strace.wait_stderr("attached");
    strace
}

/// Killed at whatever step of giving counters back, it loses none.
#[test]
fn killed_while_it_gives_counters_back() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("strace")]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen(SERVICE);
    let mut agent = Agent::start();
    client.connect(SERVICE, 23);
    server.wait_held(23);
    // Two calls for each that is not to be found any more, and then one for each that is to be had.
    for call in [9_001, 30_001] {
        assert_eq!(client.try_each(SERVER, 20_000..=40_000), 0);
        assert!(agent.vital("count_slots_in_use") > 12_000);
        killed_by(call, &agent).wait(PATIENCE);
        agent.kill();
        agent.start_again();
    }
    let counts = agent.counts();
    counts.assert_exact();
    let passive = Of::port(8080).netns(cable.server.place().inode());
    assert_eq!((counts.established(&passive), counts.accepted(&passive)), (23, 23));
    // More than there are.
    let _more = [20_000..=28_999, 29_000..=37_999].map(|ports| {
        let mut peer = Peer::start(&cable.server.place());
        peer.listen_each(SERVER, ports);
        peer
    });
    assert_eq!(agent.vital("count_slots_in_use"), 16_384, "all that there are");
}

/// A service that was counted in many cgroups, and killed while they are given back one after the other: what is left
/// of them has all of its totals.
#[test]
fn killed_while_it_gives_back_those_of_one_service() {
    const CGROUPS: u32 = 1200;
    let Some(_machine) = require(&[Need::Bpf, Need::Program("strace")]) else { return };
    let cgroups: Vec<Cgroup> = (0..CGROUPS).map(|_| Cgroup::new("many")).collect();
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen(SERVICE);
    let mut agent = Agent::start();
    for cgroup in &cgroups {
        client.enter_cgroup(cgroup.path());
        client.connect(SERVICE, 1);
    }
    // With these more than half of all counters are in use.
    let mut others = Peer::start(&cable.server.place());
    others.listen_each(SERVER, 20_000..=27_999);
    assert_eq!(agent.total("established", 8080, "active"), u64::from(CGROUPS));
    // Two calls for each that is not to be found any more, some for walks, then one for each that is given back.
    let kill = killed_by(CGROUPS * 2 + CGROUPS / 2, &agent);
    client.fin(CGROUPS as usize);
    server.wait_reaped(Reaped { fin: CGROUPS as usize, ..Reaped::default() });
    kill.wait(PATIENCE);
    agent.kill();
    agent.start_again();
    let netns = cable.client.place().inode();
    let counts = agent.counts();
    let is_left =
        |row: &&Value| row["netns"] == netns && row["port"] == 8080 && row["role"] == "active";
    let left = counts.0["counts"].as_array().expect("rows").iter().filter(is_left).count();
    assert!((1..CGROUPS as usize).contains(&left), "killed with {left} of {CGROUPS} left");
    assert_eq!(agent.total("established", 8080, "active"), u64::from(CGROUPS), "{left} are left");
    counts.assert_exact();
}

/// More ports at once than counters: the container is still counted exactly, and what is not is said until it is over.
#[test]
fn more_ports_at_once_than_counters_are_said() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    let client_netns = cable.client.place().inode();
    let agent = Agent::start();
    server.listen_each(SERVER, 20_000..=28_999);
    assert_eq!(client.try_each(SERVER, 20_000..=28_999), 9_000);
    let counts = agent.counts();
    assert_eq!(counts.0["exact"], false);
    let others = counts.established(&Of::port(0).netns(client_netns).active());
    let reason = format!("{others} sockets are counted in their container, but without their port");
    assert!(counts.0["degraded"].to_string().contains(&reason), "{}", counts.0["degraded"]);
    assert!(others > 5_000, "{others}");
    assert_eq!(connected(&counts, client_netns), 9_000);
    assert_eq!(curr_estab(&cable.client.place()), 9_000);

    client.fin(9_000);
    drop(server);
    wait_equal("established in the end", &0, || connected(&agent.counts(), client_netns));
    wait_given_back(&agent);
    agent.counts().assert_exact();
    assert_eq!(agent.vital("count_slots_full"), 0);
}

/// A container that is started again and again has a cgroup each time; to metrics it is one service.
#[test]
fn totals_of_gone_cgroups_stay_with_their_service() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut client = Peer::start(&cable.client.place());
    let agent = Agent::start();
    let netns = cable.server.place().inode();
    let rows = || -> Vec<Value> {
        let of =
            |row: &&Value| row["netns"] == netns && row["port"] == 8080 && row["role"] == "passive";
        agent.counts().0["counts"].as_array().expect("rows").iter().filter(of).cloned().collect()
    };
    let accepted = || -> Option<String> {
        let labels = r#"{container="host",runtime="host",port="8080",role="passive"}"#;
        let name = format!("groundtruth_connections_accepted_total{labels} ");
        agent.text("/metrics").lines().find_map(|line| Some(line.strip_prefix(&name)?.to_owned()))
    };
    for count in [23, 5, 41] {
        let cgroup = Cgroup::new("gone");
        let mut server = Peer::start(&cable.server.place());
        server.enter_cgroup(cgroup.path());
        server.listen(SERVICE);
        client.connect(SERVICE, count);
        server.wait_held(count);
        // What a cgroup is called is learnt while it is there.
        wait_equal("accepted", &true, || accepted().is_some());
        client.fin(count);
        server.wait_reaped(Reaped { fin: count, ..Reaped::default() });
    }
    let alive = Cgroup::new("alive");
    let mut server = Peer::start(&cable.server.place());
    server.enter_cgroup(alive.path());
    server.listen(SERVICE);
    client.connect(SERVICE, 3);
    server.wait_held(3);
    wait_equal("accepted before", &Some("72".to_owned()), accepted);
    assert_eq!(rows().len(), 4);

    // More than half of all counters.
    client.try_each(SERVER, 20_000..=29_000);
    wait_given_back(&agent);
    assert_eq!(accepted(), Some("72".to_owned()), "accepted after");
    let mut each: Vec<(i64, i64)> = rows()
        .iter()
        .map(|row| (row["established"].as_i64().unwrap(), row["accepted"].as_i64().unwrap()))
        .collect();
    each.sort_unstable();
    assert_eq!(each, [(0, 69), (3, 3)]);
    agent.counts().assert_exact();
}
