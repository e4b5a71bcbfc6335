//! `cargo xtask demo`: from a fresh checkout to the answer, on real sockets.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{self, Root, say};
use crate::{paths, programs};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where capture, truth and reports go [default: <target dir>/demo]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    programs::build()?;

    let lab = paths::binary("lab")?;
    let mut demo = match command::root_access() {
        Root::Already => Command::new(lab),
        Root::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.arg("--preserve-env=PATH,NO_COLOR,TERM").arg(lab);
            sudo
        }
        Root::No(why) => {
            say(&format!("{why}: running without the kernel programs, counts are not exact"));
            say("for exact counts run it as root, or `sudo -v` first");
            Command::new(lab)
        }
    };
    let output = match &options.output {
        Some(dir) => std::path::absolute(dir).context("the output directory is no usable path")?,
        None => paths::target_dir()?.join("demo"),
    };
    demo.args(["run", "demo", "-o"]).arg(output);

    let status = command::status(&mut demo)?;
    // The scenario's exit codes are documented; a signal has none.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
