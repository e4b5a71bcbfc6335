//! Legs: which upstream connection a proxy made for which client.
//!
//! Rows of one path share the recorder's `leg_id`. The client's leg is the passive row that came
//! first; the active row is the proxy's own; a later passive row is the shard's end of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::handshake::attempt::{Attempt, Attempts};

/// What is known of the other side of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// This service is no proxy, as far as the recording shows.
    None,
    /// Its other connections have upstream legs, this one has not.
    NeverTried,
    /// Index of the upstream attempt.
    Leg(usize),
}

/// Every client-side attempt with its upstream.
#[derive(Debug)]
pub(crate) struct Legs {
    /// Indices into the attempts: the counted ones that a client outside made.
    pub(crate) front: Vec<usize>,
    /// For every attempt.
    upstream: Vec<Upstream>,
    pub(crate) linked: usize,
    pub(crate) certain: usize,
}

impl Legs {
    pub(crate) fn new(attempts: &Attempts) -> Self {
        let mut paths: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, attempt) in attempts.all.iter().enumerate() {
            if let Some(leg) = attempt.leg_id {
                paths.entry(leg).or_default().push(index);
            }
        }
        let mut upstream = vec![Upstream::None; attempts.all.len()];
        let mut behind = BTreeSet::new();
        let mut proxies = BTreeSet::new();
        let (mut linked, mut certain) = (0, 0);
        for path in paths.values_mut() {
            path.sort_by_key(|index| attempts.all[*index].start_ns);
            let passive = |index: &&usize| attempts.all[**index].passive;
            let Some(client) = path.iter().find(passive).copied() else { continue };
            let others = path.iter().copied().filter(|index| *index != client);
            behind.extend(others.clone());
            // The shard's own end says more of its answer than the proxy's, so it is preferred.
            let shard = others.clone().find(|index| attempts.all[*index].passive);
            let Some(found) = shard.or(others.clone().next()) else { continue };
            upstream[client] = Upstream::Leg(found);
            proxies.insert(service(&attempts.all[client]));
            if attempts.all[client].counted {
                let sure = path.iter().all(|index| attempts.all[*index].leg_certain);
                linked += 1;
                certain += usize::from(sure);
            }
        }
        // Active attempts without a link are a client's own on this host; they count only where no
        // passive end was recorded, or each would be there twice.
        let any_passive = attempts.all.iter().any(|attempt| attempt.counted && attempt.passive);
        let front: Vec<usize> = (0..attempts.all.len())
            .filter(|index| attempts.all[*index].counted && !behind.contains(index))
            .filter(|index| attempts.all[*index].passive || !any_passive)
            .collect();
        for index in &front {
            let proxy = proxies.contains(&service(&attempts.all[*index]));
            if proxy && upstream[*index] == Upstream::None {
                upstream[*index] = Upstream::NeverTried;
            }
        }
        Self { front, upstream, linked, certain }
    }

    pub(crate) fn upstream(&self, index: usize) -> Upstream {
        self.upstream[index]
    }

    /// The counted attempts and their upstream legs.
    pub(crate) fn on_path(&self) -> impl Iterator<Item = usize> + '_ {
        self.front.iter().flat_map(|index| {
            let upstream = match self.upstream[*index] {
                Upstream::Leg(upstream) => Some(upstream),
                Upstream::None | Upstream::NeverTried => None,
            };
            std::iter::once(*index).chain(upstream)
        })
    }
}

fn service(attempt: &Attempt) -> (u64, u32) {
    (attempt.cgroup_id, attempt.port)
}
