//! Asks a server what it holds: one request, one answer, one interval of time.

pub(crate) mod listing;
pub(crate) mod metrics;
pub(crate) mod path;
pub(crate) mod poller;
pub(crate) mod request;
pub(crate) mod shards;
mod tls;
pub(crate) mod url;
mod weight;
