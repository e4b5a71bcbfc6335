//! The seed pass: a walk over the sockets that were there before the programs.

use anyhow::Context;

use crate::{
    identity::netns,
    kernel::{attach::Attached, walk},
};

/// What the seed pass could not look at.
pub(super) struct Unseen {
    /// Why, for each namespace.
    namespaces: Vec<anyhow::Error>,
    processes: usize,
}

impl Unseen {
    pub(super) fn namespaces_words(&self) -> Vec<String> {
        let words = |error| format!("connections from before the start are missing: {error:#}");
        self.namespaces.iter().map(words).collect()
    }

    pub(super) fn processes_words(&self) -> Option<String> {
        (self.processes > 0).then(|| {
            format!("processes whose network namespace could not be looked at: {}", self.processes)
        })
    }
}

/// Walks every network namespace.
pub(super) fn walk_all(attached: &mut Attached) -> anyhow::Result<Unseen> {
    let found = netns::find().context("cannot list network namespaces")?;
    let unopened = found.unopened.into_iter().map(anyhow::Error::msg).collect();
    let mut unseen = Unseen { namespaces: unopened, processes: found.unreadable };
    for namespace in &found.namespaces {
        if let Err(error) = walk::walk(&mut attached.ebpf, namespace) {
            unseen.namespaces.push(error);
        }
    }
    Ok(unseen)
}
