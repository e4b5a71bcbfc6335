//! The agent reads its settings again while it counts.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::answer;
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::peer::Peer;
use e2e::probe::{Agent, Of};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal;

/// Looks at the page until a picture of it contains `needle`.
#[track_caller]
fn wait_page(needle: &str) {
    let mut stream = TcpStream::connect(Agent::LISTEN).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /v1/live HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = String::new();
    for line in BufReader::new(stream).lines() {
        last = line.unwrap_or_else(|e| panic!("{e} before {needle:?}, after {last}"));
        if last.contains(needle) {
            return;
        }
        assert!(Instant::now() < deadline, "the page never said {needle:?}, but {last}");
    }
    panic!("the page ended without {needle:?}, after {last}");
}

#[test]
fn settings_are_read_again_without_losing_a_count() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("config");
    let file = scratch.join("probe.toml");
    let server_says = |count: u64| {
        let body = format!(r#"{{"checks":{{"capacity":{{"current":{count}}}}}}}"#);
        format!("health = \"http://{}/health\"\n", answer::always("200 OK", &body))
    };
    fs::write(&file, server_says(23)).unwrap();

    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let of = Of::port(8080).netns(cable.server.place().inode());
    let agent = Agent::start_with(&["--config", &file]);
    client.connect("10.77.0.1:8080", 97);
    server.wait_held(97);
    wait_page(r#""reported":23,"#);

    fs::write(&file, server_says(997)).unwrap();
    agent.hang_up();
    agent.wait_stderr("read the settings again: health changed");
    wait_page(r#""reported":997,"#);

    // What is wrong changes nothing, and what cannot change now says so.
    fs::write(&file, "helth = \"http://127.0.0.1:1/\"\n").unwrap();
    agent.hang_up();
    agent.wait_stderr("the settings stay as they were");
    agent.wait_stderr("did you mean \"health\"?");
    wait_page(r#""reported":997,"#);
    fs::write(&file, "agent_socket = \"/nonexistent/sock\"\n").unwrap();
    agent.hang_up();
    // The socket was typed, so the file has no say in it.
    agent.wait_stderr("read the settings again: health changed");
    wait_page(r#""reported":[]"#);
    fs::write(&file, "[count]\njson = true\n[serve]\ninterval = \"5s\"\n").unwrap();
    agent.hang_up();
    agent.wait_stderr("read the settings again: interval changed");

    let counted = || {
        let counts = agent.counts();
        (counts.established(&of), counts.accepted(&of))
    };
    wait_equal("after all that", &(97, 97), counted);
    agent.counts().assert_exact();
}
