//! The scenarios, one row each.

use std::time::Duration;

use super::Front::{Balancer, Server};
use super::Handshakes;

/// What they have in common.
const DIRECT: Handshakes = Handshakes {
    name: "",
    about: "",
    front: Server,
    waves: &[200],
    ramp: 100,
    hold: Duration::from_secs(1),
    setup: &[],
    faults: &[],
    clients: &[],
    late: false,
    one_thread: false,
    deaf_sources: None,
    causes: &[],
    unnamed: &[],
    first: None,
};

const BALANCED: Handshakes = Handshakes { front: Balancer, ..DIRECT };

/// At a proxy, a shard's end without an answer is the proxy's to explain.
const ENDED_BY_SHARD: &[(&str, &str)] =
    &[("close-after-request", "upstream_reset"), ("reset-after-request", "upstream_reset")];

const fn direct(
    name: &'static str,
    about: &'static str,
    faults: &'static [&'static str],
    first: &'static str,
) -> Handshakes {
    Handshakes { name, about, faults, first: Some(first), ..DIRECT }
}

const fn balanced(
    name: &'static str,
    about: &'static str,
    faults: &'static [&'static str],
    first: &'static str,
) -> Handshakes {
    Handshakes { name, about, faults, first: Some(first), ..BALANCED }
}

pub(in crate::scenario) static ALL: &[Handshakes] = &[
    Handshakes {
        name: "healthy-500",
        about: "nothing is wrong: 2,000 clients at 500/s through a balancer",
        waves: &[2000],
        ramp: 500,
        ..BALANCED
    },
    Handshakes {
        name: "slot-race-12k",
        about: "12,000 clients at 100/s, held 60 s, three shards of 6,000; 6,816 lose a slot race",
        waves: &[12_000],
        hold: Duration::from_secs(60),
        setup: &["--slots", "6000", "--workers", "4"],
        clients: &["--message-interval", "10s"],
        ..balanced("", "", &["--fault", "slot-race:56.8%"], "slot_race")
    },
    // The balancer.
    balanced(
        "slot-race",
        "a fifth are answered 503 though there is room",
        &["--fault", "slot-race:20%"],
        "slot_race",
    ),
    Handshakes {
        waves: &[120, 80],
        setup: &["--slots", "40"],
        causes: &[("no-free-slot", "slot_leak")],
        ..balanced(
            "slot-leak",
            "slots are not given back, so that the second wave finds none",
            &["--fault", "slot-leak"],
            "slot_leak",
        )
    },
    balanced("slots-exhausted", "200 clients for 120 slots", &["--slots", "40"], "slots_exhausted"),
    Handshakes {
        waves: &[600],
        ..balanced(
            "balancer-sheds-load",
            "the balancer's guard turns everybody away for 2 s",
            &["--fault", "balancer-sheds-load@2s-4s"],
            "load_shedding",
        )
    },
    balanced(
        "drop-upgrade-header",
        "the balancer drops the upgrade header of a fifth",
        &["--fault", "drop-upgrade-header:20%"],
        "proxy_headers",
    ),
    balanced(
        "drop-key-header",
        "the balancer drops the key of a fifth",
        &["--fault", "drop-key-header:20%"],
        "proxy_headers",
    ),
    balanced(
        "rewrite-accept",
        "the balancer rewrites the accept key of a fifth",
        &["--fault", "rewrite-accept:20%"],
        "wrong_accept_key",
    ),
    balanced(
        "refuse-after-upgrade",
        "the balancer answers 403 to a fifth that the shard has upgraded",
        &["--fault", "refuse-after-upgrade:20%"],
        "forbidden",
    ),
    // Between the balancer and its shards.
    balanced(
        "upstream-refused",
        "a fifth are sent to a port at which nobody listens",
        &["--fault", "dead-upstream:20%"],
        "upstream_refused",
    ),
    Handshakes {
        late: true,
        causes: &[("upstream-refused", "port_bound_late")],
        ..balanced(
            "shard-bound-late",
            "the shards bind their ports when the first clients have come",
            &["--shard-arg=--bind-after=1s"],
            "port_bound_late",
        )
    },
    Handshakes {
        setup: &["--upstream-timeout", "1s"],
        ..balanced(
            "upstream-unreachable",
            "the SYNs of a fifth get no answer from the shard's host",
            &["--fault", "unreachable-upstream:20%"],
            "upstream_unreachable",
        )
    },
    Handshakes {
        causes: ENDED_BY_SHARD,
        ..balanced(
            "upstream-reset",
            "the shards reset a fifth after the request",
            &["--shard-fault", "all:reset-after-request:20%"],
            "upstream_reset",
        )
    },
    Handshakes {
        causes: ENDED_BY_SHARD,
        ..balanced(
            "upstream-closed",
            "the shards close a fifth after the request",
            &["--shard-fault", "all:close-after-request:20%"],
            "upstream_reset",
        )
    },
    Handshakes {
        setup: &["--upstream-timeout", "1s"],
        ..balanced(
            "upstream-hangs",
            "the shards never answer a fifth, and the balancer stops waiting after 1 s",
            &["--shard-fault", "all:hang:20%"],
            "upstream_timeout",
        )
    },
    Handshakes {
        setup: &["--upstream-timeout", "1s"],
        ..balanced(
            "upstream-slow",
            "the shards answer a fifth after 1.6 s, when the balancer has stopped waiting",
            &["--shard-fault", "all:slow-response:20%", "--shard-arg=--fault-delay=1600ms"],
            "upstream_timeout",
        )
    },
    balanced(
        "no-ephemeral-port",
        "the balancer has 51 local ports for each of three shards",
        &["--upstream-ports", "50000-50050"],
        "ephemeral_port_exhaustion",
    ),
    Handshakes {
        hold: Duration::from_secs(4),
        clients: &["--handshake-timeout", "2s"],
        unnamed: &[("no_response_client_left", "descriptor_exhaustion")],
        ..balanced(
            "balancer-no-descriptors",
            "the balancer may open 100 descriptors",
            &["--workers", "1", "--max-fds", "100"],
            "descriptor_exhaustion",
        )
    },
    // The shards, or a server without a balancer.
    balanced(
        "unauthorized",
        "the shards answer 401 to a fifth",
        &["--shard-fault", "all:unauthorized:20%"],
        "authentication",
    ),
    balanced(
        "forbidden-origin",
        "the shards answer 403 to a fifth",
        &["--shard-fault", "all:forbidden-origin:20%"],
        "forbidden",
    ),
    balanced(
        "wrong-path",
        "the shards answer 404 to a fifth",
        &["--shard-fault", "all:wrong-path:20%"],
        "wrong_path",
    ),
    balanced(
        "not-a-websocket-server",
        "the shards answer 200 to a fifth",
        &["--shard-fault", "all:not-a-websocket-server:20%"],
        "not_a_websocket_server",
    ),
    balanced(
        "shard-capacity",
        "each of three shards takes 40 of 67 clients",
        &["--shard-arg=--max-connections=40"],
        "capacity_limit",
    ),
    Handshakes {
        waves: &[300],
        ..balanced(
            "rate-limit",
            "each shard takes 15 clients a second of 33",
            &["--shard-arg=--rate-limit=15"],
            "rate_limit",
        )
    },
    direct(
        "capacity-limit",
        "the server takes 120 of 200 clients",
        &["--max-connections", "120"],
        "capacity_limit",
    ),
    direct(
        "task-guard",
        "the server's guard turns everybody away while 120 tasks run",
        &["--task-guard", "120"],
        "load_shedding",
    ),
    Handshakes {
        waves: &[600],
        ..direct(
            "shed-load",
            "the server's guard turns everybody away for 2 s",
            &["--fault", "shed-load@2s-4s"],
            "load_shedding",
        )
    },
    direct("not-http", "a fifth get no HTTP", &["--fault", "not-http:20%"], "not_http"),
    direct(
        "wrong-accept",
        "a fifth get an accept key that is not theirs",
        &["--fault", "wrong-accept:20%"],
        "wrong_accept_key",
    ),
    direct(
        "reset-after-request",
        "the server resets a fifth after the request",
        &["--fault", "reset-after-request:20%"],
        "server_closed",
    ),
    direct(
        "close-after-upgrade",
        "the server closes a fifth right after the upgrade",
        &["--fault", "close-after-upgrade:20%"],
        "closed_right_after_upgrade",
    ),
    Handshakes {
        clients: &["--handshake-timeout", "2s"],
        ..direct("hang", "a fifth are never answered", &["--fault", "hang:20%"], "server_hangs")
    },
    Handshakes {
        clients: &["--handshake-timeout", "300ms"],
        ..direct(
            "client-gave-up",
            "a fifth would be answered after 600 ms, and leave after 300 ms",
            &["--fault", "slow-response:20%", "--fault-delay", "600ms"],
            "client_gave_up",
        )
    },
    Handshakes {
        late: true,
        unnamed: &[("reset_before_established", "port_bound_late")],
        ..direct(
            "port-bound-late",
            "the server binds its port when the first clients have come",
            &["--bind-after", "1s"],
            "port_bound_late",
        )
    },
    Handshakes {
        waves: &[600],
        clients: &["--handshake-timeout", "1500ms"],
        unnamed: &[("no_response_client_left", "slow_accept")],
        ..direct(
            "accept-stall",
            "the accept loop stands still for 3 s",
            &["--accept-stall", "2s-5s"],
            "slow_accept",
        )
    },
    Handshakes {
        clients: &["--handshake-timeout", "1500ms"],
        unnamed: &[("no_response_client_left", "slow_accept")],
        ..direct(
            "accept-slow",
            "the accept loop takes 40 ms for each connection",
            &["--accept-delay", "40ms"],
            "slow_accept",
        )
    },
    Handshakes {
        waves: &[600],
        clients: &["--handshake-timeout", "1500ms", "--connect-timeout", "800ms"],
        unnamed: &[
            ("no_response_client_left", "slow_accept"),
            ("unknown", "accept_queue_overflow"),
        ],
        ..direct(
            "accept-queue-overflow",
            "a queue of 4 while the accept loop stands still for 3 s",
            &["--backlog", "4", "--accept-stall", "2s-5s"],
            "accept_queue_overflow",
        )
    },
    Handshakes {
        hold: Duration::from_secs(4),
        clients: &["--handshake-timeout", "2s"],
        unnamed: &[("no_response_client_left", "descriptor_exhaustion")],
        ..direct(
            "no-descriptors",
            "the server may open 100 descriptors",
            &["--max-fds", "100"],
            "descriptor_exhaustion",
        )
    },
    Handshakes {
        waves: &[800],
        clients: &["--handshake-timeout", "1500ms"],
        one_thread: true,
        unnamed: &[("no_response_client_left", "cpu_starvation")],
        ..direct(
            "cpu-starvation",
            "four requests burn 1 s of CPU each on the only thread",
            &["--fault", "spin-cpu:4", "--fault-delay", "1s"],
            "cpu_starvation",
        )
    },
    Handshakes {
        clients: &["--connect-timeout", "800ms"],
        deaf_sources: Some(5),
        unnamed: &[("unknown", "packet_loss")],
        ..direct(
            "packet-loss",
            "every packet to one of five addresses of the clients is lost (root)",
            &[],
            "packet_loss",
        )
    },
    // Mixed.
    balanced(
        "mixed-two",
        "a slot race for a fifth, and 401 from the shards for a tenth of the rest",
        &["--fault", "slot-race:20%", "--shard-fault", "all:unauthorized:10%"],
        "slot_race",
    ),
    Handshakes {
        setup: &["--upstream-timeout", "1s"],
        ..balanced(
            "mixed-three",
            "a slot race, lost upgrade headers, and shards that never answer",
            &[
                "--fault",
                "slot-race:20%",
                "--fault",
                "drop-upgrade-header:10%",
                "--shard-fault",
                "all:hang:10%",
            ],
            "slot_race",
        )
    },
    Handshakes {
        waves: &[600],
        ..balanced(
            "mixed-shapes",
            "a guard at the shards for 2 s, a dead port for a tenth, and a slot race for a tenth",
            &[
                "--shard-fault",
                "all:shed-load@2s-4s",
                "--fault",
                "dead-upstream:10%",
                "--fault",
                "slot-race:10%",
            ],
            "load_shedding",
        )
    },
];
