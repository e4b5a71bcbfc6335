//! The agent of another host, asked from one that needs neither root nor BPF.

pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod recording;
pub(crate) mod view;

use std::collections::BTreeSet;

use crate::error::Error;

/// What an agent of a newer version says beyond what this one knows: left out, and told once each.
#[derive(Debug, Default)]
struct Newer {
    told: BTreeSet<String>,
}

impl Newer {
    fn leave_out(&mut self, kind: &str) {
        if self.told.insert(kind.to_owned()) {
            eprintln!(
                "probe: the agent is newer: {kind:?} of its answers is left out; update probe here to have it"
            );
        }
    }
}

/// What a server says of itself is asked from beside it, where the kernel's count is taken.
pub(crate) fn asked_there() -> Error {
    Error::input(
        "--health, --metrics and --table are asked by the other host's agent, not from here",
        "name them where it starts: probe serve --health URL",
    )
}
