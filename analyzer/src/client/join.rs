//! Clients joined with what the kernel saw of the very same connections, by address pair.

use std::collections::{BTreeMap, HashMap, HashSet};

use polars::prelude::DataFrame;
use serde::Serialize;

use crate::client::stage::{Stage, Stages, Steps};
use crate::clock::{ClockOffset, ClockSighting, client_offset};
use crate::handshake::outcome::is_failure;
use crate::input::client::ClientConnection;
use crate::input::recording::Recording;

/// The server's end of a connection that may be a client's.
struct Candidate {
    /// When it was established, by Unix time; when the kernel first saw it, if it never was.
    seen_unix_ns: i64,
    established: bool,
    /// The handshake's outcome if it failed, else how the connection ended.
    ending: String,
    open: bool,
    steps: Steps,
}

/// Clients found in captures, or not.
#[derive(Debug, Default, Serialize)]
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

#[derive(Debug, Serialize)]
pub(crate) struct ClientView {
    pub(crate) client: String,
    pub(crate) kernel: String,
    pub(crate) count: usize,
}

/// Rows by the client's address and port.
type Index<'a> = HashMap<(u32, &'a str), Vec<Candidate>>;

pub(crate) fn join(
    clients: &[ClientConnection],
    recordings: &[Recording],
) -> anyhow::Result<Matches> {
    let wanted: HashSet<u32> =
        clients.iter().filter_map(|client| client.local_port.map(u32::from)).collect();
    let mut index = Index::new();
    for recording in recordings {
        add_candidates(&mut index, recording, &wanted)?;
    }
    let clock = offset(&index, clients);
    let mut matches = Matches { clock, ..Matches::default() };
    let mut views: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut stages = Stages::default();
    for client in clients {
        let Some(candidates) = candidates(&index, client) else {
            match client.local_port {
                Some(_) => matches.unmatched += 1,
                None => matches.without_address += 1,
            }
            continue;
        };
        matches.matched += 1;
        let on_host = |client_ns: i64| clock.map_or(client_ns, |clock| clock.to_host(client_ns));
        let started = on_host(client.started_unix_ns);
        // A port is used again after a while: the nearest in time is the one.
        let nearest = candidates.iter().min_by_key(|found| (found.seen_unix_ns - started).abs());
        let Some(found) = nearest else { continue };
        let kernel = if found.open && found.established {
            "still open".to_owned()
        } else {
            found.ending.clone()
        };
        *views.entry((client_end(client), kernel)).or_default() += 1;
        if let Some(upgraded) = client.upgraded_unix_ns {
            stages.add(started, &found.steps, on_host(upgraded));
        }
    }
    matches.views = views
        .into_iter()
        .map(|((client, kernel), count)| ClientView { client, kernel, count })
        .collect();
    matches.views.sort_by_key(|view| std::cmp::Reverse(view.count));
    matches.stages = stages.finish();
    Ok(matches)
}

fn client_end(client: &ClientConnection) -> String {
    if client.closed_unix_ns.is_none() {
        return client.outcome.clone();
    }
    let end = client.end.as_deref().unwrap_or("unknown");
    match client.ended_by.as_deref() {
        Some(by) => format!("{}, ended by {by}: {end}", client.outcome),
        None => client.outcome.clone(),
    }
}

fn candidates<'i>(
    index: &'i Index<'i>,
    client: &'i ClientConnection,
) -> Option<&'i Vec<Candidate>> {
    index.get(&(u32::from(client.local_port?), client.local_address.as_deref()?))
}

/// Told from clients whose address pair was used once, so that no guess is in it.
fn offset(index: &Index<'_>, clients: &[ClientConnection]) -> Option<ClockOffset> {
    let mut uses: HashMap<(u16, &str), usize> = HashMap::new();
    for client in clients {
        if let (Some(port), Some(address)) = (client.local_port, client.local_address.as_deref()) {
            *uses.entry((port, address)).or_default() += 1;
        }
    }
    let sightings: Vec<ClockSighting> = clients
        .iter()
        .filter_map(|client| {
            let key = (client.local_port?, client.local_address.as_deref()?);
            let [only] = candidates(index, client)?.as_slice() else { return None };
            if uses.get(&key) != Some(&1) || !only.established {
                return None;
            }
            // The 101 can only be read once the server's end is established, whereas `connect`
            // returns half a round trip before.
            let client_after_ns = client.upgraded_unix_ns.or(client.connected_unix_ns)?;
            Some(ClockSighting {
                client_before_ns: client.started_unix_ns,
                host_ns: only.seen_unix_ns,
                client_after_ns,
            })
        })
        .collect();
    client_offset(&sightings)
}

fn add_candidates<'a>(
    index: &mut Index<'a>,
    recording: &'a Recording,
    wanted: &HashSet<u32>,
) -> anyhow::Result<()> {
    let table: &DataFrame = &recording.connections;
    let role = table.column("role")?.str()?;
    let address = table.column("remote_address")?.str()?;
    let port = table.column("remote_port")?.u32()?;
    let established = table.column("established_ns")?.i64()?;
    let closed = table.column("closed_ns")?.i64()?;
    let outcome = table.column("outcome")?.str()?;
    let first_seen = table.column("first_seen_ns")?.i64()?;
    let by = table.column("closed_by")?.str()?;
    let how = table.column("closed_how")?.str()?;
    let syn = table.column("syn_received_ns")?.i64()?;
    let accepted = table.column("accepted_ns")?.i64()?;
    let request = table.column("request_ns")?.i64()?;
    let response = table.column("response_ns")?.i64()?;
    let unix = |at: Option<i64>| at.map(|at| recording.clock.unix_ns(at));
    for (row, remote_port) in port.iter().enumerate() {
        let Some(remote_port) = remote_port.filter(|port| wanted.contains(port)) else { continue };
        // A handshake that failed in the kernel was never established, and is the client's all the same.
        let seen = established.get(row).or(first_seen.get(row));
        let (Some(address), Some(seen)) = (address.get(row), seen) else { continue };
        if role.get(row) != Some("passive") {
            continue;
        }
        let ending = format!(
            "{} from {}",
            how.get(row).unwrap_or("unknown"),
            by.get(row).unwrap_or("unknown")
        );
        index.entry((remote_port, address)).or_default().push(Candidate {
            seen_unix_ns: recording.clock.unix_ns(seen),
            established: established.get(row).is_some(),
            ending: match outcome.get(row).filter(|word| is_failure(word)) {
                Some(failure) => failure.to_owned(),
                None => ending,
            },
            open: closed.get(row).is_none(),
            steps: Steps {
                syn: unix(syn.get(row)),
                established: unix(established.get(row)),
                accepted: unix(accepted.get(row)),
                request: unix(request.get(row)),
                response: unix(response.get(row)),
            },
        });
    }
    Ok(())
}
