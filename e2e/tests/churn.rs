//! 300,000 short connections with packet steering on: the two ends run at the same time and interrupt
//! each other's kernel programs, which the kernel then skips without a word. No count may tell.

use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::probe::{Agent, Of};
use e2e::truth::{curr_estab, ss, wait_equal};

const COUNT: u64 = 300_000;
/// Several, since one pair of addresses has too few ephemeral ports for what stays in TIME_WAIT.
const PORTS: [u16; 8] = [9001, 9002, 9003, 9004, 9005, 9006, 9007, 9008];

#[test]
fn short_connections_300000() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let (server, client) = (cable.server.place(), cable.client.place());
    cable.client.sysctl("net/ipv4/ip_local_port_range", "1024 65000");

    let addresses: Vec<String> = PORTS.iter().map(|p| format!("{}:{p}", Cable::SERVER)).collect();
    let mut listen = vec!["sink"];
    let mut churn = vec!["churn", "--count", "300000", "--end", "rst:100000", "--hold", "20ms"];
    for address in &addresses {
        listen.extend(["--listen", address]);
        churn.extend(["--to", address]);
    }
    let sink = lab::Server::start(&server, &listen);
    let agent = Agent::start();
    let opened = lab::run(&client, &churn, Duration::from_secs(300));
    assert_eq!(opened["established"], COUNT);
    assert_eq!(opened["ended_rst"], 100_000);
    eprintln!("300,000 connections in {} s", opened["duration_s"]);

    // The server is a moment behind; until then CurrEstab holds its close_wait sockets, too.
    wait_equal("ss, and CurrEstab at either end", &(0, 0, 0), || {
        (ss(&server, "established", ""), curr_estab(&server), curr_estab(&client))
    });

    let (server_net, client_net) = (server.inode(), client.inode());
    let sum = |read: &dyn Fn(u16) -> i64| PORTS.iter().map(|&port| read(port)).sum::<i64>();
    wait_equal("accepted; established at the server and at the client", &(300_000, 0, 0), || {
        let counts = agent.counts();
        (
            sum(&|port| counts.accepted(&Of::port(port).netns(server_net))),
            sum(&|port| counts.established(&Of::port(port).netns(server_net))),
            sum(&|port| counts.established(&Of::port(port).netns(client_net).active())),
        )
    });
    agent.counts().assert_exact();

    let books = sink.stop();
    assert_eq!(books["accepted"], COUNT);
    assert_eq!(books["open"], 0);
}
