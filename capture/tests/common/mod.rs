//! Rows and metadata for tests.

use std::net::{IpAddr, Ipv4Addr};

use capture::cell::Comm;
use capture::meta::{Meta, Selection};
use capture::schema::{ConnectionRow, MAJOR, MINOR};

pub fn meta() -> Meta {
    Meta {
        schema_major: MAJOR,
        schema_minor: MINOR,
        host: "test".into(),
        kernel: "6.18.0".into(),
        boot_id: "c0ffee".into(),
        probe_version: "0.1.0".into(),
        command_line: vec!["probe".into(), "record".into()],
        backend: "ebpf".into(),
        hooks: vec!["tp_btf/inet_sock_set_state".into()],
        degraded: Vec::new(),
        started_mono_ns: 1_000_000_000,
        started_unix_ns: 1_700_000_000_000_000_000,
        ended_mono_ns: None,
        selection: Selection::default(),
    }
}

/// The `n`th of a run of connections to port 3005, still open.
pub fn connection(n: u32) -> ConnectionRow {
    let established_ns = 2_000_000_000 + i64::from(n) * 1_000_000;
    ConnectionRow {
        cookie: u64::from(n) + 1,
        generation: 0,
        netns: 4_026_531_840,
        cgroup_id: 77,
        task_cgroup_id: Some(77),
        pid: Some(4242),
        comm: Some(Comm(*b"ws-server\0\0\0\0\0\0\0")),
        role: "passive",
        family: 4,
        local_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        local_port: 3005,
        remote_address: "::ffff:127.0.0.9".parse().unwrap(),
        remote_port: 10_000 + n,
        port: 3005,
        seeded: false,
        state: "established",
        first_seen_ns: established_ns - 100_000,
        syn_received_ns: None,
        syn_ack_sent_ns: None,
        established_ns: Some(established_ns),
        accepted_ns: Some(established_ns + 20_000),
        established_is_upper_bound: false,
        accepted_is_upper_bound: true,
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
        bytes_sent: Some(u64::from(n) * 10),
        bytes_received: None,
        srtt_us: Some(55),
        retransmits: Some(0),
        unacked_segments: None,
        unanswered_probes: None,
        last_heard_ms: None,
        leg_id: None,
    }
}
