//! Docker's health check of the container that a watched service runs in.

use std::process::Command;
use std::time::Duration;

use e2e::docker::Container;
use e2e::machine::{Need, require_beside_others};
use e2e::process::{Running, Signal, binary, finish};
use e2e::scratch::Scratch;
use e2e::truth::wait_equal_within;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// The check holds until a file is there that it looks for.
const CHECK: [&str; 8] = [
    "--health-cmd",
    "/bin/busybox test ! -e /sick",
    "--health-interval",
    "500ms",
    "--health-retries",
    "1",
    // The image has no shell, which Docker runs a check with.
    "--volume",
    "/bin/busybox:/bin/sh:ro",
];

#[test]
fn a_health_check_that_no_longer_holds_is_told() {
    let Some(_machine) = require_beside_others(&[Need::Bpf, Need::Docker]) else { return };
    let (scratch, container) = (Scratch::new("health"), Container::start("health", &CHECK));
    let mut serve = container.exec("/groundtruth/lab");
    let server = Running::start(serve.args(["serve", "--listen", "0.0.0.0:3005"]));
    server.wait_stderr("listening");

    let capture = scratch.join("capture");
    let mut record = Command::new(binary("probe"));
    record.args(["record", "-o", &capture, "--interval", "200ms", "--port", "3005"]);
    let record = Running::start(record.args(["--container", &container.name]));
    record.wait_stderr("recording");
    let leaks = |args: &[&str]| {
        finish(Command::new(binary("analyzer")).args(["leaks", &capture]).args(args)).stdout
    };
    let looks = || -> Option<[bool; 2]> {
        let report: Value = serde_json::from_str(&leaks(&["--json"])).ok()?;
        let of = |name: &str| report["stability"][name].as_u64().map(|count| count > 0);
        Some([of("container_looks")?, of("container_unhealthy")?])
    };
    wait_equal_within(PATIENCE, "a healthy container", &Some([true, false]), looks);
    let _ = finish(container.exec("/bin/busybox").args(["touch", "/sick"])).success("touch");
    wait_equal_within(PATIENCE, "an unhealthy one", &Some([true, true]), looks);
    assert_eq!(record.stop(Signal::INT).code, Some(130));
    let text = leaks(&[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("The container's health check did not hold in "), "{text}");
    assert!(leaks(&["--markdown"]).contains(", container unhealthy in "), "{text}");
}
