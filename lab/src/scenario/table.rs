//! The scenarios, one row each.

use std::time::Duration;

use super::Scenario;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the phantom scenarios have in common: numbers that don't come about by chance.
const PHANTOM: Scenario = Scenario {
    name: "",
    about: "",
    connections: 197,
    ramp: 100,
    hold: s(14),
    heartbeat: Some(s(3)),
    message_interval: None,
    server_ping: None,
    balancer_slots: None,
    faults: &[],
    ends: &[],
    end_at: s(4),
    cut_off: 0,
    watch: None,
    min_success: 100,
    max_phantoms: 2,
    expect: None,
    exit_by_truth: false,
};

pub(super) static ALL: &[Scenario] = &[
    Scenario {
        name: "demo",
        about: "1,000 clients at 100/s; 45 die by RST, and the server's cleanup misses them",
        connections: 1000,
        hold: s(15),
        faults: &["app-leak-on-rst"],
        ends: &["rst:45"],
        watch: Some(s(3)),
        expect: Some(("application_leak", 45)),
        exit_by_truth: true,
        ..PHANTOM
    },
    Scenario {
        name: "validate-100",
        about: "100 clients at 20/s, held 5 min, pinging each 15 s",
        connections: 100,
        ramp: 20,
        hold: s(300),
        heartbeat: Some(s(15)),
        watch: Some(s(5)),
        max_phantoms: 5,
        ..PHANTOM
    },
    Scenario {
        name: "validate-1k",
        about: "1,000 clients at 100/s, held 10 min, pinging each 30 s",
        connections: 1000,
        hold: s(600),
        heartbeat: Some(s(30)),
        watch: Some(s(10)),
        min_success: 99,
        max_phantoms: 20,
        ..PHANTOM
    },
    Scenario {
        name: "balancer-12k",
        about: "12,000 clients at 100/s through a balancer to three shards of 6,000 slots, held 60 s",
        connections: 12_000,
        hold: s(60),
        heartbeat: None,
        message_interval: Some(s(10)),
        balancer_slots: Some(6000),
        watch: Some(s(3)),
        min_success: 99,
        max_phantoms: 120,
        ..PHANTOM
    },
    Scenario {
        name: "healthy",
        about: "nothing is wrong: connections end in every way and are cleaned up",
        ends: &["rst:23", "fin:19"],
        ..PHANTOM
    },
    Scenario {
        name: "app-leak-rst",
        about: "23 clients reset, and stay in the server's table",
        faults: &["app-leak-on-rst"],
        ends: &["rst:23"],
        expect: Some(("application_leak", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "app-leak-no-close-frame",
        about: "23 clients close without a close frame, and stay in the server's table",
        faults: &["app-leak-on-no-close-frame"],
        ends: &["fin:23"],
        expect: Some(("application_leak", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "app-leak-timeout",
        about: "23 clients fall silent, are closed by the server, and stay in its table",
        server_ping: Some((s(2), s(3))),
        faults: &["app-leak-on-timeout"],
        ends: &["silent:23"],
        expect: Some(("application_leak", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "double-decrement",
        about: "23 ended clients leave the server's count twice",
        faults: &["double-decrement:23"],
        ends: &["rst:23"],
        expect: Some(("double_decrement", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "descriptor-leak",
        about: "23 clients reset, and the server keeps the descriptors",
        faults: &["never-close"],
        ends: &["rst:23"],
        expect: Some(("descriptor_leak", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "close-wait",
        about: "23 clients close, and the server never closes its end",
        faults: &["never-close"],
        ends: &["fin:23"],
        expect: Some(("descriptor_leak", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "half-open",
        about: "the link of 23 clients goes down, and the server does not notice (root)",
        server_ping: Some((s(2), s(600))),
        cut_off: 23,
        expect: Some(("half_open", 23)),
        ..PHANTOM
    },
    Scenario {
        name: "reverse-phantom",
        about: "the server serves 23 clients that it does not count",
        faults: &["reverse-phantom:23"],
        expect: Some(("reverse_phantom", 23)),
        ..PHANTOM
    },
];
