//! The kernel's counter arrays, mapped into this process and read without a system call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use aya::maps::{Array, Map, MapData};
use probe_common::{
    key::CountSlot,
    loss::{STATS, Stat},
};

/// A read-only view of a `BPF_F_MMAPABLE` array.
struct Mapped<T> {
    base: *const T,
    entries: usize,
    bytes: usize,
}

// SAFETY: the memory is only read, by volatile loads, and stays mapped as long as `self`.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    fn new(map: &MapData, entries: u32) -> io::Result<Self> {
        let entries = entries as usize;
        // The kernel rounds the array up to whole pages.
        let bytes = (entries * size_of::<T>()).next_multiple_of(4096);
        // SAFETY: a new mapping of the map's own memory; the kernel checks size and access.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), entries, bytes })
    }

    fn get(&self, index: usize) -> Option<T> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: within the mapping; the kernel side writes whole words, `T` is made of integers.
        Some(unsafe { self.base.add(index).read_volatile() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made.
        unsafe { libc::munmap(self.base.cast_mut().cast(), self.bytes) };
    }
}

/// Counts and losses as the kernel side keeps them.
pub struct Counters {
    slots: Mapped<CountSlot>,
    statistics: Mapped<u64>,
    statistics_map: Mutex<Array<MapData, u64>>,
}

impl Counters {
    /// # Errors
    /// Where a map can't be mapped.
    pub fn new(counts: Map, statistics: Map) -> anyhow::Result<Self> {
        let (Map::Array(counts), Map::Array(statistics)) = (counts, statistics) else {
            anyhow::bail!("the counter maps are not arrays");
        };
        let entries = counts.info()?.max_entries();
        Ok(Self {
            slots: Mapped::new(&counts, entries).context("cannot map the counters")?,
            statistics: Mapped::new(&statistics, STATS as u32)
                .context("cannot map the statistics")?,
            statistics_map: Mutex::new(Array::try_from(Map::Array(statistics))?),
        })
    }

    /// Every population so far.
    #[must_use]
    pub fn slots(&self) -> Vec<CountSlot> {
        let used = self.statistic(Stat::SlotsUsed) as usize;
        (0..used)
            .filter_map(|index| self.slots.get(index))
            .filter(|slot| slot.key.ready == 1)
            .collect()
    }

    /// Numbers the next walk, for the kernel side to stamp what it meets.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn next_walk(&self) -> anyhow::Result<u32> {
        let mut map = self.statistics_map.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.statistic(Stat::Walk) + 1;
        map.set(Stat::Walk as u32, number, 0).context("cannot number the walk")?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    #[must_use]
    pub fn statistic(&self, which: Stat) -> u64 {
        self.statistics.get(which as usize).unwrap_or(0)
    }
}
