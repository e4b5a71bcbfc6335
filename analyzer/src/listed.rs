//! The server's own list of connections (`--table`), joined row by row: who stands on it still though
//! the connection is over.

use std::collections::HashMap;

use crate::input::connections::{Address, Number};
use crate::input::recording::Recording;
use crate::join::Joined;
use crate::lives::Life;

/// Rows of the population whose connection was over before the last list, and which stood on that
/// list. `None` where no list was recorded, or it names connections that the capture does not know.
pub(crate) fn left_behind(
    recording: &Recording,
    joined: &Joined<'_>,
) -> anyhow::Result<Option<Vec<u32>>> {
    let listed = &recording.listed;
    if listed.height() == 0 {
        return Ok(None);
    }
    let connections = &recording.connections;
    let mut lives = HashMap::new();
    for life in joined.lives.iter() {
        let row = life.row as usize;
        let address = connections.address_key(Address::Remote, row);
        let key = (address, connections.small(Number::RemotePort, row));
        // An address pair is used again after a while: the latest is the one, but the probe's own requests
        // and others for pages only where nothing else had it.
        let latest = lives.entry(key).or_insert(life);
        let rank = |life: &Life| (life.counted, life.established_from_ns);
        if rank(life) >= rank(latest) {
            *latest = life;
        }
    }
    let on_list = listed.column("remote_address")?.str()?;
    let on_list_port = listed.column("remote_port")?.u32()?;
    let last_start = listed.column("last_start_mono_ns")?.i64()?;
    let gone = listed.column("gone_mono_ns")?.i64()?;
    let mut rows = Vec::new();
    for row in (0..listed.height()).filter(|row| gone.get(*row).is_none()) {
        let address = on_list.get(row).and_then(|text| text.parse().ok());
        let key = address.and_then(|address| connections.key_of(address));
        let life = key.and_then(|key| lives.get(&(Some(key), on_list_port.get(row))));
        let Some(life) = life else { return Ok(None) };
        let asked_ns = last_start.get(row).unwrap_or(i64::MIN);
        if life.established_to_ns < asked_ns - joined.settle_ns {
            rows.push(life.row);
        }
    }
    rows.sort_unstable();
    Ok(Some(rows))
}
