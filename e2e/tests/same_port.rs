//! One port in several network namespaces, as containers have it: told apart in every view.

use e2e::docker::Container;
use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::{Cable, Place};
use e2e::peer::Peer;
use e2e::probe::{self, Agent};
use e2e::process::{Running, finish};
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use e2e::tab::Tab;
use e2e::terminal::{Terminal, row};
use e2e::truth::wait_equal;
use serde_json::Value;

const PORT: &str = "18473";

/// Two servers of the host, in a namespace each: rows that would look alike name theirs.
#[test]
fn two_namespaces_of_the_host() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let cables = [Cable::new(), Cable::new()];
    let counts = [3, 7];
    let namespaces = cables.each_ref().map(|cable| cable.server.place().inode().to_string());
    let mut held = cables.each_ref().map(|cable| {
        let mut server = Peer::start(&cable.server.place());
        server.listen(&format!("0.0.0.0:{PORT}"));
        server
    });
    let _clients: Vec<Peer> = cables
        .iter()
        .zip(counts)
        .map(|(cable, count)| {
            let mut client = Peer::start(&cable.client.place());
            client.connect(&format!("{}:{PORT}", Cable::SERVER), count);
            client
        })
        .collect();
    held.iter_mut().zip(counts).for_each(|(server, count)| server.wait_held(count));
    let each = || namespaces.iter().zip(counts);
    let mut expected: Vec<Vec<String>> = each()
        .map(|(netns, count)| {
            ["host", netns, PORT, "passive", &count.to_string()].map(str::to_owned).to_vec()
        })
        .collect();
    expected.sort();
    let told = |text: &str| {
        let rows = text.lines().filter(|line| line.trim_start().starts_with("host "));
        let words = |line: &str| line.split_whitespace().take(5).map(str::to_owned).collect();
        let mut rows: Vec<Vec<String>> = rows.map(words).collect();
        rows.sort();
        rows
    };
    let filter = ["--port", PORT, "--role", "passive"];
    let count = || probe::run(&[&["count"][..], &filter].concat()).success("count");
    wait_equal("a row for each namespace", &expected, || told(&count()));

    let scratch = Scratch::new("same-port");
    let capture = scratch.path().join("capture");
    let recording = Recording::start(&capture.to_string_lossy(), &filter);
    // With its end it has the connections that are open.
    let _ = recording.stop();
    let capture = capture.to_string_lossy();
    for source in [&["--interval", "1s"], &["--replay", &*capture]] {
        let mut top = probe::command();
        top.arg("top").args(filter).args(source);
        let terminal = Terminal::start(80, 24, &top);
        let screen = terminal.wait("a row for each", |screen| told(screen) == expected);
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        // The one with more stands first.
        terminal.keys(&["Enter"]);
        let of = format!("host {} port {PORT} passive  established 7  upgraded 0", namespaces[1]);
        terminal.wait("its port", |screen| screen.contains(&of));
        terminal.keys(&["c"]);
        let of = format!("host {} port {PORT} passive: 7 connections", namespaces[1]);
        terminal.wait("its connections", |screen| screen.contains(&of));
    }

    let _agent = Agent::start();
    let mut tab = Tab::open();
    wait_equal("on the page", &expected, || {
        let picture = tab.picture();
        let services = picture["services"].as_array().unwrap();
        let number: i64 = PORT.parse().unwrap();
        let ours = services
            .iter()
            .filter(|service| service["port"] == number && service["role"] == "passive");
        let words = ours.map(|service| {
            let netns = service["id"].as_str().unwrap().rsplit(':').next().unwrap();
            assert_eq!(service["name"], format!("host {netns}"), "{service}");
            let established = service["established"].to_string();
            ["host", netns, PORT, "passive", &established].map(str::to_owned).to_vec()
        });
        let mut rows: Vec<Vec<String>> = words.collect();
        rows.sort();
        rows
    });
}

/// Three shards at one port, as Compose makes them; the third takes three clients, and refuses the rest of its turn.
#[test]
fn the_shards_of_a_balancer_in_a_container_each() {
    let needs = [Need::Bpf, Need::Docker, Need::Program("tmux")];
    let Some(_machine) = require(&needs) else { return };
    let containers =
        ["project-shard-1", "project-shard-2", "project-shard-3"].map(|n| Container::start(n, &[]));
    let _servers = containers.each_ref().map(|container| {
        let mut serve = container.exec("/groundtruth/lab");
        serve.args(["serve", "--json", "--listen", &format!("0.0.0.0:{PORT}")]);
        if container.name.ends_with('3') {
            serve.args(["--max-connections", "3"]);
        }
        let server = Running::start(&mut serve);
        server.wait_stdout("listening");
        server
    });
    let addresses = containers.each_ref().map(|one| format!("{}:{PORT}", one.address()));
    let mut balance = vec!["balance", "--listen", "127.0.0.1:0", "--workers", "1"];
    balance.extend(addresses.iter().flat_map(|address| ["--shard", address.as_str()]));
    let balancer = lab::Server::start(&Place::host(), &balance);
    let port = balancer.address().port().to_string();

    let agent = Agent::start();
    // From here the page counts attempts.
    let mut tab = Tab::open();
    let _ = tab.picture();
    let mut top = agent.command("top");
    top.args(["--port", &format!("{port},{PORT}")]);
    top.args(["--health", &format!("http://{}/health", balancer.address())]);
    let terminal = Terminal::start(80, 24, &top);
    terminal.wait("the service", |screen| row(screen, &["host", &port, "passive"]).len() > 3);
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", &format!("ws://{}/", balancer.address()), "--connections", "24"]);
    load.args(["--ramp", "100/s", "--hold", "10m"]);
    let _load = Running::start(&mut load);

    terminal.wait("names up to what tells them apart", |screen| {
        [("1", "8"), ("2", "8"), ("3", "3")].iter().all(|(number, count)| {
            screen.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().take(4).collect();
                let [name, PORT, "passive", established] = words[..] else { return false };
                name.ends_with(&format!("shard-{number}")) && established == *count
            })
        })
    });
    terminal.keys(&["/", &port, "Enter", "s", "s", "s", "r"]);
    terminal.wait("the balancer's port first", |screen| {
        let first = screen.lines().find(|line| line.trim_start().starts_with("host"));
        first.is_some_and(|line| line.contains("passive"))
    });
    terminal.keys(&["Enter"]);
    // Established, upgraded, failed and reported of each.
    let expected = [["8", "8", "0", "8"], ["8", "8", "0", "8"], ["3", "3", "5", "3"]];
    let screen = terminal.wait("each shard", |screen| {
        addresses.iter().zip(expected).all(|(address, expected)| {
            let words = row(screen, &[address]);
            words.len() == 8 && [2, 3, 6, 7].map(|at: usize| words[at].as_str()) == expected
        })
    });
    assert!(screen.contains("shards (24 attempts here, 24 at them)"), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    terminal.keys(&["End", "Enter"]);
    let of = format!("{} port {PORT} passive  established 3", containers[2].name);
    terminal.wait("the shard's own end", |screen| {
        screen.contains(&of) && screen.contains("5 http_503")
    });

    let words = |of: &Value| {
        let texts =
            ["address", "id", "name"].map(|field| of[field].as_str().unwrap_or("").to_owned());
        let numbers = ["established", "upgraded", "failed", "attempts"];
        (texts, numbers.map(|field| of[field].as_i64().unwrap_or(-1)))
    };
    let expected =
        containers.iter().zip(&addresses).zip([[8, 8, 0, 8], [8, 8, 0, 8], [3, 3, 5, 8]]);
    let expected = expected.map(|((container, address), numbers)| {
        let name = container.name.clone();
        ([address.clone(), format!("{name}:{PORT}:passive"), name], numbers)
    });
    let health = format!("http://{}/health", balancer.address());
    let watch = ["--json", "--interval", "1s", "--duration", "2s", "--health", &health];
    let watched = finish(agent.command("watch").args(watch)).success("probe watch");
    let block: Value = serde_json::from_str(watched.lines().next().unwrap()).unwrap();
    let shards = block["shards"]["shards"].as_array().unwrap();
    let told: Vec<_> = shards.iter().map(|shard| [&shard["kernel"], &shard["reported"]]).collect();
    assert_eq!(told, [[8, 8], [8, 8], [3, 3]], "{block}");
    wait_equal("on the page", &expected.collect(), || {
        let picture = tab.picture();
        let services = picture["services"].as_array().unwrap();
        let id = format!("host:{port}:passive");
        let balancer = services.iter().find(|service| service["id"] == *id);
        let shards = balancer.and_then(|balancer| balancer["shards"].as_array());
        shards.into_iter().flatten().map(words).collect::<Vec<_>>()
    });
}
