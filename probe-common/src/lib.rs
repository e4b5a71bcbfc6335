//! The ABI between `probe-ebpf` and `probe-user`.
//!
//! Everything here is `repr(C)`, has explicit padding and a size assertion, and is the same bytes on
//! both sides. Times are nanoseconds of `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`); 0 means "not seen".

#![no_std]

pub mod config;
pub mod connection;
pub mod handshake;
pub mod key;
pub mod loss;
pub mod payload;
pub mod state;
