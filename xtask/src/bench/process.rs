//! Other programs: servers that run while something is measured, and clients that measure.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program in the background; killed on drop.
pub(crate) struct Running {
    name: String,
    child: Child,
    /// Its standard error.
    log: PathBuf,
}

impl Running {
    /// Starts it; its standard error goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written `words` to standard error.
    pub(crate) fn wait_for(&mut self, words: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(words) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.said().trim());
            }
            if Instant::now() > deadline {
                bail!("{} never wrote {words:?}: {}", self.name, self.said().trim());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The next line that it writes to standard output, which was piped.
    pub(crate) fn line(&mut self) -> Result<String> {
        let output = self.child.stdout.as_mut().context("the output is not piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} wrote nothing: {}", self.name, self.said().trim());
        }
        Ok(line)
    }

    /// Asks it to end, and waits until it has. Returns what it wrote to standard output, if that was
    /// piped.
    pub(crate) fn stop(mut self) -> Result<String> {
        signal(self.child.id(), Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} did not end: {}", self.name, self.said().trim());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(self.child.stdout.take().map(std::io::read_to_string).transpose()?.unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended ones make both fail, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).context("cannot signal a program of ours")
}

/// The standard output of a program that must succeed, and how long it took.
pub(crate) fn timed(command: &mut Command) -> Result<(String, Duration)> {
    let start = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!(
            "{} failed: {}: {}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took))
}

/// As [`timed`], without the time.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    timed(command).map(|(output, _)| output)
}

/// A loopback port that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until somebody accepts connections.
pub(crate) fn wait_until_open(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = TcpStream::connect(address) {
        if Instant::now() > deadline {
            bail!("nobody listens on {address}: {error}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Where a program is, if it is installed; Debian puts some outside of a user's PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
