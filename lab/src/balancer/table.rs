//! The table that a balancer's processes share: slots in use per shard, what each process uses, and
//! how often each fault came by. It lives in anonymous memory that every process maps.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::fault::Tally;

/// How many of each kind of row the table has. All processes compute it from the same command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) shards: usize,
    pub(crate) workers: usize,
    pub(crate) faults: usize,
}

/// A gauge of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gauge {
    CpuCentiPercent,
    ResidentBytes,
    OpenFds,
    Tasks,
}

/// A counter over all processes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Total {
    Accepted,
    Upgraded,
    /// Upgrade requests that were not answered 101.
    Refused,
    /// Whose turn it is in a round robin.
    Turn,
}

const GAUGES: usize = 4;
const TOTALS: usize = 4;

/// One cell is 8 bytes, and all cells are only ever touched atomically.
#[derive(Debug)]
pub(crate) struct Table {
    cells: NonNull<AtomicU64>,
    shape: Shape,
}

// SAFETY: the mapping lives as long as the table, and its cells are atomics that any thread (and
// any process) may touch at any time.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Shape {
    fn cells(self) -> usize {
        TOTALS + self.shards + GAUGES * self.workers + 2 * self.faults
    }

    fn bytes(self) -> usize {
        self.cells() * size_of::<AtomicU64>()
    }
}

impl Table {
    /// A new table of zeros, and the descriptor by which others open it.
    pub(crate) fn create(shape: Shape) -> anyhow::Result<(Self, OwnedFd)> {
        let memory = memfd_create("lab-balancer", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, shape.bytes() as u64)?;
        Ok((Self::map(&memory, shape)?, memory))
    }

    /// Where other processes of the same user find `memory` while this one lives.
    pub(crate) fn path(memory: &OwnedFd) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd())
    }

    pub(crate) fn open(path: &Path, shape: Shape) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        anyhow::ensure!(
            file.metadata()?.len() == shape.bytes() as u64,
            "the table has another shape"
        );
        Self::map(&file.into(), shape)
    }

    fn map(memory: &OwnedFd, shape: Shape) -> anyhow::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing; the file
        // has `shape.bytes()` bytes and never shrinks, so that every cell stays backed.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                shape.bytes(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                0,
            )
        }?;
        let cells = NonNull::new(start.cast()).ok_or_else(|| anyhow::anyhow!("mapped at 0"))?;
        Ok(Table { cells, shape })
    }

    fn cell(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.shape.cells(), "cell {index} of {:?}", self.shape);
        // SAFETY: the index is within the mapping, which is page-aligned, zeroed at birth, and lives
        // as long as `self`.
        unsafe { self.cells.add(index).as_ref() }
    }

    pub(crate) fn total(&self, total: Total) -> &AtomicU64 {
        self.cell(total as usize)
    }

    fn in_use(&self, shard: usize) -> &AtomicI64 {
        assert!(shard < self.shape.shards, "shard {shard} of {:?}", self.shape);
        let cell: *const AtomicU64 = self.cell(TOTALS + shard);
        // SAFETY: `AtomicI64` and `AtomicU64` have the same size, alignment and bit validity.
        unsafe { &*cell.cast() }
    }

    pub(crate) fn gauge(&self, worker: usize, gauge: Gauge) -> &AtomicU64 {
        assert!(worker < self.shape.workers, "worker {worker} of {:?}", self.shape);
        self.cell(TOTALS + self.shape.shards + GAUGES * worker + gauge as usize)
    }

    /// A gauge summed over all processes.
    pub(crate) fn gauge_sum(&self, gauge: Gauge) -> u64 {
        (0..self.shape.workers).map(|w| self.gauge(w, gauge).load(Ordering::Relaxed)).sum()
    }

    /// Takes a slot of `shard` if one is free.
    pub(crate) fn take_slot(&self, shard: usize, capacity: i64) -> bool {
        let taken = |used| (used < capacity).then_some(used + 1);
        self.in_use(shard).fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    pub(crate) fn give_back(&self, shard: usize) {
        self.in_use(shard).fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn slots_in_use(&self, shard: usize) -> i64 {
        self.in_use(shard).load(Ordering::Relaxed)
    }
}

impl Tally for Table {
    fn seen(&self, fault: usize) -> &AtomicU64 {
        self.cell(TOTALS + self.shape.shards + GAUGES * self.shape.workers + 2 * fault)
    }

    fn hits(&self, fault: usize) -> &AtomicU64 {
        self.cell(TOTALS + self.shape.shards + GAUGES * self.shape.workers + 2 * fault + 1)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.cells.as_ptr().cast(), self.shape.bytes()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { shards: 3, workers: 2, faults: 2 };

    #[test]
    fn two_mappings_are_one_table() {
        let (one, memory) = Table::create(SHAPE).unwrap();
        let two = Table::open(Path::new(&Table::path(&memory)), SHAPE).unwrap();
        assert!(one.take_slot(2, 2) && two.take_slot(2, 2) && !one.take_slot(2, 2));
        two.give_back(2);
        assert_eq!((one.slots_in_use(2), one.slots_in_use(1)), (1, 0));
        one.seen(1).store(7, Ordering::Relaxed);
        assert_eq!(
            (two.seen(1).load(Ordering::Relaxed), two.hits(1).load(Ordering::Relaxed)),
            (7, 0)
        );
        assert!(
            Table::open(Path::new(&Table::path(&memory)), Shape { shards: 4, ..SHAPE }).is_err()
        );
    }

    #[test]
    fn every_cell_has_one_name() {
        let (table, _memory) = Table::create(SHAPE).unwrap();
        let mut cells: Vec<*const AtomicU64> = Vec::new();
        for total in [Total::Accepted, Total::Upgraded, Total::Refused, Total::Turn] {
            cells.push(table.total(total));
        }
        for shard in 0..SHAPE.shards {
            cells.push(std::ptr::from_ref(table.in_use(shard)).cast());
        }
        for worker in 0..SHAPE.workers {
            for gauge in
                [Gauge::CpuCentiPercent, Gauge::ResidentBytes, Gauge::OpenFds, Gauge::Tasks]
            {
                cells.push(table.gauge(worker, gauge));
            }
        }
        for fault in 0..SHAPE.faults {
            cells.extend([std::ptr::from_ref(table.seen(fault)), table.hits(fault)]);
        }
        let count = cells.len();
        cells.sort();
        cells.dedup();
        assert_eq!((cells.len(), count), (SHAPE.cells(), SHAPE.cells()));
    }
}
