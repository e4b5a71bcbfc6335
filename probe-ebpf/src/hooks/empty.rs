//! `tp_btf/inet_sock_set_state`, doing nothing: what calling any program on this hook costs. Attached
//! only by `probe doctor --cost`, which shows it beside the others.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}
