//! Other processes of the project: found, started, waited for, ended.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::{LabError, file_error};

/// Set in the environment of whatever a lab starts.
const CHILD: &str = "GROUNDTRUTH_LAB_CHILD";

/// A program of this project: beside this one, else on `PATH`.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).ok_or_else(
        || {
            LabError::host(format!(
                "`{name}` is neither beside lab ({}) nor on PATH; build it, or install it",
                beside.display()
            ))
        },
    )
}

/// A program to be run: here, or inside a network namespace.
pub(crate) fn command(namespace: Option<&str>, program: &Path) -> Command {
    let mut command = match namespace {
        None => Command::new(program),
        Some(name) => {
            // Unlike `ip netns exec` this leaves /sys alone, where cgroups and BTF are.
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
            command
        }
    };
    // A terminal's Ctrl-C is for lab alone, which ends the others in order.
    command.kill_on_drop(true).process_group(0).stdin(Stdio::null()).env(CHILD, "1");
    command
}

/// Ends this process with the lab that started it, even if that one is killed.
pub(crate) fn end_with_parent() -> std::io::Result<()> {
    if std::env::var_os(CHILD).is_none() {
        return Ok(());
    }
    Ok(set_parent_process_death_signal(Some(Signal::TERM))?)
}

/// A log file in the run's directory, for one stream of a child.
pub(crate) fn log(dir: &Path, name: &str) -> anyhow::Result<Stdio> {
    let path = dir.join(name);
    Ok(File::create(&path).map_err(|error| file_error(&path, "create", &error))?.into())
}

pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    command.spawn().map_err(|error| {
        let program = Path::new(command.as_std().get_program()).display().to_string();
        LabError::host(format!("cannot start `{program}`: {error}"))
    })
}

/// Reads lines until one fits, and goes on reading in the background, so that the child never
/// blocks. `None` if the stream ends first or nothing fits in time.
pub(crate) async fn line_with<R: AsyncRead + Unpin + Send + 'static>(
    stream: R,
    patience: Duration,
    show: bool,
    fits: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let found = timeout(patience, async {
        while let Ok(Some(line)) = lines.next_line().await {
            if show {
                eprintln!("{line}");
            }
            if fits(&line) {
                return Some(line);
            }
        }
        None
    })
    .await;
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if show {
                eprintln!("{line}");
            }
        }
    });
    found.ok().flatten()
}

/// Sends SIGINT and waits; a child that does not listen is killed when it is dropped.
pub(crate) async fn interrupt(name: &str, child: &mut Child) -> anyhow::Result<ExitStatus> {
    const PATIENCE: Duration = Duration::from_secs(30);

    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may have ended by itself; the wait below tells.
        let _ = kill_process(pid, Signal::INT);
    }
    match timeout(PATIENCE, child.wait()).await {
        Ok(status) => Ok(status?),
        Err(_) => anyhow::bail!("{name} did not end within {PATIENCE:?} of SIGINT"),
    }
}

/// The exit code; a child that a signal killed counts as 128 + signal.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;

    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// An error with the child's own code, for a child that ended in a way that was not planned.
pub(crate) fn unexpected(program: impl AsRef<OsStr>, status: ExitStatus) -> anyhow::Error {
    let program = program.as_ref().to_string_lossy().into_owned();
    LabError::Sibling { program, code: code(status) }.into()
}
