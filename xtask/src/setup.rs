//! What the kernel side's build needs beyond the pinned toolchain: the source of `core` and the
//! linker that makes eBPF objects. Each is installed only if missing.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::command::{self, say};
use crate::paths;

/// The last bpf-linker that links with the LLVM of the pinned rustc; later ones want one of the
/// system's.
pub(crate) const BPF_LINKER: &str = "0.10.3";

pub(crate) fn run() -> Result<ExitCode> {
    let missing = missing()?;
    if missing.is_empty() {
        say(&format!("nothing to set up: rust-src and bpf-linker {BPF_LINKER} are here"));
    }
    for part in missing {
        part.install()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Something the build needs and this machine lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    RustSrc,
    BpfLinker,
}

impl Part {
    /// What it is, and the command that installs it.
    pub(crate) fn advice(self) -> String {
        match self {
            Part::RustSrc => {
                "rust-src is missing (the source of `core`, compiled for the kernel's machine): \
                 run `rustup component add rust-src`"
                    .to_owned()
            }
            Part::BpfLinker => format!(
                "bpf-linker {BPF_LINKER} is missing: \
                 run `cargo install bpf-linker --version {BPF_LINKER} --locked`"
            ),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Part::RustSrc => command::run_timed(
                "installing rust-src (the source of `core`, compiled for the kernel's machine)",
                Command::new("rustup")
                    .args(["component", "add", "rust-src"])
                    .current_dir(paths::root()),
            )
            .context(
                "without rustup, install the package of your distribution that holds the source \
                 of this rustc's standard library",
            ),
            Part::BpfLinker => command::run_timed(
                &format!("installing bpf-linker {BPF_LINKER} (about a minute)"),
                command::cargo()?
                    // Built in a temporary directory, which goes away by itself.
                    .env_remove("CARGO_TARGET_DIR")
                    .args([
                        "install",
                        "bpf-linker",
                        "--version",
                        BPF_LINKER,
                        "--locked",
                        "--force",
                    ]),
            )
            .context(
                "it needs a C compiler (`apt-get install gcc libc6-dev`) and the crates it is made \
                 of; if this machine is offline, copy a bpf-linker from another one onto PATH",
            ),
        }
    }
}

/// What is missing, in the order in which to install it.
pub(crate) fn missing() -> Result<Vec<Part>> {
    let mut missing = Vec::new();
    if !core_source()?.exists() {
        missing.push(Part::RustSrc);
    }
    if linker().is_none() {
        missing.push(Part::BpfLinker);
    }
    Ok(missing)
}

fn core_source() -> Result<PathBuf> {
    let sysroot = command::output("rustc", &["--print", "sysroot"])
        .context("rustc does not run: install Rust from https://rustup.rs")?;
    Ok(PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml"))
}

/// The pinned bpf-linker: on PATH, else where `cargo install` puts it, which need not be on PATH.
pub(crate) fn linker() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let installed = cargo_home.map(|home| home.join("bin").join("bpf-linker"));
    [Some("bpf-linker".into()), installed].into_iter().flatten().find(|candidate| {
        command::output(candidate, &["--version"])
            .is_some_and(|text| text.split_whitespace().nth(1) == Some(BPF_LINKER))
    })
}
