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
use crate::{build_ebpf, paths, setup};

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
  cargo xtask vm --kernel all

Needs (Debian): apt-get install qemu-system-x86 busybox-static cpio. Nothing needs root; a machine is
emulated, not virtualised, so each kernel takes some minutes.")]
pub(crate) struct Options {
    /// Which kernel, repeatable: debian-5.10, debian-6.1, debian-6.12, debian-newest, or all
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
        setup::run()?;
        build_ebpf::build()?;
        // Emulated, unoptimised code that reads the kernel's types would take most of the time.
        let mut build = command::cargo()?;
        build.args(["build", "-p", "probe-user", "-p", "lab", "-p", "analyzer"]);
        for package in ["btfparse", "aya-obj", "aya"] {
            build.args(["--config", &format!("profile.dev.package.{package}.opt-level=2")]);
        }
        command::run_timed("building the binaries", &mut build)?;
    }
    let mut held = true;
    for kernel in kernels {
        let dir = root.join(kernel.name);
        let outcome = if options.judge_only { Ok(()) } else { try_on(kernel, &dir) };
        match outcome.and_then(|()| judge::judge(&dir.join("results"))) {
            Ok(verdict) => {
                println!("{}: {}", kernel.name, verdict.summary());
                for check in verdict.failed() {
                    println!("  {check}");
                }
                held &= verdict.held();
                page::keep(&dir, &verdict)?;
            }
            Err(error) => {
                println!("{}: {error:#}", kernel.name);
                held = false;
            }
        }
    }
    page::write(&root)?;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_on(kernel: Kernel, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let unpacked = kernel::fetch(kernel, dir)?;
    let initramfs = image::build(&unpacked, dir)?;
    say(&format!("{}: booting {}", kernel.name, unpacked.release));
    boot::boot(&unpacked.image, &initramfs, dir)
}

/// The programs that are called; named all at once.
fn needs() -> Result<()> {
    let tools: [(&str, &[&str]); 6] = [
        ("qemu-system-x86_64", &["--version"]),
        ("busybox", &["true"]),
        ("cpio", &["--version"]),
        ("apt-get", &["--version"]),
        ("dpkg", &["--version"]),
        ("objcopy", &["--version"]),
    ];
    let missing: Vec<&str> = tools
        .iter()
        .filter(|(tool, arguments)| command::output(tool, arguments).is_none())
        .map(|(tool, _)| *tool)
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing: {}; on Debian: apt-get install qemu-system-x86 busybox-static cpio binutils",
            missing.join(", ")
        );
    }
    Ok(())
}
