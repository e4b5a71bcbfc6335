//! Counts and connections for others: JSON, Prometheus, and the agent's HTTP side.

pub(crate) mod classic;
pub(crate) mod guests;
pub(crate) mod handshakes;
mod holding;
pub(crate) mod http;
pub(crate) mod json;
pub(crate) mod listener;
pub(crate) mod lock;
pub(crate) mod otlp;
pub(crate) mod prometheus;
pub(crate) mod protobuf;
pub(crate) mod recordings;
pub(crate) mod spread;
pub(crate) mod stream;
pub(crate) mod token;
mod turns;
pub(crate) mod view;
