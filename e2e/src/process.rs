//! Child processes whose output is read while they run, and which never outlive the test.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// One of the workspace's binaries, which cargo puts above the test executables' directory.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let executable = std::env::current_exe().expect("the test's own path");
    // <target dir>/<profile>/deps/<test>, or a binary beside the others.
    let dir = executable.parent().expect("an executable is in a directory");
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: `cargo build --bins` makes it (`cargo xtask test` does that first)",
        path.display()
    );
    path
}

/// What a process left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Its standard output, if it exited with 0.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn success(self, what: &str) -> String {
        assert_eq!(self.code, Some(0), "{what} failed: {self}");
        self.stdout
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {:?}, signal {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.signal, self.stdout, self.stderr
        )
    }
}

/// Runs to the end, within a minute.
///
/// # Panics
/// If it cannot be started or does not end.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    finish_within(command, Duration::from_secs(60))
}

/// Runs to the end.
///
/// # Panics
/// If it cannot be started or does not end in time.
#[track_caller]
pub fn finish_within(command: &mut Command, timeout: Duration) -> Finished {
    let mut running = Running::start(command);
    running.stdin = None;
    running.wait(timeout)
}

#[derive(Debug, Default)]
struct Text {
    lines: Vec<String>,
    ended: bool,
}

/// One output stream, collected by a thread.
#[derive(Debug, Clone, Default)]
struct Stream {
    text: Arc<(Mutex<Text>, Condvar)>,
}

impl Stream {
    fn collect(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let text = Arc::clone(&self.text);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                text.0.lock().expect("no reader panicked").lines.push(line);
                text.1.notify_all();
            }
            text.0.lock().expect("no reader panicked").ended = true;
            text.1.notify_all();
        })
    }

    /// The first line at or after `from` that `matches`, and its index.
    fn wait(
        &self,
        from: usize,
        timeout: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Option<(usize, String)> {
        let deadline = Instant::now() + timeout;
        let mut text = self.text.0.lock().expect("no reader panicked");
        let mut next = from;
        loop {
            while next < text.lines.len() {
                if matches(&text.lines[next]) {
                    return Some((next, text.lines[next].clone()));
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.ended || left.is_zero() {
                return None;
            }
            text = self.text.1.wait_timeout(text, left).expect("no reader panicked").0;
        }
    }

    fn all(&self) -> String {
        let text = self.text.0.lock().expect("no reader panicked");
        text.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }
}

/// A running child; killed on drop.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
    readers: Vec<JoinHandle<()>>,
    asked: usize,
}

impl Running {
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let (stdout, stderr) = (Stream::default(), Stream::default());
        let readers = vec![
            stdout.collect(child.stdout.take().expect("piped")),
            stderr.collect(child.stderr.take().expect("piped")),
        ];
        Self { name, stdin: child.stdin.take(), child, stdout, stderr, readers, asked: 0 }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error that contains `needle`.
    ///
    /// # Panics
    /// If the process ends or 60 s pass without it.
    #[track_caller]
    pub fn wait_stderr(&self, needle: &str) -> String {
        match self.stderr.wait(0, Duration::from_secs(60), |line| line.contains(needle)) {
            Some((_, line)) => line,
            None => panic!(
                "{} never wrote {needle:?} to stderr\n--- stdout\n{}\n--- stderr\n{}",
                self.name,
                self.stdout.all(),
                self.stderr.all()
            ),
        }
    }

    /// Like [`Running::wait_stderr`], for standard output.
    #[track_caller]
    pub fn wait_stdout(&self, needle: &str) -> String {
        match self.stdout.wait(0, Duration::from_secs(60), |line| line.contains(needle)) {
            Some((_, line)) => line,
            None => panic!(
                "{} never wrote {needle:?} to stdout\n--- stdout\n{}\n--- stderr\n{}",
                self.name,
                self.stdout.all(),
                self.stderr.all()
            ),
        }
    }

    /// Writes a line and returns the next line of the answer.
    ///
    /// # Panics
    /// If no line comes within two minutes.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{line}").unwrap_or_else(|e| panic!("{} took no {line:?}: {e}", self.name));
        let Some((at, answer)) = self.stdout.wait(self.asked, Duration::from_secs(120), |_| true)
        else {
            panic!("{} gave no answer to {line:?}\n--- stderr\n{}", self.name, self.stderr.all());
        };
        self.asked = at + 1;
        answer
    }

    /// # Panics
    /// If the process is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not 0");
        kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it has not ended in time.
    #[track_caller]
    pub fn wait(mut self, timeout: Duration) -> Finished {
        self.stdin = None;
        let deadline = Instant::now() + timeout;
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!(
                    "{} did not end within {timeout:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.name,
                    self.stdout.all(),
                    self.stderr.all()
                ),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // A grandchild may hold the pipes open for longer; what is read within a second is enough.
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.readers.iter().any(|r| !r.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }

    /// Sends the signal and waits for the end, within a minute.
    #[track_caller]
    pub fn stop(self, signal: Signal) -> Finished {
        self.signal(signal);
        self.wait(Duration::from_secs(60))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended ones make both calls fail, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process holds in memory now (`VmRSS`), in KiB.
///
/// # Panics
/// If it is gone.
#[must_use]
pub fn resident_kib(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no VmRSS in {path}"))
}

/// The processor time that a process has used so far, with its threads, to 10 ms.
///
/// # Panics
/// If it is gone.
#[must_use]
pub fn processor_time(pid: u32) -> Duration {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // Behind the name in parentheses the state is field 3, utime and stime are 14 and 15, in ticks of
    // which every architecture that we build for has 100 a second.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
