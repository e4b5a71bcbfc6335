//! The tables of a capture and their columns: the one place where the format is written down.
//!
//! A capture is a directory: `meta.json`, and for each [`Table`] a file `<name>.arrows` (Arrow IPC
//! stream). Times are nanoseconds; `_mono_ns` columns and the stage columns `_ns` are on the host's
//! `CLOCK_MONOTONIC`; table `clock` maps them to Unix time. Null means "not seen" or "not known".
//!
//! Version rule: a reader takes every minor version of its own major version that is not newer in
//! the columns it needs (added columns are null in older captures), and refuses another major.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};

pub const MAJOR: u32 = 1;
pub const MINOR: u32 = 0;

/// One file of the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// One row per TCP connection (leg), written when it ended, or at the end of the recording for
    /// those still open.
    Connections,
    /// Counters per (cgroup, netns, port, role), once a second; only rows that changed, and all of
    /// them in the first and the last second.
    Counts,
    /// One row per health request.
    Health,
    /// Counters of the kernel per network namespace (`CurrEstab`, `ListenOverflows`, …), once a second.
    Kernel,
    /// Intervals in which something was lost, with the reason.
    Loss,
    /// Pairs of monotonic and Unix time, every 10 s.
    Clock,
    /// What a cgroup id stands for.
    Containers,
}

impl Table {
    pub const ALL: [Table; 7] = [
        Table::Connections,
        Table::Counts,
        Table::Health,
        Table::Kernel,
        Table::Loss,
        Table::Clock,
        Table::Containers,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Connections => "connections",
            Table::Counts => "counts",
            Table::Health => "health",
            Table::Kernel => "kernel",
            Table::Loss => "loss",
            Table::Clock => "clock",
            Table::Containers => "containers",
        }
    }

    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}.arrows", self.name())
    }

    /// Columns in file order: name, type, nullable.
    #[must_use]
    pub fn columns(self) -> &'static [(&'static str, Kind, bool)] {
        match self {
            Table::Connections => CONNECTIONS,
            Table::Counts => COUNTS,
            Table::Health => HEALTH,
            Table::Kernel => KERNEL,
            Table::Loss => LOSS,
            Table::Clock => CLOCK,
            Table::Containers => CONTAINERS,
        }
    }

    #[must_use]
    pub fn schema(self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns()
                .iter()
                .map(|&(name, kind, nullable)| Field::new(name, kind.data_type(), nullable))
                .collect::<Vec<_>>(),
        ))
    }
}

/// The types in use. Few on purpose: every Arrow reader takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    I64,
    U64,
    U32,
    F64,
    Bool,
    Text,
}

impl Kind {
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Kind::I64 => DataType::Int64,
            Kind::U64 => DataType::UInt64,
            Kind::U32 => DataType::UInt32,
            Kind::F64 => DataType::Float64,
            Kind::Bool => DataType::Boolean,
            Kind::Text => DataType::Utf8,
        }
    }
}

use Kind::{Bool, F64, I64, Text, U32, U64};

const CONNECTIONS: &[(&str, Kind, bool)] = &[
    // Socket cookie as `ss -e` prints it; with `generation` the connection's identity.
    ("cookie", U64, false),
    // Which connection on this socket, from 0 (a socket can connect again).
    ("generation", U32, false),
    // Network namespace inode.
    ("netns", U32, false),
    // cgroup2 id of the socket; see table `containers`.
    ("cgroup_id", U64, false),
    // cgroup2 id, pid and name of the task that accepted or connected.
    ("task_cgroup_id", U64, true),
    ("pid", U32, true),
    ("comm", Text, true),
    // `passive`, `active`, `unknown`.
    ("role", Text, false),
    // 4 or 6; v4-mapped addresses are written as IPv4 with family 6.
    ("family", U32, false),
    ("local_address", Text, false),
    ("local_port", U32, false),
    ("remote_address", Text, false),
    ("remote_port", U32, false),
    // The service's port: local of a passive, remote of an active connection.
    ("port", U32, false),
    // Existed before the recording; its early stages are unknown.
    ("seeded", Bool, false),
    // Kernel state when the row was written: `close` for ended ones.
    ("state", Text, false),
    ("first_seen_ns", I64, false),
    ("syn_received_ns", I64, true),
    ("syn_ack_sent_ns", I64, true),
    ("established_ns", I64, true),
    ("accepted_ns", I64, true),
    // `accepted_ns` is when the accept was noticed, not when it happened.
    ("accepted_is_upper_bound", Bool, false),
    // First byte of the client's request, of the server's answer.
    ("request_ns", I64, true),
    ("response_ns", I64, true),
    ("upgraded_ns", I64, true),
    ("first_frame_in_ns", I64, true),
    ("first_frame_out_ns", I64, true),
    // When the state stopped being ESTABLISHED, and when it became CLOSE.
    ("left_established_ns", I64, true),
    ("closed_ns", I64, true),
    // After CLOSE with a held descriptor: when the process closed it at last.
    ("released_ns", I64, true),
    // `unknown`, `silent`, `http`, `upgraded`, `tls`, `other`.
    ("class", Text, false),
    // Handshake outcome; null until the connection can be judged.
    ("outcome", Text, true),
    ("http_status", U32, true),
    ("http_reason", Text, true),
    // WebSocket close code, where it was seen.
    ("close_code", U32, true),
    // Who ended it: `local`, `remote`, `timeout`, null while open.
    ("closed_by", Text, true),
    // How: `fin`, `rst`, `timeout`, `error`.
    ("closed_how", Text, true),
    // `sk_err` at CLOSE as errno name (`ECONNRESET`), null for none.
    ("error", Text, true),
    // A process held the descriptor when the connection was over.
    ("fd_held_at_close", Bool, false),
    ("bytes_sent", U64, true),
    ("bytes_received", U64, true),
    ("srtt_us", U32, true),
    ("retransmits", U32, true),
    // Of connections open when the recording ended: bytes not acknowledged, probes and
    // retransmissions without an answer, and time since the peer was heard.
    ("unacked_segments", U32, true),
    ("unanswered_probes", U32, true),
    ("last_heard_ms", U32, true),
    // Links the two legs of one client behind a proxy; null where there is no second leg.
    ("leg_id", U64, true),
    ("leg_certain", Bool, true),
];

const COUNTS: &[(&str, Kind, bool)] = &[
    ("at_mono_ns", I64, false),
    ("cgroup_id", U64, false),
    ("netns", U32, false),
    ("port", U32, false),
    ("role", Text, false),
    ("established", I64, false),
    ("syn_sent", I64, false),
    ("fin_wait_1", I64, false),
    ("fin_wait_2", I64, false),
    // Ended, but a process still holds the descriptor.
    ("close", I64, false),
    ("close_wait", I64, false),
    ("last_ack", I64, false),
    ("listen", I64, false),
    ("closing", I64, false),
    // Established ones by class.
    ("class_unknown", I64, false),
    ("class_silent", I64, false),
    ("class_http", I64, false),
    ("class_upgraded", I64, false),
    ("class_tls", I64, false),
    ("class_other", I64, false),
    // Since the programs were attached.
    ("established_total", U64, false),
    ("accepted_total", U64, false),
    ("closed_total", U64, false),
];

const HEALTH: &[(&str, Kind, bool)] = &[
    ("url", Text, false),
    ("start_mono_ns", I64, false),
    ("end_mono_ns", I64, false),
    // The poller's own connection, so that it can be left out by identity.
    ("local_address", Text, true),
    ("local_port", U32, true),
    ("http_status", U32, true),
    // Why there is no usable answer.
    ("error", Text, true),
    // The number of connections the server says it holds.
    ("reported", I64, true),
    // Every number (and true/false as 1/0) of the body: JSON object, path → number,
    // e.g. {".checks.cpu.percentage": 12.5}
    ("fields", Text, true),
    // Lowest and highest kernel count of the watched population that the probe saw between start
    // and end, its own poll left out.
    ("kernel_min", I64, true),
    ("kernel_max", I64, true),
];

const KERNEL: &[(&str, Kind, bool)] = &[
    ("at_mono_ns", I64, false),
    ("netns", U32, false),
    // As in /proc/net/snmp and /proc/net/netstat, e.g. `CurrEstab`, `ListenOverflows`; `drift` is
    // our established count minus the kernel's own.
    ("name", Text, false),
    ("value", F64, false),
];

const LOSS: &[(&str, Kind, bool)] = &[
    ("from_mono_ns", I64, false),
    ("to_mono_ns", I64, false),
    ("reason", Text, false),
    ("count", U64, false),
];

const CLOCK: &[(&str, Kind, bool)] = &[("mono_ns", I64, false), ("unix_ns", I64, false)];

const CONTAINERS: &[(&str, Kind, bool)] = &[
    ("cgroup_id", U64, false),
    ("first_seen_mono_ns", I64, false),
    ("path", Text, true),
    // `docker`, `containerd`, `crio`, `podman`, `kubernetes`, `systemd`, `host`, `unknown`.
    ("runtime", Text, false),
    ("container_id", Text, true),
    ("name", Text, false),
];
