//! One guest, from power-on to power-off.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernel::Cgroups;
use crate::command::{self, say};

/// Four times what it took on two busy cores.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Runs the guest to its end; what it found is in `results`, its console in `console.log`.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, cgroups: Cgroups, dir: &Path) -> Result<()> {
    let console = dir.join("console.log");
    let archive = dir.join("results.tar");
    let _ = fs::remove_file(&archive);
    let start = Instant::now();
    let mut guest = Command::new("qemu-system-x86_64")
        // Without cmpxchg16b, whose emulation in QEMU 7.2 breaks the flags and then the kernel.
        .args(["-accel", "tcg", "-cpu", "Nehalem,-cx16", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        // Emulated mitigations cost time and protect nobody. A panic reboots at once, which -no-reboot makes the end.
        .arg("-append")
        .arg(format!("console=ttyS0 quiet mitigations=off panic=-1 cgroups={}", cgroups.name()))
        .args(["-serial", "stdio", "-serial"])
        .arg(format!("file:{}", archive.display()))
        .stdin(Stdio::null())
        .stdout(File::create(&console)?)
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let status = loop {
        if let Some(status) = guest.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            guest.kill()?;
            guest.wait()?;
            bail!("no end after {} s; see {}", PATIENCE.as_secs(), console.display());
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        bail!("qemu-system-x86_64 failed: {status}; see {}", console.display());
    }
    say(&format!("the guest ran {} s", start.elapsed().as_secs()));

    let results = dir.join("results");
    let _ = fs::remove_dir_all(&results);
    fs::create_dir_all(&results)?;
    command::run(Command::new("tar").arg("-C").arg(&results).arg("-xf").arg(&archive))
        .with_context(|| format!("the guest left no results; see {}", console.display()))
}
