//! What has grown since the watch began, in a block. It is shown and not judged: connections may come
//! meanwhile. `probe watch --metrics` alone judges it.

use std::time::Duration;

use status_page::Number;
use tokio::time::Instant;

use super::{
    checkpoint::{Checkpoint, Checkpoints, Sample},
    processes::ProcessesNow,
};
use crate::{clock, process::service::ServiceFacts};

#[derive(Debug)]
pub(crate) struct Growth {
    checkpoints: Checkpoints,
    /// Metrics that are followed under their own names.
    asked: Vec<String>,
    began: Instant,
}

impl Growth {
    pub(crate) fn new(interval: Duration, duration: Option<Duration>, asked: Vec<String>) -> Self {
        let checkpoints = Checkpoints::new(interval, duration);
        Self { checkpoints, asked, began: Instant::now() }
    }

    /// The first is the baseline.
    pub(crate) fn take(&mut self, pages: &[Number], processes: &[ProcessesNow]) -> Checkpoint {
        let services: Vec<ServiceFacts> = processes.iter().map(|one| one.of.clone()).collect();
        self.checkpoints.take(Sample {
            at_unix_ns: clock::Pair::now().unix_ns,
            elapsed: self.began.elapsed(),
            ..Sample::new(pages, &services, &self.asked)
        })
    }
}

/// What an earlier page has is not counted twice.
pub(crate) fn add_page(pages: &mut Vec<Number>, numbers: Vec<Number>) {
    let known: Vec<String> = pages.iter().map(|one| one.name.clone()).collect();
    pages.extend(numbers.into_iter().filter(|one| !known.contains(&one.name)));
}
