//! What the kernel side leaves in its maps, since nothing tells it when to take it out, or the kernel refused to
//! (`EBUSY`, `handshake::flag::TAKEN_OVER`).

use std::{collections::HashMap, time::Duration};

use anyhow::Context;
use aya::maps::Map;
use probe_common::key::ListenerKey;

use super::entries::Entries;
use crate::{clock, identity::netns::Netns};

/// No program runs for so long: what is older was not given back.
const CLAIM_IS_OVER: Duration = Duration::from_secs(1);

/// The maps that are tidied at each walk.
pub struct Leftovers {
    claims: Entries<u64, u64>,
    listeners: Entries<ListenerKey, u32>,
}

impl Leftovers {
    /// # Errors
    /// Where the maps are not what they should be.
    pub fn new(claims: Map, listeners: Map) -> anyhow::Result<Self> {
        Ok(Self { claims: Entries::new(claims)?, listeners: Entries::new(listeners)? })
    }

    /// Takes out what is over after walk `number`, which has been through the namespaces `walked`; in those of
    /// `counted` there are sockets.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn tidy(
        &mut self,
        number: u32,
        walked: &HashMap<u32, Netns>,
        counted: &HashMap<u32, i64>,
    ) -> anyhow::Result<()> {
        let now = clock::mono_ns().unsigned_abs();
        let is_over = |since: u64| Duration::from_nanos(now.saturating_sub(since)) > CLAIM_IS_OVER;
        self.claims.remove_if(|_, since| is_over(since)).context("cannot tidy CLAIMS")?;
        self.listeners
            .remove_if(|key, met| {
                let is_alone = !counted.contains_key(&key.netns);
                met < number && (is_alone || walked.contains_key(&key.netns))
            })
            .context("cannot tidy LISTENERS")
    }
}
