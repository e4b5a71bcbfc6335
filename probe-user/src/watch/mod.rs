//! Holds what a server reports against what the kernel has.

pub(crate) mod block;
pub(crate) mod bracket;
pub(crate) mod checkpoint;
pub(crate) mod client_file;
pub(crate) mod failures;
pub(crate) mod growth;
pub(crate) mod lines;
pub(crate) mod metrics;
pub(crate) mod poll;
pub(crate) mod population;
pub(crate) mod processes;
pub(crate) mod resources;
pub(crate) mod session;
pub(crate) mod shards;
mod starts;
pub(crate) mod style;
pub(crate) mod verdict;
