//! Legs: which upstream connection a proxy made for which client.
//!
//! A proxy connects to a shard after its client's connection is established and before the client is
//! answered, and the shard's answer comes before the client's. Where both requests carry the same
//! WebSocket key the recorder gives both rows one `leg_id`; since load tools use one key for all
//! their connections, it narrows the choice and does not make it. A link is certain if no other client
//! was in question.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::handshake::attempt::{Attempt, Attempts, ESTABLISHED, RESPONSE, UPGRADE};
use crate::input::connections::{Address, Connections, Number};

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
    /// For every attempt of a proxy's clients; the others have none.
    upstream: HashMap<usize, Upstream>,
    pub(crate) linked: usize,
    pub(crate) certain: usize,
}

/// So many of a service's connections must have a possible upstream for it to be a proxy.
const PROXY_SHARE: f64 = 0.5;

impl Legs {
    pub(crate) fn new(attempts: &Attempts<'_>, connections: &Connections) -> Self {
        let any_active = attempts.iter().any(|attempt| !attempt.passive());
        let candidates = if any_active { candidates(attempts) } else { Vec::new() };
        let far_ends = if any_active { far_ends(attempts, connections) } else { HashMap::new() };
        let proxies = proxies(attempts, &candidates);
        let mut upstream = HashMap::new();
        let mut behind = BTreeSet::new();
        let (mut linked, mut certain) = (BTreeSet::new(), BTreeSet::new());
        for (active, clients) in in_order(attempts, &candidates) {
            let mut clients: Vec<usize> = clients
                .iter()
                .copied()
                .filter(|client| proxies.contains(&service(attempts.get(*client))))
                .collect();
            // A proxy that tries a second shard is rare; a client without any upstream is more likely.
            // So is one that turns a client away after its shard has upgraded.
            prefer(&mut clients, |client| !linked.contains(&client));
            let is_upgraded = |index| attempts.get(index).at(UPGRADE).is_some();
            prefer(&mut clients, |client| is_upgraded(client) == is_upgraded(active));
            let slack = |client: &usize| slack_ns(attempts.get(*client), attempts.get(active));
            let Some(client) = clients.iter().copied().min_by_key(slack) else { continue };
            let far = far_ends.get(&active).copied();
            behind.extend(far);
            upstream.insert(client, Upstream::Leg(far.unwrap_or(active)));
            linked.insert(client);
            if clients.len() == 1 {
                certain.insert(client);
            }
        }
        // An active attempt that is not linked is a client's own on this host; it counts only where no
        // passive end was recorded, or each would be there twice.
        let of_a_client = |attempt: &Attempt<'_>| attempt.counted() && attempt.asks();
        let any_passive = attempts.iter().any(|attempt| of_a_client(&attempt) && attempt.passive());
        let front: Vec<usize> = attempts
            .iter()
            .enumerate()
            .filter(|(index, attempt)| of_a_client(attempt) && !behind.contains(index))
            .filter(|(_, attempt)| attempt.passive() || !any_passive)
            .map(|(index, _)| index)
            .collect();
        if !proxies.is_empty() {
            for index in &front {
                if proxies.contains(&service(attempts.get(*index))) {
                    upstream.entry(*index).or_insert(Upstream::NeverTried);
                }
            }
        }
        let counted =
            |found: &BTreeSet<usize>| found.iter().filter(|i| attempts.get(**i).counted()).count();
        Self { linked: counted(&linked), certain: counted(&certain), front, upstream }
    }

    pub(crate) fn upstream(&self, index: usize) -> Upstream {
        self.upstream.get(&index).copied().unwrap_or(Upstream::None)
    }

    /// The counted attempts and their upstream legs.
    pub(crate) fn on_path(&self) -> impl Iterator<Item = usize> + '_ {
        self.front.iter().flat_map(|index| {
            let upstream = match self.upstream(*index) {
                Upstream::Leg(upstream) => Some(upstream),
                Upstream::None | Upstream::NeverTried => None,
            };
            std::iter::once(*index).chain(upstream)
        })
    }
}

fn service(attempt: Attempt<'_>) -> (u64, u32) {
    (attempt.cgroup_id(), attempt.port())
}

/// For every active attempt, in order of start, the clients' that it may have been made for.
fn candidates(attempts: &Attempts<'_>) -> Vec<(usize, Vec<usize>)> {
    // Nothing is passed on for a client whose connection never came about.
    let mut clients: Vec<(i64, usize)> = attempts
        .iter()
        .enumerate()
        .filter(|(_, attempt)| attempt.passive() && attempt.asks())
        .filter_map(|(index, attempt)| Some((attempt.at(ESTABLISHED)?, index)))
        .collect();
    clients.sort_unstable();
    let mut active: Vec<usize> =
        (0..attempts.len()).filter(|index| !attempts.get(*index).passive()).collect();
    active.sort_by_key(|index| attempts.get(*index).start_ns());
    let mut waiting: Vec<usize> = Vec::new();
    let mut next = clients.into_iter().peekable();
    active
        .into_iter()
        .map(|index| {
            let upstream = attempts.get(index);
            let start_ns = upstream.start_ns();
            while let Some((_, client)) = next.next_if(|(since, _)| *since <= start_ns) {
                waiting.push(client);
            }
            waiting.retain(|client| {
                let attempt = attempts.get(*client);
                attempt.at(RESPONSE).or(attempt.closed_ns()).is_none_or(|end| end >= start_ns)
            });
            // Of a refusal the client hears after the proxy has heard of it.
            let refused = upstream.outcome() == "no_listener";
            let heard_ns = upstream.closed_ns().filter(|_| refused).unwrap_or(start_ns);
            let fitting = waiting.iter().copied().filter(|client| {
                let client = attempts.get(*client);
                let answered = client.at(RESPONSE);
                fits(client, upstream) && answered.is_none_or(|at| at >= heard_ns)
            });
            (index, fitting.collect())
        })
        .collect()
}

/// Whether an upstream leg may have been made for a client's, but for when it began.
fn fits(client: Attempt<'_>, upstream: Attempt<'_>) -> bool {
    let in_order = match (upstream.at(UPGRADE), client.at(UPGRADE)) {
        (Some(shard), Some(proxy)) => shard <= proxy,
        // A client is only upgraded by way of an upgraded shard.
        (None, Some(_)) => false,
        (_, None) => true,
    };
    // A request without upgrade headers may be what is left of one with them, or a proxy's own poll
    // of the shard's health; only of the former is the answer passed on.
    let passed_on = upstream.asks() || client.status() == upstream.status();
    client.cgroup_id() == upstream.cgroup_id()
        && passed_on
        && client.port() != upstream.port()
        && in_order
        && (client.leg_id().is_none()
            || upstream.leg_id().is_none()
            || client.leg_id() == upstream.leg_id())
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
    attempts: &Attempts<'_>,
    candidates: &'a [(usize, Vec<usize>)],
) -> Vec<(usize, &'a [usize])> {
    let mut ordered: Vec<(usize, &[usize])> =
        candidates.iter().map(|(active, clients)| (*active, clients.as_slice())).collect();
    ordered.sort_by_key(|(active, _)| {
        let attempt = attempts.get(*active);
        let over_ns = attempt.at(RESPONSE).or(attempt.closed_ns()).unwrap_or(i64::MAX);
        (attempt.at(UPGRADE).is_none(), over_ns, attempt.start_ns())
    });
    ordered
}

/// How loosely an upstream leg lies within its client's: the less, the likelier. A proxy passes an
/// answer on at once, and answers itself as soon as its own leg has failed.
fn slack_ns(client: Attempt<'_>, upstream: Attempt<'_>) -> i64 {
    match (upstream.at(RESPONSE), client.at(RESPONSE)) {
        (Some(shard), Some(proxy)) if proxy >= shard => proxy - shard,
        (None, Some(proxy)) if upstream.at(ESTABLISHED).is_none() => {
            (proxy - upstream.closed_ns().unwrap_or(upstream.start_ns())).abs()
        }
        _ => upstream.start_ns() - client.at(ESTABLISHED).unwrap_or(client.start_ns()),
    }
}

/// Services of whose connections most have a possible upstream. Those of a server have one only by
/// coincidence, while those of a proxy lack one only where it refused.
fn proxies(attempts: &Attempts<'_>, candidates: &[(usize, Vec<usize>)]) -> BTreeSet<(u64, u32)> {
    if candidates.is_empty() {
        return BTreeSet::new();
    }
    let reached: BTreeSet<usize> =
        candidates.iter().flat_map(|(_, clients)| clients.iter().copied()).collect();
    let share = |upgraded_only: bool| -> BTreeMap<(u64, u32), f64> {
        let mut counts: BTreeMap<(u64, u32), (usize, usize)> = BTreeMap::new();
        for (index, attempt) in attempts.iter().enumerate().filter(|(_, a)| a.passive() && a.asks())
        {
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
fn far_ends(attempts: &Attempts<'_>, connections: &Connections) -> HashMap<usize, usize> {
    let end =
        |address, port, row| (connections.address_key(address, row), connections.small(port, row));
    let near = |row: usize| end(Address::Local, Number::LocalPort, row);
    let far = |row: usize| end(Address::Remote, Number::RemotePort, row);
    let mut passive: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, attempt) in attempts.iter().enumerate().filter(|(_, a)| a.passive()) {
        passive.entry((near(attempt.row()), far(attempt.row()))).or_default().push(index);
    }
    let mut ends = HashMap::new();
    for (index, attempt) in attempts.iter().enumerate().filter(|(_, a)| !a.passive()) {
        let Some(found) = passive.get(&(far(attempt.row()), near(attempt.row()))) else { continue };
        // An address pair is used again after a while.
        let distance = |end: &&usize| (attempts.get(**end).start_ns() - attempt.start_ns()).abs();
        ends.extend(found.iter().min_by_key(distance).map(|end| (index, *end)));
    }
    ends
}
