//! What explains a difference between reported and established: one rule per file, each with its
//! evidence for and against.

pub(crate) mod application_leak;
pub(crate) mod descriptor_leak;
pub(crate) mod double_decrement;
pub(crate) mod episode;
pub(crate) mod half_open;
pub(crate) mod handshake;
pub(crate) mod reverse_phantom;

use std::borrow::Cow;

use crate::input::connections::{Address, Number, Time, Word};
use crate::input::recording::Recording;
use crate::join::Joined;
use crate::report::model::{Example, Finding};

/// What a rule looks at.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) recording: &'a Recording,
    pub(crate) joined: &'a Joined<'a>,
    pub(crate) ended_ns: i64,
}

/// Every finding of every rule, the gravest first.
pub(crate) fn findings(case: &Case<'_>) -> anyhow::Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(application_leak::judge(case)?);
    findings.extend(descriptor_leak::judge(case)?);
    findings.extend(half_open::judge(case)?);
    let double = double_decrement::judge(case)?;
    // A negative or doubly counted-down report is below the kernel's count as well: named once.
    if double.is_none() {
        findings.extend(reverse_phantom::judge(case)?);
    }
    findings.extend(double);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.count));
    Ok(findings)
}

/// At most this many connections are shown as examples.
const EXAMPLES: usize = 5;

impl Case<'_> {
    pub(crate) fn unix_ns(&self, mono_ns: i64) -> i64 {
        self.recording.clock.unix_ns(mono_ns)
    }

    /// Address pairs and cookies of some connections, so that `ss -e` and tcpdump can be asked.
    pub(crate) fn examples(&self, rows: impl Iterator<Item = u32>) -> Vec<Example> {
        let connections = &self.recording.connections;
        let address = |address, row| {
            let found = connections.address(address, row);
            found.map_or_else(|| "unknown".to_owned(), Cow::into_owned)
        };
        let port = |number, row| connections.small(number, row).unwrap_or(0);
        rows.take(EXAMPLES)
            .map(|row| row as usize)
            .map(|row| Example {
                local_address: address(Address::Local, row),
                local_port: port(Number::LocalPort, row),
                remote_address: address(Address::Remote, row),
                remote_port: port(Number::RemotePort, row),
                cookie: connections.number(Number::Cookie, row).unwrap_or(0),
                state: connections.word(Word::State, row).unwrap_or("unknown").to_owned(),
                left_established_unix_ns: connections
                    .time(Time::LeftEstablished, row)
                    .map(|at| self.unix_ns(at)),
            })
            .collect()
    }
}
