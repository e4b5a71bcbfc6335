//! Without root: what can be had is had, and the difference is said.

use std::time::Duration;

use e2e::machine::{Need, require};
use e2e::nobody;
use e2e::probe::Agent;
use e2e::process::{finish, finish_within};
use e2e::scratch::Scratch;

#[test]
fn the_demo_runs_on_polling_and_says_so() {
    // Only root can become nobody.
    let Some(_machine) = require(&[Need::Root]) else { return };
    let scratch = Scratch::new("demo");
    let mut demo = nobody::command(&scratch, "lab");
    let finished = finish_within(demo.args(["run", "demo", "-o", "run"]), Duration::from_secs(120));
    assert_eq!(finished.code, Some(0), "{finished}");
    for part in ["cannot load the kernel programs", "run as root", "sock_diag", "not exact"] {
        assert!(finished.stderr.contains(part), "{part:?} in {finished}");
    }
    assert!(finished.stdout.contains("done: 45 phantoms; found: 45 phantoms"), "{finished}");
}

#[test]
fn doctor_names_what_is_missing() {
    let Some(_machine) = require(&[Need::Root]) else { return };
    let scratch = Scratch::new("doctor");
    let finished = finish(nobody::command(&scratch, "probe").arg("doctor"));
    assert_eq!(finished.code, Some(96), "{finished}");
    assert!(finished.stdout.contains("root"), "{finished}");
}

/// An agent's counts are exact, so who gets other ones is told of it.
#[test]
fn an_agent_that_may_not_be_asked_is_named() {
    let Some(_machine) = require(&[Need::Root, Need::Bpf]) else { return };
    let scratch = Scratch::new("asked");
    let agent = Agent::start();
    let socket = agent.socket().to_str().expect("UTF-8").to_owned();
    let mut count = nobody::command(&scratch, "probe");
    let finished = finish(count.args(["--agent-socket", &socket, "count"]));
    assert_eq!(finished.code, Some(0), "{finished}");
    let told = format!(
        "probe: only root may ask the agent at {socket}, if one runs: use sudo for its counts\n"
    );
    assert!(finished.stderr.starts_with(&told), "{finished}");
}
