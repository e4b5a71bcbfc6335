//! The only place where counters change.

use core::{
    hint::cold_path,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::bindings::BPF_NOEXIST;
use probe_common::{
    connection::{Connection, class},
    key::{CountKey, CountSlot},
    loss::Stat,
    state,
};

use crate::maps::{COUNTS, SLOT_OF, SLOT_OWNER, SLOTS, STATISTICS};

/// How many indexes a CPU tries to claim when others claim at the same moment.
const CLAIM_TRIES: u32 = 16;

#[inline(always)]
fn add(counter: *mut i64, n: i64) {
    // SAFETY: `counter` points into a live array element, 8-aligned. The result is unused, so this
    // is the plain atomic add that every kernel has.
    unsafe { atomic_xadd::<i64, i64, { AtomicOrdering::Relaxed }>(counter, n) };
}

#[inline(always)]
fn change(stat: Stat, n: i64) {
    if let Some(counter) = STATISTICS.get_ptr_mut(stat as u32) {
        add(counter.cast(), n);
    }
}

/// Adds one to a loss or total.
#[inline(always)]
pub fn note(stat: Stat) {
    change(stat, 1);
}

#[inline(always)]
fn statistic(stat: Stat) -> u64 {
    match STATISTICS.get_ptr(stat as u32) {
        // SAFETY: reading a u64 of an array element.
        Some(number) => unsafe { number.read_volatile() },
        None => 0,
    }
}

/// Number of the current walk, which userspace sets; 0 during the seed pass.
#[inline(always)]
pub fn walk() -> u32 {
    statistic(Stat::Walk) as u32
}

/// Whether somebody holds a claim on any address.
#[inline(always)]
pub fn any_claims() -> bool {
    statistic(Stat::ClaimsHeld) != 0
}

/// Takes note of a claim that is about to be made (1), or was given back (-1).
#[inline(always)]
pub fn note_claim(n: i64) {
    change(Stat::ClaimsHeld, n);
}

/// The counters of `key`, made on first use. `None` (and a note) when there is no room.
#[inline(always)]
pub fn slot_of(key: &CountKey) -> Option<u32> {
    // SAFETY: entries of SLOT_OF are never removed or changed.
    if let Some(index) = unsafe { SLOT_OF.get(key) } {
        return Some(*index);
    }
    cold_path();
    make_slot(key)
}

#[inline(always)]
fn make_slot(key: &CountKey) -> Option<u32> {
    let used = statistic(Stat::SlotsUsed) as u32; // one that is stale only costs a claim that fails
    for attempt in 0..CLAIM_TRIES {
        let index = used + attempt;
        if index >= SLOTS {
            break;
        }
        if SLOT_OWNER.insert(index, key, u64::from(BPF_NOEXIST)).is_err() {
            continue;
        }
        note(Stat::SlotsUsed);
        if SLOT_OF.insert(key, index, u64::from(BPF_NOEXIST)).is_err() {
            // Another CPU made the same key: its index counts, ours stays unused. SAFETY: as above.
            return unsafe { SLOT_OF.get(key) }.copied();
        }
        let slot = COUNTS.get_ptr_mut(index)?;
        // SAFETY: `index` is ours alone; readers look at the key only once `ready` is set, and the
        // key's 16 bytes are written before.
        unsafe {
            let target = &raw mut (*slot).key;
            (*target).cgroup_id = key.cgroup_id;
            (*target).netns = key.netns;
            (*target).port = key.port;
            (*target).role = key.role;
            (&raw mut (*target).ready).write_volatile(1);
        }
        return Some(index);
    }
    note(Stat::CountSlotsFull);
    None
}

#[inline(always)]
fn slot(index: u32) -> Option<*mut CountSlot> {
    COUNTS.get_ptr_mut(index)
}

const CLASSES: u8 = class::NAMES.len() as u8;
// The verifier's bound of a class leaves no counter's memory.
const _: () = assert!(core::mem::offset_of!(CountSlot, classes) + 8 * 8 <= size_of::<CountSlot>());

/// Where a socket is counted.
#[derive(Clone, Copy)]
pub struct Place {
    slot: u32,
    state: u8,
    class: u8,
}

impl Place {
    /// Read at once, since the memory of an entry is another's as soon as the entry is removed.
    #[inline(always)]
    pub fn of(connection: &Connection) -> Self {
        // SAFETY: fields of a live value; volatile, so that they are not read again later.
        unsafe {
            Self {
                slot: (&raw const connection.slot).read_volatile(),
                state: (&raw const connection.state).read_volatile(),
                class: (&raw const connection.class).read_volatile(),
            }
        }
    }

    /// The same population, in another state.
    #[inline(always)]
    pub fn in_state(self, state: u8) -> Self {
        Self { state, ..self }
    }

    #[inline(always)]
    fn add(self, n: i64) {
        let Some(slot) = slot(self.slot) else { return };
        let index = u32::from(self.state.wrapping_sub(1));
        if index >= state::STATES as u32 {
            return;
        }
        // SAFETY: `index` is within `states` (checked).
        add(unsafe { (&raw mut (*slot).states).cast::<i64>().add(index as usize) }, n);
        if self.state == state::ESTABLISHED {
            add_class(slot, self.class, n);
        }
    }

    /// Counts a socket that was not counted before.
    #[inline(always)]
    pub fn enter(self) {
        self.add(1);
    }

    /// Takes a socket out of the count.
    #[inline(always)]
    pub fn leave(self) {
        self.add(-1);
    }

    /// Counts a connection that became established.
    #[inline(always)]
    pub fn established(self) {
        if let Some(slot) = slot(self.slot) {
            // SAFETY: a field of a live array element.
            add(unsafe { (&raw mut (*slot).established_total).cast() }, 1);
        }
    }

    /// Counts a connection that was accepted.
    #[inline(always)]
    pub fn accepted(self) {
        if let Some(slot) = slot(self.slot) {
            // SAFETY: a field of a live array element.
            add(unsafe { (&raw mut (*slot).accepted_total).cast() }, 1);
        }
    }

    /// Counts a connection whose record was handed on or lost.
    #[inline(always)]
    pub fn closed(self) {
        if let Some(slot) = slot(self.slot) {
            // SAFETY: a field of a live array element.
            add(unsafe { (&raw mut (*slot).closed_total).cast() }, 1);
        }
    }
}

/// Counts an established socket in another class.
#[inline(always)]
pub fn change_class(connection: &Connection, class: u8) {
    let Some(slot) = slot(connection.slot) else { return };
    add_class(slot, connection.class, -1);
    add_class(slot, class, 1);
}

#[inline(always)]
fn add_class(slot: *mut CountSlot, class: u8, n: i64) {
    if class >= CLASSES {
        return;
    }
    // 5.10 forgets the bound of a number that was on the stack: it is set once more, where the compiler
    // can't tell that it need not be. SAFETY: our own variable.
    let index = unsafe { (&raw const class).read_volatile() } & 7;
    // SAFETY: within `classes` (checked).
    add(unsafe { (&raw mut (*slot).classes).cast::<i64>().add(index as usize) }, n);
}
