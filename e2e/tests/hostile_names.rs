//! Whoever may make a cgroup chooses its name, and a name stands in everything that people and programs read.

use std::fs;
use std::process::Command;

use e2e::cgroup::Cgroup;
use e2e::machine::{Need, require};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::probe::{Agent, Of};
use e2e::process::{Running, Signal, binary, finish};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal;

const SERVICE: &str = "10.77.0.1:8395";
const MARKUP: &str = "<script>alert(1)";

/// Nothing that a terminal obeys.
#[track_caller]
fn assert_plain(what: &str, text: &str) {
    let found = text.chars().find(|&c| c.is_control() && c != '\n');
    assert_eq!(found, None, "{what}: {text:?}");
}

#[test]
fn a_hostile_name_is_only_a_name() {
    let Some(_machine) = require(&[Need::Bpf, Need::Program("promtool")]) else { return };
    let unit = Cgroup::unit(&format!("evil\"q\\b{{}}\u{1b}[31m|é\u{7f}{MARKUP}"));
    let name = unit.path().rsplit('/').next().unwrap();
    let cable = Cable::new();
    let mut server = Peer::start(&cable.server.place());
    let mut client = Peer::start(&cable.client.place());
    server.enter_cgroup(unit.path());
    server.listen(SERVICE);
    let scratch = Scratch::new("hostile-names");
    let agent = Agent::start();
    let capture = scratch.join("capture");
    let mut record = agent.command("record");
    let record = Running::start(record.args(["-o", &capture, "--port", "8395"]));
    record.wait_stderr("recording to");
    client.connect(SERVICE, 23);
    server.wait_held(23);
    let of = Of::port(8395).container(name);
    wait_equal("established", &23, || agent.counts().established(&of));

    let metrics = agent.text("/metrics");
    let label = name.replace('\\', r"\\").replace('"', "\\\"");
    let line = format!(
        "groundtruth_connections{{container=\"{label}\",runtime=\"systemd\",port=\"8395\",\
         role=\"passive\",state=\"established\"}} 23"
    );
    assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    let file = scratch.join("metrics");
    fs::write(&file, metrics).unwrap();
    let read = format!("promtool check metrics < {file}");
    let _ = finish(Command::new("sh").args(["-c", &read])).success("promtool");
    for command in ["count", "connections"] {
        let mut asked = agent.command(command);
        let text = finish(asked.args(["--port", "8395"])).success(command);
        assert_plain(command, &text);
    }

    client.fin(23);
    server.wait_reaped(Reaped { fin: 23, ..Reaped::default() });
    let recorded = record.stop(Signal::INT);
    assert_eq!(recorded.code, Some(130), "{recorded}");
    let report = scratch.join("report");
    let mut analyzer = Command::new(binary("analyzer"));
    let told = finish(analyzer.args(["report", &capture, "-o", &report]));
    assert_plain("analyzer report", &told.stdout);
    let read = |file: &str| fs::read_to_string(format!("{report}/{file}")).unwrap();
    let (html, markdown) = (read("report.html"), read("report.md"));
    assert!(html.contains("evil&quot;q\\b{}"), "{html}");
    assert!(!html.contains(MARKUP), "{html}");
    assert!(markdown.contains("evil\"q\\\\b"), "{markdown}");
    assert_eq!(markdown.matches("<script").count(), markdown.matches("\\<script").count());
    assert_plain("report.md", &markdown);
}
