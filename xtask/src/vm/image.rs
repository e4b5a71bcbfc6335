//! The guest's whole file system: busybox, `probe`, `lab`, their libraries, and the kernel modules
//! of sock_diag, which Debian does not build in.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::kernel::Unpacked;
use crate::{command, paths};

const GUEST: &str = include_str!("guest.sh");

/// In the order of loading.
const MODULES: [&str; 2] = ["inet_diag.ko", "tcp_diag.ko"];

pub(crate) fn build(kernel: &Unpacked, dir: &Path) -> Result<PathBuf> {
    let root = dir.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    write_executable(&root.join("init"), GUEST.as_bytes())?;
    let busybox = command::output("sh", &["-c", "command -v busybox"]).unwrap_or_default();
    fs::copy(busybox.trim(), root.join("bin/busybox")).context("cannot copy busybox")?;
    for name in ["probe", "lab"] {
        let binary = paths::binary(name)?;
        let stripped = root.join("bin").join(name);
        command::run(Command::new("objcopy").arg("--strip-debug").arg(&binary).arg(stripped))?;
        copy_libraries(&binary, &root)?;
    }
    for (number, name) in MODULES.iter().enumerate() {
        copy_module(kernel, name, &root.join(format!("modules/{number}-{name}")))?;
    }
    pack(&root, &dir.join("initramfs"))
}

fn write_executable(path: &Path, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Puts the shared libraries of `binary` where its loader will look for them.
fn copy_libraries(binary: &Path, root: &Path) -> Result<()> {
    let listed = command::output("ldd", &[&binary.to_string_lossy()])
        .with_context(|| format!("ldd {} failed", binary.display()))?;
    for path in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(path.trim_start_matches('/'));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(path, target).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

/// Newer kernels come with compressed modules, which the guest's `insmod` does not read.
fn copy_module(kernel: &Unpacked, name: &str, target: &Path) -> Result<()> {
    let plain = kernel.modules.join("kernel/net/ipv4").join(name);
    if plain.exists() {
        fs::copy(plain, target)?;
        return Ok(());
    }
    let compressed = plain.with_extension("ko.xz");
    if !compressed.exists() {
        bail!("kernel {} has neither {} nor {}.xz", kernel.release, plain.display(), name);
    }
    command::run(
        Command::new("xz").arg("-dc").arg(compressed).stdout(Stdio::from(File::create(target)?)),
    )
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let mut names = Vec::new();
    list(root, Path::new("."), &mut names)?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--null", "--quiet", "--owner=0:0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(archive)?)
        .spawn()
        .context("cannot start cpio")?;
    if let Some(mut stdin) = cpio.stdin.take() {
        stdin.write_all(&names).context("cannot write to cpio")?;
    }
    let status = cpio.wait()?;
    if !status.success() {
        bail!("cpio failed: {status}");
    }
    Ok(archive.to_path_buf())
}

/// Paths below `root`, each ended by NUL, directories before what is in them.
fn list(root: &Path, below: &Path, names: &mut Vec<u8>) -> Result<()> {
    names.extend_from_slice(below.to_string_lossy().as_bytes());
    names.push(0);
    let path = root.join(below);
    if path.is_dir() {
        for entry in fs::read_dir(&path)? {
            list(root, &below.join(entry?.file_name()), names)?;
        }
    }
    Ok(())
}
