//! `meta.json`: what a capture is, who made it and how it ended.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::compat::{LATEST_NS, LATEST_UNIX_NS};

/// The file's name in the capture directory.
pub const META_FILE: &str = "meta.json";

/// Written when the recording starts, and again (atomically) when it ends. A capture whose
/// `ended_mono_ns` is null was cut off.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meta {
    pub schema_major: u32,
    pub schema_minor: u32,
    pub host: String,
    pub kernel: String,
    pub boot_id: String,
    pub probe_version: String,
    pub command_line: Vec<String>,
    /// `ebpf` or `sock_diag`.
    pub backend: String,
    /// Hooks in use, e.g. `tp_btf/inet_sock_set_state`.
    pub hooks: Vec<String>,
    /// What is missing or was lost, in words; empty if nothing.
    pub degraded: Vec<String>,
    #[serde(deserialize_with = "mono_ns")]
    pub started_mono_ns: i64,
    #[serde(deserialize_with = "unix_ns")]
    pub started_unix_ns: i64,
    #[serde(default, deserialize_with = "maybe_mono_ns")]
    pub ended_mono_ns: Option<i64>,
    /// What was recorded: the filters of the command line.
    pub selection: Selection,
}

/// The population of interest; empty lists mean "all".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    pub ports: Vec<u16>,
    /// Ports whose every connection counts as a WebSocket attempt (`--websocket`).
    #[serde(default)]
    pub websocket_ports: Vec<u16>,
    pub containers: Vec<String>,
    pub roles: Vec<String>,
    pub health_urls: Vec<String>,
    #[serde(default)]
    pub metrics_urls: Vec<String>,
    #[serde(default)]
    pub table_urls: Vec<String>,
}

fn mono_ns<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    i64::deserialize(from).and_then(|ns| no_later(LATEST_NS, ns))
}

fn unix_ns<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    i64::deserialize(from).and_then(|ns| no_later(LATEST_UNIX_NS, ns))
}

fn maybe_mono_ns<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Option::deserialize(from)?.map(|ns| no_later(LATEST_NS, ns)).transpose()
}

/// With later times, sums and differences would overflow.
fn no_later<E: Error>(latest_ns: u64, ns: i64) -> Result<i64, E> {
    if ns.unsigned_abs() <= latest_ns {
        return Ok(ns);
    }
    Err(E::custom(format!("{ns} ns is no time: expected no more than {latest_ns}")))
}
