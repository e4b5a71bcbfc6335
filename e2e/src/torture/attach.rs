//! Attaching to a host that holds many connections while others come and go: what was there before is
//! counted, each time, and nothing twice.

use std::time::{Duration, Instant};

use super::report::Check;
use crate::lab;
use crate::net::Cable;
use crate::peer::Peer;
use crate::probe::{Agent, Of};
use crate::process::Running;
use crate::truth::{curr_estab, wait_equal_within};

/// How many connections stay open, and how often the programs are attached and removed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub connections: usize,
    pub times: u32,
}

/// Per process, which may hold 20,000 descriptors on some machines.
const MOST: usize = 15_000;
const FIRST_PORT: u16 = 9000;
const CHURNED: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(120);

/// One attachment: how long until its counts were complete, and what was compared once the churn was over.
#[derive(Debug)]
pub struct Round {
    pub took: Duration,
    pub checks: Vec<Check>,
}

/// Both ends of every connection are on this host, in two namespaces: the probe follows twice as many
/// sockets.
///
/// # Panics
/// If a part of the machinery fails; what the probe gets wrong is in the rounds.
pub fn run(options: &Options, mut told: impl FnMut(&Round)) -> Vec<Round> {
    let cable = Cable::new();
    for end in [&cable.server, &cable.client] {
        end.steer_packets(Cable::DEVICE, "0");
    }
    cable.client.sysctl("net/ipv4/ip_local_port_range", "1024 65000");
    cable.client.sysctl("net/ipv4/tcp_tw_reuse", "1");
    let held = hold(&cable, options.connections);
    let address = format!("{}:{CHURNED}", Cable::SERVER);
    let sink = lab::Server::start(&cable.server.place(), &["sink", "--listen", &address]);
    let mut rounds = Vec::new();
    for number in 1..=options.times {
        let round = attach(&cable, &address, &format!("attached {number} times"));
        told(&round);
        rounds.push(round);
        let open = || curr_estab(&cable.server.place());
        wait_equal_within(PATIENCE, "connections held", &options.connections, open);
    }
    drop((held, sink));
    rounds
}

/// Opens them, by as many processes as it takes.
fn hold(cable: &Cable, connections: usize) -> Vec<(Peer, Peer)> {
    let mut peers = Vec::new();
    let mut port = FIRST_PORT;
    let mut left = connections;
    while left > 0 {
        let count = left.min(MOST);
        let address = format!("{}:{port}", Cable::SERVER);
        let mut server = Peer::start(&cable.server.place());
        let mut client = Peer::start(&cable.client.place());
        server.listen(&address);
        client.connect(&address, count);
        server.wait_held(count);
        peers.push((server, client));
        (left, port) = (left - count, port + 1);
    }
    peers
}

fn attach(cable: &Cable, address: &str, at: &str) -> Round {
    let (server, client) = (cable.server.place(), cable.client.place());
    let before = curr_estab(&server);
    let mut churn = lab::command(&client);
    churn.args(["churn", "--count", "1000000", "--rate", "1000/s"]);
    let churn = Running::start(churn.args(["--hold", "20ms", "--to", address]));
    let since = Instant::now();
    while curr_estab(&server) <= before {
        assert!(since.elapsed() < PATIENCE, "no churn: {before} connections");
    }
    let since = Instant::now();
    let agent = Agent::start();
    let took = since.elapsed();
    // It goes on after the walk as before it.
    wait_equal_within(PATIENCE, "sees the churn", &true, || {
        agent.counts().accepted(&Of::port(CHURNED).netns(server.inode())) > 100
    });
    drop(churn);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counts = agent.counts();
        let passive = Of::any_port().netns(server.inode());
        let active = Of::any_port().netns(client.inode()).active();
        let compared = [
            ("passive established = CurrEstab", counts.established(&passive), &server),
            ("active established = CurrEstab", counts.established(&active), &client),
        ];
        let mut checks: Vec<Check> = compared
            .into_iter()
            .map(|(what, ours, place)| Check::equal(at, what, ours, curr_estab(place) as i64))
            .collect();
        checks.push(Check::exact(at, &counts));
        if checks.iter().all(|check| check.holds) || Instant::now() > deadline {
            return Round { took, checks };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
