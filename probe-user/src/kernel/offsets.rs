//! Struct offsets of the running kernel, from its BTF. A missing field is [`ABSENT`]: the kernel
//! side then does without it, and `missing` says what that costs.

use std::{fs, io};

use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use probe_common::config::{ABSENT, Offsets};

use super::Unavailable;

pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// What was resolved, and what this kernel lacks.
#[derive(Debug)]
pub struct Resolved {
    pub offsets: Offsets,
    /// Fields without which something is not measured: (field, what that costs).
    pub missing: Vec<(&'static str, &'static str)>,
}

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(piece) = self.0.get(start..start.saturating_add(buffer.len())) else {
            return Err(btfparse::Error::new(btfparse::ErrorKind::IOError, "BTF ends early"));
        };
        buffer.copy_from_slice(piece);
        Ok(())
    }
}

/// Fields that everything rests on; without one of them nothing is counted.
const REQUIRED: &str = "nothing can be counted";

const NO_LISTENER: &str = "connections to ports where nobody listens are not recorded";

/// Reads this kernel's BTF.
///
/// # Errors
/// [`Unavailable`] where there is no BTF, or where it lacks a field that counting needs.
pub fn resolve() -> Result<Resolved, Unavailable> {
    let bytes = fs::read(BTF_PATH).map_err(|error| no_btf(&error))?;
    let types = TypeInformation::new(&Bytes(bytes)).map_err(|error| Unavailable {
        what: "read the kernel's type information".into(),
        why: format!("{BTF_PATH}: {error:?}"),
        cure: "report this with the output of `uname -r`".into(),
    })?;
    let mut missing = Vec::new();
    let mut get =
        |name: &str, path: &'static str, cost: &'static str| match offset(&types, name, path) {
            Some(found) => found,
            None => {
                if !cost.is_empty() {
                    missing.push((path, cost));
                }
                ABSENT
            }
        };
    let addresses = "connections have no addresses";
    let cgroups = "connections carry no container";
    let totals = "bytes and retransmits at close are not recorded";
    let roles = "the role of connections from before the start is unknown more often";
    let offsets = Offsets {
        skc_family: get("sock", "__sk_common.skc_family", REQUIRED),
        skc_state: get("sock", "__sk_common.skc_state", REQUIRED),
        skc_num: get("sock", "__sk_common.skc_num", REQUIRED),
        skc_dport: get("sock", "__sk_common.skc_dport", REQUIRED),
        skc_daddr: get("sock", "__sk_common.skc_daddr", addresses),
        skc_rcv_saddr: get("sock", "__sk_common.skc_rcv_saddr", addresses),
        skc_v6_daddr: get("sock", "__sk_common.skc_v6_daddr", ""),
        skc_v6_rcv_saddr: get("sock", "__sk_common.skc_v6_rcv_saddr", ""),
        skc_net: get("sock", "__sk_common.skc_net", REQUIRED),
        skc_cookie: get("sock", "__sk_common.skc_cookie", REQUIRED),
        sk_protocol: get("sock", "sk_protocol", REQUIRED),
        sk_socket: get("sock", "sk_socket", "accepts are not seen"),
        sk_err: get("sock", "sk_err", "socket errors are not recorded"),
        sk_cgrp: get("sock", "sk_cgrp_data", cgroups),
        sk_ack_backlog: get("sock", "sk_ack_backlog", ""),
        sk_max_ack_backlog: get("sock", "sk_max_ack_backlog", ""),
        icsk_qlen: get("inet_connection_sock", "icsk_accept_queue.qlen", ""),
        skb_head: get("sk_buff", "head", NO_LISTENER),
        skb_network_header: get("sk_buff", "network_header", NO_LISTENER),
        skb_transport_header: get("sk_buff", "transport_header", NO_LISTENER),
        skb_dev: get("sk_buff", "dev", NO_LISTENER),
        dev_net: get("net_device", "nd_net", NO_LISTENER),
        net_inum: get("net", "ns.inum", REQUIRED),
        cgroup_kn: get("cgroup", "kn", cgroups),
        kernfs_id: get("kernfs_node", "id", cgroups),
        inet_sport: get("inet_sock", "inet_sport", "failed connects have no local port"),
        icsk_bind_hash: get("inet_connection_sock", "icsk_bind_hash", roles),
        tb_fastreuse: get("inet_bind_bucket", "fastreuse", roles),
        tp_bytes_sent: get("tcp_sock", "bytes_sent", totals),
        tp_bytes_received: get("tcp_sock", "bytes_received", totals),
        tp_srtt_us: get("tcp_sock", "srtt_us", totals),
        tp_total_retrans: get("tcp_sock", "total_retrans", totals),
        accept_result_arg: parameters(&types, "inet_csk_accept").unwrap_or(ABSENT),
        // Tracing programs may ask for the cookie since 5.12, by a helper of its own.
        cookie_helper: u32::from(types.id_of("btf_bpf_get_socket_ptr_cookie").is_some()),
        cgroup_tagged: u32::from(offset(&types, "sock_cgroup_data", "val").is_some()),
        counts_only: 0, // the caller's choice
    };
    if let Some((field, cost)) = missing.iter().find(|(_, cost)| *cost == REQUIRED) {
        return Err(Unavailable {
            what: "find the kernel's socket fields".into(),
            why: format!("{BTF_PATH} has no {field} ({cost})"),
            cure: "use a kernel from 5.10 on, and report this one".into(),
        });
    }
    Ok(Resolved { offsets, missing })
}

pub(super) fn no_btf(error: &io::Error) -> Unavailable {
    Unavailable {
        what: "read the kernel's type information (BTF)".into(),
        why: format!("{BTF_PATH}: {error}"),
        cure: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it)".into(),
    }
}

fn offset(types: &TypeInformation, name: &str, path: &str) -> Option<u32> {
    match types.offset_of(types.id_of(name)?, path).ok()?.1 {
        Offset::ByteOffset(bytes) => Some(bytes),
        Offset::BitOffsetAndSize(bits, _) => Some(bits / 8),
    }
}

/// Number of parameters of a kernel function, which is where fexit finds its result.
fn parameters(types: &TypeInformation, function: &str) -> Option<u32> {
    let TypeVariant::Func(function) = types.from_id(types.id_of(function)?)? else { return None };
    let TypeVariant::FuncProto(prototype) = types.from_id(*function.prototype_tid())? else {
        return None;
    };
    u32::try_from(prototype.parameter_list().len()).ok()
}
