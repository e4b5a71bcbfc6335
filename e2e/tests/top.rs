//! `probe top` in a real terminal, with connections whose number is known.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::nobody;
use e2e::probe;
use e2e::process::{Running, finish};
use e2e::recording::Recording;
use e2e::scratch::Scratch;
use e2e::terminal::{Terminal, row};
use e2e::truth::{ss, wait_equal};
use serde_json::Value;

/// A server that takes 23 clients, refuses more, and forgets five that reset their connection.
fn server() -> lab::Server {
    lab::Server::start(
        &Place::host(),
        &["serve", "--listen", "127.0.0.1:0", "--max-connections", "23"],
    )
}

fn load(url: &str, args: &[&str]) -> Running {
    let mut load = lab::command(&Place::host());
    load.args(["load", "--url", url, "--ramp", "100/s"]).args(args);
    Running::start(&mut load)
}

/// The view of two seconds that are recorded now.
fn replay(scratch: &Scratch, args: &[&str]) -> Terminal {
    let capture = scratch.join("capture");
    let record = [&["record", "-o", &capture, "--duration", "2s"], args].concat();
    let _ = probe::run(&record).success("probe record");
    let mut top = probe::command();
    top.args(["top", "--replay", &capture]);
    let terminal = Terminal::start(80, 24, &top);
    terminal.keys(&["$"]);
    terminal
}

#[test]
fn the_screen_says_what_is_there() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let server = lab::Server::start(
        &Place::host(),
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--max-connections",
            "23",
            "--fault",
            "app-leak-on-rst",
        ],
    );
    let port = server.address().port().to_string();
    let health = format!("http://{}/health", server.address());
    let mut top = probe::command();
    top.args(["top", "--port", &port, "--health", &health, "--interval", "1s"]);
    let terminal = Terminal::start(80, 24, &top);
    terminal.wait("the service", |screen| row(screen, &["host", &port, "passive"]).len() > 3);

    // 23 are taken, and 7 more answered 503; later five of the 23 are reset, and the server forgets.
    let url = format!("ws://{}/", server.address());
    let _stay =
        load(&url, &["--connections", "23", "--hold", "10m", "--end", "rst:5", "--end-at", "30s"]);
    wait_equal("clients", &23, || ss(&Place::host(), "established", &format!("dport = :{port}")));
    let refused = load(&url, &["--connections", "7", "--hold", "0s", "--min-success", "0"]);
    assert_eq!(refused.wait(Duration::from_secs(30)).code, Some(0));
    let is = |words: Vec<String>, expected: &[&str]| {
        words.starts_with(&expected.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    let screen = terminal.wait("23 established, 23 upgraded, reported, no phantom", |screen| {
        is(
            row(screen, &["host", &port, "passive"]),
            &["host", &port, "passive", "23", "23", "23", "0"],
        )
    });
    assert!(screen.contains("  exact  "), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    terminal.wait("the refusals", |screen| screen.contains("7 × http_503"));

    terminal.keys(&["/", "passive", "Enter"]);
    terminal.wait("one row", |screen| row(screen, &["host", &port, "active"]).is_empty());
    terminal.keys(&["Enter"]);
    terminal.wait("the port's handshakes", |screen| {
        row(screen, &["upgraded"]).get(1).is_some_and(|count| count == "23")
            && screen.contains("stages of 30 attempts")
            && screen.contains("outcomes (7 failed, 23.3 %)")
            && screen.matches("http_503 ").count() >= 5
    });
    terminal.keys(&["Enter"]);
    terminal.wait("the port's connections", |screen| {
        screen.contains("23 connections, by age")
            && row(screen, &["established", "upgraded"])
                .last()
                .is_some_and(|process| process == &format!("lab/{}", server.pid()))
    });
    terminal.keys(&["/", "no such peer", "Enter"]);
    terminal.wait("no row", |screen| screen.contains("0 of 23 connections with \"no such peer\""));
    terminal.keys(&["BSpace", "BSpace", "BSpace"]);

    let screen = terminal.wait("five phantoms", |screen| {
        is(
            row(screen, &["host", &port, "passive"]),
            &["host", &port, "passive", "18", "18", "23", "5"],
        )
    });
    assert!(screen.contains("reported 23  established 18  phantoms 5"), "{screen}");
    terminal.keys(&["?"]);
    terminal.wait("the keys", |screen| screen.contains("any key goes back"));
    terminal.keys(&["x", "q"]);
    assert_eq!(terminal.exit_code(), 0);
    let _ = server.stop();
}

#[test]
fn a_capture_is_played_stepped_and_sought() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let scratch = Scratch::new("top");
    let server = server();
    let port = server.address().port().to_string();
    let directory = scratch.join("capture");
    let recording = Recording::start(&directory, &["--port", &port]);
    let load =
        load(&format!("ws://{}/", server.address()), &["--connections", "23", "--hold", "6s"]);
    assert_eq!(load.wait(Duration::from_secs(60)).code, Some(0));
    let _ = recording.stop();
    let _ = server.stop();

    let mut top = probe::command();
    top.args(["top", "--replay", &directory]);
    let terminal = Terminal::start(80, 24, &top);
    let established = |screen: &str| row(screen, &["host", &port, "passive"]).get(3).cloned();
    let screen = terminal.wait("the capture's begin", |screen| screen.contains("replay"));
    assert!(screen.trim_end().ends_with("space play  , . ← → + -  ? help  q quit"), "{screen}");
    terminal.keys(&[" ", "$"]);
    terminal.wait("nobody left at the end", |screen| established(screen).as_deref() == Some("0"));
    terminal.keys(&["Enter"]);
    terminal.wait("all handshakes", |screen| screen.contains("stages of 23 attempts"));
    terminal.keys(&["BSpace", "0"]);
    terminal.wait("nobody yet", |screen| {
        screen.contains("] 0s of") && established(screen).is_none_or(|count| count == "0")
    });
    let mut steps = 0;
    while established(&terminal.screen()).as_deref() != Some("23") {
        assert!(steps < 60, "never 23:\n{}", terminal.screen());
        steps += 1;
        terminal.keys(&["."]);
        terminal.wait("the next second", |screen| screen.contains(&format!("] {steps}s of")));
    }
    terminal.keys(&["c"]);
    terminal.wait("the connections of then", |screen| screen.contains("23 connections, by age"));
    terminal.keys(&["C-c"]);
    assert_eq!(terminal.exit_code(), 130);
}

/// One server on two ports, both named: `probe watch` and `probe top` hold its report against the sum.
#[test]
fn a_report_is_held_against_the_same_ports_as_by_watch() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let listen = ["--listen", "127.0.0.1:0"];
    let server = lab::Server::start(&Place::host(), &[&["serve"], &listen[..], &listen].concat());
    let ports = server.ports();
    let stay = |port: u16, count: &str| {
        load(&format!("ws://127.0.0.1:{port}/"), &["--connections", count, "--hold", "10m"])
    };
    let _stay = [stay(ports[0], "23"), stay(ports[1], "5")];
    wait_equal("clients", &28, || {
        let filter = format!("( dport = :{} or dport = :{} )", ports[0], ports[1]);
        ss(&Place::host(), "established", &filter)
    });
    let health = format!("http://{}/health", server.address());
    let named = ["--port", &format!("{},{}", ports[0], ports[1]), "--health", &health];
    let watch = ["watch", "--json", "--interval", "1s", "--duration", "2s"];
    let watched = probe::run(&[&watch, &named[..]].concat());
    assert_eq!(watched.code, Some(0), "{watched}");
    let block: Value = serde_json::from_str(watched.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&block["kernel"]["established"], &block["reported"]),
        (&28.into(), &28.into()),
        "{watched}"
    );

    let mut top = probe::command();
    top.arg("top").args(named);
    let terminal = Terminal::start(80, 24, &top);
    let [low, high] = [ports[0].min(ports[1]), ports[0].max(ports[1])];
    let sum = format!("reported 28  established 28  at {low},{high}  phantoms 0");
    let screen = terminal.wait("the sum", |screen| screen.contains(&sum));
    assert!(
        screen.lines().nth(1).is_some_and(|line| line.ends_with('…')),
        "cut, and marked: {screen}"
    );
    terminal.keys(&["q"]);
    assert_eq!(terminal.exit_code(), 0);
    let scratch = Scratch::new("sum");
    replay(&scratch, &named).wait("the sum again", |screen| screen.contains(&sum));
    let _ = server.stop();
}

/// Two shards of ten slots each: 23 clients, three of whom the balancer turns away by itself.
#[test]
fn a_balancers_shards_are_told_and_clicked() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let shards = [server(), server()];
    let mut ports = shards.each_ref().map(|shard| shard.address().port());
    ports.sort_unstable();
    let [first, second] = ports.map(|port| port.to_string());
    let mut balance = vec!["balance", "--listen", "127.0.0.1:0", "--slots", "10", "--workers", "1"];
    let addresses = shards.each_ref().map(|shard| shard.address().to_string());
    balance.extend(addresses.iter().flat_map(|address| ["--shard", address.as_str()]));
    let balancer = lab::Server::start(&Place::host(), &balance);
    let port = balancer.address().port().to_string();
    let mut top = probe::command();
    top.args(["top", "--mouse", "--port", &format!("{port},{first},{second}")]);
    top.args(["--health", &format!("http://{}/health", balancer.address())]);
    let terminal = Terminal::start(80, 24, &top);
    terminal.wait("the service", |screen| row(screen, &["host", &port, "passive"]).len() > 3);
    let _stay =
        load(&format!("ws://{}/", balancer.address()), &["--connections", "23", "--hold", "10m"]);
    terminal.wait("20 taken", |screen| {
        row(screen, &["host", &port, "passive", "20"]).len() > 4
            && row(screen, &["host", &first, "active", "10"]).len() > 4
    });
    terminal.keys(&["/", "passive", "Enter", "Enter"]);
    let shard = |screen: &str, port: &str| row(screen, &[port]);
    let screen = terminal.wait("the port's shards", |screen| {
        screen.contains("shards (23 attempts here, 20 at them)")
            && screen.contains("3 http_503")
            && screen.contains("no shard answered so")
            && [&first, &second].iter().all(|port| {
                let words = shard(screen, port);
                // Established, upgraded, failed, reported.
                let at = |index: usize| words.get(index).map_or("", String::as_str);
                (at(2), at(3), at(7), at(8)) == ("10", "10", "0", "10")
            })
    });
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    // A click selects, the next goes in, the right button comes back.
    let line = screen.lines().position(|line| line.trim_start().starts_with(&second)).unwrap();
    let click = |button: u8| format!("\u{1b}[<{button};4;{}M", line + 1);
    terminal.keys(&["-l", &click(0)]);
    terminal.keys(&["-l", &click(0)]);
    let inside = format!("host port {second} active  established 10");
    terminal.wait("the shard", |screen| screen.contains(&inside));
    terminal.keys(&["-l", &click(2)]);
    terminal.wait("the port again", |screen| screen.contains("shards (23 attempts"));
    // What was left is selected.
    terminal.keys(&["Enter"]);
    terminal.wait("the same shard", |screen| screen.contains(&inside));
    terminal.keys(&["c"]);
    terminal.wait("its connections", |screen| screen.contains("10 connections, by age"));
    terminal.keys(&["q"]);
    assert_eq!(terminal.exit_code(), 0);
    // The balancer reports its clients, and not its legs to the shards, which are recorded as well.
    let scratch = Scratch::new("shards");
    let health = format!("http://{}/health", balancer.address());
    let ports = format!("{port},{first},{second}");
    replay(&scratch, &["--port", &ports, "--health", &health]).wait("as it was live", |screen| {
        // In the table a poll is a connection as well, where it is open at that moment.
        let words = row(screen, &["host", &port, "passive"]);
        let at = |index: usize| words.get(index).map_or("", String::as_str);
        screen.contains("reported 20  established 20  phantoms 0")
            && (at(4), at(5), at(6)) == ("0", "20", "0")
    });
}

/// Rows that do not fit are reached by the wheel. The terminal changes its size, and is gone one day, as
/// over SSH: nothing is left of the view then.
#[test]
fn a_terminal_is_scrolled_resized_and_lost() {
    const HELD: usize = 40;
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let server = lab::Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let port = server.address().port().to_string();
    let url = format!("ws://{}/", server.address());
    let _stay = load(&url, &["--connections", &HELD.to_string(), "--hold", "10m"]);
    wait_equal("clients", &HELD, || ss(&Place::host(), "established", &format!("dport = :{port}")));
    let mut top = probe::command();
    top.args(["top", "--mouse", "--port", &port]);
    let terminal = Terminal::start(80, 30, &top);
    terminal.wait("the service", |screen| row(screen, &["host", &port, "passive", "40"]).len() > 4);
    terminal.keys(&["/", "passive", "Enter", "c"]);
    let peers = |screen: &str| -> BTreeSet<String> {
        let rows = screen.lines().filter(|line| line.starts_with("established"));
        rows.filter_map(|row| {
            row.split_whitespace().find(|word| word.contains(':')).map(str::to_owned)
        })
        .collect()
    };
    let screen = terminal.wait("as many connections as fit", |screen| peers(screen).len() == 25);
    let first = peers(&screen);
    let wheel = |button: u8| {
        terminal.keys(&["-l", &format!("\u{1b}[<{button};4;8M").repeat(HELD)]);
    };
    wheel(65);
    terminal.wait("the others", |screen| peers(screen).union(&first).count() == HELD);
    wheel(64);
    terminal.wait("the first again", |screen| peers(screen) == first);

    terminal.resize(60, 15);
    let screen = terminal.wait("a smaller view", |screen| {
        screen.lines().count() == 15
            && screen
                .lines()
                .any(|line| line == "STATE       PEER                      AGE PROCESS")
    });
    assert_eq!(peers(&screen).len(), 10, "{screen}");
    assert!(peers(&screen).is_subset(&first), "{screen}");
    terminal.resize(120, 50);
    terminal.wait("all of them", |screen| peers(screen).len() == HELD);

    let process = format!("/proc/{}", terminal.pid());
    assert!(Path::new(&process).exists());
    drop(terminal);
    wait_equal("left of it", &false, || Path::new(&process).exists());
    let _ = server.stop();
}

#[test]
fn without_colour_and_without_root_it_says_so() {
    let Some(_machine) = require(&[Need::Root, Need::Program("tmux")]) else { return };
    let scratch = Scratch::new("top-nobody");
    let colours = |terminal: &Terminal| {
        terminal.wait("why not exact", |screen| screen.contains("NOT EXACT"));
        let screen = terminal.screen_with_colours();
        ["\u{1b}[38;", "\u{1b}[31m"].iter().any(|colour| screen.contains(colour))
    };
    let mut top = nobody::command(&scratch, "probe");
    top.arg("top");
    let terminal = Terminal::start(80, 24, &top);
    assert!(colours(&terminal));
    let screen = terminal.wait("the reason", |screen| screen.contains("not exact: "));
    assert!(screen.contains("sock_diag"), "{screen}");
    terminal.keys(&["q"]);
    assert_eq!(terminal.exit_code(), 0);

    top.env("NO_COLOR", "1");
    let terminal = Terminal::start(80, 24, &top);
    assert!(!colours(&terminal), "{}", terminal.screen_with_colours());
}

#[test]
fn bare_it_is_the_live_view_on_a_terminal_and_counts_elsewhere() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("tmux")]) else { return };
    let terminal = Terminal::start(80, 24, &probe::command());
    terminal.wait("the live view", |screen| screen.starts_with("probe top"));
    drop(terminal);
    let counted = finish(&mut probe::command()).success("probe");
    assert!(counted.starts_with(" CONTAINER"), "{counted}");
    let refused = probe::run(&["top"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("use `probe count`"), "{refused}");
}
