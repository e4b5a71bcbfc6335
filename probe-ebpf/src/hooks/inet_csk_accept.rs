//! `fexit/inet_csk_accept`: the moment and the task of an accept. Needs function tracing; where that
//! is locked, `sk_socket` at the socket's later events gives an upper bound instead.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::bpf_get_current_cgroup_id,
    },
    macros::fexit,
    programs::FExitContext,
};

use crate::{
    maps::CONNECTIONS,
    sock::{Sock, offset},
};

#[fexit(function = "inet_csk_accept")]
pub fn accept(ctx: FExitContext) -> i32 {
    // Behind the arguments, of which 6.10 made fewer.
    let sk = Sock::traced(ctx.as_ptr(), offset!(accept_result_arg));
    let Some(connection) = CONNECTIONS.get_ptr_mut(sk.address()) else { return 0 };
    // SAFETY: a live map value. The child is not locked here, and not grafted onto its descriptor yet: nothing
    // is written but what is written nowhere else until then, and its next event counts the accept.
    let connection = unsafe { &mut *connection };
    // SAFETY: a helper without arguments.
    connection.accepted_ns = unsafe { bpf_ktime_get_ns() };
    connection.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    connection.comm = bpf_get_current_comm().unwrap_or_default();
    // SAFETY: a helper without arguments.
    connection.task_cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    0
}
