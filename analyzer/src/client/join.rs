//! Clients joined with what the kernel saw of the very same connections, by address pair.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::stage::{Stage, Stages, Steps};
use crate::clock::{ClockOffset, ClockSighting, client_offset};
use crate::handshake::outcome::is_failure;
use crate::input::client::ClientConnection;
use crate::input::connections::{Address, Flag, Number, Time, Word};
use crate::input::recording::Recording;

/// How far what a client and the kernel say of one instant may lie apart, beside the uncertainty of the
/// clocks: a process is not always run at once.
const SLACK_NS: i64 = 100_000_000;

/// The server's end of a connection that may be a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Index into the addresses of [`Ends`].
    address: u32,
    recording: u32,
    row: u32,
}

/// Clients found in captures, or not.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub(crate) struct Matches {
    /// Found in a capture by their address pair.
    pub(crate) matched: usize,
    /// With a local address, and not in any capture: they did not reach a recorded host.
    pub(crate) unmatched: usize,
    /// Never had a local port of their own.
    pub(crate) without_address: usize,
    pub(crate) clock: Option<ClockOffset>,
    /// What the matched ones say of their end, beside what the kernel saw.
    pub(crate) views: Vec<ClientView>,
    /// From the client's start to its upgrade.
    pub(crate) stages: Vec<Stage>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ClientView {
    pub(crate) client: String,
    pub(crate) kernel: String,
    pub(crate) count: usize,
}

/// The clients' own addresses, and the rows of the captures that have them.
struct Ends<'a> {
    recordings: &'a [Recording],
    /// For each client its place among the different addresses.
    addresses: Vec<Option<u32>>,
    /// How many clients had each.
    uses: Vec<u32>,
    /// By address.
    candidates: Vec<Candidate>,
}

impl<'a> Ends<'a> {
    fn new(clients: &[ClientConnection], recordings: &'a [Recording]) -> Self {
        let mut places: HashMap<(IpAddr, u16), u32> = HashMap::new();
        let mut uses = Vec::new();
        let mut place = |client: &ClientConnection| {
            let address = (client.local_address?.to_canonical(), client.local_port?);
            let place = *places.entry(address).or_insert_with(|| {
                uses.push(0);
                uses.len() as u32 - 1
            });
            uses[place as usize] += 1;
            Some(place)
        };
        let addresses = clients.iter().map(&mut place).collect();
        let mut candidates = Vec::new();
        for (index, recording) in recordings.iter().enumerate() {
            add_candidates(&mut candidates, index as u32, recording, &places);
        }
        candidates.sort_unstable();
        Self { recordings, addresses, uses, candidates }
    }

    /// The rows that may be this client's.
    fn of(&self, client: usize) -> &[Candidate] {
        let Some(address) = self.addresses[client] else { return &[] };
        let first = self.candidates.partition_point(|found| found.address < address);
        let here = &self.candidates[first..];
        &here[..here.partition_point(|found| found.address == address)]
    }

    fn unix_ns(&self, found: &Candidate, time: Time) -> Option<i64> {
        let recording = &self.recordings[found.recording as usize];
        let at = recording.connections.time(time, found.row as usize)?;
        Some(recording.clock.unix_ns(at))
    }

    /// Whether the client was there when the connection began. Only clocks that are aligned can tell.
    fn fits(
        &self,
        client: &ClientConnection,
        found: &Candidate,
        clock: Option<ClockOffset>,
    ) -> bool {
        let Some(clock) = clock else { return true };
        let slack = SLACK_NS + clock.uncertainty_ns;
        let seen = self.seen_unix_ns(found);
        clock.to_host(client.started_unix_ns) - slack <= seen
            && client.closed_unix_ns.is_none_or(|closed| seen <= clock.to_host(closed) + slack)
    }

    /// When it was established, by Unix time; `None` where it never was, or that was noticed late.
    fn established_unix_ns(&self, found: &Candidate) -> Option<i64> {
        let connections = &self.recordings[found.recording as usize].connections;
        let is_late = connections.flag(Flag::EstablishedIsUpperBound, found.row as usize);
        self.unix_ns(found, Time::Established).filter(|_| !is_late)
    }

    /// Likewise; else when the kernel first saw it.
    fn seen_unix_ns(&self, found: &Candidate) -> i64 {
        let established = self.established_unix_ns(found);
        established.or_else(|| self.unix_ns(found, Time::FirstSeen)).unwrap_or(0)
    }

    /// The handshake's outcome if it failed, else how the connection ended.
    fn ending(&self, found: &Candidate) -> String {
        let connections = &self.recordings[found.recording as usize].connections;
        let word = |word| connections.word(word, found.row as usize);
        let is_open = self.unix_ns(found, Time::Closed).is_none();
        if is_open && self.unix_ns(found, Time::Established).is_some() {
            return "still open".to_owned();
        }
        match word(Word::Outcome).filter(|outcome| is_failure(outcome)) {
            Some(failure) => failure.to_owned(),
            None => {
                let [how, by] = [Word::ClosedHow, Word::ClosedBy].map(word);
                format!("{} from {}", how.unwrap_or("unknown"), by.unwrap_or("unknown"))
            }
        }
    }

    fn steps(&self, found: &Candidate) -> Steps {
        Steps {
            syn: self.unix_ns(found, Time::SynReceived),
            established: self.established_unix_ns(found),
            accepted: self.unix_ns(found, Time::Accepted),
            request: self.unix_ns(found, Time::Request),
            response: self.unix_ns(found, Time::Response),
        }
    }
}

pub(crate) fn join(clients: &[ClientConnection], recordings: &[Recording]) -> Matches {
    let ends = Ends::new(clients, recordings);
    let clock = offset(&ends, clients);
    let mut matches = Matches { clock, ..Matches::default() };
    let mut views: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut stages = Stages::default();
    for (index, client) in clients.iter().enumerate() {
        let on_host = |client_ns: i64| clock.map_or(client_ns, |clock| clock.to_host(client_ns));
        let started = on_host(client.started_unix_ns);
        // A port is used again after a while: the nearest in time is the one.
        let distance = |found: &&Candidate| (ends.seen_unix_ns(found) - started).abs();
        let fits = |found: &&Candidate| ends.fits(client, found, clock);
        let Some(found) = ends.of(index).iter().filter(fits).min_by_key(distance) else {
            match client.local_port {
                Some(_) => matches.unmatched += 1,
                None => matches.without_address += 1,
            }
            continue;
        };
        matches.matched += 1;
        *views.entry((client_end(client), ends.ending(found))).or_default() += 1;
        if let Some(upgraded) = client.upgraded_unix_ns {
            stages.add(started, &ends.steps(found), on_host(upgraded));
        }
    }
    matches.views = views
        .into_iter()
        .map(|((client, kernel), count)| ClientView { client, kernel, count })
        .collect();
    matches.views.sort_by_key(|view| std::cmp::Reverse(view.count));
    matches.stages = stages.finish();
    matches
}

fn client_end(client: &ClientConnection) -> String {
    if client.closed_unix_ns.is_none() {
        return client.outcome.to_string();
    }
    let end = client.end.as_deref().unwrap_or("unknown");
    match client.ended_by.as_deref() {
        Some(by) => format!("{}, ended by {by}: {end}", client.outcome),
        None => client.outcome.to_string(),
    }
}

/// Told from clients whose address pair was used once, so that no guess is in it.
fn offset(ends: &Ends<'_>, clients: &[ClientConnection]) -> Option<ClockOffset> {
    let sightings: Vec<ClockSighting> = clients
        .iter()
        .enumerate()
        .filter_map(|(index, client)| {
            let [only] = ends.of(index) else { return None };
            let host_ns = ends.established_unix_ns(only)?;
            if ends.uses[only.address as usize] != 1 {
                return None;
            }
            // The 101 can only be read once the server's end is established, whereas `connect`
            // returns half a round trip before.
            let client_after_ns = client.upgraded_unix_ns.or(client.connected_unix_ns)?;
            Some(ClockSighting {
                client_before_ns: client.started_unix_ns,
                host_ns,
                client_after_ns,
            })
        })
        .collect();
    client_offset(&sightings)
}

fn add_candidates(
    candidates: &mut Vec<Candidate>,
    index: u32,
    recording: &Recording,
    places: &HashMap<(IpAddr, u16), u32>,
) {
    let connections = &recording.connections;
    let wanted: HashMap<(i64, u32), u32> = places
        .iter()
        .filter_map(|((address, port), place)| {
            Some(((connections.key_of(*address)?, u32::from(*port)), *place))
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    let passive = connections.words(Word::Role).iter().position(|role| **role == *"passive");
    for row in 0..connections.len() {
        // A handshake that failed in the kernel was never established, and is the client's all the same.
        let key = connections
            .address_key(Address::Remote, row)
            .zip(connections.small(Number::RemotePort, row));
        let Some(address) = key.and_then(|key| wanted.get(&key)) else { continue };
        if passive.is_some() && connections.word_place(Word::Role, row) == passive {
            candidates.push(Candidate { address: *address, recording: index, row: row as u32 });
        }
    }
}
