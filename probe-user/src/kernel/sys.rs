//! The system calls around programs and maps that aya 0.14 does not wrap.

use std::{
    ffi::CString,
    io,
    mem::{self, MaybeUninit},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info, bpf_stats_type};

const ETHERNET_HEADER: usize = 14;
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attributes` is a valid union of the size given; the callers set the fields of
    // `command` and keep the memory they point to alive.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Whether [`wait_for_programs`] is to be had: not where CPUs run without a tick (`nohz_full`).
#[must_use]
pub fn can_wait_for_programs() -> bool {
    // SAFETY: a system call without pointers.
    let known = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
    known > 0 && known & libc::c_long::from(libc::MEMBARRIER_CMD_GLOBAL) != 0
}

/// Returns once every program that is running now, on whatever CPU, has ended.
///
/// # Errors
/// As membarrier(2).
pub fn wait_for_programs() -> io::Result<()> {
    // SAFETY: a system call without pointers. It waits for all readers of RCU, as which programs run.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Visits every entry of a hash map, bucket by bucket: an entry that stays is seen exactly once,
/// whatever comes and goes meanwhile. `chunk` bounds the entries fetched by one call, and so held.
///
/// # Errors
/// As bpf(2) `BPF_MAP_LOOKUP_BATCH` (Linux 5.6 and later).
pub fn each_entry<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    chunk: u32,
    mut visit: impl FnMut(K, V),
) -> io::Result<()> {
    let mut values: Vec<V> = Vec::new();
    let mut keys: Vec<K> = Vec::new();
    let mut chunk = chunk;
    let mut next: Option<u32> = None;
    loop {
        values.reserve(chunk as usize);
        keys.reserve(chunk as usize);
        let mut out = 0_u32;
        let mut previous = next.unwrap_or_default();
        // SAFETY: all-zero is a valid bpf_attr.
        let mut attributes: bpf_attr = unsafe { mem::zeroed() };
        attributes.batch.map_fd = map.as_raw_fd() as u32;
        attributes.batch.count = chunk;
        attributes.batch.in_batch = if next.is_some() { (&raw mut previous) as u64 } else { 0 };
        attributes.batch.out_batch = (&raw mut out) as u64;
        attributes.batch.keys = keys.spare_capacity_mut().as_mut_ptr() as u64;
        attributes.batch.values = values.spare_capacity_mut().as_mut_ptr() as u64;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes);
        let done = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                // One bucket alone holds more than a chunk.
                chunk *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel wrote `count` keys and values into the reserved space.
        unsafe {
            let count = attributes.batch.count as usize;
            values.set_len(count);
            keys.set_len(count);
        }
        for (key, value) in keys.drain(..).zip(values.drain(..)) {
            visit(key, value);
        }
        if done {
            return Ok(());
        }
        next = Some(out);
    }
}

/// What the kernel keeps of a loaded program: runs, run time, runs skipped by the recursion guard.
///
/// # Errors
/// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: all-zero is a valid bpf_prog_info (asks for no arrays) and bpf_attr.
    let (mut info, mut attributes): (bpf_prog_info, bpf_attr) = unsafe { mem::zeroed() };
    attributes.info.bpf_fd = program.as_raw_fd() as u32;
    attributes.info.info_len = size_of::<bpf_prog_info>() as u32;
    attributes.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Has the kernel take the time of every program's runs, until the descriptor is closed.
///
/// # Errors
/// As bpf(2) `BPF_ENABLE_STATS` (Linux 5.8 and later).
pub fn enable_statistics() -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid bpf_attr, and asks for the run times.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.enable_stats.type_ = bpf_stats_type::BPF_STATS_RUN_TIME as u32;
    let fd = bpf(bpf_cmd::BPF_ENABLE_STATS, &mut attributes)?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a `cgroup_skb` program once, on this CPU, with `words` as its packet.
///
/// # Errors
/// As bpf(2) `BPF_PROG_TEST_RUN`.
pub fn run_program(program: BorrowedFd<'_>, words: &[u64]) -> io::Result<()> {
    // The kernel takes an Ethernet header off before it calls the program.
    let mut frame = vec![0_u8; ETHERNET_HEADER];
    frame.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    // SAFETY: all-zero is a valid bpf_attr.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.test.prog_fd = program.as_raw_fd() as u32;
    attributes.test.data_in = frame.as_ptr() as u64;
    attributes.test.data_size_in = frame.len() as u32;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes).map(drop)
}

/// A descriptor for a program in the kernel.
///
/// # Errors
/// As bpf(2) `BPF_PROG_GET_FD_BY_ID`.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid bpf_attr.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    let fd = bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attributes)?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `path` is on a BPF file system.
#[must_use]
pub fn is_bpf_fs(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut buffer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` is NUL-terminated, `buffer` has room for the result.
    if unsafe { libc::statfs(path.as_ptr(), buffer.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: statfs succeeded, so it filled the buffer.
    let found = unsafe { buffer.assume_init() }.f_type;
    // Signed with glibc, unsigned with musl.
    i128::from(found) == i128::from(BPF_FS_MAGIC)
}

/// Mounts a BPF file system.
///
/// # Errors
/// As mount(2).
pub fn mount_bpf_fs(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all strings are NUL-terminated and live for the call.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            path.as_ptr(),
            c"bpf".as_ptr(),
            flags,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Unmounts what [`mount_bpf_fs`] mounted.
///
/// # Errors
/// As umount(2).
pub fn unmount(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: NUL-terminated and alive for the call.
    if unsafe { libc::umount(path.as_ptr()) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
