//! A proxy that keeps dead clients "connected": only the kernel's unanswered probes tell which leg is
//! still alive.

use std::time::Duration;

use e2e::lab::{self, Server};
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::nginx::Nginx;
use e2e::node::Node;
use e2e::probe;
use e2e::process::Running;
use e2e::truth::{ss, wait_equal, wait_equal_within};
use serde_json::Value;

const CLIENTS: usize = 7;
const PORT: u16 = 8080;

/// What is known of the peers of a port's accepted connections.
fn peers(port: u16) -> Vec<String> {
    let port = port.to_string();
    let args = ["connections", "--json", "--role", "passive", "--state", "established", "--port"];
    let text = probe::run(&[&args[..], &[&port]].concat()).success("probe connections");
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    rows.map(|row| row["peer"].as_str().unwrap_or("none").to_owned()).collect()
}

/// Answers pings on both sides by itself, as the library does for whoever uses it.
const PROXY: &str = r"
const { WebSocketServer, WebSocket } = require('ws');
const [port, shard] = process.argv.slice(1);
const server = new WebSocketServer({ port: Number(port) }, () => console.log(`[${port}]`));
server.on('connection', (client) => {
  const upstream = new WebSocket(shard);
  const ping = setInterval(() => client.ping(), 500);
  client.on('close', () => { clearInterval(ping); upstream.close(); });
});
";

#[test]
fn a_proxy_that_answers_pings_itself_hides_its_clients_end_but_not_from_the_kernel() {
    let Some(_machine) = require(&[Need::Bpf, Need::NodePackage("ws")]) else { return };
    let cable = Cable::new();
    let place = cable.server.place();
    let timeout = ["--ping-interval", "500ms", "--ping-timeout", "6s"];
    let listen = ["serve", "--listen", "127.0.0.1:0"];
    let shard = Server::start(&place, &[&listen[..], &timeout].concat());
    let url = format!("ws://{}/", shard.address());
    let _proxy = Node::script(place.command("env"), PROXY, &[&PORT.to_string(), &url]);
    let mut load = lab::command(&cable.client.place());
    load.args(["load", "--url", &format!("ws://{}:{PORT}/", Cable::SERVER)]);
    load.args(["--connections", &CLIENTS.to_string(), "--ramp", "100/s", "--hold", "10m"]);
    let _load = Running::start(&mut load);
    let behind = shard.address().port();
    let held = |port| ss(&place, "established", &format!("sport = :{port}"));
    wait_equal("shards are reached", &CLIENTS, || held(behind));
    let live = vec!["live".to_owned(); CLIENTS];
    wait_equal_within(Duration::from_secs(60), "clients are live", &live, || peers(PORT));

    cable.cut();
    let silent = vec!["silent".to_owned(); CLIENTS];
    wait_equal_within(Duration::from_secs(60), "clients are silent", &silent, || peers(PORT));
    // Well beyond the shard's patience with whoever leaves its pings unanswered.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(peers(behind), live);
    assert_eq!([held(PORT), held(behind)], [CLIENTS; 2]);
}

#[test]
fn clients_behind_a_cut_cable_are_silent_and_the_proxys_own_legs_are_not() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("nginx")]) else { return };
    let cable = Cable::new();
    let place = cable.server.place();
    let shard = Server::start(&place, &["serve", "--listen", "127.0.0.1:0"]);
    let _nginx = Nginx::start(
        &place,
        PORT,
        &format!(
            "server {{ listen {PORT} so_keepalive=1s:1s:100; location / {{\n\
             proxy_pass http://{}; proxy_http_version 1.1; proxy_read_timeout 1h;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
            shard.address()
        ),
    );
    let mut load = lab::command(&cable.client.place());
    load.args(["load", "--url", &format!("ws://{}:{PORT}/", Cable::SERVER)]);
    load.args(["--connections", &CLIENTS.to_string(), "--ramp", "100/s", "--hold", "10m"]);
    let _load = Running::start(&mut load);
    let held = |port| ss(&place, "established", &format!("sport = :{port}"));
    wait_equal("clients are connected", &CLIENTS, || held(PORT));
    let live = vec!["live".to_owned(); CLIENTS];
    wait_equal_within(Duration::from_secs(60), "clients are live", &live, || peers(PORT));

    cable.cut();
    let silent = vec!["silent".to_owned(); CLIENTS];
    wait_equal_within(Duration::from_secs(60), "clients are silent", &silent, || peers(PORT));
    // The server behind the proxy has no reason to doubt.
    assert_eq!(held(PORT), CLIENTS);
    let behind = peers(shard.address().port());
    assert_eq!(behind.len(), CLIENTS);
    assert!(behind.iter().all(|peer| peer != "silent"), "{behind:?}");
}
