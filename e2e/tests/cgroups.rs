//! Whose connection it is: the socket's own cgroup decides, whatever its process or container does
//! later.

use e2e::cgroup::Cgroup;
use e2e::docker::Container;
use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{Agent, Of};
use e2e::truth::{curr_estab, wait_equal};

#[test]
fn a_process_that_moves_takes_no_connection_along() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let (from, to) = (Cgroup::new("from"), Cgroup::new("to"));
    let agent = Agent::start();
    let mut server = Peer::start(&Place::host());
    let mut client = Peer::start(&Place::host());

    server.enter_cgroup(from.path());
    server.listen("127.0.0.1:18081");
    client.connect("127.0.0.1:18081", 23);
    server.wait_held(23);
    server.enter_cgroup(to.path());
    // Accepted sockets inherit from the listener, which was made before the move.
    client.connect("127.0.0.1:18081", 10);
    server.listen("127.0.0.1:18082");
    client.connect("127.0.0.1:18082", 7);
    server.wait_held(40);

    let of = |port, cgroup: &Cgroup| Of::port(port).cgroup(cgroup.id());
    wait_equal("established by cgroup", &[33, 0, 0, 7], || {
        let counts = agent.counts();
        [of(18081, &from), of(18081, &to), of(18082, &from), of(18082, &to)]
            .map(|population| counts.established(&population))
    });
    client.fin(40);
    server.wait_reaped(Reaped { fin: 40, ..Reaped::default() });
    wait_equal("established in the end", &[0, 0], || {
        let counts = agent.counts();
        [of(18081, &from), of(18082, &to)].map(|population| counts.established(&population))
    });
    agent.counts().assert_exact();
}

#[test]
fn a_killed_container_leaves_no_connection_behind() {
    let Some(_machine) = require(&[Need::Bpf, Need::Docker]) else { return };
    let container = Container::start("killed", &[]);
    let agent = Agent::start();
    let mut server = container.peer();
    server.listen("0.0.0.0:18083");
    let mut client = Peer::start(&Place::host());
    client.connect(&format!("{}:18083", container.address()), 997);
    server.wait_held(997);
    let passive = Of::port(18083).container(&container.name);
    let active = Of::port(18083).netns(Place::host().inode()).active();
    wait_equal("before the kill", &(997, 997), || {
        let counts = agent.counts();
        (counts.established(&passive), counts.established(&active))
    });
    assert_eq!(curr_estab(&container.place()), 997);

    container.kill();
    wait_equal("after the kill", &0, || agent.counts().established(&passive));
    // The dying process closes its sockets, but whether the FINs still get out of the namespace that
    // is torn down is a race; the client's own kernel state is the truth.
    wait_equal("the clients' side", &true, || {
        let truth = e2e::truth::ss(&Place::host(), "established", "dport = :18083");
        agent.counts().established(&active) == i64::try_from(truth).unwrap()
    });
    agent.counts().assert_exact();
}

#[test]
fn a_restarted_container_is_one_name_and_a_renamed_one_another() {
    let Some(_machine) = require(&[Need::Bpf, Need::Docker]) else { return };
    let mut container = Container::start("restarted", &[]);
    let agent = Agent::start();
    let mut client = Peer::start(&Place::host());
    let mut connect = |container: &Container, count| {
        let mut server = container.peer();
        server.listen("0.0.0.0:18084");
        client.connect(&format!("{}:18084", container.address()), count);
        server.wait_held(count);
        server
    };

    let first = connect(&container, 23);
    let of = Of::port(18084).container(&container.name);
    wait_equal("before the restart", &23, || agent.counts().established(&of));
    container.restart();
    drop(first);
    wait_equal("after the restart", &0, || agent.counts().established(&of));
    let _second = connect(&container, 41);
    wait_equal("under the same name", &41, || agent.counts().established(&of));

    container.rename("renamed");
    let renamed = Of::port(18084).container(&container.name);
    wait_equal("under the new name", &(0, 41), || {
        let counts = agent.counts();
        (counts.established(&of), counts.established(&renamed))
    });
}
