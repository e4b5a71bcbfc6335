//! Requests and responses in the shapes that networks and peers give them: split, joined, preceded by
//! blank lines or interim responses, over IPv6 and TCP Fast Open, or not HTTP at all.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use e2e::machine::{Need, require};
use e2e::recording::Recording;
use e2e::scratch::Scratch;

const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 503 Slots Full\r\nContent-Length: 0\r\n\r\n";
const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const FRAME: &[u8] = b"\x81\x02hi";
const MASKED_FRAME: &[u8] = b"\x81\x82\0\0\0\0hi";
const CLIENT_HELLO: &[u8] =
    b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaa";

/// What one side does, in order.
#[derive(Clone, Copy)]
enum Do {
    Send(&'static [u8]),
    /// In pieces of so many bytes, each a packet of its own.
    SendIn(usize, &'static [u8]),
    /// The request with a header of so many bytes before the one that asks for the upgrade.
    SendLong(usize),
    /// Waits for the other side's bytes.
    Await,
    Pause,
    HalfClose,
    /// With `SO_LINGER` 0.
    Reset,
}
use Do::{Await, HalfClose, Pause, Reset, Send, SendIn, SendLong};

struct Case {
    name: &'static str,
    client: &'static [Do],
    server: &'static [Do],
    outcome: &'static str,
}

const fn case(
    name: &'static str,
    client: &'static [Do],
    server: &'static [Do],
    outcome: &'static str,
) -> Case {
    Case { name, client, server, outcome }
}

const ASK: &[Do] = &[Send(REQUEST), Await, Pause, Send(MASKED_FRAME), Pause];
const ASK_ONLY: &[Do] = &[Send(REQUEST), Pause, Pause, Pause];
const SWITCH: &[Do] = &[Await, Send(SWITCHED), Pause, Send(FRAME), Pause];
const REFUSE: &[Do] = &[Await, Send(REFUSED), Pause];
const READ: &[Do] = &[Await, Pause];

const CASES: &[Case] = &[
    case("whole", ASK, SWITCH, "upgraded"),
    case("request byte by byte", &[SendIn(1, REQUEST), Await, Send(MASKED_FRAME), Pause], SWITCH, "upgraded"),
    case("request in sevens", &[SendIn(7, REQUEST), Await, Send(MASKED_FRAME), Pause], SWITCH, "upgraded"),
    case("response byte by byte", &[Send(REQUEST), Pause, Await, Pause, Pause, Pause], &[Await, SendIn(1, SWITCHED), Send(FRAME), Pause], "upgraded"),
    case("refusal in fives", &[Send(REQUEST), Pause, Pause], &[Await, SendIn(5, REFUSED)], "http_503"),
    case("blank lines before", &[Send(b"\r\n\r\n"), Pause, Send(REQUEST), Await, Send(MASKED_FRAME), Pause], &[Await, Pause, Pause, Send(SWITCHED), Pause, Send(FRAME), Pause], "upgraded"),
    case("one line feed before", &[Send(b"\n"), Send(REQUEST), Await, Send(MASKED_FRAME), Pause], &[Await, Pause, Send(SWITCHED), Pause, Send(FRAME), Pause], "upgraded"),
    case("frame in the packet of the 101", ASK_ONLY, &[Await, Send(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi"), Pause], "upgraded"),
    case("frame in the packet of the request", &[Send(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi"), Await, Pause], &[Await, Send(SWITCHED), Pause], "upgraded"),
    case("103 before the 101", &[Send(REQUEST), Await, Await, Pause, Send(MASKED_FRAME), Pause], &[Await, Send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Pause, Send(SWITCHED), Pause, Send(FRAME), Pause], "upgraded"),
    case("103 in the packet of the 503", ASK_ONLY, &[Await, Send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Slots Full\r\n\r\n"), Pause], "http_503"),
    case("5 KiB of headers", &[SendLong(5000), Await, Send(MASKED_FRAME), Pause], SWITCH, "upgraded"),
    case("7 KiB of headers, refused", &[SendLong(7000), Pause], REFUSE, "http_503"),
    case("closed after the 101", ASK_ONLY, &[Await, Send(SWITCHED)], "closed_right_after_upgrade"),
    case("wrong accept in nines", ASK_ONLY, &[Await, SendIn(9, b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"), Pause], "http_101_wrong_accept"),
    case("101 without accept", ASK_ONLY, &[Await, Send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), Pause], "http_101_wrong_accept"),
    case("TLS", &[Send(CLIENT_HELLO), Pause], READ, "tls"),
    case("TLS, answered in plain HTTP", &[Send(CLIENT_HELLO), Pause], &[Await, Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Pause], "tls"),
    case("TLS alert to HTTP", ASK_ONLY, &[Await, Send(b"\x15\x03\x01\x00\x02\x02\x46")], "not_http"),
    case("short garbage", ASK_ONLY, &[Await, Send(b"no\n")], "not_http"),
    case("status line cut off", ASK_ONLY, &[Await, Send(b"HTTP/1.1 10")], "no_response_server_closed"),
    case("plain request", &[Send(PLAIN), Await], &[Await, Send(OK), Pause], "plain_http"),
    case("plain request twice", &[Send(PLAIN), Await, Send(PLAIN), Await], &[Await, Send(OK), Await, Send(OK), Pause], "plain_http"),
    case("upgrade on a kept connection", &[Send(PLAIN), Await, Send(REQUEST), Await, Pause, Send(MASKED_FRAME), Pause], &[Await, Send(OK), Await, Send(SWITCHED), Pause, Send(FRAME), Pause], "upgraded"),
    case("upgrade as the third request", &[Send(PLAIN), Await, Send(PLAIN), Await, Send(REQUEST), Await, Pause, Send(MASKED_FRAME), Pause], &[Await, Send(OK), Await, Send(OK), Await, Send(SWITCHED), Pause, Send(FRAME), Pause], "upgraded"),
    case("refused on a kept connection", &[Send(PLAIN), Await, Send(REQUEST), Await], &[Await, Send(OK), Await, Send(REFUSED), Pause], "plain_http"),
    case("half-closed, refused", &[Send(REQUEST), HalfClose, Pause, Await], &[Await, Pause, Send(REFUSED)], "http_503"),
    case("client gone before the 101", &[Send(REQUEST), Pause], &[Await, Pause, Pause, Pause, Send(SWITCHED), Pause], "no_response_client_left"),
    case("client resets", &[Send(REQUEST), Pause, Reset], &[Await, Pause, Pause, Pause], "no_response_client_left"),
    case("server resets", ASK_ONLY, &[Await, Pause, Reset], "no_response_server_reset"),
    case("server closes with the request unread", ASK_ONLY, &[Pause], "no_response_server_reset"),
];

fn act(mut stream: TcpStream, steps: &[Do]) {
    let _ = stream.set_nodelay(true);
    let pause = || thread::sleep(Duration::from_millis(60));
    for step in steps {
        // The other side may be gone, which is what some cases are about.
        let _ = match *step {
            Send(bytes) => stream.write_all(bytes),
            SendIn(size, bytes) => bytes.chunks(size).try_for_each(|piece| {
                thread::sleep(Duration::from_millis(1));
                stream.write_all(piece)
            }),
            SendLong(size) => {
                let pad = format!("GET / HTTP/1.1\r\nX-Pad: {}\r\n", "p".repeat(size));
                let rest = REQUEST.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
                stream.write_all(&[pad.as_bytes(), rest].concat())
            }
            Await => stream.read(&mut [0; 16384]).map(drop),
            Pause => {
                pause();
                Ok(())
            }
            HalfClose => stream.shutdown(Shutdown::Write),
            Reset => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
                .map_err(Into::into),
        };
    }
}

struct Attempt {
    case: &'static Case,
    address: SocketAddr,
    client_port: u16,
}

#[test]
fn every_shape_has_its_outcome_at_both_ends() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("first-bytes");
    let recording = Recording::start(&scratch.join("capture"), &[]);
    let mut attempts = Vec::new();
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let mut running = Vec::new();
        for case in CASES {
            let listener = TcpListener::bind(host).unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..3 {
                let client = TcpStream::connect(address).unwrap();
                let (server, peer) = listener.accept().unwrap();
                attempts.push(Attempt { case, address, client_port: peer.port() });
                running.push(thread::spawn(move || act(server, case.server)));
                running.push(thread::spawn(move || act(client, case.client)));
            }
        }
        for thread in running {
            thread.join().unwrap();
        }
    }
    let recorded = recording.stop();
    let mut wrong = Vec::new();
    for Attempt { case, address, client_port } in &attempts {
        let passive = recorded.passive(*client_port, address.port());
        let active = recorded.active(*client_port, address.port());
        if passive["outcome"] != case.outcome || active["outcome"] != case.outcome {
            let found = [&passive["outcome"], &active["outcome"]];
            wrong.push(format!("{} at {address}: {found:?}, not {}", case.name, case.outcome));
        }
        assert!(!passive["syn_received_ns"].is_null(), "{}: {passive}", case.name);
        assert!(!passive["syn_ack_sent_ns"].is_null(), "{}: {passive}", case.name);
    }
    assert_eq!(wrong, [""; 0]);
}
