//! The kernel's counter arrays, mapped into this process: read, and given back, without a system call.

use std::{
    io,
    mem::offset_of,
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

/// What only grows in a population, by where it lies.
const TOTALS: [usize; 3] = [
    offset_of!(CountSlot, established_total),
    offset_of!(CountSlot, accepted_total),
    offset_of!(CountSlot, closed_total),
];
const _: () = assert!(offset_of!(CountSlot, used) + 8 == size_of::<CountSlot>());

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
    /// Written while totals move from one population to another, so that nobody sees them twice, or not at all.
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

    /// Moves totals between populations, the pair's first to its second, and then makes those of `idle` nobody's,
    /// among them the first of each pair. No socket is counted in them any more, nor will be: [`super::reclaim`].
    pub(super) fn close(&self, moves: &[(u32, u32)], idle: &[u32]) {
        let _alone = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        for &(from, into) in moves {
            for offset in TOTALS {
                let total = self.slots.word(from as usize, offset).load(Relaxed);
                self.slots.word(into as usize, offset).fetch_add(total, Relaxed);
            }
        }
        for &index in idle {
            // All but the mark that it was used, the last word.
            for offset in (0..offset_of!(CountSlot, used)).step_by(8) {
                self.slots.word(index as usize, offset).store(0, Relaxed);
            }
        }
        self.statistics.word(Stat::SlotsInUse as usize, 0).fetch_sub(idle.len() as u64, Relaxed);
    }
}
