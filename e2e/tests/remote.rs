//! The agent's HTTP side as others see it: from another host with a token, over TLS, and from those
//! who mean no good.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::certificate;
use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::nobody;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{self, Agent, Of};
use e2e::process::{Finished, Running, Signal, binary, finish};
use e2e::scrape;
use e2e::scratch::Scratch;
use e2e::terminal::Terminal;
use e2e::truth::wait_equal;
use serde_json::Value;

/// An agent with a certificate and a token, and the files that others need to ask it.
struct Guarded {
    agent: Agent,
    scratch: Scratch,
}

impl Guarded {
    fn start() -> Self {
        Self::with("IP:127.0.0.1", certificate::OF_A_SERVER)
    }

    fn with(name: &str, constraints: &str) -> Self {
        let scratch = Scratch::new("guarded");
        let [key, cert] = ["key.pem", "cert.pem"].map(|name| scratch.join(name));
        fs::write(scratch.join("token"), "0123456789abcdef0123456789abcdef\n").unwrap();
        certificate::make(name, constraints, &key, &cert);
        Self::with_certificate(scratch)
    }

    fn with_certificate(scratch: Scratch) -> Self {
        let [token, key, cert] = ["token", "key.pem", "cert.pem"].map(|name| scratch.join(name));
        let agent =
            Agent::start_with(&["--token-file", &token, "--tls-cert", &cert, "--tls-key", &key]);
        Self { agent, scratch }
    }

    /// A command of somebody who has nothing but the token and the certificate.
    fn laptop_command(&self, arguments: &[&str]) -> Command {
        let mut command = nobody::command(&self.scratch, "probe");
        command.args(arguments).args(["--remote", &format!("https://{}", Agent::LISTEN)]);
        let [token, cert] = ["token", "cert.pem"].map(|name| self.scratch.join(name));
        command.args(["--token-file", &token, "--ca", &cert]);
        command
    }

    fn laptop(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.laptop_command(arguments))
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON: {error}\n{text}"))
}

#[test]
fn another_host_gets_the_same_answers() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("openssl")]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let vm = Guarded::start();
    client.connect("10.77.0.1:8080", 23);
    server.wait_held(23);
    let of = Of::port(8080).netns(cable.server.place().inode());
    wait_equal("counts", &23, || vm.agent.counts().established(&of));

    // Time apart, the very document that the local command prints.
    let same = |arguments: &[&str]| {
        let here = vm.agent.command(arguments[0]).args(&arguments[1..]).output().unwrap();
        let here = String::from_utf8(here.stdout).unwrap();
        let there = vm.laptop(arguments).success("remote");
        assert!(!there.is_empty());
        let timeless = |text: &str| -> Vec<Value> {
            let mut lines: Vec<Value> = text.lines().map(json).collect();
            for line in &mut lines {
                for passing in ["at_unix_ns", "age_ms", "last_heard_ms", "established_unix_ns"] {
                    line.as_object_mut().unwrap().remove(passing);
                }
            }
            lines
        };
        assert_eq!(timeless(&there), timeless(&here));
        there
    };
    same(&["count", "--json", "--port", "8080"]);
    let sockets = same(&["connections", "--json", "--port", "8080", "--role", "passive"]);
    // What an earlier test left half open in a namespace of its own is listed, too.
    let inode = cable.server.place().inode();
    let ours = sockets.lines().map(json).filter(|line| line["netns"] == inode);
    assert_eq!(ours.count(), 23, "{sockets}");
    let older = ["connections", "--json", "--port", "8080", "--older-than", "1h 5m"];
    assert_eq!(vm.laptop(&older).success("connections"), "");
    let table = vm.laptop(&["count", "--port", "8080"]).success("count");
    assert!(table.contains("8080  passive           23"), "{table}");

    let unknown = vm.laptop(&["count", "--container", "nope"]);
    assert_eq!(unknown.code, Some(2), "{unknown}");
    assert!(unknown.stderr.starts_with("probe: no such container: \"nope\"\n"), "{unknown}");
}

#[test]
fn another_host_records_and_looks_on() {
    let needs = [Need::Bpf, Need::Program("openssl"), Need::Program("tmux")];
    let Some(_machine) = require(&needs) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let vm = Guarded::start();
    client.connect("10.77.0.1:8080", 23);
    server.wait_held(23);

    let capture = vm.scratch.join("capture");
    let arguments = ["record", "-o", &capture, "--port", "8080", "--role", "passive", "--json"];
    let recording = Running::start(&mut vm.laptop_command(&arguments));
    recording.wait_stderr("recording");
    client.connect("10.77.0.1:8080", 20);
    server.wait_held(43);
    client.fin(17);
    server.wait_reaped(Reaped { fin: 17, ..Reaped::default() });
    let mut top = vm.laptop_command(&["top", "--port", "8080", "--role", "passive"]);
    let terminal = Terminal::start(80, 24, &top);
    let shown = |screen: &str| screen.split_whitespace().collect::<Vec<_>>().join(" ");
    terminal.wait("the service", |screen| shown(screen).contains("8080 passive 26 "));
    terminal.keys(&["c"]);
    terminal.wait("its connections", |screen| screen.contains("8080 passive: 26 connections"));
    terminal.keys(&["q"]);
    assert_eq!(terminal.exit_code(), 0);

    let recorded = recording.stop(Signal::INT);
    assert_eq!(recorded.code, Some(130), "{recorded}");
    assert_eq!(json(&recorded.stdout)["rows"]["connections"], 43, "{recorded}");
    let mut rows = Command::new(binary("analyzer"));
    rows.args(["connections", &capture, "--json"]);
    let rows = finish(&mut rows).success("analyzer connections");
    let rows: Vec<Value> = rows.lines().map(json).collect();
    let number = |fits: &dyn Fn(&Value) -> bool| rows.iter().filter(|row| fits(row)).count();
    assert_eq!(rows.len(), 43);
    assert_eq!(number(&|row| row["closed_by"] == "remote" && row["closed_how"] == "fin"), 17);
    assert_eq!(number(&|row| row["state"] == "established"), 26);

    let asked = vm.laptop(&["record", "-o", "other", "--health", "http://127.0.0.1:1/health"]);
    assert_eq!(asked.code, Some(2), "{asked}");
    assert!(asked.stderr.contains("probe serve --health URL"), "{asked}");
    // An agent that goes takes the view along, and the screen says so.
    let terminal = Terminal::start(80, 24, top.arg("--role").arg("active"));
    terminal.wait("the service", |screen| shown(screen).contains("8080 active 26 "));
    drop(vm.agent);
    assert_eq!(terminal.exit_code(), 2);
}

#[test]
fn only_who_shows_the_token_is_answered() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("openssl")]) else { return };
    let vm = Guarded::start();
    let url = format!("https://{}", Agent::LISTEN);
    let (cert, token) = (vm.scratch.join("cert.pem"), vm.scratch.join("wrong"));
    fs::write(&token, "0123456789abcdef0123456789abcdeF").unwrap();
    for (more, message) in [
        (&["--ca", &cert][..], "the agent wants to see a token"),
        (&["--ca", &cert, "--token-file", &token], "the token is not the agent's"),
        (
            &["--token-file", &token],
            "no TLS: nobody whom this host trusts has signed the server's certificate\n  \
             name the certificate to trust with --ca FILE",
        ),
    ] {
        let refused = probe::run(&[&["count", "--remote", &url], more].concat());
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains(message), "{refused}");
    }
    let open = probe::run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(open.code, Some(2), "{open}");
    assert!(open.stderr.contains("ask for a token with --token-file FILE"), "{open}");
}

/// As made without thought, or long ago: what is wrong with it is told, and not to trust it once more.
#[test]
fn a_certificate_that_is_none_for_the_host() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("openssl")]) else { return };
    let is_told = |guarded: &Guarded, messages: [&str; 2]| {
        let refused = guarded.laptop(&["count"]);
        assert_eq!(refused.code, Some(2), "{refused}");
        for message in messages {
            assert!(refused.stderr.contains(message), "{refused}");
        }
        assert!(!refused.stderr.contains("--ca"), "{refused}");
    };
    is_told(
        &Guarded::with("IP:127.0.0.1", "critical,CA:TRUE"),
        ["the certificate of an authority", "-addext basicConstraints=critical,CA:FALSE"],
    );
    let other = Guarded::with("DNS:vm", certificate::OF_A_SERVER);
    is_told(
        &other,
        [
            "certificate is only valid for DnsName(\"vm\")",
            "\n  write a name that it is for into the URL, or have one made for this name",
        ],
    );
    drop(other);
    let Guarded { agent, scratch } = Guarded::start();
    drop(agent);
    certificate::expire(&scratch.join("key.pem"), &scratch.join("cert.pem"));
    is_told(
        &Guarded::with_certificate(scratch),
        [
            "certificate expired",
            "\n  have it renewed on the server; or is this host's clock wrong?",
        ],
    );
}

/// What is answered to these bytes, up to the end of the connection.
fn answer_to(bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(Agent::LISTEN).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // Whoever is refused halfway may see a reset.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_flood_keeps_nobody_out() {
    /// So many that a list of them all takes a while.
    const HELD: usize = 3000;
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    let mut flood = Peer::start(&Place::host());
    server.listen("0.0.0.0:8080");
    let agent = Agent::start();
    client.connect("10.77.0.1:8080", HELD);
    server.wait_held(HELD);

    // A thousand that never ask, some that ask what nobody can understand, and some who send half.
    flood.connect(Agent::LISTEN, 1000);
    let _halves: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(Agent::LISTEN).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x").unwrap();
            stream
        })
        .collect();
    for malformed in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"GET /metrics\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = answer_to(malformed);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", &[b'x'; 100_000][..]].concat();
    let answer = answer_to(&long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let rebound = answer_to(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");

    let scrapes = || {
        let pause = || std::thread::sleep(Duration::from_millis(50));
        (0..40).map(|_| scrape::time(&agent)).inspect(|_| pause()).collect()
    };
    scrape::assert_quick(scrapes());
    // And some who want to know everything, again and again.
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let all = b"GET /v1/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let greedy = || {
            while !enough.load(Ordering::Relaxed) {
                let _ = answer_to(all);
            }
        };
        for _ in 0..8 {
            scope.spawn(greedy);
        }
        let times = scrapes();
        enough.store(true, Ordering::Relaxed);
        scrape::assert_quick(times);
    });
    // More than it has places for, who ask for as much, and wait and do not read.
    let unread: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(Agent::LISTEN).unwrap();
            stream.write_all(b"GET /v1/connections HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    scrape::assert_quick(scrapes());
    drop(unread);
    let of = Of::port(8080).netns(cable.server.place().inode());
    assert_eq!(agent.get("/v1/counts?port=8080").established(&of), HELD as i64);
    let own = Of::port(19464);
    wait_equal("more connections than it takes", &false, || agent.counts().established(&own) > 512);
    agent.counts().assert_exact();
    assert!(agent.text("/metrics").contains("groundtruth_exact 1"));
}
