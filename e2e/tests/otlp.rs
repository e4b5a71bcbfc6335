//! What an OpenTelemetry receiver is handed: counts and failed handshakes whose number is known.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::probe::Agent;
use e2e::process::Running;
use serde_json::Value;

type Taken = Arc<Mutex<Vec<(String, Value)>>>;

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

fn answer(stream: TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    Some((path, serde_json::from_slice(&body).expect("JSON")))
}

/// An attribute's value as text.
fn attribute(of: &Value, key: &str) -> String {
    let attributes = of["attributes"].as_array().unwrap().iter();
    let mut value = attributes.filter(|attribute| attribute["key"] == key).map(|found| {
        let value = &found["value"];
        value["stringValue"].as_str().or(value["intValue"].as_str()).unwrap().to_owned()
    });
    value.next().unwrap_or_default()
}

#[test]
fn a_receiver_gets_counts_and_failed_handshakes() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let (address, taken) = receiver();
    let limit = ["serve", "--listen", "127.0.0.1:0", "--max-connections", "23"];
    let server = lab::Server::start(&Place::host(), &limit);
    let port = server.address().port().to_string();
    let _agent =
        Agent::start_with(&["--otlp", &format!("http://{address}"), "--otlp-interval", "1s"]);
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", server.address()), "--connections", "30"]);
    let _load = Running::start(load.args(["--hold", "10m"]));

    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let taken = taken.lock().unwrap().clone();
        let last = taken.iter().rev().find(|(path, _)| path == "/v1/metrics");
        let established: Vec<String> = last.map_or_else(Vec::new, |(_, metrics)| {
            let scope = &metrics["resourceMetrics"][0]["scopeMetrics"][0];
            assert_eq!(scope["metrics"][0]["name"], "groundtruth.connections");
            let points = scope["metrics"][0]["sum"]["dataPoints"].as_array().unwrap().iter();
            points
                .filter(|point| attribute(point, "server.port") == port)
                .filter(|point| attribute(point, "groundtruth.role") == "passive")
                .filter(|point| attribute(point, "network.connection.state") == "established")
                .map(|point| point["asInt"].as_str().unwrap().to_owned())
                .collect()
        });
        let failed: Vec<(String, String)> = taken
            .iter()
            .filter(|(path, _)| path == "/v1/logs")
            .flat_map(|(_, logs)| {
                let records = &logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
                records.as_array().unwrap().clone()
            })
            .filter(|record| attribute(record, "server.port") == port)
            .filter(|record| attribute(record, "groundtruth.role") == "passive")
            .map(|record| {
                let status = attribute(&record, "http.response.status_code");
                (attribute(&record, "error.type"), status)
            })
            .collect();
        if established == ["23"] && failed.len() == 7 {
            let expected = ("http_503".to_owned(), "503".to_owned());
            assert!(failed.iter().all(|found| *found == expected), "{failed:?}");
            break;
        }
        assert!(Instant::now() < deadline, "established {established:?}, failed {failed:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
