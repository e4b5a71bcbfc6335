//! What the programs cost, measured by the probe itself, and counting without following handshakes.

use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{self, Agent, Of};
use e2e::process::finish;
use e2e::scratch::Scratch;
use e2e::truth::wait_equal;

#[test]
fn the_cost_of_every_hook_is_measured_by_connections_of_its_own() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    for counts_only in [false, true] {
        let mut arguments = vec!["doctor", "--cost", "--json", "--duration", "300ms"];
        if counts_only {
            arguments.push("--counts-only");
        }
        let cost: serde_json::Value =
            serde_json::from_str(&probe::run(&arguments).success("probe doctor --cost")).unwrap();
        let connections = cost["connections"].as_u64().unwrap();
        assert!(connections > 0, "{cost}");
        // Each end is born, established and closed, by way of more.
        assert!(cost["state_changes"].as_u64().unwrap() > connections * 5, "{cost}");
        let hooks = cost["hooks"].as_array().unwrap();
        let runs = |name: &str| {
            let hook = hooks.iter().find(|hook| hook["hook"] == name);
            hook.map(|hook| hook["runs"].as_u64().unwrap())
        };
        // SYN, ACK, request and FIN one way, and as many the other.
        assert!(runs("cgroup_skb/egress").unwrap() >= connections * 6, "{cost}");
        assert_eq!(runs("cgroup_skb/ingress").is_none(), counts_only, "{cost}");
        assert!(cost["ns_per_state_change"].as_f64().unwrap() > 0.0, "{cost}");
        assert!(cost["empty_ns_per_run"].as_f64().unwrap() > 0.0, "{cost}");
    }
}

#[test]
fn counts_only_is_exact_and_records_nothing() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let of = Of::port(8080).netns(cable.server.place().inode());

    let agent = Agent::start_with(&["--counts-only"]);
    client.connect("10.77.0.1:8080", 123);
    server.wait_held(123);
    client.fin(23);
    server.wait_reaped(Reaped { fin: 23, ..Reaped::default() });
    wait_equal("established and accepted", &(100, 123), || {
        let counts = agent.counts();
        (counts.established(&of), counts.accepted(&of))
    });
    agent.counts().assert_exact();

    let scratch = Scratch::new("counts-only");
    let refused = finish(agent.command("record").args(["-o", &scratch.join("capture")]));
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("only counts"), "{refused}");
}
