//! A hash map of the kernel side whose entries are looked at, and taken out.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};

use crate::kernel::sys;

const CHUNK: u32 = 1024;

pub(super) struct Entries<K, V> {
    map: HashMap<MapData, K, V>,
    fd: OwnedFd,
}

impl<K: Pod, V: Pod> Entries<K, V> {
    pub(super) fn new(map: Map) -> anyhow::Result<Self> {
        let Map::HashMap(data) = map else { anyhow::bail!("not a hash map") };
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { map: HashMap::try_from(Map::HashMap(data))?, fd })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.keys().next().is_none()
    }

    pub(super) fn all(&self) -> io::Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        sys::each_entry(self.fd.as_fd(), CHUNK, |key, value| all.push((key, value)))?;
        Ok(all)
    }

    /// It may be gone already.
    pub(super) fn remove(&mut self, key: &K) {
        let _ = self.map.remove(key);
    }

    pub(super) fn remove_if(&mut self, is_over: impl Fn(&K, V) -> bool) -> io::Result<()> {
        let mut over = Vec::new();
        sys::each_entry(self.fd.as_fd(), CHUNK, |key: K, value: V| {
            if is_over(&key, value) {
                over.push(key);
            }
        })?;
        over.iter().for_each(|key| self.remove(key));
        Ok(())
    }
}
