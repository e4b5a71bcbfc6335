//! One model, several renderers.

pub(crate) mod again;
pub(crate) mod build;
pub(crate) mod chart;
pub(crate) mod client_html;
pub(crate) mod client_text;
pub(crate) mod handshake;
pub(crate) mod handshake_html;
pub(crate) mod handshake_text;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod leak_html;
pub(crate) mod leak_markdown;
pub(crate) mod leak_text;
pub(crate) mod markdown;
pub(crate) mod model;
pub(crate) mod shard;
pub(crate) mod terminal;
pub(crate) mod text;
pub(crate) mod verdict;
