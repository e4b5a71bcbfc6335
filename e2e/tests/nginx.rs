//! nginx as a server that isn't ours: our count, `ss`, `CurrEstab` and nginx's own `stub_status` agree.

use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::nginx::Nginx;
use e2e::peer::Peer;
use e2e::probe::{Agent, Of};
use e2e::truth::{curr_estab, ss, wait_equal};

/// What nginx believes, its answer to this question left out.
fn believed(nginx: &Nginx) -> usize {
    let text = nginx.get("127.0.0.1:8080", "/status");
    let active =
        text.lines().next().and_then(|line| line.rsplit(' ').find(|word| !word.is_empty()));
    let active: usize =
        active.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"));
    active - 1
}

#[test]
fn a_server_that_is_not_ours_is_counted_exactly() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("nginx")]) else { return };
    let cable = Cable::new();
    let place = cable.server.place();
    let nginx = Nginx::start(
        &place,
        8080,
        "server { listen 8080 reuseport backlog=4096; listen [::]:8080 reuseport backlog=4096;\n\
         location /status { stub_status; } }",
    );
    let mut client = Peer::start(&cable.client.place());
    client.connect(&format!("{}:8080", Cable::SERVER), 300);
    let agent = Agent::start();
    client.connect(&format!("[{}]:8080", Cable::SERVER_V6), 697);

    let of = Of::port(8080).netns(place.inode());
    let assert = |count: usize| {
        wait_equal("nginx's own number", &count, || believed(&nginx));
        wait_equal("ss", &count, || ss(&place, "established", "sport = :8080"));
        wait_equal("CurrEstab", &count, || curr_estab(&place));
        let count = i64::try_from(count).unwrap();
        wait_equal("the probe", &count, || agent.counts().established(&of));
    };
    assert(997);
    client.fin(400);
    assert(597);
    client.rst(297);
    assert(300);
    client.fin(300);
    assert(0);
    agent.counts().assert_exact();
}
