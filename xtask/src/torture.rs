//! `cargo xtask torture`: counts, captures and the kernel held against each other, under fire.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{self, Root};
use crate::{build_ebpf, paths, setup};

/// Namespaces of its own for mounts and network: its pinned programs and its agent's port are
/// nobody else's.
const APART: &str = "mount --make-rprivate / && mount -t bpf bpf /sys/fs/bpf && \
    mkdir -p /run/groundtruth && mount -t tmpfs none /run/groundtruth && \
    ip link set lo up && exec \"$0\" \"$@\"";

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    cargo xtask torture --minutes 1\n  \
    cargo xtask torture --minutes 15 --seed 7 --json > torture.json\n  \
    cargo xtask torture --attach 20\n\n\
Half of the time with a ring that must hold every record, half with one that is too small. At each barrier every check \
is printed with both its numbers; exits 1 if one failed, and names the first difference with its socket.")]
pub(crate) struct Options {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 2)]
    minutes: u64,

    /// Draws the ways to open and end connections
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Leave receive packet steering off throughout
    #[arg(long)]
    no_steering: bool,

    /// Instead: attach so often to a host that holds --connections while others come and go
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["minutes", "seed", "no_steering", "json"])]
    attach: Option<u32>,

    /// With --attach: how many connections stay open, both ends on this host
    #[arg(long, value_name = "N", default_value_t = 50_000, requires = "attach")]
    connections: usize,

    /// Print a JSON document on stdout at the end
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    build_ebpf::build()?;
    command::run_timed("building the binaries", command::cargo()?.args(["build", "--bins"]))?;
    let mut torture = match command::root_access() {
        Root::Already => Command::new("unshare"),
        Root::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.arg("unshare");
            sudo
        }
        Root::No(why) => bail!("the torture run needs root: {why}"),
    };
    torture.args(["--mount", "--net", "sh", "-c", APART]).arg(paths::binary("e2e-torture")?);
    if let Some(times) = options.attach {
        torture.args(["attach", &options.connections.to_string(), &times.to_string()]);
        return exit(&mut torture);
    }
    let seconds = options.minutes.checked_mul(60).context("so many minutes are no time")?;
    let steering = if options.no_steering { "off" } else { "on" };
    torture.args(["run", &options.seed.to_string(), &seconds.to_string(), steering]);
    if options.json {
        torture.arg("json");
    }
    exit(&mut torture)
}

fn exit(torture: &mut Command) -> Result<ExitCode> {
    let status = command::status(torture)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
