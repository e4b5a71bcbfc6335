//! `cargo xtask vm`: the one eBPF object on Debian's kernels, each in a virtual machine of its own.
//!
//! The guest (`guest.sh`) makes known numbers of connections and asks `probe` about them; the host
//! judges ([`judge`]) and writes what it saw to `docs/compatibility.md` ([`page`]).

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{self, say};
use crate::{paths, programs};

mod boot;
mod image;
mod judge;
mod kernel;
mod page;

use kernel::Kernel;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask vm --kernel debian-6.1
  cargo xtask vm --kernel debian-5.10 --kernel debian-newest
  cargo xtask vm --kernel debian-5.10-v1  without cgroup2; -hybrid has both
  cargo xtask vm --kernel all             writes docs/compatibility.md

Needs (Debian): apt-get install qemu-system-x86 busybox-static cpio binutils xz-utils.
Nothing needs root; a machine is emulated, not virtualised, so each kernel takes a minute or two.")]
pub(crate) struct Options {
    /// Which kernel, repeatable: debian-5.10[-hybrid|-v1], debian-6.1, debian-6.12[-v1],
    /// debian-newest, or all
    #[arg(long = "kernel", value_name = "NAME", required = true)]
    kernels: Vec<String>,

    /// Judge what an earlier run left in the target directory, without booting
    #[arg(long)]
    judge_only: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let kernels = Kernel::named(&options.kernels)?;
    let root = paths::target_dir()?.join("vm");
    if !options.judge_only {
        needs()?;
        programs::build()?;
    }
    let mut held = true;
    let mut verdicts = Vec::new();
    for kernel in kernels {
        let dir = root.join(kernel.name);
        let outcome = if options.judge_only { Ok(()) } else { try_on(kernel, &root) };
        match outcome.and_then(|()| judge::judge(&dir.join("results"), kernel.cgroups)) {
            Ok(verdict) => {
                say(&format!("{}: {}", kernel.name, verdict.summary()));
                held &= verdict.held();
                verdicts.push((kernel.name, verdict));
            }
            Err(error) => {
                say(&format!("{}: {error:#}", kernel.name));
                held = false;
            }
        }
    }
    println!("{}", page::tables(&verdicts));
    // The page is about one state of the code on all of them.
    if verdicts.len() == kernel::KERNELS.len() {
        page::write(&verdicts)?;
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_on(kernel: Kernel, root: &Path) -> Result<()> {
    let dir = root.join(kernel.name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let unpacked = kernel::fetch(kernel, root)?;
    let initramfs = image::build(&unpacked, &dir)?;
    say(&format!("{}: booting {}", kernel.name, unpacked.release));
    boot::boot(&unpacked.image, &initramfs, kernel.cgroups, &dir)
}

/// The programs that are called; named all at once.
fn needs() -> Result<()> {
    let tools: [(&str, &[&str]); 7] = [
        ("qemu-system-x86_64", &["--version"]),
        ("busybox", &["true"]),
        ("cpio", &["--version"]),
        ("apt-get", &["--version"]),
        ("dpkg", &["--version"]),
        ("objcopy", &["--version"]),
        ("xz", &["--version"]),
    ];
    let missing: Vec<&str> = tools
        .iter()
        .filter(|(tool, arguments)| command::output(tool, arguments).is_none())
        .map(|(tool, _)| *tool)
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing: {}; on Debian: apt-get install qemu-system-x86 busybox-static cpio binutils xz-utils",
            missing.join(", ")
        );
    }
    Ok(())
}
