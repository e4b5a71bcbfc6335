//! Set by userspace before load, constant for the verifier: offsets of the kernel's structs on this
//! kernel, and what this kernel can do.

/// A field that this kernel's BTF does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets from the start of the named struct, [`ABSENT`] if the kernel lacks the field.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// `struct sock` (through `__sk_common` where it begins with `skc_`).
    pub skc_family: u32,
    pub skc_state: u32,
    pub skc_num: u32,
    pub skc_dport: u32,
    pub skc_daddr: u32,
    pub skc_rcv_saddr: u32,
    pub skc_v6_daddr: u32,
    pub skc_v6_rcv_saddr: u32,
    pub skc_net: u32,
    pub skc_cookie: u32,
    pub sk_protocol: u32,
    pub sk_socket: u32,
    pub sk_err: u32,
    pub sk_cgrp: u32,
    pub sk_ack_backlog: u32,
    pub sk_max_ack_backlog: u32,
    /// `struct inet_connection_sock` → `icsk_accept_queue.qlen`: waiting SYNs of a listener.
    pub icsk_qlen: u32,
    /// `struct sk_buff`
    pub skb_head: u32,
    pub skb_network_header: u32,
    pub skb_transport_header: u32,
    pub skb_dev: u32,
    /// `struct net_device` → `nd_net`
    pub dev_net: u32,
    /// `struct net` → `ns.inum`
    pub net_inum: u32,
    /// `struct cgroup` → `kn`, `struct kernfs_node` → `id`
    pub cgroup_kn: u32,
    pub kernfs_id: u32,
    /// `struct inet_sock` → `inet_sport`
    pub inet_sport: u32,
    /// `struct inet_connection_sock` → `icsk_bind_hash`, `struct inet_bind_bucket` → `fastreuse`
    pub icsk_bind_hash: u32,
    pub tb_fastreuse: u32,
    /// `struct tcp_sock`
    pub tp_bytes_sent: u32,
    pub tp_bytes_received: u32,
    pub tp_srtt_us: u32,
    pub tp_total_retrans: u32,
    /// Argument index of the returned child in `fexit/inet_csk_accept`.
    pub accept_result_arg: u32,
    /// 1 if `bpf_get_socket_cookie` may be called from tracing programs (5.12 and later).
    pub cookie_helper: u32,
    /// 1 if `sk_cgrp_data` is the tagged union of 5.14 and older.
    pub cgroup_tagged: u32,
    /// 1 if nothing but counts is wanted: no stages, first bytes or records.
    pub counts_only: u32,
}

#[cfg(feature = "user")]
// SAFETY: repr(C), only u32 fields, every bit pattern is valid.
unsafe impl aya::Pod for Offsets {}

impl Offsets {
    /// What the object file carries until userspace sets it: nothing is there.
    pub const UNSET: Self = Self {
        skc_family: ABSENT,
        skc_state: ABSENT,
        skc_num: ABSENT,
        skc_dport: ABSENT,
        skc_daddr: ABSENT,
        skc_rcv_saddr: ABSENT,
        skc_v6_daddr: ABSENT,
        skc_v6_rcv_saddr: ABSENT,
        skc_net: ABSENT,
        skc_cookie: ABSENT,
        sk_protocol: ABSENT,
        sk_socket: ABSENT,
        sk_err: ABSENT,
        sk_cgrp: ABSENT,
        sk_ack_backlog: ABSENT,
        sk_max_ack_backlog: ABSENT,
        icsk_qlen: ABSENT,
        skb_head: ABSENT,
        skb_network_header: ABSENT,
        skb_transport_header: ABSENT,
        skb_dev: ABSENT,
        dev_net: ABSENT,
        net_inum: ABSENT,
        cgroup_kn: ABSENT,
        kernfs_id: ABSENT,
        inet_sport: ABSENT,
        icsk_bind_hash: ABSENT,
        tb_fastreuse: ABSENT,
        tp_bytes_sent: ABSENT,
        tp_bytes_received: ABSENT,
        tp_srtt_us: ABSENT,
        tp_total_retrans: ABSENT,
        accept_result_arg: ABSENT,
        cookie_helper: 0,
        cgroup_tagged: 0,
        counts_only: 0,
    };
}
