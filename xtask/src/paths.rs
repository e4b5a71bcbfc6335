//! Where things lie: the checkout and the target directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout that this xtask was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// `CARGO_TARGET_DIR` as cargo reads it (relative to the working directory), else `target`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => std::path::absolute(&dir)
            .with_context(|| format!("CARGO_TARGET_DIR {} is no usable path", dir.display())),
        _ => Ok(root().join("target")),
    }
}

/// The kernel programs, as `probe`'s build script expects them.
pub(crate) fn bpf_object() -> Result<PathBuf> {
    Ok(target_dir()?.join("bpf").join("probe-ebpf.o"))
}

/// A binary of the workspace in the dev profile.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    Ok(target_dir()?.join("debug").join(name))
}
