//! A fleet in a bucket answers as the same fleet in a directory does. `docs/fleet.md` says how to run
//! this: it needs the feature `cloud`, and `moto_server` (a local S3 server) on PATH.

mod common;
mod scene;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{MS, S, analyzer};
use scene::{Conn, Scene};

/// A local S3 server, ended with the test.
struct Store {
    child: Child,
    at: SocketAddr,
}

impl Store {
    fn start() -> Self {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &at.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("moto_server: {error}; install it with `pip install 'moto[s3]' flask flask-cors`")
            });
        let store = Self { child, at };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(at).is_err() {
            assert!(Instant::now() < deadline, "moto_server does not listen at {at}");
            thread::sleep(Duration::from_millis(50));
        }
        store
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.at,
            bytes.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }

    /// Every file below a directory, under a prefix.
    fn put_all(&self, prefix: &str, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                self.put_all(&name, &path);
            } else {
                self.put(&name, &fs::read(&path).unwrap());
            }
        }
    }

    fn analyzer(&self, arguments: &[&str], dir: &Path) -> Output {
        Command::new(env!("CARGO_BIN_EXE_analyzer"))
            .args(arguments)
            .current_dir(dir)
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.at))
            .env("AWS_ALLOW_HTTP", "true")
            .output()
            .unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two hosts: one with 23 connections, of which it has forgotten none, and one that still counts 7.
fn export_fleet(dir: &Path) {
    for (host, connections, leaked) in [("web-1", 23, 0), ("web-2", 97, 7)] {
        let mut scene = Scene::new(10 * S);
        scene.host = host;
        scene.conns.extend((0..connections).map(|n| Conn::open(n * 10 * MS)));
        let ended =
            (0..leaked).map(|n| Conn::open(n * 10 * MS).ended(4 * S, "remote", "fin").leaked());
        scene.conns.extend(ended);
        scene.write(&dir.join(host));
        let output = analyzer(&["export", host, "--parquet", "fleet"], dir);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_bucket_answers_as_a_directory_does() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    export_fleet(dir);
    let store = Store::start();
    store.put("runs", b"");
    store.put_all("runs/of/today", &dir.join("fleet"));
    // What else lies there is passed over.
    store.put("runs/of/today/connections/README.md", b"mine");

    let commands: [&[&str]; 6] = [
        &["report", "-o", "out", "--json"],
        &["phantoms", "--json"],
        &["handshakes", "--json"],
        &["connections", "--json"],
        &["leaks", "--json"],
        &["shards", "--json"],
    ];
    for command in commands {
        let ask = |fleet| {
            let arguments = [&command[..1], &[fleet], &command[1..]].concat();
            let output = store.analyzer(&arguments, dir);
            assert!(matches!(output.status.code(), Some(0 | 4 | 99)), "{command:?}: {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            (output.status.code(), text.replace(fleet, "FLEET"))
        };
        let (here, there) = (ask("fleet"), ask("s3://runs/of/today"));
        assert!(!here.1.is_empty(), "{command:?}");
        assert_eq!(here, there, "{command:?}");
    }
    assert!(fs::metadata(dir.join("out/report.html")).unwrap().len() > 1000);
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::start();
    store.put("runs", b"");
    store.put("runs/fleet/connections/host=a/date=2026-11-22/1-b.parquet", b"not that");
    let cases: [(&[&str], &str); 4] = [
        (&["report", "s3://runs/fleet"], "say where the report goes with -o DIR"),
        (&["phantoms", "s3://runs/elsewhere"], "s3://runs/elsewhere has no capture"),
        (&["phantoms", "s3://nobody/fleet"], "expected AWS_ACCESS_KEY_ID"),
        (&["phantoms", "s3://runs/fleet"], "host=a/date=2026-11-22/1-b.parquet"),
    ];
    for (arguments, expected) in cases {
        let output = store.analyzer(arguments, temp.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
