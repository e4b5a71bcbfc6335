//! The first five minutes with the wrong things: each ends in a result, or in one clear next step.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use e2e::docker::Container;
use e2e::machine::{Need, require};
use e2e::nobody;
use e2e::process::{Finished, Running, binary, finish, finish_within};
use e2e::scratch::Scratch;
use serde_json::Value;

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md");

/// `probe` as root, in mounts of its own, run by a command that changes what it sees of this host.
fn by(change: &str, scratch: &Scratch, args: &[&str]) -> Finished {
    let script = format!("{change} \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binary("probe"));
    command.args(["--agent-socket", &scratch.join("agent.sock")]).args(args);
    finish_within(&mut command, Duration::from_secs(60))
}

/// Counts, though not exact ones, and why.
#[track_caller]
fn assert_polled(counted: &Finished, why: &str) {
    assert_eq!(counted.code, Some(0), "{counted}");
    let counts: Value = serde_json::from_str(&counted.stdout).unwrap();
    assert_eq!((&counts["backend"], &counts["exact"]), (&"sock_diag".into(), &false.into()));
    assert!(counted.stderr.contains(why), "{why:?} in {counted}");
    assert!(counted.stderr.contains("polling sock_diag instead, which is not exact"), "{counted}");
}

/// Exit code 96 with one line that says why, and one that says what to do.
#[track_caller]
fn assert_unsupported(finished: &Finished, why: &str, next: &str) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(96), ""), "{finished}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    let [first, second] = lines[..] else { panic!("two lines are expected: {finished}") };
    assert!(first.starts_with("probe: this host cannot ") && first.contains(why), "{finished}");
    assert!(second.starts_with(&format!("  {next}")), "{finished}");
}

#[test]
fn without_root() {
    let Some(_machine) = require(&[Need::Root]) else { return };
    let scratch = Scratch::new("nobody");
    let run = |args: &[&str]| {
        let mut command = nobody::command(&scratch, "probe");
        finish_within(command.args(args), Duration::from_secs(60))
    };
    assert_polled(&run(&["count", "--json"]), "run as root, or give it what it lacks: CAP_BPF");
    let refused = run(&["record", "-o", "capture", "--duration", "1s"]);
    assert_unsupported(&refused, "cannot load the kernel programs", "run as root");
    assert_unsupported(&run(&["serve"]), "cannot run the agent", "run it as root");
}

#[test]
fn without_btf() {
    let needs = [Need::Bpf, Need::Program("unshare")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("btf");
    let run = |args: &[&str]| by("mount -t tmpfs none /sys/kernel/btf && exec", &scratch, args);
    let next = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y";
    assert_polled(&run(&["count", "--json"]), next);
    let refused = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_unsupported(&refused, "/sys/kernel/btf/vmlinux: No such file", next);
    let doctor = run(&["doctor", "--json"]);
    assert_eq!(doctor.code, Some(96), "{doctor}");
    let doctor: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let features = doctor["features"].as_array().unwrap().iter();
    let btf: Vec<&Value> = features.filter(|feature| feature["name"] == "BTF").collect();
    assert_eq!((btf.len(), &btf[0]["state"]), (1, &"missing".into()));
}

/// Its own lack of BTF and of maps is not what is told: no cure for that helps.
#[test]
fn on_an_old_kernel() {
    let needs = [Need::Bpf, Need::Program("unshare")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("old");
    let release = scratch.join("osrelease");
    std::fs::write(&release, "4.19.0-27-amd64\n").unwrap();
    let change = format!(
        "mount --bind {release} /proc/sys/kernel/osrelease && mount -t tmpfs none /sys/kernel/btf && exec"
    );
    let run = |args: &[&str]| by(&change, &scratch, args);
    let (why, next) = ("4.19.0-27-amd64 is older than 5.10", "use Linux 5.10 or later");
    assert_polled(&run(&["count", "--json"]), why);
    assert_unsupported(&run(&["serve", "--listen", "127.0.0.1:0"]), why, next);
    let capture = scratch.join("capture");
    assert_unsupported(&run(&["record", "-o", &capture, "--duration", "1s"]), why, next);
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, Some(96), "{doctor}");
    assert!(doctor.stdout.contains("older than 5.10"), "{doctor}");
}

#[test]
fn without_the_right_to_load_programs() {
    let needs = [Need::Bpf, Need::Program("unshare"), Need::Program("setpriv")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("rights");
    let dropped = "mount -t bpf bpf /sys/fs/bpf && exec setpriv --bounding-set=-all";
    let run = |args: &[&str]| by(dropped, &scratch, args);
    let next = "run as root, or give it what it lacks: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN";
    assert_polled(&run(&["count", "--json"]), next);
    let refused = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_unsupported(&refused, "cannot load the kernel programs", next);
}

/// As in a `chroot` into which nobody has mounted it.
#[test]
fn without_proc() {
    let needs = [Need::Bpf, Need::Program("unshare")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proc");
    for command in [&["count"][..], &["serve", "--listen", "127.0.0.1:0"], &["doctor"]] {
        let refused = by("mount -t tmpfs none /proc && exec", &scratch, command);
        let next = "mount it: mount -t proc proc /proc";
        assert_unsupported(&refused, "look at processes: /proc is not mounted", next);
    }
}

/// Nothing is missing then but names of containers.
#[test]
fn without_docker() {
    let needs = [Need::Bpf, Need::Program("unshare")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("docker");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let hidden = "mount -t tmpfs none /run && exec";
    let counted = by(hidden, &scratch, &["count", "--port", &port, "--json"]);
    assert_eq!((counted.code, counted.stderr.as_str()), (Some(0), ""), "{counted}");
    let counts: Value = serde_json::from_str(&counted.stdout).unwrap();
    assert_eq!((&counts["backend"], &counts["exact"]), (&"ebpf".into(), &true.into()), "{counts}");
    assert_eq!(counts["counts"][0]["states"]["listen"], 1, "{counts}");
}

/// As `docker run` without any option starts it, in an image that has the program and its libraries: what
/// it says to start it with is what `docs/install.md` says, and is enough.
#[test]
fn in_a_container_that_is_granted_nothing() {
    let Some(_machine) = require(&[Need::Bpf, Need::Docker]) else { return };
    let container = Container::start("bare", &[]);
    let run = |container: &Container, args: &[&str]| {
        let mut command = container.exec("/groundtruth/probe");
        finish_within(command.args(args), Duration::from_secs(60))
    };
    let next = "this is a container: start it with ";
    assert_polled(&run(&container, &["count", "--json"]), next);
    let with_processes = Container::start("processes", &["--pid", "host"]);
    assert_polled(&run(&with_processes, &["count", "--json"]), next);
    drop(with_processes);
    let record = ["record", "-o", "/capture", "--duration", "1s"];
    assert_unsupported(&run(&container, &record), "cannot load the kernel programs", next);
    let refused = run(&container, &["serve"]);
    assert_unsupported(&refused, "mount a BPF file system on /sys/fs/bpf", next);
    let doctor = run(&container, &["doctor"]);
    assert_eq!(doctor.code, Some(96), "{doctor}");
    // Here nobody listens at all.
    let watch = ["watch", "--health", "http://127.0.0.1:3005/health"];
    let refused_watch = run(&container, &watch);
    let expected = "probe: nobody listens on port 3005 of this host\n  nor on any other port: start the \
                    server first\n";
    assert!(refused_watch.stderr.ends_with(expected), "{refused_watch}");
    drop(container);

    let grants = refused.stderr.split_once(next).and_then(|(_, rest)| rest.split_once(", or run"));
    let (grants, _) = grants.unwrap_or_else(|| panic!("{refused}"));
    let grants: Vec<&str> = grants.split_whitespace().collect();
    let documented = std::fs::read_to_string(INSTALL).unwrap();
    for pair in grants.chunks(2) {
        assert!(documented.contains(&pair.join(" ")), "{pair:?} is not in docs/install.md");
    }
    let container = Container::start("granted", &grants);
    let counted = run(&container, &["count", "--json", "--require-exact"]).success("probe count");
    let counts: Value = serde_json::from_str(&counted).unwrap();
    assert_eq!((&counts["backend"], &counts["exact"]), (&"ebpf".into(), &true.into()), "{counts}");

    // Its maps are there, and to start anew would not help one that has no right to look at them.
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let agent = Running::start(container.exec("/groundtruth/probe").args(serve));
    agent.wait_stderr("listening on");
    let _ = run(&container, &["stop"]).success("probe stop");
    let pins = ["--pid", "host", "--volume", "/sys/fs/bpf:/sys/fs/bpf"];
    let refused = run(&Container::start("pins", &pins), &serve);
    let _ = run(&container, &["stop", "--purge"]).success("probe stop --purge");
    assert_unsupported(&refused, "cannot look at the pinned map", next);
}

#[test]
fn with_its_port_taken() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = Command::new(binary("probe"));
    serve.args(["--agent-socket", &scratch.join("agent.sock"), "serve", "--listen", &address]);
    let refused = finish(&mut serve);
    assert_eq!(refused.code, Some(2), "{refused}");
    let expected = format!(
        "probe: cannot listen on {address}: Address already in use (os error 98)\n  \
         choose another address with --listen\n"
    );
    assert_eq!(refused.stderr, expected);
}

/// A count of a mistyped port is no count of a server without clients.
#[test]
fn with_a_port_that_nobody_has() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("mistyped");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for command in ["count", "connections"] {
        let mut probe = Command::new(binary("probe"));
        probe.args(["--agent-socket", &scratch.join("agent.sock"), command, "--port", &free]);
        let counted = finish(&mut probe);
        assert_eq!(counted.code, Some(0), "{counted}");
        let next = "nothing matches these filters, neither connections nor who waits for them: \
                    `probe count` alone shows all that is there\n";
        assert!(counted.stdout.starts_with(next), "{counted}");
        // Who waits for connections is in another state, and says nothing here.
        let counted = finish(probe.args(["--state", "close_wait"]));
        let next = "no connection matches these filters\n";
        assert!(counted.stdout.starts_with(next), "{counted}");
    }
}

/// The server is not up yet: who listens is told, since a wrong port is what happens.
#[test]
fn with_nobody_at_the_health_url() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let scratch = Scratch::new("health");
    let mut watch = Command::new(binary("probe"));
    watch.args(["--agent-socket", &scratch.join("agent.sock"), "watch", "--duration", "2s"]);
    let refused = finish(watch.args(["--health", &format!("http://{free}/health")]));
    assert_eq!(refused.code, Some(2), "{refused}");
    let expected = format!("probe: nobody listens on port {} of this host\n", free.port());
    assert!(refused.stderr.starts_with(&expected), "{refused}");
    let next = refused.stderr.lines().nth(1).unwrap_or_default();
    assert!(next.starts_with("  somebody listens on: ") && next.contains(&port), "{refused}");
}
