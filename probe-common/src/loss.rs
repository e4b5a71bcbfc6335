//! Everything the kernel side could not do, counted where it happened. Counters only grow.

/// Index into the statistics array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stat {
    /// Records submitted to the ring.
    RecordsSubmitted = 0,
    /// Records that found the ring full: detail lost, counts kept.
    RecordsLost = 1,
    /// Connections not counted because the connection map was full (`E2BIG`).
    ConnectionMapFull = 2,
    /// Connections not counted because inserting failed for another reason (`EBUSY`, `ENOMEM`).
    ConnectionInsertFailed = 3,
    /// Connections not counted because every counter slot was in use.
    CountSlotsFull = 4,
    /// Entries of a reused socket address that were taken out: a CLOSE had been missed.
    StaleHealed = 5,
    /// Entries taken out when the socket was destroyed without a CLOSE having been seen.
    DestroyHealed = 6,
    /// Sockets whose cgroup could not be read.
    CgroupUnknown = 7,
    /// Slots that were ever in use (not a loss: how far readers must look).
    SlotsUsed = 8,
    /// Sockets brought forward by a packet or a walk: an event had been missed.
    CaughtUp = 11,
    /// Sockets found by a packet or a walk after the seed pass: their birth had been missed.
    FoundLate = 12,
    /// Entries taken out since a walk no longer met their sockets: a CLOSE had been missed.
    Forgotten = 13,
    /// Number of the current walk, set by userspace (not a loss). 0 until the seed pass has ended.
    Walk = 14,
    /// Payload pieces that found the ring full: the HTTP side of those connections is unknown.
    PayloadLost = 9,
    /// Handshakes not followed because their map was full.
    HandshakeMapFull = 10,
    /// SYNs to ports where nobody listens (not a loss): records without a connection.
    StraySyns = 15,
    /// Claims on addresses that are held now (not a loss).
    ClaimsHeld = 16,
    /// Slots in use now (not a loss).
    SlotsInUse = 17,
}

pub const STATS: usize = 18;
