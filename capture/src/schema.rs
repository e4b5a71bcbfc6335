//! The tables of a capture and their columns: the one place where the format is written down.
//!
//! A capture is a directory: `meta.json`, and for each [`Table`] a file `<name>.arrows` (Arrow IPC
//! stream). Times are nanoseconds; `_mono_ns` columns and the stage columns `_ns` are on the host's
//! `CLOCK_MONOTONIC`; table `clock` maps them to Unix time. Null means "not seen" or "not known".
//!
//! Version rule: a reader takes every minor version of its own major version (columns that an older
//! capture lacks are null, tables it lacks are empty, columns that a newer one adds are passed over),
//! and refuses another major.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::ArrayBuilder;
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::cell::{Cell, Comm};

pub const MAJOR: u32 = 1;
/// 1: tables `metrics`, `listings` and `listed`. 2: `established_is_upper_bound`.
pub const MINOR: u32 = 2;

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
    /// Pairs of monotonic and Unix time, every 10 s, and around the second in which Unix time was set.
    Clock,
    /// What a cgroup id stands for.
    Containers,
    /// Series of the server's metrics page (`--metrics`), one row per series and request.
    Metrics,
    /// One row per request of the server's own list of connections (`--table`).
    Listings,
    /// One row per connection on that list, for as long as it stood there without a break.
    Listed,
}

impl Table {
    pub const ALL: [Table; 10] = [
        Table::Connections,
        Table::Counts,
        Table::Health,
        Table::Kernel,
        Table::Loss,
        Table::Clock,
        Table::Containers,
        Table::Metrics,
        Table::Listings,
        Table::Listed,
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
            Table::Metrics => "metrics",
            Table::Listings => "listings",
            Table::Listed => "listed",
        }
    }

    /// The first minor version whose captures have this table.
    #[must_use]
    pub fn since_minor(self) -> u32 {
        match self {
            Table::Metrics | Table::Listings | Table::Listed => 1,
            _ => 0,
        }
    }

    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}.arrows", self.name())
    }

    /// Columns in file order.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Table::Connections => ConnectionRow::COLUMNS,
            Table::Counts => CountRow::COLUMNS,
            Table::Health => HealthRow::COLUMNS,
            Table::Kernel => KernelRow::COLUMNS,
            Table::Loss => LossRow::COLUMNS,
            Table::Clock => ClockRow::COLUMNS,
            Table::Containers => ContainerRow::COLUMNS,
            Table::Metrics => MetricRow::COLUMNS,
            Table::Listings => ListingRow::COLUMNS,
            Table::Listed => ListedRow::COLUMNS,
        }
    }

    #[must_use]
    pub fn schema(self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns()
                .iter()
                .map(|column| Field::new(column.name, column.kind.data_type(), column.nullable))
                .collect::<Vec<_>>(),
        ))
    }
}

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
    /// What it means, for people; empty where the name says it all.
    pub meaning: &'static str,
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

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::I64 => "i64",
            Kind::U64 => "u64",
            Kind::U32 => "u32",
            Kind::F64 => "f64",
            Kind::Bool => "bool",
            Kind::Text => "text",
        }
    }
}

/// A row of one table, as the recorder gives it.
pub trait Row {
    const TABLE: Table;
    const COLUMNS: &'static [Column];
    /// One Arrow builder per column.
    type Columns: Default;

    fn append(&self, columns: &mut Self::Columns);

    /// Takes what was appended so far, as arrays in file order.
    fn take(columns: &mut Self::Columns) -> Vec<ArrayRef>;
}

/// Makes the row struct, its column list and its builders from one list, so that they cannot differ.
/// A field's doc comment is also the column's meaning in `analyzer schema`.
macro_rules! table {
    (
        $(#[$attribute:meta])*
        $row:ident, $columns:ident, $table:ident {
            $( $(#[doc = $meaning:literal])* $name:ident: $type:ty, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $row {
            $( $(#[doc = $meaning])* pub $name: $type, )*
        }

        #[derive(Debug, Default)]
        pub struct $columns {
            $( $name: <$type as Cell>::Builder, )*
        }

        impl Row for $row {
            const TABLE: Table = Table::$table;
            const COLUMNS: &'static [Column] = &[
                $( Column {
                    name: stringify!($name),
                    kind: <$type as Cell>::KIND,
                    nullable: <$type as Cell>::NULLABLE,
                    meaning: concat!($($meaning),*),
                }, )*
            ];
            type Columns = $columns;

            fn append(&self, columns: &mut $columns) {
                $( self.$name.append(&mut columns.$name); )*
            }

            fn take(columns: &mut $columns) -> Vec<ArrayRef> {
                vec![ $( ArrayBuilder::finish(&mut columns.$name), )* ]
            }
        }
    };
}

// `'static` is meant for lists of words, `Cow` for text from elsewhere; in both lists of fields
// below the lifetime is that of the text.
type Text = Cow<'static, str>;
type Word = &'static str;

table! {
    /// A TCP connection, as seen from one end.
    ConnectionRow, ConnectionColumns, Connections {
        /// Socket cookie as `ss -e` prints it; with `generation` the connection's identity.
        cookie: u64,
        /// Which connection on this socket, from 0 (a socket can connect again).
        generation: u32,
        /// Network namespace inode.
        netns: u32,
        /// cgroup2 id of the socket; see table `containers`.
        cgroup_id: u64,
        /// cgroup2 id of the task that accepted or connected.
        task_cgroup_id: Option<u64>,
        /// The task that accepted or connected.
        pid: Option<u32>,
        /// Its name.
        comm: Option<Comm>,
        /// `passive`, `active`, `unknown`.
        role: Word,
        /// 4 or 6; v4-mapped addresses are written as IPv4 with family 6.
        family: u32,
        local_address: IpAddr,
        local_port: u32,
        remote_address: IpAddr,
        remote_port: u32,
        /// The service's port: local of a passive, remote of an active connection.
        port: u32,
        /// Existed before the recording; its early stages are unknown.
        seeded: bool,
        /// Kernel state when the row was written: `close` for ended ones.
        state: Word,
        first_seen_ns: i64,
        syn_received_ns: Option<i64>,
        syn_ack_sent_ns: Option<i64>,
        established_ns: Option<i64>,
        /// `established_ns` is when that was noticed, not when it happened: the kernel left out the event.
        established_is_upper_bound: bool,
        accepted_ns: Option<i64>,
        /// `accepted_ns` is when the accept was noticed, not when it happened.
        accepted_is_upper_bound: bool,
        /// First byte of the client's request.
        request_ns: Option<i64>,
        /// First byte of the server's answer.
        response_ns: Option<i64>,
        upgraded_ns: Option<i64>,
        first_frame_in_ns: Option<i64>,
        first_frame_out_ns: Option<i64>,
        /// When the state stopped being `established`.
        left_established_ns: Option<i64>,
        /// When the state became `close`.
        closed_ns: Option<i64>,
        /// After `close` with a held descriptor: when the process closed it at last.
        released_ns: Option<i64>,
        /// `unknown`, `silent`, `http`, `upgraded`, `tls`, `other`.
        class: Word,
        /// Handshake outcome; null until the connection can be judged.
        outcome: Option<Text>,
        http_status: Option<u32>,
        http_reason: Option<Text>,
        /// WebSocket close code, where it was seen.
        close_code: Option<u32>,
        /// Who ended it: `local`, `remote`, `timeout`; null while open.
        closed_by: Option<Word>,
        /// How: `fin`, `rst`, `timeout`, `error`.
        closed_how: Option<Word>,
        /// `sk_err` at `close` as errno name (`ECONNRESET`); null for none.
        error: Option<Text>,
        /// A process held the descriptor when the connection was over.
        fd_held_at_close: bool,
        bytes_sent: Option<u64>,
        bytes_received: Option<u64>,
        srtt_us: Option<u32>,
        retransmits: Option<u32>,
        /// Of connections open at the end of the recording: segments sent and not acknowledged.
        unacked_segments: Option<u32>,
        /// Likewise: keepalive and window probes, and retransmissions, without an answer.
        unanswered_probes: Option<u32>,
        /// Likewise: time since anything came from the peer.
        last_heard_ms: Option<u32>,
        /// A salted hash of the `Sec-WebSocket-Key`, by which the legs of one client behind a proxy are found; null where
        /// no key was seen.
        leg_id: Option<u64>,
    }
}

table! {
    /// The kernel's counts of one population at one time.
    CountRow, CountColumns, Counts {
        at_mono_ns: i64,
        cgroup_id: u64,
        netns: u32,
        /// The service's port.
        port: u32,
        role: Word,
        established: i64,
        syn_sent: i64,
        fin_wait_1: i64,
        fin_wait_2: i64,
        /// Ended, but a process still holds the descriptor.
        close: i64,
        close_wait: i64,
        last_ack: i64,
        listen: i64,
        closing: i64,
        /// Established ones by class.
        class_unknown: i64,
        class_silent: i64,
        class_http: i64,
        class_upgraded: i64,
        class_tls: i64,
        class_other: i64,
        /// Since the programs were attached.
        established_total: u64,
        accepted_total: u64,
        closed_total: u64,
    }
}

table! {
    /// One health request and what the server said.
    HealthRow, HealthColumns, Health {
        url: Text,
        start_mono_ns: i64,
        end_mono_ns: i64,
        /// The poller's own connection, so that it can be left out by identity.
        local_address: Option<IpAddr>,
        local_port: Option<u32>,
        http_status: Option<u32>,
        /// Why there is no usable answer.
        error: Option<Text>,
        /// The number of connections the server says it holds.
        reported: Option<i64>,
        /// Every number (and true/false as 1/0) of the body: JSON object, path to number,
        /// e.g. `{".checks.cpu.percentage": 12.5}`.
        fields: Option<Text>,
        /// Lowest kernel count of the watched population that the probe saw between start and end,
        /// its own poll left out.
        kernel_min: Option<i64>,
        /// Highest, likewise.
        kernel_max: Option<i64>,
    }
}

table! {
    /// A counter of the kernel's own.
    KernelRow, KernelColumns, Kernel {
        at_mono_ns: i64,
        netns: u32,
        /// As in /proc/net/snmp and /proc/net/netstat, e.g. `CurrEstab`, `ListenOverflows`; `drift`
        /// is our established count minus the kernel's own.
        name: Text,
        value: f64,
    }
}

table! {
    /// An interval in which something was lost, or of which it is not certain that nothing was.
    LossRow, LossColumns, Loss {
        from_mono_ns: i64,
        to_mono_ns: i64,
        reason: Text,
        /// How many were lost; 0 where that is not known, and the interval is uncertain.
        count: u64,
    }
}

table! {
    /// The same instant on two clocks.
    ClockRow, ClockColumns, Clock {
        mono_ns: i64,
        unix_ns: i64,
    }
}

table! {
    /// What a cgroup is.
    ContainerRow, ContainerColumns, Containers {
        /// With the highest bit set: no cgroup, but a number that stands for a container that was told by the
        /// sockets' namespace or holders, where they have no cgroup2 of their own.
        cgroup_id: u64,
        first_seen_mono_ns: i64,
        path: Option<Text>,
        /// `docker`, `containerd`, `crio`, `podman`, `kubernetes`, `systemd`, `host`, `unknown`.
        runtime: Text,
        container_id: Option<Text>,
        name: Text,
    }
}

/// How the `url` of rows begins that the probe itself read from `/proc`.
pub const KERNEL_PAGE: &str = "kernel: ";

table! {
    /// A number on the status page of a server or proxy, or of the processes that listen on a port.
    MetricRow, MetricColumns, Metrics {
        /// The page; `kernel: NAME, port PORT` for what the probe itself read of these processes.
        url: Text,
        /// The value was true at some time between start and end of the request.
        start_mono_ns: i64,
        end_mono_ns: i64,
        /// As on the page, e.g. `go_goroutines`; null in the one row of a request that failed.
        name: Option<Text>,
        /// As on the page, without the braces, e.g. `pool="a",state="idle"`; null where there are none.
        labels: Option<Text>,
        /// Null where it is no number (`NaN`).
        value: Option<f64>,
        /// Why there is no usable page.
        error: Option<Text>,
    }
}

table! {
    /// One request of the server's list of connections.
    ListingRow, ListingColumns, Listings {
        url: Text,
        start_mono_ns: i64,
        end_mono_ns: i64,
        /// The poller's own connection.
        local_address: Option<IpAddr>,
        local_port: Option<u32>,
        http_status: Option<u32>,
        /// Why there is no usable list.
        error: Option<Text>,
        /// Entries on the list.
        entries: Option<u64>,
        /// Entries without a readable peer address; table `listed` lacks them.
        unreadable: Option<u64>,
    }
}

table! {
    /// A connection that the server listed, known by its peer's address.
    ListedRow, ListedColumns, Listed {
        url: Text,
        remote_address: IpAddr,
        remote_port: u32,
        /// The first request that found it.
        first_start_mono_ns: i64,
        first_end_mono_ns: i64,
        /// The last one.
        last_start_mono_ns: i64,
        last_end_mono_ns: i64,
        /// End of the first usable answer without it; null where it stood on the last one, too.
        gone_mono_ns: Option<i64>,
        /// How often it stood on one list, at most.
        copies: u32,
    }
}
