//! What we hold to be true, where it comes from, and how sure we are.

pub mod agent;
pub mod audit;
pub mod audits;
pub mod choose;
pub mod counters;
pub mod ebpf;
mod entries;
mod leftovers;
pub mod losses;
pub mod pending;
pub mod polled;
pub mod raw;
pub mod reclaim;
pub mod records;
mod seed;
pub mod sock_diag;
pub mod sockstat;
pub mod source;
