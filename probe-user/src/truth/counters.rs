//! The kernel's counter arrays, mapped into this process: read, and given back, without a system call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context;
use aya::maps::{Map, MapData};
use probe_common::{
    key::{CountSlot, SLOTS},
    loss::{STATS, Stat},
};

/// A view of a `BPF_F_MMAPABLE` array.
struct Mapped<T> {
    base: *mut T,
    entries: usize,
    bytes: usize,
}

// SAFETY: the memory is read by volatile loads, written by atomics, and stays mapped as long as `self`.
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
                libc::PROT_READ | libc::PROT_WRITE,
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

    /// A word of an entry, which the kernel side changes by atomic adds as well.
    fn word(&self, index: usize, offset: usize) -> &AtomicU64 {
        assert!(index < self.entries && offset + 8 <= size_of::<T>() && offset.is_multiple_of(8));
        // SAFETY: within the mapping (checked), which is page-aligned as `T` is by 8; all access is by whole words.
        unsafe { AtomicU64::from_ptr(self.base.add(index).byte_add(offset).cast()) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// Counts and losses as the kernel side keeps them.
pub struct Counters {
    slots: Mapped<CountSlot>,
    statistics: Mapped<u64>,
    /// [`Self::unseen`]
    moving: RwLock<()>,
}

impl Counters {
    /// # Errors
    /// Where a map can't be mapped.
    pub fn new(counts: Map, statistics: Map) -> anyhow::Result<Self> {
        let (Map::Array(counts), Map::Array(statistics)) = (counts, statistics) else {
            anyhow::bail!("the counter maps are not arrays");
        };
        Ok(Self {
            slots: Mapped::new(&counts, SLOTS).context("cannot map the counters")?,
            statistics: Mapped::new(&statistics, STATS as u32)
                .context("cannot map the statistics")?,
            moving: RwLock::default(),
        })
    }

    /// Every population so far.
    #[must_use]
    pub fn slots(&self) -> Vec<CountSlot> {
        self.numbered().into_iter().map(|(_, slot)| slot).collect()
    }

    /// The same, each with the index of its counters.
    pub(super) fn numbered(&self) -> Vec<(u32, CountSlot)> {
        let _still = self.moving.read().unwrap_or_else(PoisonError::into_inner);
        (0..SLOTS.min(self.statistic(Stat::SlotsUsed) as u32))
            .filter_map(|index| Some((index, self.slots.get(index as usize)?)))
            .filter(|(_, slot)| slot.key.ready == 1)
            .collect()
    }

    /// Numbers the next walk, for the kernel side to stamp what it meets.
    pub fn next_walk(&self) -> u32 {
        let number = self.statistics.word(Stat::Walk as usize, 0).fetch_add(1, Relaxed) + 1;
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    #[must_use]
    pub fn statistic(&self, which: Stat) -> u64 {
        self.statistics.get(which as usize).unwrap_or(0)
    }

    /// Runs what gives counters back, while nobody looks: so a total that moves is not seen twice, or not at all, nor a
    /// part of a service.
    pub(super) fn unseen<T>(&self, give_back: impl FnOnce() -> T) -> T {
        let _alone = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        give_back()
    }
}
