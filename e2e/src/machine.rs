//! What a test needs of the machine, and the right to be alone on it.

use std::fs::File;
use std::process::Command;

use crate::{docker, node, probe, process};

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Root,
    /// The kernel programs load and attach; implies root.
    Bpf,
    Docker,
    /// A program on PATH.
    Program(&'static str),
    /// A package of Node's, and Node.
    NodePackage(&'static str),
}

/// Held while a test runs.
#[derive(Debug)]
pub struct Machine {
    _lock: File,
}

/// For a test that must be alone: it loads the machine, uses fixed ports or an agent.
///
/// `None` means skipped, and the reason is printed.
#[must_use]
pub fn require(needs: &[Need]) -> Option<Machine> {
    acquire(needs, File::lock)
}

/// For a test that spends its time waiting, and whose ports are its own: others like it may run at
/// the same time. Otherwise as [`require`].
#[must_use]
pub fn require_beside_others(needs: &[Need]) -> Option<Machine> {
    acquire(needs, File::lock_shared)
}

fn acquire(needs: &[Need], lock: fn(&File) -> std::io::Result<()>) -> Option<Machine> {
    let path = std::env::temp_dir().join("groundtruth-e2e.lock");
    let file =
        File::create(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
    lock(&file).unwrap_or_else(|e| panic!("cannot lock {}: {e}", path.display()));
    for need in needs {
        if let Err(why) = need.check() {
            // `cargo xtask test` collects these lines for its summary.
            eprintln!("skipped: {}", why.trim().replace('\n', " "));
            return None;
        }
    }
    Some(Machine { _lock: file })
}

impl Need {
    fn check(self) -> Result<(), String> {
        match self {
            Need::Root if rustix::process::geteuid().is_root() => Ok(()),
            Need::Root => Err("needs root: run `cargo xtask test` as root or with sudo".to_owned()),
            Need::Bpf => {
                Need::Root.check()?;
                let doctor = probe::run(&["doctor"]);
                match doctor.code {
                    Some(0) => Ok(()),
                    Some(96) => Err(format!("`probe doctor`: {}", doctor.stderr)),
                    _ => panic!("probe doctor failed: {doctor}"),
                }
            }
            Need::Docker => {
                Need::Root.check()?;
                docker::start_daemon()
            }
            Need::NodePackage(name) if node::has(name) => Ok(()),
            Need::NodePackage(name) => Err(format!("needs Node and its package `{name}`")),
            Need::Program(name) => match which(name) {
                true => Ok(()),
                false => Err(format!("needs the program `{name}` on PATH")),
            },
        }
    }
}

fn which(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(name).is_file())
}

/// Runs a tool to the end; panics with its message if it fails.
pub fn tool(program: &str, args: &[&str]) -> String {
    process::finish(Command::new(program).args(args)).success(program)
}
