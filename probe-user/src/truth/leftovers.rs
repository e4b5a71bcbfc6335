//! What the kernel side leaves in its maps, since nothing tells it when to take it out, or the kernel refused to
//! (`EBUSY`, `handshake::flag::TAKEN_OVER`).

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::Context;
use aya::{
    Pod,
    maps::{HashMap as BpfHashMap, Map, MapData},
};
use probe_common::key::ListenerKey;

use crate::{clock, identity::netns::Netns, kernel::sys};

const CHUNK: u32 = 1024;

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

/// A hash map of which entries are taken out.
struct Entries<K, V> {
    map: BpfHashMap<MapData, K, V>,
    fd: OwnedFd,
}

impl<K: Pod, V: Pod> Entries<K, V> {
    fn new(map: Map) -> anyhow::Result<Self> {
        let Map::HashMap(data) = map else { anyhow::bail!("not a hash map") };
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { map: BpfHashMap::try_from(Map::HashMap(data))?, fd })
    }

    fn remove_if(&mut self, is_over: impl Fn(&K, V) -> bool) -> std::io::Result<()> {
        let mut over = Vec::new();
        sys::each_entry(self.fd.as_fd(), CHUNK, |key: K, value: V| {
            if is_over(&key, value) {
                over.push(key);
            }
        })?;
        for key in over {
            // Somebody may have been faster.
            let _ = self.map.remove(&key);
        }
        Ok(())
    }
}
