//! IPv4, IPv6 and IPv4 mapped into IPv6, both roles, each in a population of its own; and many
//! connections on one socket.

use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{Agent, Of};
use e2e::truth::{curr_estab, wait_equal};

#[test]
fn each_family_and_role_is_counted() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let (server_net, client_net) = (cable.server.place().inode(), cable.client.place().inode());
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    // Port, where the server listens, where the client connects to, and how often.
    let families = [
        (4_004, "0.0.0.0", Cable::SERVER.to_owned(), 23),
        (6_006, "[::]", format!("[{}]", Cable::SERVER_V6), 97),
        (4_006, "[::]", Cable::SERVER.to_owned(), 41),
    ];
    for (port, listen, _, _) in &families {
        server.listen(&format!("{listen}:{port}"));
    }
    // The first of each before the agent.
    for (port, _, address, _) in &families {
        client.connect(&format!("{address}:{port}"), 1);
    }
    server.wait_held(families.len());
    let agent = Agent::start();
    for (port, _, address, count) in &families {
        client.connect(&format!("{address}:{port}"), count - 1);
    }
    let total: usize = families.iter().map(|family| family.3).sum();
    server.wait_held(total);
    assert_eq!(curr_estab(&cable.server.place()), total);

    for (port, _, _, count) in &families {
        let count = i64::try_from(*count).unwrap();
        let passive = Of::port(*port).netns(server_net);
        let active = Of::port(*port).netns(client_net).active();
        wait_equal(&format!("port {port}"), &(count, count, count - 1), || {
            let counts = agent.counts();
            (counts.established(&passive), counts.established(&active), counts.accepted(&passive))
        });
    }

    client.fin(total);
    server.wait_reaped(Reaped { fin: total, ..Reaped::default() });
    for (port, ..) in &families {
        let passive = Of::port(*port).netns(server_net);
        wait_equal(&format!("port {port} in the end"), &0, || agent.counts().established(&passive));
    }
    agent.counts().assert_exact();
}

#[test]
fn a_socket_that_connects_again_is_a_new_connection() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:4004");
    let agent = Agent::start();
    client.reconnect("10.77.0.1:4004", 23);
    server.wait_reaped(Reaped { rst: 23, ..Reaped::default() });
    let passive = Of::port(4004).netns(cable.server.place().inode());
    let active = Of::port(4004).netns(cable.client.place().inode()).active();
    // Not `accepted`: a reset may come before the accept, which then returns a dead socket, and only
    // kernels that allow function tracing show that.
    wait_equal("connections made, and still established, at either end", &[23, 23, 0, 0], || {
        let counts = agent.counts();
        let made = |role| i64::try_from(agent.total("established", 4004, role)).unwrap();
        let left = [counts.established(&passive), counts.established(&active)];
        [made("passive"), made("active"), left[0], left[1]]
    });
    agent.counts().assert_exact();
}
