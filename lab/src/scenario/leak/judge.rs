//! Holds what the report says of managers against the truth.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Leaks;
use crate::error::{LabError, file_error};
use crate::truth::Hit;

/// The part of `report.json` that is read.
#[derive(Debug, Deserialize)]
struct Report {
    captures: Vec<Capture>,
}

#[derive(Debug, Deserialize)]
struct Capture {
    servers: Vec<Server>,
    leaks: Option<LeakReport>,
}

#[derive(Debug, Deserialize)]
struct Server {
    phantoms: Magnitude,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    kind: String,
    /// The examples are the very connections, not only candidates.
    examples_are_named: bool,
    examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
struct Example {
    remote_port: u32,
}

#[derive(Debug, Deserialize)]
struct Magnitude {
    at_end: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct LeakReport {
    followed: Vec<Followed>,
}

#[derive(Debug, Deserialize)]
struct Followed {
    name: String,
    baseline: f64,
    #[serde(rename = "final")]
    last: f64,
    peak: f64,
}

/// What was done, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Comparison {
    /// Managers whose cleanup was missed, by the server's own books.
    pub(super) leaked: i64,
    /// Managers without a connection at the end, by the report; null where it could not be judged.
    pub(super) found: Option<i64>,
    pub(super) managers_at_end: Option<f64>,
    /// Some of those whose cleanup was missed, by the client's port; empty where none could be named.
    pub(super) named: Vec<u32>,
    pub(super) wrongly_named: Vec<u32>,
    /// The slowest cleanup, in ms, by the server's word.
    pub(super) cleanup_ms_max: Option<f64>,
    /// Of the managers that an emergency cleanup could have removed, in percent; null without one.
    pub(super) emergency_effective_percent: Option<f64>,
    pub(super) memory: Option<Memory>,
    pub(super) equal: bool,
}

/// Resident memory of the server in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Memory {
    baseline_mb: f64,
    peak_mb: f64,
    growth_mb: f64,
}

pub(super) fn compare(scenario: &Leaks, hits: &[Hit], report: &Path) -> anyhow::Result<Comparison> {
    let text = std::fs::read_to_string(report)
        .map_err(|error| file_error(report, "read the report", &error))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| LabError::usage(format!("{}: {error}", report.display())))?;
    let of_a_bug = |hit: &&Hit| scenario.loads.iter().any(|load| load.bug == hit.fault);
    let leaked = i64::try_from(hits.iter().filter(of_a_bug).count())?;
    let capture = report.captures.first();
    let server = capture.and_then(|capture| capture.servers.first());
    let found = server.and_then(|server| server.phantoms.at_end);
    let followed = |name: &str| {
        let all = &capture?.leaks.as_ref()?.followed;
        all.iter().find(|followed| followed.name == name)
    };
    let last = |name: &str| followed(name).map(|followed| followed.last);
    let managers_at_end = last("managers");
    let leaks = server.into_iter().flat_map(|server| &server.findings);
    let named: Vec<u32> = leaks
        .filter(|finding| finding.kind == "application_leak" && finding.examples_are_named)
        .flat_map(|finding| finding.examples.iter().map(|example| example.remote_port))
        .collect();
    let hit = |port: &u32| hits.iter().any(|hit| u32::from(hit.client_port) == *port);
    let wrongly_named: Vec<u32> = named.iter().copied().filter(|port| !hit(port)).collect();
    Ok(Comparison {
        leaked,
        found,
        managers_at_end,
        cleanup_ms_max: last("cleanup_ms"),
        emergency_effective_percent: last("emergency_effective_percent"),
        memory: followed("memory_mb").map(|memory| Memory {
            baseline_mb: memory.baseline,
            peak_mb: memory.peak,
            growth_mb: memory.last - memory.baseline,
        }),
        equal: found == Some(leaked)
            && managers_at_end == Some(leaked as f64)
            && wrongly_named.is_empty(),
        named,
        wrongly_named,
    })
}

impl Comparison {
    /// Sentences for people.
    pub(super) fn text(&self) -> String {
        let dash = || "unknown".to_owned();
        let found = self.found.map_or_else(dash, |found| found.to_string());
        let verdict = if self.equal { "equal" } else { "NOT equal" };
        let mut text = format!("{} managers leaked; found: {found}; {verdict}", self.leaked);
        if let Some(port) = self.named.first() {
            text.push_str(&format!(
                "\nwhose cleanup was missed is known by the server's list, such as port {port}"
            ));
        }
        if let Some(memory) = &self.memory {
            text.push_str(&format!(
                "\nmemory: baseline {:.1}, peak {:.1}, growth {:+.1} MiB",
                memory.baseline_mb, memory.peak_mb, memory.growth_mb
            ));
        }
        if let Some(ms) = self.cleanup_ms_max {
            text.push_str(&format!("\nslowest cleanup: {ms:.0} ms"));
        }
        if let Some(percent) = self.emergency_effective_percent {
            text.push_str(&format!("\nemergency cleanup: {percent:.0} % effective"));
        }
        text
    }
}
