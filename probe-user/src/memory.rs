//! Gives the system back what the allocator keeps.

/// glibc keeps what was freed for later, of a probe more than it ever needs again: the
/// kernel's types, read once, are megabytes in small pieces.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
