//! What an OpenTelemetry receiver is handed: counts and failed handshakes whose number is known.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::probe::Agent;
use e2e::process::{Running, finish};
use e2e::protobuf::Message;
use e2e::scratch::Scratch;
use serde_json::Value;

const VICTORIA: &str = "127.0.0.1:19474";

type Taken = Arc<Mutex<Vec<(String, Message)>>>;

/// Takes every request, by its path.
fn receiver() -> (SocketAddr, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Taken::default();
    let all = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let request = answer(stream.unwrap());
            all.lock().unwrap().extend(request);
        }
    });
    (address, taken)
}

fn answer(stream: TcpStream) -> Option<(String, Message)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    Some((path, Message::parse(&body).expect("protobuf")))
}

/// Of repeated `KeyValue` in this field one value, as text.
fn attribute(of: &Message, field: u64, key: &str) -> String {
    let pairs = of.all(field);
    let found = pairs.iter().find(|pair| pair.text(1).as_deref() == Some(key));
    let value = found.and_then(|pair| pair.all(2).pop());
    value.map_or_else(String::new, |value| {
        value.text(1).or_else(|| Some(value.number(3)?.to_string())).unwrap()
    })
}

/// A server that holds 23 and refuses 7 of 30, which stay or are over.
fn full_server() -> (lab::Server, Running) {
    let limit = ["serve", "--listen", "127.0.0.1:0", "--max-connections", "23"];
    let server = lab::Server::start(&Place::host(), &limit);
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", server.address()), "--connections", "30"]);
    (server, Running::start(load.args(["--hold", "10m"])))
}

fn agent(url: &str) -> Agent {
    Agent::start_with(&["--otlp", url, "--otlp-interval", "1s"])
}

#[test]
fn a_receiver_gets_counts_and_failed_handshakes() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let (address, taken) = receiver();
    let _agent = agent(&format!("http://{address}"));
    let (server, _load) = full_server();
    let port = server.address().port().to_string();

    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let taken = taken.lock().unwrap().clone();
        let last = taken.iter().rev().find(|(path, _)| path == "/v1/metrics");
        let established: Vec<u64> = last.map_or_else(Vec::new, |(_, metrics)| {
            let metric = &metrics.at(&[1, 2, 2])[0];
            assert_eq!(metric.text(1).as_deref(), Some("groundtruth.connections"));
            let points = metric.at(&[7, 1]).into_iter();
            points
                .filter(|point| attribute(point, 7, "server.port") == port)
                .filter(|point| attribute(point, 7, "groundtruth.role") == "passive")
                .filter(|point| attribute(point, 7, "network.connection.state") == "established")
                .map(|point| point.number(6).unwrap())
                .collect()
        });
        let failed: Vec<(String, String)> = taken
            .iter()
            .filter(|(path, _)| path == "/v1/logs")
            .flat_map(|(_, logs)| logs.at(&[1, 2, 2]))
            .filter(|record| attribute(record, 6, "server.port") == port)
            .filter(|record| attribute(record, 6, "groundtruth.role") == "passive")
            .map(|record| {
                let status = attribute(&record, 6, "http.response.status_code");
                (attribute(&record, 6, "error.type"), status)
            })
            .collect();
        if established == [23] && failed.len() == 7 {
            let expected = ("http_503".to_owned(), "503".to_owned());
            assert!(failed.iter().all(|found| *found == expected), "{failed:?}");
            break;
        }
        assert!(Instant::now() < deadline, "established {established:?}, failed {failed:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Somebody else's receiver, of metrics alone: it has the numbers, and the agent says once that logs
/// have no place there.
#[test]
fn victoria_metrics_takes_the_counts() {
    let needs = [Need::Bpf, Need::Program("victoria-metrics")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("victoria");
    let mut victoria = Command::new("victoria-metrics");
    victoria.arg(format!("-storageDataPath={}", scratch.join("data")));
    // A sample is in an answer as soon as it has come.
    victoria.args(["-search.latencyOffset=0s", "-httpListenAddr", VICTORIA]);
    let victoria = Running::start(&mut victoria);
    victoria.wait_stderr("started server at");
    let agent = agent(&format!("http://{VICTORIA}/opentelemetry"));
    let (server, _load) = full_server();

    let of =
        format!("\"server.port\"=\"{}\",\"groundtruth.role\"=\"passive\"", server.address().port());
    let established = format!(
        "{{\"groundtruth.connections\",\"network.connection.state\"=\"established\",{of}}}"
    );
    let queries = [
        established,
        format!("{{\"groundtruth.connections.accepted\",{of}}}"),
        "{\"groundtruth.exact\"}".to_owned(),
    ];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found: Vec<_> = queries.iter().map(|query| ask(query)).collect();
        if found == [["23"], ["30"], ["1"]] {
            break;
        }
        assert!(Instant::now() < deadline, "never 23 of 30: {found:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    agent
        .wait_stderr("takes metrics and no logs (status 400 Bad Request to /opentelemetry/v1/logs");
}

/// The values that a query finds now.
fn ask(query: &str) -> Vec<String> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let url = format!("http://{VICTORIA}/api/v1/query?query={encoded}");
    let finished = finish(Command::new("busybox").args(["wget", "-q", "-O", "-", &url]));
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap_or_default();
    let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    series.iter().map(|one| one["value"][1].as_str().unwrap().to_owned()).collect()
}
