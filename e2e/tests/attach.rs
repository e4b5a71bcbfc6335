//! Attaching to a host that holds many connections while others come and go: what was there before is
//! counted, each time, and nothing twice. `cargo xtask torture --attach 20` does so to 50,000.

use e2e::machine::{Need, require};
use e2e::torture::attach::{Options, run};

#[test]
fn what_was_there_before_is_counted_each_time() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    for round in run(&Options { connections: 5_000, times: 3 }, |_| {}) {
        for check in round.checks {
            assert!(check.holds, "{}: {check}", check.at);
        }
    }
}
