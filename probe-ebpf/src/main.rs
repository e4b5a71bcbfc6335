//! The kernel side of groundtruth. One hook per file under [`hooks`]; [`sock`] alone reads kernel
//! structs, [`packet`] alone reads packets; [`maps`] holds every map; [`count`] alone changes counters;
//! [`track`] brings a socket's stored state to what the kernel says; [`listener`] and then [`stage`] follow
//! handshakes.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "BPF has atomic adds, but core::sync::atomic lacks them here"
)]

mod count;
mod end;
mod hooks;
mod http;
mod listener;
mod maps;
mod packet;
mod payload;
mod sock;
mod stage;
mod track;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends its tracing helpers only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
