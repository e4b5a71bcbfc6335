//! `probe stop`: ends the agent, and with `--purge` what it left in the kernel.

use std::{path::Path, time::Duration};

use anyhow::Context;

use crate::{cli::Stop, error::Error, exit::Exit, export::lock, kernel};

/// How long an agent may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(socket: &Path, arguments: &Stop) -> anyhow::Result<Exit> {
    let holder = lock::holder(socket)?;
    match holder {
        Some(pid) => {
            // SAFETY: kill takes no pointers. The pid is that of the process that holds the lock
            // now; positive, so it names one process.
            if unsafe { libc::kill(pid, libc::SIGTERM) } != 0 {
                let error = std::io::Error::last_os_error();
                return Err(Error::input(
                    format!("cannot stop the agent, pid {pid}: {error}"),
                    "run it as the agent's user, usually root: sudo probe stop",
                )
                .into());
            }
            if !lock::wait_free(socket, PATIENCE)? {
                return Err(Error::input(
                    format!("the agent, pid {pid}, did not end within 10 s"),
                    format!("look what it does, or end it with: kill -KILL {pid}"),
                )
                .into());
            }
            eprintln!("stopped the agent, pid {pid}");
        }
        None if !arguments.purge => {
            return Err(Error::NoAgent { socket: socket.to_owned() }.into());
        }
        None => {}
    }
    if arguments.purge {
        // Also of an agent with another socket.
        let pins = kernel::hold::take(Path::new(kernel::PIN_ROOT))?;
        kernel::purge(pins).context("cannot remove what is pinned")?;
        eprintln!("removed what was pinned in the kernel");
    }
    Ok(Exit::Done)
}
