//! Handshakes: which attempts there were, how far each came, how it ended, and by way of which leg.

pub(crate) mod attempt;
pub(crate) mod legs;
pub(crate) mod outcome;
mod refused_poll;
pub(crate) mod shape;
pub(crate) mod stage;
