//! 300,000 short connections with packet steering on: the two ends run at the same time and interrupt
//! each other's kernel programs, which the kernel then skips without a word. No count may tell.

use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::probe::{Agent, Of};
use e2e::truth::{curr_estab, ss, wait_equal, wait_equal_within};

/// Many ports for what stays in TIME_WAIT: half of a pair's ephemeral ports taken, and `connect`
/// spends its time searching.
const FIN_PORTS: [u16; 8] = [9001, 9002, 9003, 9004, 9005, 9006, 9007, 9008];
const RST_PORTS: [u16; 2] = [9011, 9012];
const FIN: u64 = 200_000;
const RST: u64 = 100_000;

/// Opens and ends `count` connections, spread over the ports.
fn churn(client: &Place, ports: &[u16], count: u64, end: &[&str]) {
    let count = count.to_string();
    let addresses: Vec<_> = ports.iter().map(|port| format!("{}:{port}", Cable::SERVER)).collect();
    let mut args = vec!["churn", "--count", &count, "--hold", "20ms"];
    args.extend(end);
    for address in &addresses {
        args.extend(["--to", address]);
    }
    let done = lab::run(client, &args, Duration::from_secs(300));
    assert_eq!(done["established"].to_string(), count);
    eprintln!("{count} connections {end:?} in {} s", done["duration_s"]);
}

#[test]
fn short_connections_300000() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let (server, client) = (cable.server.place(), cable.client.place());
    cable.client.sysctl("net/ipv4/ip_local_port_range", "1024 65000");

    let all = [&FIN_PORTS[..], &RST_PORTS].concat();
    let listen = all
        .iter()
        .flat_map(|port| ["--listen".to_owned(), format!("{}:{port}", Cable::SERVER)])
        .collect::<Vec<_>>();
    let listen: Vec<&str> = ["sink"].into_iter().chain(listen.iter().map(String::as_str)).collect();
    let sink = lab::Server::start(&server, &listen);
    let agent = Agent::start();
    std::thread::scope(|scope| {
        scope.spawn(|| churn(&client, &FIN_PORTS, FIN, &[]));
        scope.spawn(|| churn(&client, &RST_PORTS, RST, &["--end", "rst"]));
    });

    // The server is a moment behind; until then CurrEstab holds its close_wait sockets, too.
    wait_equal("ss, and CurrEstab at either end", &(0, 0, 0), || {
        (ss(&server, "established", ""), curr_estab(&server), curr_estab(&client))
    });

    let (server_net, client_net) = (server.inode(), client.inode());
    wait_equal("still established at the server and at the client", &(0, 0), || {
        let counts = agent.counts();
        let passive = |&port: &u16| counts.established(&Of::port(port).netns(server_net));
        let active = |&port: &u16| counts.established(&Of::port(port).netns(client_net).active());
        (all.iter().map(passive).sum::<i64>(), all.iter().map(active).sum::<i64>())
    });
    // What ended unseen is counted until the next walk; until then the last audit says so.
    wait_equal_within(Duration::from_secs(60), "why it is not exact", &None, || {
        let counts = agent.counts();
        (counts.0["exact"] != true).then(|| counts.0["degraded"].to_string())
    });
    let total = |what, ports: &[u16], role| -> u64 {
        ports.iter().map(|&port| agent.total(what, port, role)).sum()
    };
    let established = |ports: &[u16]| {
        ["passive", "active", "unknown"].map(|role| total("established", ports, role))
    };
    // Where the accept queue was full the last ACK was dropped: the child is made by a repeated FIN.
    wait_equal("established and ended by FIN: passive, active, unknown", &[FIN, FIN, 0], || {
        established(&FIN_PORTS)
    });

    // Only then the sink has accepted what was reset while it waited for that.
    let books = sink.stop();
    let served = books["accepted"].as_u64().unwrap();
    // A reset is not repeated: where the accept queue was full the client had a connection, and the
    // server never did.
    assert_eq!(established(&RST_PORTS), [served - FIN, RST, 0], "established and ended by RST");
    let accepted = [&FIN_PORTS[..], &RST_PORTS].map(|ports| total("accepted", ports, "passive"));
    assert_eq!(accepted, [FIN, served - FIN], "accepted, to be ended by FIN and by RST");
    assert_eq!(books["ended_fin"], FIN);
    assert_eq!(books["open"], 0);
}
