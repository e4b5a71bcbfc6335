//! Wrong usage: the message says what was expected, and the exit code is 2.

use std::net::TcpListener;

use crate::common::{Health, assert_says, run};

#[test]
fn arguments_that_are_none() {
    for (args, part) in [
        (&["count", "--port", "0"][..], "\"0\" is no port: expected 1 to 65535"),
        (&["count", "--port", "9-3"], "\"9-3\" runs backwards: expected 3-9"),
        (&["count", "--role", "server"], "possible values: passive, active, unknown"),
        (&["count", "--state", "open"], "possible values: established, syn_sent, syn_recv"),
        (&["connections", "--older-than", "5"], "time unit needed"),
        (&["watch", "--interval", "5ms"], "too short: expected 100ms or more"),
        (
            &["watch", "--max-phantoms", "few"],
            "expected a number such as 20, or a share such as 2%",
        ),
        (&["watch", "--health", "127.0.0.1/"], "expected http://HOST:PORT/PATH or https://…"),
        (&["watch", "--reported", "a.b"], "\"a.b\" is no field path: expected one like"),
        (&["watch", "--field", "heap=.x"], "no field \"heap\": expected one of max, cpu"),
        (&["watch"], "watch needs --health"),
        (&["serve", "--listen", "0.0.0.0:9464"], "is reachable from other hosts"),
        (&["stop"], "no agent is running: nobody listens on /nonexistent/agent.sock"),
    ] {
        assert_says(&run(args), 2, &[part]);
    }
}

#[test]
fn a_container_that_is_not_there() {
    let output = run(&["count", "--container", "no-such-container"]);
    assert_says(&output, 2, &["no such container: \"no-such-container\"", "known on this host:"]);
}

#[test]
fn a_health_that_is_none() {
    let text = Health::serve("all is well");
    assert_says(
        &run(&["watch", "--health", &text.url()]),
        2,
        &[&format!("{}: the body is no JSON", text.url()), "choose with --reported"],
    );
    let other = Health::serve(r#"{"checks":{"capacity":{"used":5}}}"#);
    assert_says(
        &run(&["watch", "--health", &other.url()]),
        2,
        &["the body has no field .checks.capacity.current", "numbers at .checks.capacity.used"],
    );
    let sick = Health::serve("");
    assert_says(&run(&["watch", "--health", &sick.url()]), 2, &["status 503"]);
}

#[test]
fn a_port_on_which_nobody_listens() {
    let health = Health::reporting(0);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_says(
        &run(&["watch", "--health", &health.url(), "--port", &free.to_string()]),
        2,
        &[&format!("nobody listens on port {free} of this host"), "choose with --port"],
    );
}
