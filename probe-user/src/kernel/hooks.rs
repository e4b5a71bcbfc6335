//! The table of hooks: what each is, and what is lost without it.

/// How a program is loaded and attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BTF-typed raw tracepoint.
    TpBtf(&'static str),
    /// Every packet that sockets of the cgroup2 hierarchy send.
    CgroupEgress,
    /// Every packet that they receive.
    CgroupIngress,
    /// The last descriptor of a socket of theirs is closed.
    CgroupRelease,
    /// Function exit through a BPF trampoline; refused where function tracing is locked.
    Fexit(&'static str),
}

/// One program of the object file and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the program in the object file.
    pub program: &'static str,
    pub kind: Kind,
    /// What is not measured where this hook can't be had; `None` if nothing works without it.
    pub without: Option<&'static str>,
    /// Columns of a capture's connections that are empty or say less without it.
    pub columns: &'static [&'static str],
}

/// The optional hook of this name, as `probe doctor` lists it: its programs, of which it may have two.
///
/// # Errors
/// What is no hook, or one that nothing works without.
pub fn optional(name: &str) -> Result<Vec<&'static str>, String> {
    let is_optional = |hook: &&Hook| hook.without.is_some();
    let programs: Vec<&str> = HOOKS
        .iter()
        .filter(is_optional)
        .filter(|hook| hook.name() == name)
        .map(|hook| hook.program)
        .collect();
    if programs.is_empty() {
        let mut names: Vec<String> = HOOKS.iter().filter(is_optional).map(Hook::name).collect();
        names.dedup();
        return Err(format!("expected one of {}", names.join(", ")));
    }
    Ok(programs)
}

impl Hook {
    /// Its events change counts, or make them good; the others only tell more of connections.
    #[must_use]
    pub fn is_for_counts(&self) -> bool {
        !matches!(
            self.kind,
            Kind::CgroupIngress | Kind::TpBtf("tcp_receive_reset" | "tcp_send_reset")
        )
    }

    /// As `bpftool` and libbpf call it, e.g. `tp_btf/inet_sock_set_state`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::TpBtf(tracepoint) => format!("tp_btf/{tracepoint}"),
            Kind::CgroupIngress => "cgroup_skb/ingress".into(),
            Kind::CgroupEgress => "cgroup_skb/egress".into(),
            Kind::CgroupRelease => "cgroup/sock_release".into(),
            Kind::Fexit(function) => format!("fexit/{function}"),
        }
    }
}

const fn tp_btf(
    program: &'static str,
    tracepoint: &'static str,
    without: Option<&'static str>,
    columns: &'static [&'static str],
) -> Hook {
    Hook { program, kind: Kind::TpBtf(tracepoint), without, columns }
}

const DESTROY: Option<&str> =
    Some("a descriptor held after the connection's end is not seen to be closed");
const RESETS_IN: Option<&str> = Some("that a peer reset a connection is told by the error alone");
const RESETS_OUT: Option<&str> =
    Some("that this host reset a connection is not told, nor SYNs to a port where nobody listens");

/// What packets tell. Half of an exchange tells nothing: without those of one direction all is missing
/// but the first, which only those that come in tell.
const OF_PACKETS: &[&str] = &[
    "syn_received_ns",
    "syn_ack_sent_ns",
    "class",
    "outcome",
    "http_status",
    "http_reason",
    "close_code",
    "request_ns",
    "response_ns",
    "upgraded_ns",
    "first_frame_in_ns",
    "first_frame_out_ns",
    "leg_id",
];

/// In the order of attaching: what repairs comes before what it repairs.
pub const HOOKS: [Hook; 10] = [
    tp_btf("destroy_sock_1", "tcp_destroy_sock", DESTROY, &["released_ns"]),
    tp_btf("destroy_sock_2", "tcp_destroy_sock", DESTROY, &["released_ns"]),
    tp_btf("set_state_1", "inet_sock_set_state", None, &[]),
    tp_btf("set_state_2", "inet_sock_set_state", None, &[]),
    tp_btf("receive_reset", "tcp_receive_reset", RESETS_IN, &[]),
    tp_btf("send_reset", "tcp_send_reset", RESETS_OUT, &["closed_by", "closed_how"]),
    Hook {
        program: "egress",
        kind: Kind::CgroupEgress,
        without: Some(
            "handshakes are seen from `established` on, without requests, and a state change that the \
             kernel skipped is made good only by the next walk",
        ),
        columns: OF_PACKETS.split_at(1).1,
    },
    Hook {
        program: "ingress",
        kind: Kind::CgroupIngress,
        without: Some("handshakes are seen from `established` on, without requests"),
        columns: OF_PACKETS,
    },
    Hook {
        program: "release",
        kind: Kind::CgroupRelease,
        without: Some("a reset that the kernel skipped is made good only by the next walk"),
        columns: &[],
    },
    Hook {
        program: "accept",
        kind: Kind::Fexit("inet_csk_accept"),
        without: Some("`accepted` times are upper bounds, and the accepting task is not told"),
        columns: &["accepted_is_upper_bound", "pid", "comm", "task_cgroup_id"],
    },
];

/// [`Hook::name`] of the state changes.
pub const STATE_CHANGES: &str = "tp_btf/inet_sock_set_state";

/// Attached only to be measured: does nothing on each state change.
pub const EMPTY: &str = "empty";

/// The iterator that walks a namespace's sockets.
pub const WALK: &str = "walk";

/// Attached nowhere: takes out entries whose sockets are gone.
pub const FORGET: &str = "forget";

/// Likewise: gives counters back.
pub const GIVE_BACK: &str = "give_back";
