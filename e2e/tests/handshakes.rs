//! Every way in which a handshake fails, on a known set of connections: each one's outcome is what the
//! truth says, at both ends, and nothing is said against the healthy ones.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use common::{Waiting, bound, client_port, defer_accept, listen};
use e2e::document::write_section;
use e2e::lab::{self, Server};
use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::recording::{Recorded, Recording};
use e2e::scratch::Scratch;
use serde_json::Value;

const CLIENTS: &str = "40";
const HEADING: &str = "## Outcomes";

/// What a fault's connections are expected to come to; `others` is that of the rest.
struct Case {
    name: &'static str,
    server: &'static [&'static str],
    client: &'static [&'static str],
    /// Truth lines and, in the absence of an outcome there, what they mean at the server's end.
    hit: &'static str,
    hits: usize,
}

const fn served(name: &'static str, server: &'static [&'static str], hit: &'static str) -> Case {
    Case { name, server, client: &[], hit, hits: 7 }
}

macro_rules! fault {
    ($name:literal, $hit:literal) => {
        served($name, &["serve", "--listen", "127.0.0.1:0", "--fault", concat!($name, ":7")], $hit)
    };
}

macro_rules! balancer {
    ($name:literal, $hit:literal, $($more:expr),*) => {
        served(
            $name,
            &[
                "balance", "--spawn-shards", "--listen", "127.0.0.1:0",
                "--shard", "127.0.0.1:0", "--shard", "127.0.0.1:0", $($more),*
            ],
            $hit,
        )
    };
    ($name:literal, $hit:literal) => {
        balancer!($name, $hit, "--fault", concat!($name, ":7"))
    };
}

const CASES: &[Case] = &[
    fault!("unauthorized", "http_401"),
    fault!("forbidden-origin", "http_403"),
    fault!("wrong-path", "http_404"),
    fault!("shed-load", "http_503"),
    fault!("not-a-websocket-server", "http_200"),
    fault!("wrong-accept", "http_101_wrong_accept"),
    fault!("not-http", "not_http"),
    fault!("hang", "no_response_client_left"),
    fault!("reset-after-request", "no_response_server_reset"),
    fault!("close-after-request", "no_response_server_closed"),
    fault!("close-after-upgrade", "closed_right_after_upgrade"),
    served(
        "slow-response",
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--fault",
            "slow-response:7",
            "--fault-delay",
            "300ms",
        ],
        "upgraded",
    ),
    served(
        "unauthorized, over IPv6",
        &["serve", "--listen", "[::1]:0", "--fault", "unauthorized:7"],
        "http_401",
    ),
    served(
        "capacity-limit",
        &["serve", "--listen", "127.0.0.1:0", "--max-connections", "33"],
        "http_503",
    ),
    balancer!("slot-race", "http_503"),
    balancer!("slot-leak", "upgraded"),
    balancer!("balancer-sheds-load", "http_503"),
    balancer!("dead-upstream", "http_502"),
    balancer!("drop-upgrade-header", "http_426"),
    balancer!("drop-key-header", "http_400"),
    balancer!("rewrite-accept", "http_101_wrong_accept"),
    balancer!("refuse-after-upgrade", "http_403"),
    balancer!(
        "upstream-timeout",
        "http_504",
        "--shard-fault",
        "1:hang:7",
        "--upstream-timeout",
        "300ms"
    ),
    Case {
        name: "no-ephemeral-port",
        server: &[
            "balance",
            "--spawn-shards",
            "--listen",
            "127.0.0.1:0",
            "--shard",
            "127.0.0.1:0",
            "--upstream-ports",
            "50000-50032",
        ],
        client: &["--hold", "1s"],
        hit: "http_503",
        hits: 7,
    },
];

/// One client's connection, with what it must come to at either end.
struct Expected {
    cause: String,
    client_port: u16,
    port: u16,
    passive: &'static str,
    active: &'static str,
}

fn json_lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn port_of(line: &Value, field: &str) -> u16 {
    line[field].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
}

/// Runs the case, and says what must be found of its clients.
fn run(case: &Case, scratch: &Scratch) -> Vec<Expected> {
    let name = case.name.replace([' ', ','], "-");
    let (truth, results) =
        (scratch.join(&format!("{name}.truth")), scratch.join(&format!("{name}.clients")));
    let server =
        Server::start(&Place::host(), &[case.server, &["--truth", truth.as_str()]].concat());
    let url = format!("ws://{}/", server.address());
    let shape = [
        "load",
        "--url",
        &url,
        "--connections",
        CLIENTS,
        "--ramp",
        "400/s",
        "--handshake-timeout",
        "700ms",
        "--min-success",
        "0",
        "-o",
        &results,
    ];
    let hold: &[_] = if case.client.is_empty() { &["--hold", "300ms"] } else { case.client };
    let _ = lab::run(&Place::host(), &[&shape[..], hold].concat(), Duration::from_secs(30));
    let port = server.address().port();
    let _ = server.stop();

    // A client may be in two lines: the shard's fault, and the balancer's answer to it.
    let hits: HashMap<u16, Value> = json_lines(&truth)
        .into_iter()
        .filter(|hit| port_of(hit, "local_port") == port)
        .map(|hit| (port_of(&hit, "client_port"), hit))
        .collect();
    assert_eq!(hits.len(), case.hits, "{}: truth of the wrong size", case.name);
    let clients = json_lines(&results);
    assert_eq!(clients.len(), 40, "{}", case.name);
    clients
        .iter()
        .map(|client| {
            let client_port = port_of(client, "local_port");
            let hit = hits.get(&client_port);
            if let Some(said) = hit.and_then(|hit| hit["outcome"].as_str()) {
                assert_eq!(said, case.hit, "{}: the lab's own truth", case.name);
            }
            let outcome = if hit.is_some() { case.hit } else { "upgraded" };
            Expected {
                cause: if hit.is_some() { case.name.to_owned() } else { "none".to_owned() },
                client_port,
                port,
                passive: outcome,
                active: outcome,
            }
        })
        .collect()
}

/// Connections whose handshake fails before any server has a say.
fn below_http(held: &mut Vec<TcpStream>, listeners: &mut Vec<TcpListener>) -> Vec<Expected> {
    let mut expected = Vec::new();
    let mut expect = |cause: &str, client_port, port, passive, active| {
        expected.push(Expected { cause: cause.to_owned(), client_port, port, passive, active });
    };

    let nobody = e2e::answer::nobody();
    // A refused client leaves its port free at once: only one connection of each is asked for.
    let mut ports = BTreeSet::new();
    while ports.len() < 200 {
        let client = bound();
        let port = client_port(&client);
        if !ports.insert(port) {
            continue;
        }
        assert!(client.connect(nobody).is_err(), "somebody listens at {nobody}");
        expect("no listener", port, nobody.port(), "no_listener", "no_listener");
    }

    // Five are taken by a queue of length four, and nobody accepts; the SYNs after them are dropped.
    let listener = listen(4);
    let address = listener.local_addr().unwrap();
    for _ in 0..5 {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(REQUEST).unwrap();
        let port = client.local_addr().unwrap().port();
        expect("never accepted", port, address.port(), "never_accepted", "no_response_client_left");
        held.push(client);
    }
    let waiting: Vec<Waiting> = (0..9).map(|_| Waiting::start(address)).collect();
    std::thread::sleep(Duration::from_millis(1500));
    for client in &waiting {
        let syn_dropped = "syn_dropped_accept_queue_full";
        let cause = "accept queue full at the SYN";
        expect(cause, client.port, address.port(), syn_dropped, "syn_ack_timeout");
    }
    drop(waiting);
    listeners.push(listener);

    // The last ACK alone does not get a deferred accept through, the request does: three fill the queue up
    // to two places, and four more have sent a SYN before they ask.
    let listener = listen(4);
    defer_accept(&listener);
    let address = listener.local_addr().unwrap();
    let ask = |mut client: &TcpStream| client.write_all(REQUEST).unwrap();
    let first: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    first.iter().for_each(ask);
    let then: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    then.iter().for_each(ask);
    for (i, client) in first.iter().chain(&then).enumerate() {
        let (cause, passive) = if i < 5 {
            ("never accepted", "never_accepted")
        } else {
            ("accept queue full at the ACK", "ack_dropped_accept_queue_full")
        };
        let port = client.local_addr().unwrap().port();
        expect(cause, port, address.port(), passive, "no_response_client_left");
    }
    held.extend(first);
    held.extend(then);
    listeners.push(listener);
    expected
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn every_connection_has_the_outcome_of_its_cause() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("handshakes");
    let recording = Recording::start(&scratch.join("capture"), &[]);
    let (mut held, mut listeners) = (Vec::new(), Vec::new());
    let mut expected = below_http(&mut held, &mut listeners);
    expected.extend(CASES.iter().flat_map(|case| run(case, &scratch)));
    drop(held);
    // What the clients' FINs cause has to be over before the listeners go.
    std::thread::sleep(Duration::from_millis(300));
    let recorded = recording.stop();
    drop(listeners);

    let matrix = Matrix::new(&expected, &recorded);
    let text = matrix.to_markdown();
    println!("{text}");
    if let Some(path) = std::env::var_os("HANDSHAKE_MATRIX") {
        write_section(Path::new(&path), HEADING, &text);
    }
    assert_eq!(matrix.wrong, [""; 0]);

    for one in &expected {
        let row = recorded.passive(one.client_port, one.port);
        assert!(!row["syn_received_ns"].is_null(), "no SYN: {row}");
        let answered = !matches!(one.passive, "no_listener" | "syn_dropped_accept_queue_full");
        assert_eq!(!row["syn_ack_sent_ns"].is_null(), answered, "SYN-ACK: {row}");
    }
}

/// Connections by cause, by expected and by found outcome.
struct Matrix {
    cells: BTreeMap<(String, [&'static str; 2], [String; 2]), usize>,
    wrong: Vec<String>,
    connections: usize,
}

impl Matrix {
    fn new(expected: &[Expected], recorded: &Recorded) -> Self {
        let mut cells = BTreeMap::new();
        let mut wrong = Vec::new();
        for one in expected {
            let passive = recorded.passive(one.client_port, one.port);
            let active = recorded.active(one.client_port, one.port);
            let found = [passive, active].map(|row| row["outcome"].as_str().unwrap_or("none"));
            if found != [one.passive, one.active] {
                wrong.push(format!("{}: {passive} {active}", one.cause));
            }
            let key = (one.cause.clone(), [one.passive, one.active], found.map(str::to_owned));
            *cells.entry(key).or_default() += 1;
        }
        Self { cells, wrong, connections: expected.len() }
    }

    fn to_markdown(&self) -> String {
        let right = self.connections - self.wrong.len();
        let mut text = format!(
            "{HEADING}\n\n\
             Written by `e2e/tests/handshakes.rs`. {right} of {} connections have, at both ends, the \
             outcome\nof what was done to them. Each row: a cause, what its connections were recorded \
             as at the\nserver's end and at the client's, and how many.\n\n\
             | cause | server's end | client's end | connections | |\n\
             | --- | --- | --- | ---: | --- |\n",
            self.connections
        );
        for ((cause, expected, [passive, active]), count) in &self.cells {
            let verdict = if expected == &[passive.as_str(), active.as_str()] {
                "right".to_owned()
            } else {
                format!("wrong: {} / {}", expected[0], expected[1])
            };
            let _ = writeln!(text, "| {cause} | `{passive}` | `{active}` | {count} | {verdict} |");
        }
        text
    }
}

/// A SYN-ACK that never arrives, on a cable whose far end does not know the way back.
#[test]
fn a_syn_without_answer_is_a_timeout_of_its_client() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("no-syn-ack");
    let cable = e2e::net::Cable::new();
    cable.client.sysctl("net/ipv4/tcp_syn_retries", "1");
    // The server's packets go to an address that the client's end of the cable does not have.
    cable.server.ip(&[
        "neigh",
        "replace",
        e2e::net::Cable::CLIENT,
        "lladdr",
        "02:00:00:00:00:99",
        "dev",
        "cable",
        "nud",
        "permanent",
    ]);
    let mut server = e2e::peer::Peer::start(&cable.server.place());
    server.listen("0.0.0.0:8080");
    let recording = Recording::start(&scratch.join("capture"), &["--port", "8080"]);
    let target: SocketAddr = format!("{}:8080", e2e::net::Cable::SERVER).parse().unwrap();
    let mut command = cable.client.place().command("busybox");
    let refused = e2e::process::finish(command.args(["wget", "-q", &format!("http://{target}/")]));
    assert_ne!(refused.code, Some(0), "{refused}");
    let recorded = recording.stop();
    let of = |role: &str| -> Vec<&Value> {
        recorded.rows.iter().filter(|row| row["role"] == role).collect()
    };
    let (active, passive) = (of("active"), of("passive"));
    assert_eq!((active.len(), passive.len()), (1, 1), "{:?}", recorded.rows);
    assert_eq!(active[0]["outcome"], "syn_ack_timeout", "{}", active[0]);
    assert_eq!(active[0]["error"], "ETIMEDOUT");
    // The server's kernel still repeats its SYN-ACK.
    assert_eq!(passive[0]["outcome"], "open", "{}", passive[0]);
    assert!(!passive[0]["syn_ack_sent_ns"].is_null(), "{}", passive[0]);
}
