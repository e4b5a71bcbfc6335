//! What we hold to be true, where it comes from, and how sure we are.

pub mod source;
