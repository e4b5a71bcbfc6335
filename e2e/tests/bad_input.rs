//! What every command says to input that is wrong and to a host that cannot: the message names what,
//! where and what to do next, and the exit code tells the kinds apart.

use std::fs;
use std::process::Command;

use e2e::answer;
use e2e::machine::{Need, require, tool};
use e2e::nobody;
use e2e::process::{Finished, binary, finish};
use e2e::scratch::Scratch;

const HEALTH: &str = r#"{"checks":{"capacity":{"current":0,"max":10}}}"#;

fn run(program: &str, args: &[&str]) -> Finished {
    finish(Command::new(binary(program)).args(args))
}

/// Exit code, and what standard error must contain, line breaks taken for spaces.
#[track_caller]
fn assert_says(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished}");
    let said = finished.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in {said:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn watch_and_a_health_that_is_none() {
    let Some(_machine) = require(&[]) else { return };
    let watch = |url: &str| run("probe", &["watch", "--health", url, "--duration", "1s"]);

    let nobody = answer::nobody();
    assert_says(
        &watch(&format!("http://{nobody}/health")),
        2,
        &[&format!("nobody listens on port {}", nobody.port()), "choose with --port"],
    );
    let text = answer::always("200 OK", "all is well");
    assert_says(
        &watch(&format!("http://{text}/health")),
        2,
        &[&format!("http://{text}/health: the body is no JSON"), "--reported"],
    );
    let other = answer::always("200 OK", r#"{"checks":{"capacity":{"used":5}}}"#);
    assert_says(
        &watch(&format!("http://{other}/health")),
        2,
        &[
            "the body has no field .checks.capacity.current; it has numbers at .checks.capacity.used",
        ],
    );
    let steering = answer::always("200 OK", "{\"\\u001b[31m\":5}");
    let told = watch(&format!("http://{steering}/health"));
    assert_says(&told, 2, &["it has numbers at .\u{fffd}[31m"]);
    let dense = answer::always("200 OK", &format!("[{}1]", "1,".repeat(30 << 20)));
    assert_says(&watch(&format!("http://{dense}/health")), 2, &["more values than can be kept"]);
    let missing = answer::always("404 Not Found", "no");
    assert_says(&watch(&format!("http://{missing}/nope")), 2, &["/nope: status 404"]);
    assert_says(&watch("127.0.0.1/health"), 2, &["expected http://HOST:PORT/PATH or https://…"]);
    assert_says(&watch("https://127.0.0.1/health"), 2, &["nobody listens on port 443"]);
    assert_says(&run("probe", &["watch"]), 2, &["watch needs --health"]);
}

#[test]
fn watch_on_the_wrong_port() {
    let Some(_machine) = require(&[]) else { return };
    let (health, nobody) = (answer::always("200 OK", HEALTH), answer::nobody());
    let url = format!("http://{health}/health");
    let port = nobody.port().to_string();
    assert_says(
        &run("probe", &["watch", "--health", &url, "--port", &port, "--duration", "1s"]),
        2,
        &[&format!("nobody listens on port {port} of this host"), &health.port().to_string()],
    );
}

#[test]
fn filters_that_fit_nothing() {
    let Some(_machine) = require(&[]) else { return };
    let none = ["--container", "no-such-container"];
    for command in ["count", "connections"] {
        assert_says(
            &run("probe", &[&[command], &none[..]].concat()),
            2,
            &["no such container: \"no-such-container\"", "known on this host:"],
        );
    }
    assert_says(&run("probe", &["count", "--port", "70000"]), 2, &["70000"]);
    assert_says(&run("probe", &["connections", "--state", "open"]), 2, &["open", "established"]);
    assert_says(&run("probe", &["stop"]), 2, &["no agent is running", "probe serve"]);
}

#[test]
fn record_into_a_place_that_is_taken_or_full() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("record");
    fs::write(scratch.path().join("mine"), "x").unwrap();
    let dir = scratch.path().to_string_lossy().into_owned();
    assert_says(
        &run("probe", &["record", "-o", &dir, "--duration", "1s"]),
        2,
        &["is not empty: expected a new or empty directory for the capture"],
    );

    // As small as a file system gets; the counts of a busy host fill it within seconds.
    let disk = Tmpfs::new(&scratch, "size=12k");
    let full = run("probe", &["record", "-o", &disk.join("capture"), "--duration", "60s"]);
    assert_says(&full, 2, &["cannot write", "No space left on device", "are kept"]);
}

/// A file system of its own, with options of `mount`; unmounted on drop.
struct Tmpfs(String);

impl Tmpfs {
    fn new(scratch: &Scratch, options: &str) -> Self {
        let path = scratch.join("disk");
        fs::create_dir(&path).unwrap();
        tool("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path]);
        Self(path)
    }

    fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn without_permission() {
    let Some(_machine) = require(&[Need::Root]) else { return };
    let scratch = Scratch::new("nobody");
    let probe = |args: &[&str]| finish(nobody::command(&scratch, "probe").args(args));
    for args in [&["count", "--require-exact"][..], &["record", "-o", "capture"], &["serve"]] {
        assert_says(&probe(args), 96, &["as root"]);
    }
    assert!(!scratch.path().join("capture").exists());

    let polled = probe(&["count", "--json"]);
    assert_says(&polled, 0, &["polling sock_diag instead, which is not exact", "as root"]);
    let counts: serde_json::Value = serde_json::from_str(&polled.stdout).unwrap();
    assert_eq!(counts["backend"], "sock_diag");
    assert_eq!(counts["exact"], false);
}

#[test]
fn without_btf() {
    let Some(_machine) = require(&[Need::Root]) else { return };
    let probe = binary("probe");
    let hidden = |args: &str| {
        let script =
            format!("mount -t tmpfs none /sys/kernel/btf && exec {} {args}", probe.display());
        finish(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
    };
    let parts = ["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"];
    assert_says(&hidden("count --require-exact"), 96, &parts);
    assert_says(&hidden("serve"), 96, &parts);
    assert_says(&hidden("count"), 0, &["polling sock_diag instead", "CONFIG_DEBUG_INFO_BTF=y"]);
}

#[test]
fn with_few_files() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let probe = binary("probe");
    let limited = |limit: &str, args: &str| {
        let script = format!("ulimit {limit} && exec {} {args}", probe.display());
        finish(Command::new("sh").args(["-c", &script]))
    };
    // What a shell sets for old programs is not in the way.
    assert_says(&limited("-Sn 24", "count --require-exact"), 0, &[]);
    assert_says(
        &limited("-n 24", "count --require-exact"),
        96,
        &["no more than 24 files may be open here", "ulimit -n 4096", "Too many open files"],
    );
}

#[test]
fn captures_that_are_none() {
    let Some(_machine) = require(&[]) else { return };
    let scratch = Scratch::new("captures");
    let report = |name: &str| run("analyzer", &["report", &scratch.join(name)]);

    assert_says(&report("missing"), 2, &["missing is not there: expected the directory"]);
    fs::create_dir(scratch.path().join("empty")).unwrap();
    assert_says(
        &report("empty"),
        2,
        &[
            "empty is no capture: expected the directory that `probe record -o` wrote, with a meta.json",
        ],
    );
    fs::create_dir(scratch.path().join("garbage")).unwrap();
    fs::write(scratch.path().join("garbage/meta.json"), "{").unwrap();
    assert_says(&report("garbage"), 2, &["garbage/meta.json is damaged: EOF while parsing"]);
}

#[test]
fn a_capture_that_was_tampered_with() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("tampered");
    let capture = scratch.join("capture");
    let recorded = run("probe", &["record", "-o", &capture, "--duration", "2s"]);
    assert_eq!(recorded.code, Some(0), "{recorded}");

    // What a crash leaves: the file ends in the middle of a batch.
    let table = scratch.path().join("capture/counts.arrows");
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() - 30]).unwrap();
    let report = run("analyzer", &["report", &capture, "--json"]);
    assert_says(&report, 4, &[]);
    let json: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(json["captures"][0]["quality"]["truncated_tables"][0]["table"], "counts");

    fs::write(&table, b"not a table at all").unwrap();
    assert_says(
        &run("analyzer", &["report", &capture]),
        2,
        &["counts.arrows is no counts table: expected an Arrow IPC stream"],
    );

    let meta = scratch.path().join("capture/meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    assert!(text.contains(r#""schema_major": 1"#), "{text}");
    fs::write(&meta, text.replace(r#""schema_major": 1"#, r#""schema_major": 2"#)).unwrap();
    assert_says(
        &run("analyzer", &["report", &capture]),
        2,
        &["was recorded with capture format 2.", "this program reads 1.x"],
    );

    fs::remove_file(&table).unwrap();
}

#[test]
fn client_results_that_are_none() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("clients");
    let (capture, results) = (scratch.join("capture"), scratch.join("results.jsonl"));
    let _ = run("probe", &["record", "-o", &capture, "--duration", "1s"]).success("probe record");
    let report = || run("analyzer", &["report", &capture, "--client", &results]);
    assert_says(&report(), 2, &["results.jsonl: No such file or directory"]);
    fs::write(&results, "").unwrap();
    assert_says(
        &report(),
        2,
        &["results.jsonl is empty: expected results of lab, k6, Artillery or Locust"],
    );
    fs::write(&results, "time,status\n1,200\n").unwrap();
    assert_says(&report(), 2, &["results.jsonl: no line is a client result; line 1:"]);
}

#[test]
fn the_lab_and_its_arguments() {
    let Some(_machine) = require(&[]) else { return };
    assert_says(&run("lab", &["run", "nope", "-o", "x"]), 2, &["`nope` is no scenario: expected"]);
    assert_says(&run("lab", &["serve", "--fault", "nope"]), 2, &["`nope` is no fault: expected"]);
    assert_says(
        &run("lab", &["load", "--url", "wss://127.0.0.1/", "--connections", "1"]),
        2,
        &["speaks no TLS; expected ws://host:port/path"],
    );
    let taken = answer::always("200 OK", HEALTH).to_string();
    assert_says(&run("lab", &["serve", "--listen", &taken]), 2, &[&taken, "in use"]);
}
