//! Who holds the listening sockets of this host.

use std::collections::HashSet;

use probe_common::{key::CountKey, state};

use crate::{
    identity::process::{self, Owner},
    truth::{
        polled::{dump_all, keyed},
        sock_diag::Detail,
    },
};

/// The population of each listening socket that a process holds, and who that is. Blocks for a look
/// at every descriptor of the host, unless `keeps` wants none of the sockets.
pub(crate) fn listeners(
    keeps: impl Fn(&CountKey) -> bool,
) -> anyhow::Result<Vec<(CountKey, Vec<Owner>)>> {
    let dumped = dump_all(Detail::Mini)?;
    let listeners: Vec<_> = keyed(&dumped.sockets)
        .into_iter()
        .filter(|(socket, key)| socket.state == state::LISTEN && socket.inode != 0 && keeps(key))
        .collect();
    let inodes: HashSet<u32> = listeners.iter().map(|(socket, _)| socket.inode).collect();
    let owners = process::owners(&inodes);
    let held = |inode| owners.get(&inode).cloned();
    Ok(listeners.iter().filter_map(|(socket, key)| Some((*key, held(socket.inode)?))).collect())
}
