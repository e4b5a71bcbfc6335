//! One file per subcommand, thin.

pub(crate) mod clients;
pub(crate) mod compare;
pub(crate) mod connections;
pub(crate) mod export;
pub(crate) mod handshakes;
pub(crate) mod leaks;
pub(crate) mod phantoms;
pub(crate) mod report;
pub(crate) mod schema;
pub(crate) mod shards;
pub(crate) mod thresholds;
