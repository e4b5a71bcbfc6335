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
}

impl Hook {
    /// Its events change counts, or make them good; the others only tell more of connections.
    #[must_use]
    pub fn is_for_counts(&self) -> bool {
        !matches!(self.kind, Kind::CgroupIngress) && self.without != RESETS
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
) -> Hook {
    Hook { program, kind: Kind::TpBtf(tracepoint), without }
}

const DESTROY: Option<&str> =
    Some("a descriptor held after the connection's end is not seen to be closed");
const RESETS: Option<&str> = Some("who reset a connection is not told");

/// In the order of attaching: what repairs comes before what it repairs.
pub const HOOKS: [Hook; 10] = [
    tp_btf("destroy_sock_1", "tcp_destroy_sock", DESTROY),
    tp_btf("destroy_sock_2", "tcp_destroy_sock", DESTROY),
    tp_btf("set_state_1", "inet_sock_set_state", None),
    tp_btf("set_state_2", "inet_sock_set_state", None),
    tp_btf("receive_reset", "tcp_receive_reset", RESETS),
    tp_btf("send_reset", "tcp_send_reset", RESETS),
    Hook {
        program: "egress",
        kind: Kind::CgroupEgress,
        without: Some("a state change that the kernel skipped is made good only by the next walk"),
    },
    Hook {
        program: "ingress",
        kind: Kind::CgroupIngress,
        without: Some("handshakes are seen from `established` on, without requests"),
    },
    Hook {
        program: "release",
        kind: Kind::CgroupRelease,
        without: Some("a reset that the kernel skipped is made good only by the next walk"),
    },
    Hook {
        program: "accept",
        kind: Kind::Fexit("inet_csk_accept"),
        without: Some("`accepted` times are upper bounds, and the accepting task is not told"),
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
