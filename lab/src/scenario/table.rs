//! The scenarios, one row each.

use std::time::Duration;

use super::{Scenario, Sequence, Verdict};

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
    churn: None,
    max_phantoms: 2,
    preset: None,
    checkpoints: None,
    expect: None,
    verdict: Verdict::TruthAndThresholds,
};

/// What the load scenarios have in common: a server without a fault, and limits of speed and success.
const LOAD: Scenario = Scenario {
    heartbeat: None,
    watch: Some(s(5)),
    min_success: 0,
    max_phantoms: 20,
    verdict: Verdict::Thresholds,
    ..PHANTOM
};

/// The scenario whose figures are given on the command line.
pub(super) const CUSTOM: &str = "custom";

pub(super) static SEQUENCES: &[Sequence] = &[Sequence {
    name: "progressive",
    about: "quick, medium and stress with pauses of 8 min, about 25 min in all",
    of: &["quick", "medium", "stress"],
    pause: s(480),
}];

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
        verdict: Verdict::Truth,
        ..PHANTOM
    },
    Scenario {
        name: "validate-100",
        about: "100 clients at 20/s, held 5 min, pinging each 15 s",
        connections: 100,
        ramp: 20,
        hold: s(300),
        heartbeat: Some(s(15)),
        max_phantoms: 5,
        preset: Some("validate-100"),
        ..LOAD
    },
    Scenario {
        name: "validate-1k",
        about: "1,000 clients at 100/s, held 10 min, pinging each 30 s",
        connections: 1000,
        hold: s(600),
        heartbeat: Some(s(30)),
        watch: Some(s(10)),
        preset: Some("validate-1k"),
        ..LOAD
    },
    Scenario {
        name: "balancer-12k",
        about: "12,000 clients at 100/s, held 60 s, by a balancer to three shards",
        connections: 12_000,
        hold: s(60),
        message_interval: Some(s(10)),
        balancer_slots: Some(6000),
        watch: Some(s(3)),
        max_phantoms: 120,
        preset: Some("balancer-12k"),
        ..LOAD
    },
    Scenario {
        name: "quick",
        about: "100 clients in 10 s, held 30 s; all connect, round trip < 5 ms",
        connections: 100,
        ramp: 10,
        hold: s(30),
        message_interval: Some(s(5)),
        preset: Some("quick"),
        ..LOAD
    },
    Scenario {
        name: "medium",
        about: "1,000 clients in 30 s, held 120 s; > 99 % connect, < 10 ms",
        connections: 1000,
        ramp: 33,
        hold: s(120),
        message_interval: Some(s(10)),
        preset: Some("medium"),
        ..LOAD
    },
    Scenario {
        name: "stress",
        about: "5,000 clients in 60 s, held 300 s; > 95 % connect, < 20 ms",
        connections: 5000,
        ramp: 83,
        hold: s(300),
        message_interval: Some(s(15)),
        preset: Some("stress"),
        ..LOAD
    },
    Scenario {
        name: "smoke-30m",
        about: "10 clients a second come and go for 30 min; nothing grows",
        connections: 18_000,
        ramp: 10,
        hold: s(1800),
        churn: Some(s(5)),
        ends: &["rst:20%", "fin:20%"],
        watch: Some(s(120)),
        preset: Some("smoke-30m"),
        checkpoints: Some(s(120)),
        ..LOAD
    },
    Scenario {
        name: CUSTOM,
        about: "what --connections, --ramp, --hold and the other figures say",
        connections: 100,
        hold: s(60),
        ..LOAD
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
