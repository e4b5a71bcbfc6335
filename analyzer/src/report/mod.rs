//! One model, several renderers.

pub(crate) mod build;
pub(crate) mod chart;
pub(crate) mod handshake;
pub(crate) mod handshake_html;
pub(crate) mod handshake_text;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod model;
pub(crate) mod shard;
pub(crate) mod text;
pub(crate) mod verdict;
