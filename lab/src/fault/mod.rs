//! Faults of the lab's server, one per file, switched on by `--fault NAME[:AMOUNT]`.
//!
//! A fault strikes at one step of a connection's life. Of the connections that come by that step it
//! takes an [`Amount`]; a connection is hit by at most one fault at each step, and every hit is
//! written to the truth file before the server goes on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::LabError;
use crate::truth::{Hit, TruthLog};
use crate::units::{Amount, name_and_amount};

mod app_leak_on_no_close_frame;
mod app_leak_on_rst;
mod app_leak_on_timeout;
mod double_decrement;
mod never_close;
mod reverse_phantom;

/// How a WebSocket ended, as the server saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Close frames were exchanged.
    CloseFrame,
    /// The peer's FIN without a close frame before it.
    Fin,
    /// The peer's RST.
    Rst,
    /// The peer did not answer pings, or did not read, for too long.
    Timeout,
    /// The peer broke the protocol.
    Protocol,
    /// The server is going away.
    Shutdown,
}

/// What the server does when it takes a WebSocket in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// Enter it in the table, and count it.
    pub(crate) register: bool,
}

/// What the server does when a WebSocket has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleanUp {
    /// Take it out of the table.
    pub(crate) remove_entry: bool,
    /// What leaves the counter.
    pub(crate) decrement: i64,
    /// Close the descriptor.
    pub(crate) close: bool,
}

/// The step at which a fault strikes, and what it does there.
#[derive(Debug)]
pub(crate) enum Strike {
    Admission(fn(&mut Admission)),
    CleanUp { after: &'static [Ending], change: fn(&mut CleanUp) },
}

/// A fault: its name on the command line, and what it does.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) strike: Strike,
}

pub(crate) static ALL: &[Fault] = &[
    app_leak_on_rst::FAULT,
    app_leak_on_no_close_frame::FAULT,
    app_leak_on_timeout::FAULT,
    double_decrement::FAULT,
    never_close::FAULT,
    reverse_phantom::FAULT,
];

/// `NAME[:AMOUNT]` of the command line.
#[derive(Clone, Debug)]
pub(crate) struct FaultSpec {
    fault: &'static Fault,
    amount: Amount,
}

impl std::str::FromStr for FaultSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, amount) = name_and_amount(text)?;
        let fault = ALL.iter().find(|fault| fault.name == name).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|fault| fault.name).collect();
            format!("`{name}` is no fault: expected one of {}", names.join(", "))
        })?;
        Ok(FaultSpec { fault, amount })
    }
}

/// The part of `--help` that explains every fault.
pub(crate) fn help() -> String {
    use std::fmt::Write as _;

    let mut text = String::from(
        "Faults (--fault NAME[:AMOUNT], repeatable; AMOUNT is 45, 4.5% or all, of the connections\n\
         that come to the step at which the fault strikes; a share is spread evenly):\n",
    );
    for fault in ALL {
        let _ = writeln!(text, "  {:28} {}", fault.name, fault.about);
    }
    text
}

#[derive(Debug)]
struct Armed {
    spec: FaultSpec,
    seen: AtomicU64,
    hits: AtomicU64,
}

/// The faults of one server.
#[derive(Debug)]
pub(crate) struct Faults {
    armed: Vec<Armed>,
    truth: Option<TruthLog>,
}

impl Faults {
    pub(crate) fn arm(specs: &[FaultSpec], truth: Option<&Path>) -> anyhow::Result<Self> {
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.fault.name == spec.fault.name) {
                return Err(LabError::usage(format!(
                    "--fault {} is given twice; give it once, with the amount that is meant",
                    spec.fault.name
                )));
            }
        }
        Ok(Faults {
            armed: specs
                .iter()
                .map(|spec| Armed {
                    spec: spec.clone(),
                    seen: AtomicU64::new(0),
                    hits: AtomicU64::new(0),
                })
                .collect(),
            truth: truth.map(TruthLog::append_to).transpose()?,
        })
    }

    /// What to do with a new WebSocket.
    pub(crate) fn admission(
        &self,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> anyhow::Result<Admission> {
        let mut admission = Admission { register: true };
        for armed in &self.armed {
            if let Strike::Admission(change) = armed.spec.fault.strike
                && armed.takes_next()
            {
                change(&mut admission);
                self.record(armed, remote, local)?;
                break;
            }
        }
        Ok(admission)
    }

    /// What to do after a WebSocket ended.
    pub(crate) fn clean_up(
        &self,
        ending: Ending,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> anyhow::Result<CleanUp> {
        let mut clean_up = CleanUp { remove_entry: true, decrement: 1, close: true };
        for armed in &self.armed {
            if let Strike::CleanUp { after, change } = armed.spec.fault.strike
                && after.contains(&ending)
                && armed.takes_next()
            {
                change(&mut clean_up);
                self.record(armed, remote, local)?;
                break;
            }
        }
        Ok(clean_up)
    }

    /// Hits so far, by fault.
    pub(crate) fn hits(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.armed.iter().map(|a| (a.spec.fault.name, a.hits.load(Ordering::Relaxed)))
    }

    fn record(&self, armed: &Armed, remote: SocketAddr, local: SocketAddr) -> anyhow::Result<()> {
        armed.hits.fetch_add(1, Ordering::Relaxed);
        match &self.truth {
            Some(truth) => truth.write(&Hit::now(armed.spec.fault.name, remote, local)),
            None => Ok(()),
        }
    }
}

impl Armed {
    fn takes_next(&self) -> bool {
        self.spec.amount.takes(self.seen.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (SocketAddr, SocketAddr) {
        ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap())
    }

    #[test]
    fn a_leak_on_rst_leaves_other_endings_alone() {
        let faults = Faults::arm(&["app-leak-on-rst:2".parse().unwrap()], None).unwrap();
        let (remote, local) = addresses();
        for ending in [Ending::CloseFrame, Ending::Fin, Ending::Timeout, Ending::Shutdown] {
            let clean = faults.clean_up(ending, remote, local).unwrap();
            assert_eq!((clean.remove_entry, clean.decrement, clean.close), (true, 1, true));
        }
        let decrements: Vec<_> = (0..3)
            .map(|_| faults.clean_up(Ending::Rst, remote, local).unwrap().decrement)
            .collect();
        assert_eq!(decrements, [0, 0, 1]);
        assert_eq!(faults.hits().collect::<Vec<_>>(), [("app-leak-on-rst", 2)]);
    }

    #[test]
    fn one_connection_is_hit_by_one_fault() {
        let specs = ["app-leak-on-rst".parse().unwrap(), "never-close".parse().unwrap()];
        let faults = Faults::arm(&specs, None).unwrap();
        let (remote, local) = addresses();
        assert!(faults.clean_up(Ending::Rst, remote, local).unwrap().close);
        assert!(!faults.clean_up(Ending::Fin, remote, local).unwrap().close);
        assert_eq!(faults.hits().collect::<Vec<_>>(), [("app-leak-on-rst", 1), ("never-close", 1)]);
    }

    #[test]
    fn unknown_and_repeated_faults_are_refused() {
        let error = "app-leak".parse::<FaultSpec>().unwrap_err();
        assert!(error.contains("expected one of app-leak-on-rst"), "{error}");
        let twice = ["never-close:1".parse().unwrap(), "never-close:2".parse().unwrap()];
        assert!(Faults::arm(&twice, None).unwrap_err().to_string().contains("given twice"));
    }
}
