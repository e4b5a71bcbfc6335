//! Rows and metadata of captures, and the analyzer run on them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Output};

use capture::meta::{Meta, Selection};
use capture::schema::{ConnectionRow, MAJOR, MINOR};
use proptest::test_runner::Config as ProptestConfig;

pub const MS: i64 = 1_000_000;
pub const S: i64 = 1_000 * MS;
/// Monotonic time at which every recording starts.
pub const START: i64 = 500 * S;
/// Unix time of that instant: 2023-11-14 22:13:20 UTC.
pub const START_UNIX: i64 = 1_700_000_000 * S;
pub const PORT: u16 = 3005;
pub const CGROUP: u64 = 77;
pub const URL: &str = "http://127.0.0.1:3005/health";

/// Of a recording that has begun.
pub fn meta() -> Meta {
    Meta {
        schema_major: MAJOR,
        schema_minor: MINOR,
        host: "testhost".into(),
        kernel: "6.18.0".into(),
        boot_id: "b".into(),
        probe_version: "0.1.0".into(),
        command_line: ["probe", "record", "-o", "run", "--health", URL].map(Into::into).into(),
        backend: "ebpf".into(),
        hooks: vec!["tp_btf/inet_sock_set_state".into()],
        degraded: Vec::new(),
        started_mono_ns: START,
        started_unix_ns: START_UNIX,
        ended_mono_ns: None,
        selection: Selection { health_urls: vec![URL.into()], ..Selection::default() },
    }
}

/// The `n`th accepted connection, of which nothing else is known.
pub fn blank_row(n: usize) -> ConnectionRow {
    ConnectionRow {
        cookie: n as u64 + 1,
        generation: 0,
        netns: 1,
        cgroup_id: CGROUP,
        task_cgroup_id: None,
        pid: None,
        comm: None,
        role: "passive",
        family: 4,
        local_address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        local_port: PORT.into(),
        remote_address: IpAddr::V4(Ipv4Addr::new(10, 0, (n / 30_000) as u8, 9)),
        remote_port: 10_000 + (n % 30_000) as u32,
        port: PORT.into(),
        seeded: false,
        state: "close",
        first_seen_ns: START,
        syn_received_ns: None,
        syn_ack_sent_ns: None,
        established_ns: None,
        accepted_ns: None,
        established_is_upper_bound: false,
        accepted_is_upper_bound: false,
        request_ns: None,
        response_ns: None,
        upgraded_ns: None,
        first_frame_in_ns: None,
        first_frame_out_ns: None,
        left_established_ns: None,
        closed_ns: None,
        released_ns: None,
        class: "unknown",
        outcome: None,
        http_status: None,
        http_reason: None,
        close_code: None,
        closed_by: None,
        closed_how: None,
        error: None,
        fd_held_at_close: false,
        bytes_sent: None,
        bytes_received: None,
        srtt_us: None,
        retransmits: None,
        unacked_segments: None,
        unanswered_probes: None,
        last_heard_ms: None,
        leg_id: None,
    }
}

/// So many random cases, the same at every run, unless `PROPTEST_CASES` asks for others.
#[allow(dead_code, reason = "not every test binary is random")]
pub fn random(cases: u32) -> ProptestConfig {
    let config = fuzz::config();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if asked { config.cases } else { cases }, ..config }
}

pub fn analyzer(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_analyzer")).args(args).current_dir(dir).output().unwrap()
}
