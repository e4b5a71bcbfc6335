//! The agent of another host, asked from one that needs neither root nor BPF.

pub(crate) mod client;
