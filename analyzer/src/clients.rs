//! Clients joined with what the kernel saw of the very same connections, by address pair.

use std::collections::{BTreeMap, HashMap};

use polars::prelude::DataFrame;

use crate::clock::{ClockOffset, ClockSighting, client_offset};
use crate::handshake::outcome::is_failure;
use crate::input::lab::{ClientConnection, Unreadable};
use crate::input::recording::Recording;
use crate::report::model::{ClientReport, ClientView, Tally, UnreadableLine};

/// At most this many lines that could not be read are shown.
const SHOWN_LINES: usize = 5;

/// The server's end of a connection that may be a client's.
struct Candidate {
    /// When it was established, by Unix time; when the kernel first saw it, if it never was.
    seen_unix_ns: i64,
    established: bool,
    /// The handshake's outcome if it failed, else how the connection ended.
    ending: String,
    open: bool,
}

/// Rows by the client's address and port.
type Index<'a> = HashMap<(u32, &'a str), Vec<Candidate>>;

pub(crate) fn report(
    files: Vec<String>,
    clients: &[ClientConnection],
    unreadable: &[Unreadable],
    recordings: &[Recording],
) -> anyhow::Result<ClientReport> {
    let wanted: std::collections::HashSet<u32> =
        clients.iter().filter_map(|client| client.local_port.map(u32::from)).collect();
    let mut index = Index::new();
    for recording in recordings {
        add_candidates(&mut index, recording, &wanted)?;
    }
    let clock = offset(&index, clients);
    let (mut matched, mut unmatched, mut without_address) = (0, 0, 0);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut views: BTreeMap<(String, String), usize> = BTreeMap::new();
    for client in clients {
        *outcomes.entry(&client.outcome).or_default() += 1;
        let Some(candidates) = candidates(&index, client) else {
            if client.local_port.is_some() {
                unmatched += 1;
            } else {
                without_address += 1;
            }
            continue;
        };
        matched += 1;
        let offset_ns = clock.map_or(0, |clock| clock.offset_ns);
        let host_ns = client.started_unix_ns - offset_ns;
        // A port is used again after a while: the nearest in time is the one.
        let nearest = candidates.iter().min_by_key(|found| (found.seen_unix_ns - host_ns).abs());
        if let Some(found) = nearest {
            let kernel = if found.open && found.established {
                "still open".to_owned()
            } else {
                found.ending.clone()
            };
            *views.entry((client_end(client), kernel)).or_default() += 1;
        }
    }
    let mut views: Vec<ClientView> = views
        .into_iter()
        .map(|((client, kernel), count)| ClientView { client, kernel, count })
        .collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.count));
    Ok(ClientReport {
        files,
        attempted: clients.len(),
        upgraded: clients.iter().filter(|client| client.upgraded_unix_ns.is_some()).count(),
        outcomes: outcomes
            .into_iter()
            .map(|(why, count)| Tally { why: why.to_owned(), count })
            .collect(),
        messages_sent: clients.iter().map(|client| client.messages_sent).sum(),
        messages_received: clients.iter().map(|client| client.messages_received).sum(),
        matched,
        unmatched,
        without_address,
        clock,
        views,
        unreadable: unreadable.len(),
        unreadable_lines: unreadable
            .iter()
            .take(SHOWN_LINES)
            .map(|bad| UnreadableLine {
                file: bad.path.display().to_string(),
                line: bad.line,
                why: bad.why.clone(),
            })
            .collect(),
    })
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
    wanted: &std::collections::HashSet<u32>,
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
        });
    }
    Ok(())
}
