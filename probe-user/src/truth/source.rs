//! The three places counts can come from, behind one trait: our own programs in the kernel, a
//! running agent, or (not exact) dumps of sock_diag.

use probe_common::key::CountSlot;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Receiver;

use crate::{handshake::follow::Observed, identity::Identity, kernel::cost::HookCost};

/// How counts are obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    Ebpf,
    SockDiag,
}

impl Backend {
    /// As in JSON and captures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::SockDiag => "sock_diag",
        }
    }
}

/// What may be missing from the numbers of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exactness {
    /// Speaks of counts: no loss since the start, no drift, no overdue audit.
    pub exact: bool,
    /// Speaks of events: no connection record was lost, nor what its first packets said.
    pub detail_complete: bool,
    /// Why not, since when, and what else could not be looked at, in words. First why counts are not exact.
    pub degraded: Vec<String>,
    /// Of those, why counts are not exact.
    #[serde(default)]
    pub inexact: Vec<String>,
}

/// A batch of connections that ended (or were released), and of handshakes that failed before there
/// was a connection, oldest first.
pub type Ended = Vec<Observed>;

/// Where counts come from. All calls are cheap enough to be made many times a second, except
/// [`Source::connections`], and none for sock_diag.
pub trait Source: Send + Sync {
    fn backend(&self) -> Backend;

    /// Hooks in use, e.g. `tp_btf/inet_sock_set_state`; empty for sock_diag.
    fn hooks(&self) -> Vec<String>;

    /// The counters now: every population with its key, including those that are all zero.
    ///
    /// # Errors
    /// When the kernel or the agent cannot be asked.
    fn slots(&self) -> anyhow::Result<Vec<CountSlot>>;

    /// Walks every socket once: notes accepts that no event has shown (where function tracing is
    /// locked), and makes good what the kernel's events missed. Tens of milliseconds at 50,000
    /// sockets; nothing where a walk of the last seconds still holds as far as can be told. Call before numbers are shown once; an agent calls it every few seconds.
    ///
    /// # Errors
    /// As [`Source::slots`].
    fn settle(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Gives back counters of populations that are no more, where many are in use; `identity` tells which of them
    /// are of one service. An agent calls it every few seconds.
    ///
    /// # Errors
    /// As [`Source::slots`].
    fn reclaim(&self, _identity: &Identity) -> anyhow::Result<()> {
        Ok(())
    }

    /// Every socket that is counted now.
    ///
    /// # Errors
    /// As [`Source::slots`].
    fn connections(&self) -> anyhow::Result<Vec<Observed>>;

    /// Passive handshakes that are not established yet, nor given up.
    ///
    /// # Errors
    /// As [`Source::slots`].
    fn pending(&self) -> anyhow::Result<Vec<Observed>> {
        Ok(Vec::new())
    }

    /// Whether a SYN may wait for its last ACK; true where that is not known.
    fn may_have_pending(&self) -> bool {
        true
    }

    /// # Errors
    /// As [`Source::slots`].
    fn exactness(&self) -> anyhow::Result<Exactness>;

    /// How the source itself fares: losses, repairs, audits. Names in snake_case; they only grow,
    /// but for `drift`.
    fn vitals(&self) -> Vec<(String, i64)> {
        Vec::new()
    }

    /// What the programs cost; empty where there are none, or another process has them.
    fn costs(&self) -> Vec<HookCost> {
        Vec::new()
    }

    /// The stream of ended connections from now on; `None` where there is none (sock_diag, or counts only).
    fn ended(&self) -> Option<Receiver<Ended>>;
}
