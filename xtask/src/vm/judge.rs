//! Holds what `probe` said in a guest against what was done there and what the kernel says itself.
//! The numbers are those of `guest.sh`.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::kernel::Cgroups;
use crate::{command, paths};

/// The server's port, and what its connections are.
const SERVER: u64 = 3005;
const BEFORE: u64 = 7;
const CLIENTS: u64 = 23;
const RESET: u64 = 5;
/// The churn's port and count.
const SINK: u64 = 9000;
const CHURNED: u64 = 997;
/// Around each step of the clock: so many, and set by so much.
const ACROSS: u64 = 5;
const STEP_S: f64 = 3600.0;
/// Nobody listens there.
const NOBODY: u64 = 9999;
const STRAY: u64 = 3;
/// What sees the packets of a handshake.
const PACKETS: &str = "cgroup_skb/ingress";
const STAGES: [&str; 6] = [
    "syn_received_ns",
    "syn_ack_sent_ns",
    "established_ns",
    "request_ns",
    "response_ns",
    "upgraded_ns",
];
/// What is tried where there is no BTF, and the exit code of each.
const WITHOUT_BTF: [&str; 4] = ["doctor", "count", "record", "serve"];
const CANNOT: &str = "96";

/// What one kernel gave.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) release: String,
    /// `probe doctor`: (feature, state, why).
    pub(crate) features: Vec<(String, String, String)>,
    pub(crate) checks: Vec<Check>,
}

/// One comparison.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Check {
    pub(crate) fn held(&self) -> bool {
        self.expected == self.found
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.what, self.expected, self.found)
    }
}

impl Verdict {
    pub(crate) fn held(&self) -> bool {
        self.failed().next().is_none()
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.held())
    }

    pub(crate) fn summary(&self) -> String {
        let held = self.checks.iter().filter(|check| check.held()).count();
        format!("{}, {held} of {} checks held", self.release, self.checks.len())
    }

    fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, state, _)| name == feature && state == "ok")
    }

    fn check(&mut self, what: impl Into<String>, expected: impl Display, found: impl Display) {
        let (expected, found) = (expected.to_string(), found.to_string());
        self.checks.push(Check { what: what.into(), expected, found });
    }
}

pub(crate) fn judge(results: &Path, cgroups: Cgroups) -> Result<Verdict> {
    let release = fs::read_to_string(results.join("release"))
        .with_context(|| format!("no results in {}", results.display()))?;
    let doctor = read(results, "doctor.json")?;
    let word = |feature: &Value, key: &str| feature[key].as_str().unwrap_or_default().to_owned();
    let features = doctor["features"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|feature| (word(feature, "name"), word(feature, "state"), word(feature, "why")))
        // Not of the kernel, and not in the guest.
        .filter(|(name, ..)| name != "Docker API")
        .collect();
    let mut verdict = Verdict { release: release.trim().to_owned(), features, checks: Vec::new() };
    verdict.check("`probe doctor`: exact counts can be had", true, &doctor["exact_counts"]);
    let what = "`probe doctor`: sockets have a container of their own";
    verdict.check(what, cgroups != Cgroups::V1, verdict.has("cgroup"));
    counts(&mut verdict, results)?;
    rows(&mut verdict, results)?;
    clock(&mut verdict, results)?;
    without_btf(&mut verdict, results)?;
    let log = fs::read_to_string(results.join("dmesg")).context("no kernel log")?;
    let complaints = ["WARNING:", "BUG:", "Oops"];
    let complains = |line: &&str| complaints.iter().any(|word| line.contains(word));
    verdict.check("complaints in the kernel's log", 0, log.lines().filter(complains).count());
    Ok(verdict)
}

fn read(results: &Path, name: &str) -> Result<Value> {
    let path = results.join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON: {text}", path.display()))
}

/// `probe count` against `/proc/net/tcp`, at three times.
fn counts(verdict: &mut Verdict, results: &Path) -> Result<()> {
    let moments = [
        ("seeded", "connections from before the start", BEFORE),
        ("held", "connections while clients stay", BEFORE + CLIENTS),
        ("after", "connections after they left", BEFORE),
    ];
    for (file, what, expected) in moments {
        let counts = read(results, &format!("{file}.json"))?;
        let truth = read(results, &format!("{file}.truth"))?;
        for role in ["passive", "active"] {
            let found: i64 =
                of_role(&counts, role).filter_map(|row| row["established"].as_i64()).sum();
            verdict.check(
                format!("{what}, {role}: `probe count` and /proc/net/tcp"),
                format!("{expected} and {expected}"),
                format!("{found} and {}", truth[role]),
            );
        }
        verdict.check(format!("{what}: exact"), true, &counts["exact"]);
        if file == "held" {
            let row = of_role(&counts, "passive").next().unwrap_or(&Value::Null);
            verdict.check("accepted since the start", CLIENTS, &row["accepted"]);
            verdict.check("their container", "\"web.service\"", &row["container"]["name"]);
        }
    }
    Ok(())
}

fn of_role<'a>(counts: &'a Value, role: &'a str) -> impl Iterator<Item = &'a Value> {
    let rows = counts["counts"].as_array().into_iter().flatten();
    rows.filter(move |row| row["port"] == SERVER && row["role"] == role)
}

/// The rows of the capture, one by one.
fn rows(verdict: &mut Verdict, results: &Path) -> Result<()> {
    let rows = connections(&results.join("capture"), &[])?;
    let of = |port: u64, role: &str| -> Vec<&Value> {
        rows.iter().filter(|row| row["port"] == port && row["role"] == role).collect()
    };
    let count = |rows: &[&Value], wanted: &dyn Fn(&Value) -> bool| {
        rows.iter().filter(|row| wanted(row)).count()
    };

    let seen: Vec<&Value> =
        of(SERVER, "passive").into_iter().filter(|row| row["seeded"] == false).collect();
    verdict.check("WebSocket rows, passive", CLIENTS, seen.len());
    if verdict.has(PACKETS) {
        verdict.check("… answered 101", CLIENTS, count(&seen, &|row| row["http_status"] == 101));
        let upgraded = |row: &Value| row["outcome"] == "upgraded";
        verdict.check("… outcome upgraded", CLIENTS, count(&seen, &upgraded));
    }
    let ordered = |row: &Value| in_order(row, verdict.has(PACKETS));
    verdict.check("… with all stages, in order", CLIENTS, count(&seen, &ordered));
    let named = connections(&results.join("capture"), &["--container", "web.service"])?;
    let named = named.iter().filter(|row| row["port"] == SERVER && row["seeded"] == false);
    verdict.check("… of their container", CLIENTS, named.count());
    verdict.check("… ended by RST", RESET, count(&seen, &|row| row["closed_how"] == "rst"));
    verdict.check("… with the cookie", CLIENTS, count(&seen, &|row| row["cookie"] != 0));
    if verdict.has("fexit/inet_csk_accept") {
        let sharp = |row: &Value| row["accepted_is_upper_bound"] == false && row["pid"].is_u64();
        verdict.check("… with the time and the task of accept", CLIENTS, count(&seen, &sharp));
    }
    let active: Vec<&Value> =
        of(SERVER, "active").into_iter().filter(|row| row["seeded"] == false).collect();
    verdict.check("WebSocket rows, active", CLIENTS, active.len());
    verdict.check(
        "… with the task of connect",
        CLIENTS,
        count(&active, &|row| row["pid"].is_u64()),
    );

    for role in ["passive", "active"] {
        let churned = of(SINK, role);
        verdict.check(format!("churn, rows ended, {role}"), CHURNED, count(&churned, &is_closed));
    }
    for role in ["active", "passive"] {
        let stray = of(NOBODY, role);
        // 6.10 began to tell of resets that answer a SYN without a socket.
        let expected =
            if role == "active" || is_since(&verdict.release, (6, 10)) { STRAY } else { 0 };
        verdict.check(
            format!("connects to a port where nobody listens: no_listener, {role}"),
            expected,
            count(&stray, &|row| row["outcome"] == "no_listener"),
        );
    }
    Ok(())
}

fn connections(capture: &Path, filter: &[&str]) -> Result<Vec<Value>> {
    let analyzer = paths::binary("analyzer")?;
    let path = capture.to_string_lossy();
    let text = command::output(&analyzer, &[&["connections", "--json", &path], filter].concat())
        .with_context(|| format!("analyzer connections {} failed", capture.display()))?;
    text.lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("analyzer connections --json printed no JSON lines")
}

/// Unix time was set forward by an hour while connections were open, and back while others were.
fn clock(verdict: &mut Verdict, results: &Path) -> Result<()> {
    let capture = results.join("steps");
    let log = fs::read_to_string(results.join("steps.uptime")).context("no steps of the clock")?;
    // Seconds of the monotonic clock: when the first connection was not yet begun, the step, the end.
    let steps: Vec<Vec<f64>> = log
        .lines()
        .map(|line| line.split(' ').filter_map(|word| word.parse().ok()).collect())
        .collect();
    let rows = connections(&capture, &[])?;
    let across: Vec<&Value> = rows
        .iter()
        .filter(|row| row["port"] == SERVER && row["role"] == "passive")
        .filter(|row| row["seeded"] == false)
        .collect();
    let packets = verdict.has(PACKETS);
    let is_around = |row: &Value, step: &[f64]| {
        let [begun, set, ended] = *step else { return false };
        let seconds = |stage: &str| row[stage].as_i64().map(|ns| ns as f64 / 1e9);
        let first = if packets { "syn_received_ns" } else { "established_ns" };
        let times = [Some(begun), seconds(first), seconds("established_ns"), Some(set)];
        let times = times.into_iter().chain([seconds("closed_ns"), Some(ended)]);
        times.collect::<Option<Vec<f64>>>().is_some_and(|times| times.is_sorted())
    };
    let is_right =
        |row: &&&Value| in_order(row, packets) && steps.iter().any(|step| is_around(row, step));
    verdict.check("connections open while the clock was set", 2 * ACROSS, across.len());
    verdict.check(
        "… with all stages in order, and open from before until after by the clock that cannot be set",
        2 * ACROSS,
        across.iter().filter(is_right).count(),
    );
    let output = results.join("steps-report");
    // There is nothing to judge in it, which its exit code says.
    let _ = Command::new(paths::binary("analyzer")?)
        .arg("report")
        .arg(&capture)
        .arg("-o")
        .arg(&output)
        .output()
        .context("cannot start analyzer")?;
    let report = read(&output, "report.json")?;
    let steps = report["captures"][0]["quality"]["clock_steps"].as_array();
    let by: Vec<f64> = steps
        .into_iter()
        .flatten()
        .filter_map(|step| Some(step["by_ns"].as_f64()? / 1e9))
        .collect();
    // `date -s` knows whole seconds.
    let is_step =
        |by: &[f64]| by.len() == 2 && (by[0] - STEP_S).abs() < 2.0 && (by[1] + STEP_S).abs() < 2.0;
    let found = if is_step(&by) { "forward and back by 1 h".to_owned() } else { format!("{by:?}") };
    verdict.check("the report says how the clock was set", "forward and back by 1 h", found);
    Ok(())
}

/// Each command says what is missing, and what to do.
fn without_btf(verdict: &mut Verdict, results: &Path) -> Result<()> {
    for command in WITHOUT_BTF {
        let read = |end: &str| {
            let path = results.join(format!("btf.{command}.{end}"));
            fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
        };
        let said = format!("{}{}", read("out")?, read("err")?);
        let says = ["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"];
        let found = match says.iter().find(|words| !said.contains(**words)) {
            None => read("exit")?.trim().to_owned(),
            Some(words) => format!("nothing of {words}: {said}"),
        };
        verdict.check(format!("BTF hidden, `probe {command}`: exit code"), CANNOT, found);
    }
    Ok(())
}

/// Whether a release such as `6.1.0-50-cloud-amd64` is at least of this version.
fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|found| found >= version)
}

fn is_closed(row: &Value) -> bool {
    row["state"] == "close"
}

/// Every stage of a handshake was seen, none before the one it follows. (`accepted` may be an upper
/// bound, so only its presence counts.) Without packets, little of it remains.
fn in_order(row: &Value, packets: bool) -> bool {
    let stages: &[&str] = if packets { &STAGES } else { &["established_ns", "closed_ns"] };
    let times: Option<Vec<i64>> = stages.iter().map(|stage| row[*stage].as_i64()).collect();
    row["accepted_ns"].is_i64() && times.is_some_and(|times| times.is_sorted())
}
