//! The only file that reads kernel structs. Offsets come from the running kernel's BTF and are
//! constants for the verifier, so what a kernel lacks is cut out of the program before it runs.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{
        bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_sk_fullsock, bpf_skc_to_tcp_sock,
    },
};
use probe_common::{
    config::{ABSENT, Offsets},
    connection::Connection,
    handshake::Pair,
};

use crate::maps::ADDRESSES;

/// Set by userspace before load.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::UNSET;

macro_rules! offset {
    ($field:ident) => {
        // SAFETY: reading our own static; volatile, since userspace replaces its value before load.
        unsafe { core::ptr::read_volatile(&raw const $crate::sock::OFFSETS.$field) }
    };
}
pub(crate) use offset;

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;
const IPPROTO_TCP: u16 = 6;

/// Whether stages, first bytes and records are left out.
#[inline(always)]
pub fn counts_only() -> bool {
    offset!(counts_only) == 1
}

/// A `struct sock *` of the kernel, valid while the hook runs.
///
/// `TYPED`: the verifier knows the pointer's type (the argument of a `tp_btf` program), so what lies in
/// `struct sock` itself is a plain load. Else, and for the structs around it, a helper copies.
#[derive(Clone, Copy)]
pub struct Sock<const TYPED: bool = false>(*const u8);

/// A number whose every bit pattern is one.
trait Number: Copy + Default {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

/// Reads a number or an array of bytes. What can't be read is zero.
#[inline(always)]
fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T {
    if offset == ABSENT {
        return T::default();
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and writes all of `value`: zeros where there is a fault.
    // So its result needs no branch, each of which would double what the verifier has to walk.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.wrapping_add(offset as usize).cast(),
        );
        value.assume_init()
    }
}

/// A number at an address: by a plain load, where the verifier knows the address's type.
#[inline(always)]
fn load<T: Number, const TYPED: bool>(base: *const u8, offset: u32) -> T {
    if !TYPED {
        return read(base, offset);
    }
    if offset == ABSENT {
        return T::default();
    }
    // SAFETY: the kernel turns loads through such pointers into checked ones, which read zero where
    // there is nothing. Volatile, so that each field stays a load of its own.
    unsafe { base.wrapping_add(offset as usize).cast::<T>().read_volatile() }
}

impl Sock<true> {
    /// The socket that a `tp_btf` program was called with.
    pub const fn argument(pointer: *const core::ffi::c_void) -> Self {
        Self(pointer.cast())
    }
}

impl Sock {
    pub const fn new(pointer: *const core::ffi::c_void) -> Self {
        Self(pointer.cast())
    }

    /// The socket that a function traced by `fexit` returned, or took, as its word `index`. Read like
    /// other memory: a verifier such as that of 6.1 takes only context offsets that are part of the instruction.
    #[inline(always)]
    pub fn traced(context: *const core::ffi::c_void, index: u32) -> Self {
        Self(read::<u64>(context.cast(), index * 8) as *const u8)
    }

    /// The TCP socket of a `cgroup_skb` program's packet; `None` for a mini socket.
    #[inline(always)]
    pub fn of_packet(socket: *mut bpf_sock) -> Option<Self> {
        // SAFETY: `socket` is what the context holds, not NULL; the result is checked.
        let full = unsafe { bpf_sk_fullsock(socket) };
        // SAFETY: checked for NULL; the verifier knows the fields of a full socket.
        if full.is_null() || unsafe { (*full).protocol } != u32::from(IPPROTO_TCP) {
            return None;
        }
        // The verifier forbids arithmetic on the pointer that a cgroup program is given. Through a map it
        // becomes a plain number, which is what reading kernel memory needs.
        let key = socket as u64;
        let _ = ADDRESSES.insert(key, key, 0);
        // SAFETY: a copied u64.
        let address = unsafe { ADDRESSES.get(key) }.copied()?;
        let _ = ADDRESSES.remove(key);
        Some(Self::new(address as *const _))
    }
}

impl<const TYPED: bool> Sock<TYPED> {
    /// The same socket, read by the helper. From 6.2 on the verifier searches the kernel's types by name
    /// for each pointer that is loaded plainly, every time that it comes by, which takes it milliseconds:
    /// so pointers are loaded plainly only where they are for every connection.
    #[inline(always)]
    pub fn untyped(self) -> Sock {
        Sock(self.0)
    }

    /// A field of `struct sock` itself.
    #[inline(always)]
    fn field<T: Number>(self, offset: u32) -> T {
        load::<T, TYPED>(self.0, offset)
    }

    /// An IPv6 address of `struct sock` itself.
    #[inline(always)]
    fn address_v6(self, offset: u32) -> [u8; 16] {
        if !TYPED {
            return read(self.0, offset);
        }
        let mut address = [0; 16];
        for word in 0..4_u32 {
            let at = if offset == ABSENT { ABSENT } else { offset + word * 4 };
            let bytes = self.field::<u32>(at).to_ne_bytes();
            address[word as usize * 4..][..4].copy_from_slice(&bytes);
        }
        address
    }

    /// The address: key of the connection map.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.field::<u16>(offset!(sk_protocol)) == IPPROTO_TCP
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        self.field(offset!(skc_state))
    }

    /// A process holds the socket: NULL until `accept`, set after, NULL again when orphaned.
    #[inline(always)]
    pub fn has_descriptor(self) -> bool {
        self.untyped().field::<u64>(offset!(sk_socket)) != 0
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.field(offset!(sk_err))
    }

    /// The cookie, made now where the kernel lets tracing programs do that.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        if offset!(cookie_helper) == 1 {
            // SAFETY: in `tp_btf` and `fexit` programs the pointer still is the BTF pointer that
            // the hook was given, which is what the verifier asks for.
            unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) }
        } else {
            self.stored_cookie()
        }
    }

    /// The cookie if something has asked for one before, else 0.
    #[inline(always)]
    pub fn stored_cookie(self) -> u64 {
        self.field(offset!(skc_cookie))
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        self.field(offset!(skc_num))
    }

    /// The same at CLOSE, where `skc_num` is set back to 0.
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        u16::from_be(read(self.0, offset!(inet_sport)))
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(self.field(offset!(skc_dport)))
    }

    /// Writes whose the socket is, all its life.
    #[inline(always)]
    pub fn read_owner(self, connection: &mut Connection) {
        connection.cgroup_id = self.cgroup_id();
        connection.netns = self.netns();
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net: u64 = self.field(offset!(skc_net));
        load::<u32, TYPED>(net as *const u8, offset!(net_inum))
    }

    /// cgroup2 id of the socket's own cgroup, set at `socket()` and inherited from the listener; 0
    /// where the kernel keeps none.
    #[inline(always)]
    fn cgroup_id(self) -> u64 {
        // NULL needs no branch: what is read through it is zero.
        if offset!(cgroup_tagged) == 1 {
            let mut cgroup: u64 = read(self.0, offset!(sk_cgrp));
            if cgroup & 3 != 0 {
                // net_cls or net_prio is in use: the word holds their numbers, not a pointer.
                cgroup = 0;
            }
            let node: u64 = read(cgroup as *const u8, offset!(cgroup_kn));
            return read(node as *const u8, offset!(kernfs_id));
        }
        let cgroup: u64 = self.field(offset!(sk_cgrp));
        let node = load::<u64, TYPED>(cgroup as *const u8, offset!(cgroup_kn));
        load::<u64, TYPED>(node as *const u8, offset!(kernfs_id))
    }

    /// Writes family, addresses and ports.
    #[inline(always)]
    pub fn read_addresses(self, connection: &mut Connection) {
        let family: u16 = self.field(offset!(skc_family));
        connection.family = family as u8;
        if connection.family == AF_INET {
            let local: u32 = self.field(offset!(skc_rcv_saddr));
            let remote: u32 = self.field(offset!(skc_daddr));
            map_v4(&mut connection.local_address, local.to_ne_bytes());
            map_v4(&mut connection.remote_address, remote.to_ne_bytes());
        } else {
            connection.local_address = self.address_v6(offset!(skc_v6_rcv_saddr));
            connection.remote_address = self.address_v6(offset!(skc_v6_daddr));
        }
        connection.local_port = self.local_port();
        connection.remote_port = self.remote_port();
    }

    /// Writes what the kernel measured over the connection's life.
    #[inline(always)]
    pub fn read_totals(self, connection: &mut Connection) {
        let tcp = if TYPED {
            // SAFETY: the pointer that the hook was given, which is what the verifier asks for.
            unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast()
        } else {
            self.0
        };
        if tcp.is_null() {
            return;
        }
        connection.bytes_sent = load::<u64, TYPED>(tcp, offset!(tp_bytes_sent));
        connection.bytes_received = load::<u64, TYPED>(tcp, offset!(tp_bytes_received));
        connection.srtt_us = load::<u32, TYPED>(tcp, offset!(tp_srtt_us)) >> 3;
        connection.retransmits = load::<u32, TYPED>(tcp, offset!(tp_total_retrans));
    }

    /// A listener's queues.
    #[inline(always)]
    pub fn queues(self) -> Queues {
        let (accepting, max) = if offset!(sk_max_ack_backlog) == offset!(sk_ack_backlog) + 4 {
            let [accepting, max] = read::<[u32; 2]>(self.0, offset!(sk_ack_backlog));
            (accepting, max)
        } else {
            (read(self.0, offset!(sk_ack_backlog)), read(self.0, offset!(sk_max_ack_backlog)))
        };
        Queues { accepting, waiting: read(self.0, offset!(icsk_qlen)), max }
    }

    /// The bind bucket was made by `connect` choosing an ephemeral port.
    #[inline(always)]
    pub fn bound_by_connect(self) -> bool {
        let bucket: u64 = read(self.0, offset!(icsk_bind_hash));
        bucket != 0 && read::<i8>(bucket as *const u8, offset!(tb_fastreuse)) == -1
    }
}

/// How full a listener's queues are.
pub struct Queues {
    /// Connections that wait to be accepted. The kernel takes one more than `max`.
    pub accepting: u32,
    /// SYNs that wait for their last ACK.
    pub waiting: u32,
    pub max: u32,
}

/// The address pair of a received SYN that no socket took, from its `struct sk_buff`.
#[inline(always)]
pub fn pair_of_stray_syn(skb: *const u8) -> Option<Pair> {
    let head: u64 = read(skb, offset!(skb_head));
    let network: u16 = read(skb, offset!(skb_network_header));
    let transport: u16 = read(skb, offset!(skb_transport_header));
    if head == 0 || network == 0 || transport <= network {
        return None;
    }
    let ip = (head + u64::from(network)) as *const u8;
    let tcp = (head + u64::from(transport)) as *const u8;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    if read::<u8>(tcp, 13) & (SYN | ACK) != SYN {
        return None;
    }
    let mut pair = Pair::default();
    if read::<u8>(ip, 0) >> 4 == 6 {
        pair.remote_address = read(ip, 8);
        pair.local_address = read(ip, 24);
    } else {
        map_v4(&mut pair.remote_address, read(ip, 12));
        map_v4(&mut pair.local_address, read(ip, 16));
    }
    pair.remote_port = u16::from_be(read(tcp, 0));
    pair.local_port = u16::from_be(read(tcp, 2));
    let device: u64 = read(skb, offset!(skb_dev));
    let net: u64 = read(device as *const u8, offset!(dev_net));
    pair.netns = read(net as *const u8, offset!(net_inum));
    Some(pair)
}

#[inline(always)]
pub fn map_v4(target: &mut [u8; 16], address: [u8; 4]) {
    *target = [0; 16];
    target[10] = 0xff;
    target[11] = 0xff;
    target[12] = address[0];
    target[13] = address[1];
    target[14] = address[2];
    target[15] = address[3];
}
