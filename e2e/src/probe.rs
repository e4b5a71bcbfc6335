//! Runs `probe` as a user would, and reads its JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

use crate::process::{Finished, Running, Signal, binary, finish};

/// `probe` with these arguments, to its end.
#[track_caller]
pub fn run(args: &[&str]) -> Finished {
    finish(command().args(args))
}

/// `probe`, not started yet.
#[must_use]
pub fn command() -> Command {
    Command::new(binary("probe"))
}

/// A running agent (`probe serve`): programs attached once, asked often. Stopped for good on drop.
#[derive(Debug)]
pub struct Agent {
    process: Option<Running>,
    /// A socket of its own, so that a running agent of the machine is neither asked nor in the way.
    socket: PathBuf,
    arguments: Vec<String>,
}

impl Agent {
    pub const LISTEN: &str = "127.0.0.1:19464";

    /// Returns once its counts are complete.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments than the usual.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let name = format!("groundtruth-agent-{}.sock", std::process::id());
        let mut agent = Self {
            process: None,
            socket: std::env::temp_dir().join(name),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        agent.start_again();
        agent
    }

    /// Starts it after [`Agent::terminate`], with other arguments than before.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn start_again_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.start_again();
    }

    /// Starts it after [`Agent::terminate`].
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn start_again(&mut self) {
        let mut command = self.command("serve");
        command.args(["--listen", Self::LISTEN]).args(&self.arguments);
        let process = Running::start(&mut command);
        process.wait_stderr("listening on");
        self.process = Some(process);
    }

    /// Ends it as a service manager does; what it has pinned stays.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn terminate(&mut self) {
        if let Some(process) = self.process.take() {
            let finished = process.stop(Signal::TERM);
            assert_eq!(finished.code, Some(143), "{finished}");
        }
    }

    #[track_caller]
    fn process(&self) -> &Running {
        self.process.as_ref().expect("the agent runs")
    }

    /// Ends it as a crash does; what it has pinned stays.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            let finished = process.stop(Signal::KILL);
            assert_eq!(finished.code, None, "{finished}");
        }
    }

    /// Sends it a signal that does not end it.
    ///
    /// # Panics
    /// If it was terminated.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Lets it have so many descriptors from now on; those that are open stay.
    ///
    /// # Panics
    /// If it was terminated.
    #[track_caller]
    pub fn limit_files(&self, limit: u64) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(limit), maximum };
        prlimit(pid, Resource::Nofile, limit).expect("the limit can be set");
    }

    /// `probe stop --purge`.
    #[track_caller]
    #[must_use]
    pub fn purge(&self) -> Finished {
        finish(self.command("stop").arg("--purge"))
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// # Panics
    /// If it was terminated.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Tells it to read its settings again.
    ///
    /// # Panics
    /// If it was terminated.
    #[track_caller]
    pub fn hang_up(&self) {
        self.process().signal(Signal::HUP);
    }

    /// Waits for a line of its that contains `needle`.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn wait_stderr(&self, needle: &str) -> String {
        self.process().wait_stderr(needle)
    }

    /// A command that asks this agent.
    #[must_use]
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = command();
        command.arg(subcommand).arg("--agent-socket").arg(&self.socket);
        command
    }

    /// Counts now, as `probe count` gets them from the agent.
    #[track_caller]
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::parse(&finish(self.command("count").arg("--json")).success("probe count"))
    }

    /// The rows of `probe connections`, by way of the agent.
    #[track_caller]
    #[must_use]
    pub fn connections(&self, arguments: &[&str]) -> Vec<Value> {
        let text = finish(self.command("connections").arg("--json").args(arguments));
        let text = text.success("probe connections");
        text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    }

    /// How the agent fares: its metrics without labels, by their names without prefix and suffix.
    #[track_caller]
    #[must_use]
    pub fn vitals(&self) -> BTreeMap<String, i64> {
        self.text("/metrics")
            .lines()
            .filter_map(|line| {
                let (name, value) = line.strip_prefix("groundtruth_")?.split_once(' ')?;
                if name.contains('{') {
                    return None;
                }
                let name = name.strip_suffix("_total").unwrap_or(name);
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// One of [`Agent::vitals`].
    ///
    /// # Panics
    /// If it is not among them.
    #[track_caller]
    #[must_use]
    pub fn vital(&self, name: &str) -> i64 {
        *self.vitals().get(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Counts now, from a JSON path of its web server.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> Counts {
        Counts::parse(&self.text(path))
    }

    /// Connections on this port since the programs were attached that were `what` (`established`,
    /// `accepted`), from its metrics, which know no namespaces.
    #[track_caller]
    #[must_use]
    pub fn total(&self, what: &str, port: u16, role: &str) -> u64 {
        let metric = format!("groundtruth_connections_{what}_total{{");
        let label = format!("port=\"{port}\",role=\"{role}\"");
        self.text("/metrics")
            .lines()
            .filter(|line| line.starts_with(&metric) && line.contains(&label))
            .map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()))
            .map(|value| value.expect("a number ends the line"))
            .sum()
    }

    /// The body at a path of its web server.
    #[track_caller]
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        let url = format!("http://{}{path}", Self::LISTEN);
        finish(Command::new("busybox").args(["wget", "-q", "-O", "-", &url])).success("wget")
    }
}

/// The ids of the kernel's programs (`prog`), maps (`map`) or links (`link`) that a process holds.
///
/// # Panics
/// If the process is gone.
#[must_use]
pub fn kernel_ids(pid: u32, kind: &str) -> BTreeSet<u64> {
    let field = format!("{kind}_id:");
    std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .unwrap_or_else(|e| panic!("the files of process {pid}: {e}"))
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .flat_map(|text| {
            let ids = text.lines().filter_map(|line| line.strip_prefix(&field));
            ids.filter_map(|id| id.trim().parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Killed or not, what it has pinned must go, or the next test would take it over.
        self.process = None;
        let _ = self.command("stop").arg("--purge").output();
    }
}

/// What `probe count --json` printed.
#[derive(Clone, Debug)]
pub struct Counts(pub Value);

impl Counts {
    #[track_caller]
    fn parse(text: &str) -> Self {
        let value = serde_json::from_str(text).unwrap_or_else(|e| panic!("no JSON: {e}\n{text}"));
        Self(value)
    }

    /// The rows that match; `None` matches all.
    fn rows<'a>(&'a self, of: &'a Of) -> impl Iterator<Item = &'a Value> {
        let rows = self.0["counts"].as_array().expect("counts is a list");
        rows.iter().filter(move |row| {
            of.container.as_ref().is_none_or(|name| row["container"]["name"] == name.as_str())
                && of.port.is_none_or(|port| row["port"] == port)
                && of.netns.is_none_or(|netns| row["netns"] == netns)
                && of.cgroup_id.is_none_or(|id| row["cgroup_id"] == id)
                && row["role"] == of.role
        })
    }

    fn sum(&self, of: &Of, field: impl Fn(&Value) -> &Value) -> i64 {
        self.rows(of)
            .map(|row| {
                field(row).as_i64().unwrap_or_else(|| panic!("a number is missing in {row}"))
            })
            .sum()
    }

    #[must_use]
    pub fn established(&self, of: &Of) -> i64 {
        self.sum(of, |row| &row["established"])
    }

    /// Since the programs were attached.
    #[must_use]
    pub fn accepted(&self, of: &Of) -> i64 {
        self.sum(of, |row| &row["accepted"])
    }

    /// Every row.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.0["counts"].as_array().into_iter().flatten()
    }

    /// Rows of these ports.
    pub fn on(&self, ports: &Range<u16>) -> impl Iterator<Item = &Value> {
        let ports = u64::from(ports.start)..u64::from(ports.end);
        self.all().filter(move |row| row["port"].as_u64().is_some_and(|port| ports.contains(&port)))
    }

    /// Connections of all populations that are over, since the programs were attached.
    #[must_use]
    pub fn closed(&self) -> i64 {
        self.all().filter_map(|row| row["closed_total"].as_i64()).sum()
    }

    /// The same, of these ports.
    #[must_use]
    pub fn closed_on(&self, ports: &Range<u16>) -> i64 {
        self.on(ports).filter_map(|row| row["closed_total"].as_i64()).sum()
    }

    /// Sockets in a kernel state, by its name.
    #[must_use]
    pub fn state(&self, of: &Of, name: &str) -> i64 {
        self.rows(of).map(|row| row["states"][name].as_i64().unwrap_or(0)).sum()
    }

    /// No loss and no drift since the start, or why not.
    #[track_caller]
    pub fn assert_exact(&self) {
        assert_eq!(self.0["exact"], true, "degraded: {}", self.0["degraded"]);
        assert_eq!(self.0["backend"], "ebpf");
    }
}

/// A population: passive sockets unless said otherwise.
#[derive(Clone, Debug)]
pub struct Of {
    pub container: Option<String>,
    pub port: Option<u16>,
    pub netns: Option<u64>,
    pub cgroup_id: Option<u64>,
    pub role: &'static str,
}

impl Of {
    #[must_use]
    pub fn any_port() -> Self {
        Self { container: None, port: None, netns: None, cgroup_id: None, role: "passive" }
    }

    #[must_use]
    pub fn port(port: u16) -> Self {
        Self { port: Some(port), ..Self::any_port() }
    }

    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.container = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn netns(mut self, inode: u64) -> Self {
        self.netns = Some(inode);
        self
    }

    #[must_use]
    pub fn cgroup(mut self, id: u64) -> Self {
        self.cgroup_id = Some(id);
        self
    }

    #[must_use]
    pub fn active(mut self) -> Self {
        self.role = "active";
        self
    }
}
