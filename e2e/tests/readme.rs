//! The README's own commands, run as they stand there on what they are about: nginx in front of a
//! WebSocket server that forgets some of its clients.

use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Netns;
use e2e::nginx::Nginx;
use e2e::process::{Running, binary, finish_within};
use e2e::scratch::Scratch;
use e2e::truth::{ss, wait_equal};

const README: &str = include_str!("../../README.md");
const SECTION: &str = "## On your own server";

/// The commands of the section, a block of `sh` each.
fn blocks() -> Vec<String> {
    let section = README.split(SECTION).nth(1).and_then(|rest| rest.split("\n## ").next());
    let mut blocks = section.expect("the README has the section").split("```sh\n");
    blocks.next();
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn on_your_own_server() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("nginx")]) else { return };
    let scratch = Scratch::new("readme");
    let netns = Netns::new();
    let place = netns.place();
    let server = lab::Server::start(
        &place,
        &["serve", "--listen", "127.0.0.1:3005", "--fault", "app-leak-on-no-close-frame"],
    );
    let _nginx = Nginx::start(
        &place,
        8080,
        "server { listen 8080; location / { proxy_pass http://127.0.0.1:3005;\n\
         proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection \"upgrade\"; proxy_read_timeout 1h; } }",
    );

    let blocks = blocks();
    assert_eq!(blocks.len(), 3, "{blocks:#?}");
    let directory = binary("probe").parent().unwrap().display().to_string();
    let run = |block: &str| {
        let script =
            block.replace("sudo ", "").replace("target/debug", &directory).replace("10m", "12s");
        let mut shell = place.command("sh");
        shell.args(["-c", &script]).current_dir(scratch.path()).env("NO_COLOR", "1");
        finish_within(&mut shell, Duration::from_secs(60))
    };

    let stay = start_load(&place, &["--connections", "23", "--hold", "60s"]);
    wait_equal("clients", &23, || ss(&place, "established", "sport = :3005"));
    let counted = run(&blocks[0]).success("count");
    let row = counted.lines().find(|line| line.contains("3005") && line.contains("passive"));
    let row: Vec<&str> = row.unwrap_or_else(|| panic!("{counted}")).split_whitespace().collect();
    assert_eq!(row[..4], ["host", "3005", "passive", "23"]);
    drop(stay);

    let watched = run(&blocks[1]);
    let _load = start_load(
        &place,
        &["--connections", "200", "--hold", "30s", "--end", "rst:23", "--end-at", "3s"],
    );
    // The 23 of the first block were killed without a close frame: leaked before the watch began.
    assert_eq!(watched.code, Some(99), "{watched}");
    assert!(watched.stdout.contains("phantoms        23"), "{watched}");

    let reported = run(&blocks[2]);
    assert_eq!(reported.code, Some(99), "{reported}");
    assert!(reported.stdout.contains("46 phantoms: application leak"), "{reported}");
    for file in ["report.html", "report.md", "report.json"] {
        assert!(scratch.path().join("report").join(file).is_file(), "{file}");
    }
    let _ = server.stop();
}

/// Clients through nginx.
fn start_load(place: &e2e::net::Place, arguments: &[&str]) -> Running {
    let mut command = lab::command(place);
    command.args(["load", "--url", "ws://127.0.0.1:8080/", "--ramp", "100/s"]).args(arguments);
    Running::start(&mut command)
}
