//! Asks a server what it holds: one request, one answer, one interval of time.

pub(crate) mod path;
pub(crate) mod poller;
pub(crate) mod url;
