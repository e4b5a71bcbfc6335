//! Faults of the lab's server and balancer, one per file, switched on by
//! `--fault NAME[:AMOUNT][@FROM-UNTIL]`.
//!
//! A fault strikes at one step of a connection's life. Of the connections that come by that step
//! (within the window, if one is given) it takes an [`Amount`]; a connection is hit by at most one
//! fault at each step, and every hit is written to the truth file before anything else happens.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::error::LabError;
use crate::truth::{Hit, Leg, TruthLog};
use crate::units::{Amount, Window, name_and_amount};

mod app_leak_on_no_close_frame;
mod app_leak_on_rst;
mod app_leak_on_timeout;
mod balancer_sheds_load;
mod close_after_request;
mod close_after_upgrade;
mod dead_upstream;
mod double_decrement;
mod drop_key_header;
mod drop_upgrade_header;
mod forbidden_origin;
mod hang;
mod never_close;
mod not_a_websocket_server;
mod not_http;
mod refuse_after_upgrade;
mod reset_after_request;
mod reverse_phantom;
mod rewrite_accept;
mod shed_load;
mod slot_leak;
mod slot_race;
mod slow_response;
mod spin_cpu;
mod unauthorized;
mod unreachable_upstream;
mod wrong_accept;
mod wrong_path;

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

/// What the server does with an upgrade request instead of answering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Answer(u16),
    /// 101, with an accept key that fits another request.
    WrongAccept,
    /// Bytes that are no HTTP.
    Garbage,
    /// Nothing at all, until the client leaves.
    Hang,
    Reset,
    Close,
    /// 101, and then FIN.
    CloseAfterUpgrade,
    /// The right answer, `--fault-delay` later.
    Delay,
    /// The right answer, after `--fault-delay` of CPU time on the thread that serves others too.
    Spin,
}

/// What the balancer does with an upgrade request instead of forwarding it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detour {
    /// 503 without asking any shard.
    Refuse,
    /// As `Refuse`, since another took the slot that was looked at, and there is no second look.
    LoseSlot,
    /// Forward without this header.
    DropHeader(&'static str),
    /// Connect to a port at which nobody listens.
    DeadUpstream,
    /// Connect to where SYNs get no answer.
    UnreachableUpstream,
    /// Pass a 101 on with another accept key.
    RewriteAccept,
    /// Let the shard upgrade, then answer the client with this status.
    RefuseAfterUpgrade(u16),
}

/// The step at which a fault strikes, and what it does there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strike {
    /// Server: a WebSocket is taken in.
    Admission(fn(&mut Admission)),
    /// Server: a WebSocket has ended.
    CleanUp { after: &'static [Ending], change: fn(&mut CleanUp) },
    /// Server: an upgrade is asked for.
    Request(Reaction),
    /// Balancer: an upgrade is to be forwarded.
    Forward(Detour),
    /// Balancer: a connection has ended, and its slot is not given back.
    KeepSlot,
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
    unauthorized::FAULT,
    forbidden_origin::FAULT,
    wrong_path::FAULT,
    shed_load::FAULT,
    not_a_websocket_server::FAULT,
    wrong_accept::FAULT,
    not_http::FAULT,
    hang::FAULT,
    slow_response::FAULT,
    spin_cpu::FAULT,
    reset_after_request::FAULT,
    close_after_request::FAULT,
    close_after_upgrade::FAULT,
    slot_race::FAULT,
    slot_leak::FAULT,
    balancer_sheds_load::FAULT,
    dead_upstream::FAULT,
    unreachable_upstream::FAULT,
    drop_upgrade_header::FAULT,
    drop_key_header::FAULT,
    rewrite_accept::FAULT,
    refuse_after_upgrade::FAULT,
];

/// Who has a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Balancer,
}

impl Fault {
    fn side(&self) -> Side {
        match self.strike {
            Strike::Admission(_) | Strike::CleanUp { .. } | Strike::Request(_) => Side::Server,
            Strike::Forward(_) | Strike::KeepSlot => Side::Balancer,
        }
    }
}

/// `NAME[:AMOUNT][@FROM-UNTIL]` of the command line.
#[derive(Clone, Debug)]
pub(crate) struct FaultSpec {
    fault: &'static Fault,
    amount: Amount,
    window: Option<Window>,
    text: String,
}

impl FaultSpec {
    fn parse(text: &str, side: Side) -> Result<Self, String> {
        let (rest, window) = match text.split_once('@') {
            Some((rest, window)) => (rest, Some(window.parse()?)),
            None => (text, None),
        };
        let (name, amount) = name_and_amount(rest)?;
        let known = || ALL.iter().filter(|fault| fault.side() == side);
        let fault = known().find(|fault| fault.name == name).ok_or_else(|| {
            let names: Vec<_> = known().map(|fault| fault.name).collect();
            format!("`{name}` is no fault: expected one of {}", names.join(", "))
        })?;
        Ok(FaultSpec { fault, amount, window, text: text.to_owned() })
    }

    pub(crate) fn of_server(text: &str) -> Result<Self, String> {
        Self::parse(text, Side::Server)
    }

    pub(crate) fn of_balancer(text: &str) -> Result<Self, String> {
        Self::parse(text, Side::Balancer)
    }

    pub(crate) fn of_either(text: &str) -> Result<Self, String> {
        Self::of_balancer(text).or_else(|of_balancer| {
            Self::of_server(text).map_err(|of_server| format!("{of_balancer}; or {of_server}"))
        })
    }

    /// Who has it.
    pub(crate) fn side(&self) -> Side {
        self.fault.side()
    }

    /// As it was given on the command line.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The part of `--help` that explains every fault of one side.
pub(crate) fn help(side: Side) -> String {
    use std::fmt::Write as _;

    let mut text = String::from(
        "Faults (--fault NAME[:AMOUNT][@FROM-UNTIL], repeatable; AMOUNT is 45, 4.5% or all, of the\n\
         connections that come to the step at which the fault strikes; a share is spread evenly;\n\
         FROM-UNTIL counts from the first connection, as in shed-load@5s-10s):\n",
    );
    for fault in ALL.iter().filter(|fault| fault.side() == side) {
        let _ = writeln!(text, "  {:28} {}", fault.name, fault.about);
    }
    text
}

/// How many came by a fault's step, and how many of them it hit. Processes that share a port share
/// these too, so that an amount is exact over all of them.
pub(crate) trait Tally: Send + Sync + std::fmt::Debug {
    fn seen(&self, fault: usize) -> &AtomicU64;
    fn hits(&self, fault: usize) -> &AtomicU64;
}

/// The tally of a single process.
#[derive(Debug)]
struct OwnTally(Vec<[AtomicU64; 2]>);

impl Tally for OwnTally {
    fn seen(&self, fault: usize) -> &AtomicU64 {
        &self.0[fault][0]
    }

    fn hits(&self, fault: usize) -> &AtomicU64 {
        &self.0[fault][1]
    }
}

/// The faults of one server or balancer.
#[derive(Debug)]
pub(crate) struct Faults {
    specs: Vec<FaultSpec>,
    tally: Arc<dyn Tally>,
    truth: Option<TruthLog>,
    /// When the first connection came to a step of any fault.
    first: OnceLock<Instant>,
}

impl Faults {
    pub(crate) fn arm(specs: &[FaultSpec], truth: Option<&Path>) -> anyhow::Result<Self> {
        let own = OwnTally(specs.iter().map(|_| Default::default()).collect());
        Self::arm_with(specs, truth, Arc::new(own))
    }

    pub(crate) fn arm_with(
        specs: &[FaultSpec],
        truth: Option<&Path>,
        tally: Arc<dyn Tally>,
    ) -> anyhow::Result<Self> {
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.fault.name == spec.fault.name) {
                return Err(LabError::usage(format!(
                    "--fault {} is given twice; give it once, with the amount that is meant",
                    spec.fault.name
                )));
            }
        }
        let truth = truth.map(TruthLog::append_to).transpose()?;
        Ok(Faults { specs: specs.to_vec(), tally, truth, first: OnceLock::new() })
    }

    /// What to do with a new WebSocket.
    pub(crate) fn admission(&self, leg: &Leg) -> anyhow::Result<Admission> {
        let mut admission = Admission { register: true };
        self.strike(leg, |strike| match strike {
            Strike::Admission(change) => Some((change, None)),
            _ => None,
        })?
        .inspect(|change| change(&mut admission));
        Ok(admission)
    }

    /// What to do after a WebSocket ended.
    pub(crate) fn clean_up(&self, ending: Ending, leg: &Leg) -> anyhow::Result<CleanUp> {
        let mut clean_up = CleanUp { remove_entry: true, decrement: 1, close: true };
        self.strike(leg, |strike| match strike {
            Strike::CleanUp { after, change } if after.contains(&ending) => Some((change, None)),
            _ => None,
        })?
        .inspect(|change| change(&mut clean_up));
        Ok(clean_up)
    }

    /// What to do with an upgrade request, if not the right thing.
    pub(crate) fn reaction(&self, leg: &Leg) -> anyhow::Result<Option<Reaction>> {
        self.strike(leg, |strike| match strike {
            Strike::Request(reaction) => Some((reaction, reaction.outcome())),
            _ => None,
        })
    }

    /// How a balancer handles an upgrade request, if not in the right way.
    pub(crate) fn detour(&self, leg: &Leg) -> anyhow::Result<Option<Detour>> {
        self.strike(leg, |strike| match strike {
            Strike::Forward(detour) => Some((detour, detour.outcome())),
            _ => None,
        })
    }

    /// Whether a balancer forgets to give a slot back.
    pub(crate) fn keeps_slot(&self, leg: &Leg) -> anyhow::Result<bool> {
        let kept = self.strike(leg, |strike| match strike {
            Strike::KeepSlot => Some(((), None)),
            _ => None,
        })?;
        Ok(kept.is_some())
    }

    /// Writes down a connection that was turned away for a reason that is not a fault of this list:
    /// a limit, or what another process did.
    pub(crate) fn turned_away(&self, why: &str, outcome: &str, leg: &Leg) -> anyhow::Result<()> {
        match &self.truth {
            Some(truth) => truth.write(&Hit::now(why, Some(outcome.to_owned()), leg)),
            None => Ok(()),
        }
    }

    /// Hits so far, by fault.
    pub(crate) fn hits(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.specs
            .iter()
            .enumerate()
            .map(|(i, spec)| (spec.fault.name, self.tally.hits(i).load(Ordering::Relaxed)))
    }

    /// Finds the fault that strikes `leg` at the step that `at` picks out, and writes the hit down.
    fn strike<T>(
        &self,
        leg: &Leg,
        at: impl Fn(Strike) -> Option<(T, Option<String>)>,
    ) -> anyhow::Result<Option<T>> {
        let since_first = self.first.get_or_init(Instant::now).elapsed();
        for (i, spec) in self.specs.iter().enumerate() {
            if let Some((what, outcome)) = at(spec.fault.strike)
                && spec.window.is_none_or(|window| window.contains(since_first))
                && spec.amount.takes(self.tally.seen(i).fetch_add(1, Ordering::Relaxed))
            {
                self.tally.hits(i).fetch_add(1, Ordering::Relaxed);
                if let Some(truth) = &self.truth {
                    truth.write(&Hit::now(spec.fault.name, outcome, leg))?;
                }
                return Ok(Some(what));
            }
        }
        Ok(None)
    }
}

impl Reaction {
    /// What the handshake comes to on this leg, where that does not depend on the client's patience.
    fn outcome(self) -> Option<String> {
        Some(match self {
            Reaction::Answer(status) => format!("http_{status}"),
            Reaction::WrongAccept => "http_101_wrong_accept".to_owned(),
            Reaction::Garbage => "not_http".to_owned(),
            Reaction::Hang => "no_response_client_left".to_owned(),
            Reaction::Reset => "no_response_server_reset".to_owned(),
            Reaction::Close => "no_response_server_closed".to_owned(),
            Reaction::CloseAfterUpgrade => "closed_right_after_upgrade".to_owned(),
            Reaction::Delay | Reaction::Spin => return None,
        })
    }
}

impl Detour {
    /// What the handshake comes to on the client's leg, where the balancer alone decides it.
    fn outcome(self) -> Option<String> {
        Some(match self {
            Detour::Refuse | Detour::LoseSlot => "http_503".to_owned(),
            Detour::DeadUpstream => "http_502".to_owned(),
            Detour::RewriteAccept => "http_101_wrong_accept".to_owned(),
            Detour::RefuseAfterUpgrade(status) => format!("http_{status}"),
            Detour::UnreachableUpstream => "http_504".to_owned(),
            Detour::DropHeader(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg() -> Leg {
        let remote = "127.0.0.1:40000".parse().unwrap();
        Leg { remote, local: "127.0.0.1:8080".parse().unwrap(), client: None }
    }

    fn armed(specs: &[&str]) -> Faults {
        let specs: Vec<_> = specs.iter().map(|s| FaultSpec::of_server(s).unwrap()).collect();
        Faults::arm(&specs, None).unwrap()
    }

    #[test]
    fn a_leak_on_rst_leaves_other_endings_alone() {
        let faults = armed(&["app-leak-on-rst:2"]);
        for ending in [Ending::CloseFrame, Ending::Fin, Ending::Timeout, Ending::Shutdown] {
            let clean = faults.clean_up(ending, &leg()).unwrap();
            assert_eq!((clean.remove_entry, clean.decrement, clean.close), (true, 1, true));
        }
        let decrements: Vec<_> =
            (0..3).map(|_| faults.clean_up(Ending::Rst, &leg()).unwrap().decrement).collect();
        assert_eq!(decrements, [0, 0, 1]);
        assert_eq!(faults.hits().collect::<Vec<_>>(), [("app-leak-on-rst", 2)]);
    }

    #[test]
    fn one_connection_is_hit_by_one_fault() {
        let faults = armed(&["app-leak-on-rst", "never-close"]);
        assert!(faults.clean_up(Ending::Rst, &leg()).unwrap().close);
        assert!(!faults.clean_up(Ending::Fin, &leg()).unwrap().close);
        assert_eq!(faults.hits().collect::<Vec<_>>(), [("app-leak-on-rst", 1), ("never-close", 1)]);
    }

    #[test]
    fn mixed_shares_of_requests_are_exact() {
        let faults = armed(&["hang:10%", "unauthorized:10%"]);
        let reactions: Vec<_> = (0..100).filter_map(|_| faults.reaction(&leg()).unwrap()).collect();
        let count = |wanted| reactions.iter().filter(|r| **r == wanted).count();
        // The second takes its share of those that the first lets by.
        assert_eq!((count(Reaction::Hang), count(Reaction::Answer(401))), (10, 9));
    }

    #[test]
    fn outside_its_window_a_fault_does_not_strike() {
        let faults = armed(&["shed-load@1h-2h"]);
        assert_eq!(faults.reaction(&leg()).unwrap(), None);
        let faults = armed(&["shed-load@0s-1h"]);
        assert_eq!(faults.reaction(&leg()).unwrap(), Some(Reaction::Answer(503)));
    }

    #[test]
    fn unknown_and_repeated_faults_are_refused() {
        let error = FaultSpec::of_server("app-leak").unwrap_err();
        assert!(error.contains("expected one of app-leak-on-rst"), "{error}");
        let error = FaultSpec::of_server("slot-leak").unwrap_err();
        assert!(!error.contains("slot-race"), "{error}");
        let twice = ["never-close:1", "never-close:2"].map(|s| FaultSpec::of_server(s).unwrap());
        assert!(Faults::arm(&twice, None).unwrap_err().to_string().contains("given twice"));
    }
}
