//! The harness itself, without any part of groundtruth: peers, namespaces and containers do exactly
//! what they were told, and the two independent counts agree with each other.

use std::time::Duration;

use e2e::docker::Container;
use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::peer::{Peer, Reaped};
use e2e::truth::{curr_estab, ss, wait_equal};

#[test]
fn peers_hold_and_end_what_they_were_told() {
    let Some(_machine) = require(&[Need::Root]) else { return };
    let cable = Cable::new();
    let (server_place, client_place) = (cable.server.place(), cable.client.place());
    let (mut server, mut client) = (Peer::start(&server_place), Peer::start(&client_place));
    server.listen("[::]:8080");
    client.connect("10.77.0.1:8080", 20);
    client.connect("[fd77::1]:8080", 3);
    server.wait_held(23);
    assert_eq!(ss(&server_place, "established", "sport = :8080"), 23);
    assert_eq!(curr_estab(&server_place), 23);
    assert_eq!(curr_estab(&client_place), 23);

    client.fin(5);
    client.rst(7);
    server.wait_reaped(Reaped { fin: 5, rst: 7, timeout: 0 });
    assert_eq!(curr_estab(&server_place), 11);

    cable.cut();
    server.send_with_timeout(300);
    server.wait_reaped(Reaped { fin: 0, rst: 0, timeout: 11 });
    assert_eq!(curr_estab(&server_place), 0);
    // Nobody told the clients.
    assert_eq!(ss(&client_place, "established", ""), 11);
}

#[test]
fn one_socket_makes_many_connections() {
    let Some(_machine) = require(&[Need::Root]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    client.reconnect("10.77.0.1:8080", 9);
    server.wait_reaped(Reaped { rst: 9, ..Reaped::default() });
}

#[test]
fn containers_have_a_network_of_their_own() {
    let Some(_machine) = require(&[Need::Docker]) else { return };
    let container = Container::start("harness", &[]);
    let mut server = container.peer();
    server.listen("0.0.0.0:8080");
    let mut client = Peer::start(&Place::host());
    client.connect(&format!("{}:8080", container.address()), 23);
    server.wait_held(23);
    assert_eq!(curr_estab(&container.place()), 23);
    assert_eq!(ss(&container.place(), "established", ""), 23);

    container.kill();
    drop(container);
    wait_equal("connections of the killed container", &23, || {
        std::thread::sleep(Duration::from_millis(10));
        let reaped = client.reap();
        reaped.fin + reaped.rst + client.held()
    });
}
