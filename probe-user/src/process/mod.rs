//! What the kernel says of the processes that listen on watched ports.

pub(crate) mod facts;
pub(crate) mod listener;
pub(crate) mod service;
