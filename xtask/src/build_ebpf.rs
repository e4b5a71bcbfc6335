//! Builds the kernel programs into one object file.
//!
//! The target `bpfel-unknown-none` has no ready-made `core`, so it is compiled along (`build-std`),
//! which the pinned stable toolchain allows with `RUSTC_BOOTSTRAP=1`.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{self, say};
use crate::{paths, setup};

const TARGET: &str = "bpfel-unknown-none";

pub(crate) fn run() -> Result<ExitCode> {
    let missing = setup::missing()?;
    if !missing.is_empty() {
        let advice: Vec<String> = missing.iter().map(|part| part.advice()).collect();
        bail!("{}\nor run `cargo xtask setup`", advice.join("\n"));
    }
    build()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds and puts the object in place; the setup has been made.
pub(crate) fn build() -> Result<()> {
    let object = paths::bpf_object()?;
    let own_target = object.parent().context("the object has no directory")?;

    let linker = setup::linker().context("bpf-linker is gone")?;
    let flags = [
        // Debug info is where the linker takes BTF from.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Else every memset is a call of a loop over bytes, which the verifier walks byte by byte.
        "-Clink-arg=--disable-expand-memcpy-in-order",
        &format!("-Clinker={}", linker.display()),
    ];
    command::run_timed(
        "building the kernel programs",
        command::cargo()?
            .args(["build", "--package", "probe-ebpf", "--profile", "bpf"])
            .args(["--target", TARGET, "-Zbuild-std=core"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            // A directory of its own: other flags for the same crates would rebuild them in turns.
            .env("CARGO_TARGET_DIR", own_target),
    )?;

    let built = own_target.join(TARGET).join("bpf").join("probe-ebpf");
    let stripped = built.with_extension("stripped");
    strip(&built, &stripped)?;
    let changed = replace_if_changed(&stripped, &object)?;
    let note = if changed { "" } else { " (unchanged)" };
    say(&format!("kernel programs: {}{note}", object.display()));
    Ok(())
}

/// Leaves out the debug info that BTF was made of: three quarters of what `probe` embeds, and reads
/// whenever it starts. With the `objcopy` that comes with rustc.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let libraries = command::output("rustc", &["--print", "target-libdir"])
        .context("rustc does not say where its libraries are")?;
    let libraries = Path::new(libraries.trim());
    let of_host = libraries.parent().context("rustc names no directory of its libraries")?;
    let mut objcopy = Command::new(of_host.join("bin/rust-objcopy"));
    // It is linked against rustc's own LLVM, and found by rustc alone.
    objcopy.env("LD_LIBRARY_PATH", of_host.join("../.."));
    let status = objcopy.arg("--strip-debug").args([from, to]).status().with_context(|| {
        format!(
            "cannot run {}: is the toolchain rustup's?",
            of_host.join("bin/rust-objcopy").display()
        )
    })?;
    ensure!(status.success(), "rust-objcopy cannot strip {}: {status}", from.display());
    Ok(())
}

/// Copies `from` to `to` in one step, unless `to` already holds the same bytes: a new time stamp
/// alone would rebuild `probe`.
fn replace_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let part = to.with_extension("o.part");
    fs::write(&part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_object_keeps_its_time_stamp() {
        let dir = std::env::temp_dir().join(format!("xtask-replace-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("from"), dir.join("to.o"));

        fs::write(&from, b"one").unwrap();
        assert!(replace_if_changed(&from, &to).unwrap());
        let first = fs::metadata(&to).unwrap().modified().unwrap();
        assert!(!replace_if_changed(&from, &to).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), first);

        fs::write(&from, b"two").unwrap();
        assert!(replace_if_changed(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"two");
        fs::remove_dir_all(&dir).unwrap();
    }
}
