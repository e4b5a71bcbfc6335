//! Legs: which upstream connection a proxy made for which client.
//!
//! A proxy connects to a shard after its client's connection is established and before the client is
//! answered, and the shard's answer comes before the client's. Where both requests carry the same
//! WebSocket key the recorder gives both rows one `leg_id`; since load tools use one key for all
//! their connections, it narrows the choice and does not make it. A link is certain if no other client
//! was in question.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use polars::prelude::DataFrame;

use crate::handshake::attempt::{Attempt, Attempts, ESTABLISHED, RESPONSE, UPGRADE};

/// What is known of the other side of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// This service is no proxy, as far as the recording shows.
    None,
    /// Its other connections have upstream legs, this one has not.
    NeverTried,
    /// Index of the upstream attempt: the shard's own end where it was recorded.
    Leg(usize),
}

/// Every client-side attempt with its upstream.
#[derive(Debug)]
pub(crate) struct Legs {
    /// Indices into the attempts: the counted ones that a client made.
    pub(crate) front: Vec<usize>,
    /// For every attempt.
    upstream: Vec<Upstream>,
    pub(crate) linked: usize,
    pub(crate) certain: usize,
}

/// So many of a service's connections must have a possible upstream for it to be a proxy.
const PROXY_SHARE: f64 = 0.5;

impl Legs {
    pub(crate) fn new(attempts: &Attempts, connections: &DataFrame) -> anyhow::Result<Self> {
        let all = &attempts.all;
        let far_ends = far_ends(attempts, connections)?;
        let candidates = candidates(attempts);
        let proxies = proxies(all, &candidates);
        let mut upstream = vec![Upstream::None; all.len()];
        let mut behind = BTreeSet::new();
        let (mut linked, mut certain) = (BTreeSet::new(), BTreeSet::new());
        for (active, clients) in in_order(all, &candidates) {
            let mut clients: Vec<usize> = clients
                .iter()
                .copied()
                .filter(|client| proxies.contains(&service(&all[*client])))
                .collect();
            // A proxy that tries a second shard is rare; a client without any upstream is more likely.
            // So is one that turns a client away after its shard has upgraded.
            prefer(&mut clients, |client| !linked.contains(&client));
            prefer(&mut clients, |client| {
                all[client].at(UPGRADE).is_some() == all[active].at(UPGRADE).is_some()
            });
            let slack = |client: &usize| slack_ns(&all[*client], &all[active]);
            let Some(client) = clients.iter().copied().min_by_key(slack) else { continue };
            let far = far_ends.get(&active).copied();
            behind.extend(far);
            upstream[client] = Upstream::Leg(far.unwrap_or(active));
            linked.insert(client);
            if clients.len() == 1 {
                certain.insert(client);
            }
        }
        // An active attempt that is not linked is a client's own on this host; it counts only where no
        // passive end was recorded, or each would be there twice.
        let any_passive =
            all.iter().any(|attempt| attempt.counted && attempt.asks && attempt.passive);
        let front: Vec<usize> = (0..all.len())
            .filter(|index| all[*index].counted && all[*index].asks && !behind.contains(index))
            .filter(|index| all[*index].passive || !any_passive)
            .collect();
        for index in &front {
            let proxy = proxies.contains(&service(&all[*index]));
            if proxy && upstream[*index] == Upstream::None {
                upstream[*index] = Upstream::NeverTried;
            }
        }
        let counted = |found: &BTreeSet<usize>| found.iter().filter(|i| all[**i].counted).count();
        Ok(Self { linked: counted(&linked), certain: counted(&certain), front, upstream })
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

/// For every active attempt, in order of start, the clients' that it may have been made for.
fn candidates(attempts: &Attempts) -> Vec<(usize, Vec<usize>)> {
    let all = &attempts.all;
    // Nothing is passed on for a client whose connection never came about.
    let mut clients: Vec<(i64, usize)> = (0..all.len())
        .filter(|index| all[*index].passive && all[*index].asks)
        .filter_map(|index| Some((all[index].at(ESTABLISHED)?, index)))
        .collect();
    clients.sort_unstable();
    let mut active: Vec<usize> = (0..all.len()).filter(|index| !all[*index].passive).collect();
    active.sort_by_key(|index| all[*index].start_ns);
    let mut waiting: Vec<usize> = Vec::new();
    let mut next = clients.into_iter().peekable();
    active
        .into_iter()
        .map(|index| {
            let start_ns = all[index].start_ns;
            while let Some((_, client)) = next.next_if(|(since, _)| *since <= start_ns) {
                waiting.push(client);
            }
            waiting.retain(|client| {
                let attempt = &all[*client];
                attempt.at(RESPONSE).or(attempt.closed_ns).is_none_or(|end| end >= start_ns)
            });
            // Of a refusal the client hears after the proxy has heard of it.
            let refused = attempts.outcome(&all[index]) == "no_listener";
            let heard_ns = all[index].closed_ns.filter(|_| refused).unwrap_or(start_ns);
            let fitting = waiting.iter().copied().filter(|client| {
                let answered = all[*client].at(RESPONSE);
                fits(&all[*client], &all[index]) && answered.is_none_or(|at| at >= heard_ns)
            });
            (index, fitting.collect())
        })
        .collect()
}

/// Whether an upstream leg may have been made for a client's, but for when it began.
fn fits(client: &Attempt, upstream: &Attempt) -> bool {
    let in_order = match (upstream.at(UPGRADE), client.at(UPGRADE)) {
        (Some(shard), Some(proxy)) => shard <= proxy,
        // A client is only upgraded by way of an upgraded shard.
        (None, Some(_)) => false,
        (_, None) => true,
    };
    // A request without upgrade headers may be what is left of one with them, or a proxy's own poll
    // of the shard's health; only of the former is the answer passed on.
    let passed_on = upstream.asks || client.status == upstream.status;
    client.cgroup_id == upstream.cgroup_id
        && passed_on
        && client.port != upstream.port
        && in_order
        && (client.leg_id.is_none()
            || upstream.leg_id.is_none()
            || client.leg_id == upstream.leg_id)
}

/// Keeps only those that are preferred, if there are any.
fn prefer(clients: &mut Vec<usize>, preferred: impl Fn(usize) -> bool) {
    if clients.iter().any(|client| preferred(*client)) {
        clients.retain(|client| preferred(*client));
    }
}

/// Upgraded upstream legs first, since their clients are known by being upgraded as well; in order of
/// the answer, so that each finds the client that was answered next.
fn in_order<'a>(
    all: &[Attempt],
    candidates: &'a [(usize, Vec<usize>)],
) -> Vec<(usize, &'a [usize])> {
    let mut ordered: Vec<(usize, &[usize])> =
        candidates.iter().map(|(active, clients)| (*active, clients.as_slice())).collect();
    ordered.sort_by_key(|(active, _)| {
        let attempt = &all[*active];
        let over_ns = attempt.at(RESPONSE).or(attempt.closed_ns).unwrap_or(i64::MAX);
        (attempt.at(UPGRADE).is_none(), over_ns, attempt.start_ns)
    });
    ordered
}

/// How loosely an upstream leg lies within its client's: the less, the likelier. A proxy passes an
/// answer on at once, and answers itself as soon as its own leg has failed.
fn slack_ns(client: &Attempt, upstream: &Attempt) -> i64 {
    match (upstream.at(RESPONSE), client.at(RESPONSE)) {
        (Some(shard), Some(proxy)) if proxy >= shard => proxy - shard,
        (None, Some(proxy)) if upstream.at(ESTABLISHED).is_none() => {
            (proxy - upstream.closed_ns.unwrap_or(upstream.start_ns)).abs()
        }
        _ => upstream.start_ns - client.at(ESTABLISHED).unwrap_or(client.start_ns),
    }
}

/// Services of whose connections most have a possible upstream. Those of a server have one only by
/// coincidence, while those of a proxy lack one only where it refused.
fn proxies(all: &[Attempt], candidates: &[(usize, Vec<usize>)]) -> BTreeSet<(u64, u32)> {
    let reached: BTreeSet<usize> =
        candidates.iter().flat_map(|(_, clients)| clients.iter().copied()).collect();
    let share = |upgraded_only: bool| -> BTreeMap<(u64, u32), f64> {
        let mut counts: BTreeMap<(u64, u32), (usize, usize)> = BTreeMap::new();
        for (index, attempt) in all.iter().enumerate().filter(|(_, a)| a.passive && a.asks) {
            if !upgraded_only || attempt.at(UPGRADE).is_some() {
                let (all, with) = counts.entry(service(attempt)).or_default();
                *all += 1;
                *with += usize::from(reached.contains(&index));
            }
        }
        counts.into_iter().map(|(key, (all, with))| (key, with as f64 / all as f64)).collect()
    };
    // A proxy may refuse nearly all, but not those that it upgrades.
    let mut shares = share(false);
    shares.extend(share(true));
    shares.into_iter().filter(|(_, share)| *share >= PROXY_SHARE).map(|(key, _)| key).collect()
}

/// Active attempts and the passive rows at the other end of the very same connection.
fn far_ends(attempts: &Attempts, connections: &DataFrame) -> anyhow::Result<HashMap<usize, usize>> {
    let local = connections.column("local_address")?.str()?;
    let remote = connections.column("remote_address")?.str()?;
    let local_port = connections.column("local_port")?.u32()?;
    let remote_port = connections.column("remote_port")?.u32()?;
    let near = |row: usize| (local.get(row), local_port.get(row));
    let far = |row: usize| (remote.get(row), remote_port.get(row));
    if attempts.all.iter().all(|attempt| attempt.passive) {
        return Ok(HashMap::new());
    }
    let mut passive: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, attempt) in attempts.all.iter().enumerate().filter(|(_, a)| a.passive) {
        let row = attempt.row as usize;
        passive.entry((near(row), far(row))).or_default().push(index);
    }
    let mut ends = HashMap::new();
    for (index, attempt) in attempts.all.iter().enumerate().filter(|(_, a)| !a.passive) {
        let row = attempt.row as usize;
        let Some(found) = passive.get(&(far(row), near(row))) else { continue };
        // An address pair is used again after a while.
        let nearest =
            found.iter().min_by_key(|end| (attempts.all[**end].start_ns - attempt.start_ns).abs());
        ends.extend(nearest.map(|end| (index, *end)));
    }
    Ok(ends)
}
