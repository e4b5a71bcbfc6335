//! Every map, with its capacity and why. None is an LRU and none expires: what is counted stays
//! until the kernel says that it is over.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, Stack},
};
use probe_common::{
    connection::Connection,
    handshake::{Handshake, Pair},
    key::{CountKey, CountSlot, ListenerKey, SLOTS},
    loss::STATS,
};

/// Socket address → what we know of it. Grows with the host's sockets (no preallocation); the
/// capacity is set by userspace before load.
#[map]
pub static CONNECTIONS: HashMap<u64, Connection> =
    HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Population → index of its counters. Userspace takes out populations that are no more.
#[map]
pub static SLOT_OF: HashMap<CountKey, u32> = HashMap::with_max_entries(SLOTS, BPF_F_NO_PREALLOC);

/// Indexes of counters that are nobody's: all of them, put there by userspace before the programs are attached.
/// A stack, so that those that were used before are used again first.
#[map]
pub static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(SLOTS, 0);

/// The counters. Mapped into the agent, which reads them without a system call.
#[map]
pub static COUNTS: Array<CountSlot> = Array::with_max_entries(SLOTS, BPF_F_MMAPABLE);

/// Losses and totals, index = `Stat`. Mapped as well.
#[map]
pub static STATISTICS: Array<u64> = Array::with_max_entries(STATS as u32, BPF_F_MMAPABLE);

/// Connections that are over, and first payloads. 4 MiB hold 2,600 connections with request and answer and
/// both ends on this host: 0.1 s at 25,000 a second, of which userspace looks every 20 ms.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Listeners, to tell the role of connections that are found late, with the last walk that met them. Userspace takes
/// out those that are no more.
#[map]
pub static LISTENERS: HashMap<ListenerKey, u32> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Passive handshakes whose connection is not established yet. Userspace takes out those that failed.
#[map]
pub static HANDSHAKES: HashMap<Pair, Handshake> =
    HashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);

/// Addresses whose entry is being ended by somebody who does not hold its socket's lock, and since when: nothing is
/// inserted there meanwhile (`end::claim`). Userspace takes out those that could not be given back.
#[map]
pub static CLAIMS: HashMap<u64, u64> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// The event that the first copy of `inet_sock_set_state` handled on this CPU, until the second has
/// seen it.
#[map]
pub static HANDLED: PerCpuArray<Handled> = PerCpuArray::with_max_entries(1, 0);

/// A state change.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handled {
    pub sk: u64,
    pub new: u64,
}

impl Handled {
    pub const NOTHING: Self = Self { sk: 0, new: 0 };
}

/// Turns socket pointers into plain numbers, one at a time per CPU (`Sock::of_packet`).
#[map]
pub static ADDRESSES: HashMap<u64, u64> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Room to build an entry in, where the stack has none left: under the socket's lock, which may be
/// held in the middle of another such program on the same CPU, by socket (`cgroup_skb_egress`) …
#[map]
pub static ROOMS: HashMap<u64, Connection> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// … made from this, which stays zero.
#[map]
pub static ZERO: Array<Connection> = Array::with_max_entries(1, 0);

/// … and by CPU, where nothing interrupts (`cgroup_skb_ingress`).
#[map]
pub static SCRATCH: PerCpuArray<Connection> = PerCpuArray::with_max_entries(1, 0);
