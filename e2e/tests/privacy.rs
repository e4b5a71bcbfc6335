//! What a request carries beside the answer's status stays out of the capture and the logs: secrets
//! planted in every part of it are looked for byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use e2e::machine::{Need, require};
use e2e::recording::Recording;
use e2e::scratch::Scratch;

const SECRETS: [&str; 9] = [
    "planted-path",
    "planted-query",
    "planted-header",
    "planted-cookie",
    "planted-token",
    "planted-body",
    "planted-set-cookie",
    "planted-frame",
    // The example key of RFC 6455: only a salted hash of it may be kept.
    "dGhlIHNhbXBsZSBub25jZQ",
];

const REQUEST: &str = "GET /planted-path?token=planted-query HTTP/1.1\r\nHost: planted-header\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nCookie: session=planted-cookie\r\n\
    Authorization: Bearer planted-token\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Set-Cookie: a=planted-set-cookie\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
    \u{1}\rplanted-frame";
const REFUSED: &str = "HTTP/1.1 403 Not For You\r\nSet-Cookie: a=planted-set-cookie\r\n\
    Content-Length: 12\r\n\r\nplanted-body";
/// Not even where it breaks the parser.
const GARBAGE: &str = "HTTP/1.1 planted-header planted-body";

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect()
}

#[test]
fn planted_secrets_are_nowhere() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("privacy");
    let capture = scratch.join("capture");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port().to_string();
    let recording = Recording::start(&capture, &["--port", &port, "--websocket", &port]);
    let mut ports = Vec::new();
    for answer in [SWITCHED, REFUSED, GARBAGE] {
        for request in [REQUEST, &REQUEST[..REQUEST.len() - 2]] {
            let mut client = TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(request.as_bytes()).unwrap();
            let mut bytes = [0; 4096];
            assert_eq!(server.read(&mut bytes).unwrap(), request.len());
            server.write_all(answer.as_bytes()).unwrap();
            assert_eq!(client.read(&mut bytes).unwrap(), answer.len());
            ports.push(client.local_addr().unwrap().port());
        }
    }
    let recorded = recording.stop();
    // They were looked at: outcome and reason are there.
    let of = |i: usize, field: &str| recorded.passive(ports[i], address.port())[field].clone();
    assert_eq!(of(0, "outcome"), "upgraded");
    assert_eq!((of(2, "outcome"), of(2, "http_reason")), ("http_403".into(), "Not For You".into()));
    assert_eq!(of(4, "outcome"), "not_http");

    let files = files(Path::new(&capture));
    assert!(files.len() > 2, "{files:?}");
    let mut texts: Vec<(String, Vec<u8>)> = files
        .iter()
        .map(|path| (path.display().to_string(), std::fs::read(path).expect("a file")))
        .collect();
    texts.push(("stderr".to_owned(), recorded.stderr.into_bytes()));
    for (name, bytes) in texts {
        for secret in SECRETS {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} holds {secret:?}");
        }
    }
}
