//! The agent of another host, asked from one that needs neither root nor BPF.

pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod recording;
pub(crate) mod view;

use crate::error::Error;

/// What a server says of itself is asked from beside it, where the kernel's count is taken.
pub(crate) fn asked_there() -> Error {
    Error::input(
        "--health, --metrics and --table are asked by the other host's agent, not from here",
        "name them where it starts: probe serve --health URL",
    )
}
