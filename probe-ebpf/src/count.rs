//! The only place where counters change.

use core::{
    hint::cold_path,
    intrinsics::{AtomicOrdering, atomic_xadd},
    mem::offset_of,
};

use aya_ebpf::bindings::BPF_NOEXIST;
use probe_common::{
    connection::{Connection, class},
    key::{CountKey, CountSlot, SLOTS, SPARE_SLOTS},
    loss::Stat,
    state::{self, role},
};

use crate::maps::{COUNTS, FREE_SLOTS, SLOT_OF, STATISTICS};

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

/// A loss or total as it is now.
#[inline(always)]
pub fn statistic(stat: Stat) -> u64 {
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

/// The counters of `key`, made on first use; where they have run short, those of other ports. `None` (and a
/// note) when there is no room at all.
#[inline(always)]
pub fn slot_of(key: &mut CountKey) -> Option<u32> {
    let known = find_slot(key);
    if known.is_some() {
        return known;
    }
    cold_path();
    let in_use = statistic(Stat::SlotsInUse);
    if key.role == role::PASSIVE || in_use < u64::from(SLOTS - SPARE_SLOTS) {
        let made = make_slot(key);
        if made.is_some() {
            return made;
        }
    }
    key.port = CountKey::OTHER_PORTS;
    let others = find_slot(key).or_else(|| make_slot(key));
    if others.is_none() {
        note(Stat::CountSlotsFull);
    }
    others
}

#[inline(always)]
fn find_slot(key: &CountKey) -> Option<u32> {
    // SAFETY: the index is checked below.
    let index = *unsafe { SLOT_OF.get(key) }?;
    // Userspace may take this out and another CPU put something else into its memory, just before the index is read.
    // SAFETY: a live array element, whose key is written before its index is told.
    slot(index).filter(|&slot| key.is_of(unsafe { &(*slot).key })).map(|_| index)
}

#[inline(always)]
fn make_slot(key: &CountKey) -> Option<u32> {
    let Ok(Some(index)) = FREE_SLOTS.pop() else { return None };
    let slot = slot(index)?;
    // SAFETY: nobody else has `index`, until SLOT_OF tells it; readers look at the key only once `ready` is set.
    unsafe {
        if (*slot).used == 0 {
            (*slot).used = 1;
            note(Stat::SlotsUsed);
        }
        let target = &raw mut (*slot).key;
        (*target).cgroup_id = key.cgroup_id;
        (*target).netns = key.netns;
        (*target).port = key.port;
        (*target).role = key.role;
        if SLOT_OF.insert(key, index, u64::from(BPF_NOEXIST)).is_err() {
            // Another CPU made the same at this moment.
            let _ = FREE_SLOTS.push(index, 0);
            return find_slot(key);
        }
        (&raw mut (*target).ready).write_volatile(1);
    }
    note(Stat::SlotsInUse);
    Some(index)
}

/// Makes a counter nobody's, after its totals were added to those of `into`, if there is such a one. Userspace has
/// found that no socket is counted in it any more, nor will be.
#[inline(always)]
pub fn give_back(index: u32, into: u32) {
    let Some(from) = slot(index) else { return };
    // SAFETY: live array elements; of `from` nobody else knows.
    unsafe {
        if let Some(into) = slot(into) {
            add((&raw mut (*into).established_total).cast(), (*from).established_total as i64);
            add((&raw mut (*into).accepted_total).cast(), (*from).accepted_total as i64);
            add((&raw mut (*into).closed_total).cast(), (*from).closed_total as i64);
        }
        let words: *mut u64 = from.cast();
        // All but the mark that it was used, the last word.
        for word in 0..offset_of!(CountSlot, used) / 8 {
            words.add(word).write_volatile(0);
        }
    }
    change(Stat::SlotsInUse, -1);
    let _ = FREE_SLOTS.push(index, 0);
}

#[inline(always)]
fn slot(index: u32) -> Option<*mut CountSlot> {
    COUNTS.get_ptr_mut(index)
}

const CLASSES: u8 = class::NAMES.len() as u8;
// The verifier's bound of a class leaves no counter's memory.
const _: () = assert!(offset_of!(CountSlot, classes) + 8 * 8 <= size_of::<CountSlot>());

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
