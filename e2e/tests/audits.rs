//! Counts that nothing was held against for half a minute are not called exact, whatever is in the way of the audit.

use std::process::Command;
use std::time::Duration;

use e2e::kept_alive::KeptAlive;
use e2e::machine::{Need, require};
use e2e::probe::Agent;
use e2e::process::{Running, Signal};
use e2e::truth::wait_equal_within;

const PATIENCE: Duration = Duration::from_secs(150);

/// An agent that has been audited, and what asks it over a connection that stays, so that there is one to audit.
fn audited() -> (Agent, KeptAlive) {
    let agent = Agent::start();
    wait_equal_within(PATIENCE, "audited", &true, || agent.vital("audits") > 0);
    assert_eq!(agent.vital("audits_failed"), 0);
    let mut asked = KeptAlive::to_agent();
    let (exact, degraded) = asked.verdict();
    assert!(exact, "{degraded}");
    (agent, asked)
}

fn assert_said(asked: &mut KeptAlive, why: &str) {
    wait_equal_within(PATIENCE, "exact without an audit", &false, || asked.verdict().0);
    let (_, degraded) = asked.verdict();
    let told = "counts have not been held against the kernel's list of sockets since ";
    assert!(degraded.contains(told) && degraded.contains(why), "{degraded}");
}

fn assert_made_good(asked: &mut KeptAlive) {
    wait_equal_within(PATIENCE, "exact again", &true, || asked.verdict().0);
}

/// The kernel does so to each request for its list of sockets, as long as this runs.
fn inject(agent: &Agent, what: &str) -> Running {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let keeper = tasks.flatten().find(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "keeper\n")
    });
    let keeper = keeper.expect("a thread that audits").file_name();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "trace=sendto", "-e"]);
    let strace = Running::start(strace.arg(format!("inject=sendto:{what}")).arg("-p").arg(keeper));
    strace.wait_stderr("attached");
    strace
}

#[test]
fn no_descriptor_is_to_be_had() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let (agent, mut asked) = audited();
    agent.limit_files(3);
    assert_said(&mut asked, "Too many open files");
    agent.limit_files(1024);
    assert_made_good(&mut asked);
    assert!(agent.vital("audits_failed") > 0);
}

/// The agent that has gone through it.
fn assert_told_and_made_good(what: &str, why: &str) -> Agent {
    let (agent, mut asked) = audited();
    let strace = inject(&agent, what);
    assert_said(&mut asked, why);
    strace.stop(Signal::INT);
    assert_made_good(&mut asked);
    agent
}

#[test]
fn the_kernel_refuses() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("strace")]) else { return };
    let agent = assert_told_and_made_good("error=EPERM", "Operation not permitted");
    assert!(agent.vital("audits_failed") > 0);
}

#[test]
fn the_kernel_does_not_answer() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("strace")]) else { return };
    assert_told_and_made_good("delay_enter=600s", "the audit that is due has not ended");
}
