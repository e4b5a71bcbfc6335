//! The agent is killed, stopped, and given too little room, while connections come and go: counts stay
//! exact, or say since when they are not.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::day::{CHURNED, Day, PORT, SERVICE};
use e2e::machine::{Need, require, tool};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{Agent, Of};
use e2e::process::{Running, Signal, binary, finish, resident_kib};
use e2e::recording;
use e2e::scratch::Scratch;
use e2e::truth::{wait_equal, wait_equal_within};
use serde_json::Value;

#[test]
fn killed_under_load_and_started_again() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut day = Day::new(&[]);
    day.under_load(|agent| {
        std::thread::sleep(Duration::from_millis(300));
        agent.kill();
        // Connections come and go while nobody looks.
        std::thread::sleep(Duration::from_millis(500));
        agent.start_again();
    });
    day.assert_counted();
}

/// Records that came while no agent ran are told apart from those that came too fast for one.
#[test]
fn records_that_nobody_read_are_told() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut day = Day::new(&["--ring-bytes", "4096"]);
    let earlier = day.agent.vital("records_lost");
    day.agent.kill();
    day.under_load(|_| {});
    day.agent.start_again();
    let lost = day.agent.vital("records_lost");
    // Both ends of each, but for the few that the ring holds.
    let ended = 2 * CHURNED.cast_signed();
    let fresh = lost - earlier;
    assert!((ended - 100..=ended + 100).contains(&fresh), "{fresh} of {ended}");
    let told =
        format!("{lost} connection records were lost before this agent started: nobody read them");
    let degraded = day.agent.counts().0["degraded"].clone();
    assert!(degraded.as_array().unwrap().contains(&told.clone().into()), "{told}: {degraded}");
}

/// Whoever records from it is told, and so is whoever reads the capture.
#[test]
fn killed_under_load_the_capture_names_the_gap() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("gap");
    let (capture, report) = (scratch.join("capture"), scratch.join("report"));
    let mut day = Day::new(&[]);
    let mut command = day.agent.command("record");
    let record = Running::start(command.args(["-o", &capture, "--port", "8080"]));
    record.wait_stderr("recording to");
    day.under_load(|agent| {
        agent.kill();
        let finished = record.wait(Duration::from_secs(60));
        assert_eq!(finished.code, Some(2), "{finished}");
        assert!(
            finished.stderr.contains("the agent ended while it was recorded from"),
            "{finished}"
        );
        agent.start_again();
    });
    // The counts have no gap.
    day.assert_counted();
    // There is nothing to judge in it.
    let _ = finish(Command::new(binary("analyzer")).args(["report", &capture, "-o", &report]));
    let text = std::fs::read_to_string(Path::new(&report).join("report.json")).unwrap();
    let quality = &serde_json::from_str::<Value>(&text).unwrap()["captures"][0]["quality"];
    assert_eq!(quality["cut_off"], true);
    let losses = quality["losses"].as_array().unwrap();
    let reasons: Vec<&Value> = losses.iter().map(|loss| &loss["reason"]).collect();
    assert_eq!(reasons, ["the agent ended"]);
}

/// With `--resume` the recording outlives the agent: it goes on from the next one, and names the gap.
#[test]
fn killed_and_started_again_the_recording_goes_on_with_resume() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("agent-resume");
    let capture = scratch.join("capture");
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen(SERVICE);
    let mut agent = Agent::start();
    let mut command = agent.command("record");
    command.args(["-o", &capture, "--port", "8080", "--resume"]);
    let record = Running::start(&mut command);
    record.wait_stderr("recording to");
    let mut pass = |count: usize| {
        client.connect(SERVICE, count);
        server.wait_held(count);
        client.fin(count);
        server.wait_reaped(Reaped { fin: count, ..Reaped::default() });
    };
    let written = |count: usize| {
        let patience = Duration::from_secs(60);
        wait_equal_within(patience, "written", &count, || recording::ended(&capture));
    };
    pass(23);
    written(23);
    agent.kill();
    record.wait_stderr("the agent ended; goes on as soon as it is started again");
    pass(5);
    agent.start_again();
    record.wait_stderr("recording from the agent again");
    pass(41);
    written(23 + 41);
    // The counts have no gap.
    let of = Of::port(PORT).netns(cable.server.place().inode());
    wait_equal("accepted in all", &(23 + 5 + 41), || agent.counts().accepted(&of));
    let finished = record.stop(Signal::INT);
    assert_eq!(finished.code, Some(130), "{finished}");
    assert_eq!(recording::losses(&capture, &scratch), [("the agent ended".to_owned(), 0)]);
}

#[test]
fn stopped_under_load_it_blocks_nobody_and_grows_little() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut day = Day::new(&[]);
    let before = resident_kib(day.agent.pid());
    day.agent.signal(Signal::STOP);
    let since = Instant::now();
    // Ends although the agent takes no record.
    day.under_load(|_| {});
    std::thread::sleep(Duration::from_secs(30).saturating_sub(since.elapsed()));
    day.agent.signal(Signal::CONT);
    day.assert_counted();
    let after = resident_kib(day.agent.pid());
    assert!(after < before + 64 * 1024, "resident: {before} KiB, then {after} KiB");
}

/// What found no room is missing for good, and the verdict says so: a count may be too low, never
/// silently.
#[test]
fn a_full_map_is_said_and_counted() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let day = Day::new(&["--max-connections", "64"]);
    let mut more = Peer::start(&day.cable.client.place());
    more.connect(SERVICE, 100);
    let counts = day.agent.counts();
    assert_eq!(counts.0["exact"], false, "{}", counts.0);
    let reasons = counts.0["degraded"].to_string();
    assert!(
        reasons.contains("the connection map was full (`probe stop --purge`, then start"),
        "{reasons}"
    );
    assert!(reasons.contains("; noticed "), "{reasons}");
    let of = Of::port(PORT).netns(day.cable.server.place().inode());
    assert!(counts.established(&of) <= 64, "{}", counts.0);
    // The agent itself is well, and is not to be started again for it.
    let health: Value = serde_json::from_str(&day.agent.text("/healthz")).unwrap();
    assert_eq!((&health["status"], &health["exact"]), (&"ok".into(), &false.into()), "{health}");
    // Who has to have exact ones gets none of these.
    let remote = format!("http://{}", Agent::LISTEN);
    for args in [
        &["count"][..],
        &["count", "--remote", &remote],
        &["watch", "--health", "http://127.0.0.1:9/"],
    ] {
        let mut command = day.agent.command(args[0]);
        let refused = finish(command.args(&args[1..]).arg("--require-exact"));
        assert_eq!(refused.code, Some(96), "{refused}");
        assert_eq!(refused.stdout, "", "{refused}");
        assert!(refused.stderr.contains("the connection map was full"), "{refused}");
        assert!(refused.stderr.contains("leave --require-exact out"), "{refused}");
    }
    // Connections are told, not every packet of theirs that finds the map full again.
    let full = day.agent.vital("connection_map_full");
    assert!(full > 0);
    more.fin(100);
    more.wait_held(0);
    // The two packets of each end find it full, so does a walk; other programs' connections may be new.
    let more = day.agent.vital("connection_map_full") - full;
    assert!(more < 50, "{more} more than {full}");
}

#[test]
fn a_purge_leaves_nothing_pinned() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut agent = Agent::start();
    let pins = Path::new("/sys/fs/bpf/groundtruth");
    assert!(pins.is_dir());
    // Also without an agent: what a killed one has left goes.
    agent.kill();
    assert!(pins.is_dir(), "what is pinned outlives the agent");
    let stopped = agent.purge();
    assert_eq!(stopped.code, Some(0), "{stopped}");
    assert!(!pins.exists());
}

/// What an earlier agent has pinned keeps its sizes, and every record still comes through.
#[test]
fn flags_that_differ_from_what_is_pinned_are_told() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut day = Day::new(&["--ring-bytes", "16777216", "--max-connections", "100000"]);
    for ring in ["268435456", "4096"] {
        day.agent.terminate();
        day.agent.start_again_with(&["--ring-bytes", ring, "--max-connections", "200000"]);
        let told = [
            format!("--ring-bytes {ring} asks for another size than the 16777216"),
            "--max-connections 200000 asks for another size than the 100000".to_owned(),
        ];
        let counts = day.agent.counts();
        counts.assert_exact();
        let degraded = counts.0["degraded"].to_string();
        for told in &told {
            assert!(degraded.contains(told), "{degraded}");
            day.agent.wait_stderr(told);
        }
    }
    let totals = |agent: &Agent| {
        ["records_submitted", "records_delivered", "records_lost"].map(|name| agent.vital(name))
    };
    let before = totals(&day.agent);
    day.under_load(|_| {});
    day.assert_counted();
    // Others on this host may add some.
    wait_equal("handed on and taken, both ends of each, and none lost", &(0, true, 0), || {
        let now = totals(&day.agent);
        let [submitted, delivered, lost] = std::array::from_fn(|which| now[which] - before[which]);
        (submitted - delivered, delivered >= 2 * CHURNED.cast_signed(), lost)
    });
}

/// What an agent of another build has pinned, with maps of another layout, is replaced; the new one seeds
/// anew, and says so.
#[test]
fn pins_of_another_build_are_replaced() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("bpftool")]) else { return };
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.listen("0.0.0.0:8080");
    let mut agent = Agent::start();
    client.connect(SERVICE, 41);
    server.wait_held(41);
    agent.kill();
    let pins = Path::new("/sys/fs/bpf/groundtruth");
    let ours = std::fs::read_dir(pins).unwrap().next().unwrap().unwrap().path();
    let others = pins.join("0123456789abcdef");
    std::fs::rename(&ours, &others).unwrap();
    let map = others.join("CONNECTIONS");
    std::fs::remove_file(&map).unwrap();
    let layout =
        ["type", "hash", "key", "8", "value", "16", "entries", "64", "name", "CONNECTIONS"];
    tool("bpftool", &[&["map", "create", map.to_str().unwrap()], &layout[..]].concat());
    agent.start_again();
    agent.wait_stderr("replaced the programs of another build (0123456789abcdef)");
    agent.wait_stderr("counts were seeded anew");
    assert!(!others.exists());
    let of = Of::port(PORT).netns(cable.server.place().inode());
    wait_equal("established", &41, || agent.counts().established(&of));
    client.fin(41);
    server.wait_reaped(Reaped { fin: 41, ..Reaped::default() });
    wait_equal("in the end", &0, || agent.counts().established(&of));
    agent.counts().assert_exact();
}
