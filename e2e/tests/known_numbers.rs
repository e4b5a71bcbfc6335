//! 23, 997 and 5,000 connections at once to a server in each of two containers and on the host: some
//! from before the agent started, ended step by step by FIN, RST and time-out. After each step our
//! count, `ss`, `CurrEstab` and the server's own books are equal.

use e2e::docker::{self, Container};
use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::{Netns, Place, Plugged};
use e2e::peer::{Peer, Reaped};
use e2e::probe::{self, Agent, Counts, Of};
use e2e::process::Running;
use e2e::truth::{curr_estab, ss, wait_equal};

const PORT: u16 = 18_080;

/// A server and everything that counts its connections.
struct Server {
    peer: Peer,
    place: Place,
    address: String,
    of: Of,
    /// `CurrEstab` is this server's alone: its namespace holds nothing else.
    alone: bool,
}

impl Server {
    fn in_container(container: &Container) -> Self {
        let mut peer = container.peer();
        peer.listen(&format!("0.0.0.0:{PORT}"));
        Self {
            peer,
            place: container.place(),
            address: format!("{}:{PORT}", container.address()),
            of: Of::port(PORT).container(&container.name),
            alone: true,
        }
    }

    fn on_host(address: &str) -> Self {
        let place = Place::host();
        let mut peer = Peer::start(&place);
        peer.listen(&format!("{address}:{PORT}"));
        let of = Of::port(PORT).netns(place.inode());
        Self { peer, place, address: format!("{address}:{PORT}"), of, alone: false }
    }

    /// All four agree on `count`, and `accepted` of them came since the agent was attached.
    #[track_caller]
    fn assert(&mut self, agent: Option<&Agent>, count: usize, accepted: usize) {
        self.peer.wait_held(count);
        wait_equal("ss", &count, || ss(&self.place, "established", &format!("sport = :{PORT}")));
        if self.alone {
            assert_eq!(curr_estab(&self.place), count, "CurrEstab");
        }
        let Some(agent) = agent else { return };
        let expected = (i64::try_from(count).unwrap(), i64::try_from(accepted).unwrap());
        let read = |counts: &Counts| (counts.established(&self.of), counts.accepted(&self.of));
        wait_equal("established and accepted", &expected, || read(&agent.counts()));
    }
}

fn known_number(total: usize) {
    let Some(_machine) = require(&[Need::Bpf, Need::Docker]) else { return };
    let bridge = docker::bridge_address();
    let (gateway, length) = bridge.split_once('/').expect("an address with its prefix length");
    let network = gateway.rsplit_once('.').and_then(|(rest, _)| rest.rsplit_once('.')).unwrap().0;
    let staying = Plugged::new("docker0", &format!("{network}.200.1/{length}"));
    let lost = Plugged::new("docker0", &format!("{network}.200.2/{length}"));

    let (one, two) = (Container::start("one", &[]), Container::start("two", &[]));
    let mut servers =
        [Server::in_container(&one), Server::in_container(&two), Server::on_host(gateway)];

    // A third before the agent starts, a tenth of all on the line that will be cut.
    let before = total / 3;
    let cut = total / 10;
    let mut clients: Vec<[Peer; 2]> = Vec::new();
    for server in &mut servers {
        let mut pair = [Peer::start(&staying.netns.place()), Peer::start(&lost.netns.place())];
        pair[0].connect(&server.address, before);
        server.assert(None, before, 0);
        clients.push(pair);
    }

    let agent = Agent::start();
    for server in &mut servers {
        server.assert(Some(&agent), before, 0);
    }

    for (server, [stay, lose]) in servers.iter_mut().zip(&mut clients) {
        stay.connect(&server.address, total - before - cut);
        lose.connect(&server.address, cut);
        server.assert(Some(&agent), total, total - before);
    }

    let (fin, rst) = (total / 4, total / 5);
    for (server, [stay, _]) in servers.iter_mut().zip(&mut clients) {
        // The oldest go first, so both the seeded and the followed ones are among them.
        stay.fin(fin);
        server.peer.wait_reaped(Reaped { fin, ..Reaped::default() });
        server.assert(Some(&agent), total - fin, total - before);
        stay.rst(rst);
        server.peer.wait_reaped(Reaped { rst, ..Reaped::default() });
        server.assert(Some(&agent), total - fin - rst, total - before);
    }

    lost.cut();
    for server in &mut servers {
        server.peer.send_with_timeout(500);
    }
    for server in &mut servers {
        server.peer.wait_reaped(Reaped { timeout: cut, ..Reaped::default() });
        server.assert(Some(&agent), total - fin - rst - cut, total - before);
    }
    // The clients that were cut off have not noticed, and the probe does not pretend they have.
    let unaware = Of::port(PORT).netns(lost.netns.place().inode()).active();
    wait_equal("unaware clients", &(3 * i64::try_from(cut).unwrap()), || {
        agent.counts().established(&unaware)
    });

    for (server, [stay, _]) in servers.iter_mut().zip(&mut clients) {
        stay.fin(total - fin - rst - cut);
        server.peer.wait_reaped(Reaped { fin: total - fin - rst - cut, ..Reaped::default() });
        server.assert(Some(&agent), 0, total - before);
    }
    agent.counts().assert_exact();
}

#[test]
fn connections_23() {
    known_number(23);
}

#[test]
fn connections_997() {
    known_number(997);
}

#[test]
fn connections_5000() {
    known_number(5000);
}

/// Their packets come by while the probe starts, before it has met their listener.
#[test]
fn connections_that_talk_while_the_probe_starts() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let netns = Netns::new();
    let place = netns.place();
    let server = lab::Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]);
    let port = server.address().port().to_string();
    let url = format!("ws://{}/", server.address());
    let mut load = lab::command(&place);
    load.args(["load", "--url", &url, "--connections", "200", "--ramp", "200/s"]);
    load.args(["--message-interval", "20ms", "--hold", "10m"]);
    let _load = Running::start(&mut load);
    wait_equal("ss", &200, || ss(&place, "established", &format!("sport = :{port}")));
    for _ in 0..5 {
        for (role, count) in [("passive", 200), ("active", 200), ("unknown", 0)] {
            let args = ["connections", "--json", "--state", "established", "--port", &port];
            let text = probe::run(&[&args[..], &["--role", role]].concat()).success("connections");
            assert_eq!(text.lines().count(), count, "{role}");
        }
    }
}
