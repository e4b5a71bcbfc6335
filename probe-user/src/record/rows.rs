//! How what the kernel side knows becomes rows of a capture.

use std::borrow::Cow;

use capture::{
    cell::Comm,
    schema::{
        ConnectionRow, ContainerRow, CountRow, HealthRow, KERNEL_PAGE, ListingRow, MetricRow,
    },
};
use probe_common::{
    connection::{Connection, class, flag},
    key::CountSlot,
    state::{self, role},
};

use status_page::Number;

use crate::{
    clock,
    export::json::{address, service_port},
    handshake::{
        follow::Observed,
        outcome::{Sight, outcome},
    },
    health::{listing::Listing, poller::Sample, request::Asked, url::HealthUrl},
    identity::cgroup::Container,
    process::service::ServiceFacts,
    truth::sock_diag::TcpInfo,
    watch::bracket::Bracket,
};

/// A time of the kernel side: 0 is "not seen".
fn time(ns: u64) -> Option<i64> {
    i64::try_from(ns).ok().filter(|&ns| ns != 0)
}

/// `info`: of a connection that is still open, what sock_diag says of its peer. `cgroup_id`:
/// [`crate::identity::Identity::number`].
pub(crate) fn connection(
    connection: &Observed,
    info: Option<TcpInfo>,
    cgroup_id: u64,
    declared: bool,
    sight: Sight,
) -> ConnectionRow {
    let has = |bit: u32| connection.flags & bit != 0;
    let seen_task = connection.pid != 0;
    let ending = Ending::of(connection);
    // Totals are read from the socket at its end; before that only sock_diag has them.
    let over = connection.closed_ns != 0;
    let total = |at_close: u64, now: fn(&TcpInfo) -> u64| {
        if over { Some(at_close) } else { info.as_ref().map(now) }
    };
    ConnectionRow {
        cookie: connection.cookie,
        generation: connection.generation,
        netns: connection.netns,
        cgroup_id,
        task_cgroup_id: seen_task.then_some(connection.task_cgroup_id),
        pid: seen_task.then_some(connection.pid),
        comm: seen_task.then_some(Comm(connection.comm)),
        role: role::name(connection.role),
        family: if i32::from(connection.family) == libc::AF_INET6 { 6 } else { 4 },
        local_address: address(connection.local_address),
        local_port: u32::from(connection.local_port),
        remote_address: address(connection.remote_address),
        remote_port: u32::from(connection.remote_port),
        port: u32::from(service_port(connection)),
        seeded: has(flag::SEEDED),
        // The record is made before the kernel stores CLOSE.
        state: state::state_name(if over { state::CLOSE } else { connection.state }),
        first_seen_ns: time(connection.first_seen_ns).unwrap_or(0),
        syn_received_ns: time(connection.syn_received_ns),
        syn_ack_sent_ns: time(connection.syn_ack_sent_ns),
        established_ns: time(connection.established_ns),
        established_is_upper_bound: has(flag::ESTABLISHED_UPPER_BOUND),
        accepted_ns: time(connection.accepted_ns),
        accepted_is_upper_bound: has(flag::ACCEPTED_UPPER_BOUND),
        request_ns: time(connection.request_ns),
        response_ns: time(connection.response_ns),
        upgraded_ns: time(connection.upgraded_ns),
        first_frame_in_ns: time(connection.first_frame_in_ns),
        first_frame_out_ns: time(connection.first_frame_out_ns),
        left_established_ns: time(connection.left_established_ns),
        closed_ns: time(connection.closed_ns),
        released_ns: time(connection.released_ns),
        class: class::NAMES.get(usize::from(connection.seen_class)).copied().unwrap_or("unknown"),
        outcome: outcome(connection, declared, sight),
        http_status: (connection.http_status != 0).then_some(u32::from(connection.http_status)),
        http_reason: (connection.http.reason_length != 0)
            .then(|| connection.http.reason().to_owned().into()),
        close_code: (connection.close_code != 0).then_some(u32::from(connection.close_code)),
        closed_by: ending.and_then(Ending::by),
        closed_how: ending.map(Ending::how),
        error: (connection.error != 0).then(|| errno_name(connection.error)),
        fd_held_at_close: has(flag::FD_HELD_AT_CLOSE),
        bytes_sent: total(connection.bytes_sent, |info| info.bytes_acked),
        bytes_received: total(connection.bytes_received, |info| info.bytes_received),
        srtt_us: if over { Some(connection.srtt_us) } else { info.map(|info| info.rtt_us) },
        retransmits: if over {
            Some(connection.retransmits)
        } else {
            info.map(|info| info.total_retransmits)
        },
        unacked_segments: info.map(|info| info.unacked),
        unanswered_probes: info.map(|info| info.unanswered()),
        last_heard_ms: info.map(|info| info.last_heard_ms()),
        leg_id: (connection.http.key_hash != 0).then_some(connection.http.key_hash),
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    LocalFin,
    RemoteFin,
    LocalReset,
    RemoteReset,
    Timeout,
    Error,
}

impl Ending {
    /// `None` while it is open, or where nothing tells.
    fn of(connection: &Connection) -> Option<Self> {
        let has = |bit: u32| connection.flags & bit != 0;
        // Whoever sent the first FIN ended it, whatever followed: a late RST or a timeout is the
        // way the other side took it.
        if has(flag::REMOTE_FIN_FIRST) {
            Some(Self::RemoteFin)
        } else if has(flag::LOCAL_FIN_FIRST) {
            Some(Self::LocalFin)
        } else if connection.closed_ns == 0 {
            None
        } else if has(flag::RST_RECEIVED) {
            Some(Self::RemoteReset)
        } else if has(flag::RST_SENT) {
            Some(Self::LocalReset)
        } else {
            match i32::try_from(connection.error).unwrap_or(0) {
                0 => None,
                libc::ETIMEDOUT => Some(Self::Timeout),
                // A received RST sets these, also where the tracepoint that shows it is missing.
                libc::ECONNRESET | libc::ECONNREFUSED | libc::EPIPE => Some(Self::RemoteReset),
                _ => Some(Self::Error),
            }
        }
    }

    fn by(self) -> Option<&'static str> {
        match self {
            Self::LocalFin | Self::LocalReset => Some("local"),
            Self::RemoteFin | Self::RemoteReset => Some("remote"),
            Self::Timeout => Some("timeout"),
            Self::Error => None,
        }
    }

    fn how(self) -> &'static str {
        match self {
            Self::LocalFin | Self::RemoteFin => "fin",
            Self::LocalReset | Self::RemoteReset => "rst",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

/// Errors that a TCP socket ends with, by their names.
fn errno_name(errno: u32) -> Cow<'static, str> {
    let name = match i32::try_from(errno).unwrap_or(0) {
        libc::ECONNRESET => "ECONNRESET",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EPIPE => "EPIPE",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::ENETDOWN => "ENETDOWN",
        libc::EPROTO => "EPROTO",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        _ => return format!("errno {errno}").into(),
    };
    name.into()
}

pub(crate) fn count(slot: &CountSlot, cgroup_id: u64, at_mono_ns: i64) -> CountRow {
    let state = |state: u8| slot.states[usize::from(state) - 1];
    let class = |class: u8| slot.classes[usize::from(class)];
    CountRow {
        at_mono_ns,
        cgroup_id,
        netns: slot.key.netns,
        port: u32::from(slot.key.port),
        role: role::name(slot.key.role),
        established: state(state::ESTABLISHED),
        syn_sent: state(state::SYN_SENT),
        fin_wait_1: state(state::FIN_WAIT_1),
        fin_wait_2: state(state::FIN_WAIT_2),
        close: state(state::CLOSE),
        close_wait: state(state::CLOSE_WAIT),
        last_ack: state(state::LAST_ACK),
        listen: state(state::LISTEN),
        closing: state(state::CLOSING),
        class_unknown: class(class::UNKNOWN),
        class_silent: class(class::SILENT),
        class_http: class(class::HTTP),
        class_upgraded: class(class::UPGRADED),
        class_tls: class(class::TLS),
        class_other: class(class::OTHER),
        established_total: slot.established_total,
        accepted_total: slot.accepted_total,
        closed_total: slot.closed_total,
    }
}

pub(crate) fn health(url: &HealthUrl, sample: &Sample, bracket: Option<Bracket>) -> HealthRow {
    let answer = sample.answer.as_ref();
    HealthRow {
        url: url.to_string().into(),
        start_mono_ns: sample.start_mono_ns,
        end_mono_ns: sample.end_mono_ns,
        local_address: sample.local.map(|local| local.ip()),
        local_port: sample.local.map(|local| u32::from(local.port())),
        http_status: sample.http_status.map(u32::from),
        error: answer.err().map(|failure| failure.to_string().into()),
        reported: answer.ok().map(|answer| answer.reported),
        fields: answer
            .ok()
            .and_then(|answer| serde_json::to_string(&answer.fields).ok())
            .map(Cow::Owned),
        kernel_min: bracket.map(|bracket| bracket.min),
        kernel_max: bracket.map(|bracket| bracket.max),
    }
}

/// A row per series; one with the error where there are none.
pub(crate) fn metrics(url: &HealthUrl, asked: Asked<Vec<Number>>) -> Vec<MetricRow> {
    let row = MetricRow {
        url: url.to_string().into(),
        start_mono_ns: asked.start_mono_ns,
        end_mono_ns: asked.end_mono_ns,
        name: None,
        labels: None,
        value: None,
        error: None,
    };
    match asked.answer {
        Ok(all) => all
            .into_iter()
            .map(|series| MetricRow {
                name: Some(series.name.into()),
                labels: series.labels.map(Cow::Owned),
                value: Some(series.value).filter(|value| !value.is_nan()),
                ..row.clone()
            })
            .collect(),
        Err(failure) => vec![MetricRow { error: Some(failure.to_string().into()), ..row }],
    }
}

/// What was read just now.
pub(crate) fn processes(all: &[ServiceFacts]) -> Vec<MetricRow> {
    let at_mono_ns = clock::mono_ns();
    all.iter()
        .flat_map(|service| {
            let url = format!("{KERNEL_PAGE}{}, port {}", service.name, service.port);
            service.named().into_iter().map(move |(name, value)| MetricRow {
                url: url.clone().into(),
                start_mono_ns: at_mono_ns,
                end_mono_ns: at_mono_ns,
                name: Some(name.into()),
                labels: None,
                value: Some(value),
                error: None,
            })
        })
        .collect()
}

pub(crate) fn listing(url: &HealthUrl, asked: &Asked<Listing>) -> ListingRow {
    let answer = asked.answer.as_ref();
    ListingRow {
        url: url.to_string().into(),
        start_mono_ns: asked.start_mono_ns,
        end_mono_ns: asked.end_mono_ns,
        local_address: asked.local.map(|local| local.ip()),
        local_port: asked.local.map(|local| u32::from(local.port())),
        http_status: asked.http_status.map(u32::from),
        error: answer.err().map(|failure| failure.to_string().into()),
        entries: answer.ok().map(|listing| listing.entries),
        unreadable: answer.ok().map(|listing| listing.unreadable),
    }
}

pub(crate) fn container(
    cgroup_id: u64,
    container: &Container,
    path: Option<String>,
    first_seen_mono_ns: i64,
) -> ContainerRow {
    ContainerRow {
        cgroup_id,
        first_seen_mono_ns,
        path: path.map(Cow::Owned),
        runtime: container.runtime.name().into(),
        container_id: container.id.clone().map(Cow::Owned),
        name: container.name.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::polled::empty_connection;

    fn ended(flags: u32, error: i32) -> (Option<&'static str>, Option<&'static str>) {
        let mut ended = empty_connection();
        ended.closed_ns = 5;
        ended.state = state::CLOSE;
        ended.flags = flags;
        ended.error = error.cast_unsigned();
        let row = connection(&ended.into(), None, 7, false, Sight::of(&[]));
        (row.closed_by, row.closed_how)
    }

    #[test]
    fn who_ended_it_and_how() {
        assert_eq!(ended(flag::REMOTE_FIN_FIRST, 0), (Some("remote"), Some("fin")));
        assert_eq!(
            ended(flag::LOCAL_FIN_FIRST | flag::RST_RECEIVED, libc::ECONNRESET),
            (Some("local"), Some("fin"))
        );
        assert_eq!(ended(flag::RST_RECEIVED, libc::ECONNRESET), (Some("remote"), Some("rst")));
        assert_eq!(ended(flag::RST_SENT, 0), (Some("local"), Some("rst")));
        assert_eq!(ended(0, libc::ETIMEDOUT), (Some("timeout"), Some("timeout")));
        assert_eq!(ended(0, libc::EHOSTUNREACH), (None, Some("error")));
        assert_eq!(ended(0, 0), (None, None));
    }

    #[test]
    fn an_open_connection_has_no_end_and_the_totals_of_sock_diag() {
        let mut open = empty_connection();
        open.state = state::ESTABLISHED;
        let info = TcpInfo { bytes_received: 7, probes: 2, unacked: 1, ..TcpInfo::default() };
        let row = connection(&open.into(), Some(info), 7, false, Sight::of(&[]));
        assert_eq!((row.closed_by, row.closed_ns), (None, None));
        assert_eq!((row.bytes_received, row.unanswered_probes), (Some(7), Some(2)));
        assert_eq!(connection(&open.into(), None, 7, false, Sight::of(&[])).bytes_received, None);
    }

    #[test]
    fn errors_have_their_names() {
        assert_eq!(errno_name(libc::ECONNRESET.cast_unsigned()), "ECONNRESET");
        assert_eq!(errno_name(9999), "errno 9999");
    }
}
