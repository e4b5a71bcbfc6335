//! Tens of thousands of open connections to servers in many cgroups, which takes several processes
//! (one may hold 20,000 descriptors) and several 127.0.0.x addresses (one has 28,000 ports).

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Context;
use super::process::Running;

/// Servers and clients each take so many processes.
const PROCESSES: usize = 3;
/// How long all connections may take to be there.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// A listener is made in each
    cgroups: Vec<PathBuf>,
}

/// A server process of the crowd: a listener from inside of each cgroup, since a socket belongs to the
/// cgroup that it was made in. Prints the ports, and holds every connection until it is killed.
pub(crate) fn serve(options: &Serve) -> Result<ExitCode> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let mut listeners = Vec::new();
    for cgroup in &options.cgroups {
        enter(cgroup)?;
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    // So that the cgroups can be removed.
    enter(cgroup_root()?.as_path())?;
    let ports: Vec<String> = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port().to_string()))
        .collect::<Result<_>>()?;
    println!("{}", ports.join(" "));
    std::io::stdout().flush()?;
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| {
                let mut held = Vec::new();
                while let Ok((stream, _)) = listener.accept() {
                    held.push(stream);
                }
            });
        }
    });
    bail!("the listeners ended")
}

fn enter(cgroup: &Path) -> Result<()> {
    // 0 stands for whoever writes it.
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot enter {}", cgroup.display()))
}

fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            Some((fields.nth(1)?, fields.next()?))
        })
        .find(|(_, kind)| *kind == "cgroup2")
        .map(|(path, _)| PathBuf::from(path))
        .context("no cgroup2 file system is mounted")
}

/// A server process and its ports.
struct Server {
    running: Running,
    ports: Vec<String>,
    /// Descriptors that it had before any connection.
    descriptors: usize,
}

impl Server {
    fn accepted(&self) -> Result<usize> {
        Ok(descriptors(self.running.pid())?.saturating_sub(self.descriptors))
    }
}

fn descriptors(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?.count())
}

/// Servers in cgroups, and the connections to them. Removed on drop.
pub(crate) struct Crowd {
    /// Clients first: servers that die first would reset them.
    clients: Vec<Running>,
    servers: Vec<Server>,
    opened: usize,
    cgroups: Cgroups,
}

impl Crowd {
    pub(crate) fn start(context: &Context, cgroups: usize) -> Result<Self> {
        let cgroups = Cgroups::make(cgroups)?;
        let mut servers = Vec::new();
        for (index, some) in cgroups.0.chunks(cgroups.0.len().div_ceil(PROCESSES)).enumerate() {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("bench-serve").args(some).stdout(Stdio::piped());
            let log = context.file(&format!("crowd-server-{index}.log"));
            let mut server = Running::start(&mut command, log)?;
            let ports = server.line()?.split_whitespace().map(str::to_owned).collect();
            let descriptors = descriptors(server.pid())?;
            servers.push(Server { running: server, ports, descriptors });
        }
        Ok(Self { clients: Vec::new(), servers, opened: 0, cgroups })
    }

    /// Ports of the servers, one for each cgroup.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().flat_map(|server| &server.ports).map(String::as_str)
    }

    /// Opens so many more, evenly; returns once the servers have accepted all.
    pub(crate) fn open(&mut self, context: &Context, connections: usize) -> Result<()> {
        let each = connections / self.servers.len();
        for (index, server) in self.servers.iter().enumerate() {
            let rest = if index == 0 { connections % self.servers.len() } else { 0 };
            let mut command = Command::new(context.binary("lab"));
            command.args(["churn", "--hold", "1h", "--count", &(each + rest).to_string()]);
            for port in &server.ports {
                command.args(["--to", &format!("127.0.0.1:{port}")]);
            }
            let log = context.file(&format!("crowd-client-{}.log", self.clients.len()));
            self.clients.push(Running::start(command.stdout(Stdio::null()), log)?);
        }
        self.opened += connections;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let accepted: Vec<usize> =
                self.servers.iter().map(Server::accepted).collect::<Result<_>>()?;
            let accepted: usize = accepted.iter().sum();
            if accepted == self.opened {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{accepted} of {} connections were accepted", self.opened);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.clients.clear();
        self.servers.clear();
        self.cgroups.remove();
    }
}

struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn make(count: usize) -> Result<Self> {
        let parent = cgroup_root()?.join("groundtruth-bench");
        let cgroups = Self((0..count).map(|index| parent.join(format!("c{index}"))).collect());
        for cgroup in &cgroups.0 {
            fs::create_dir_all(cgroup)
                .with_context(|| format!("cannot make {}", cgroup.display()))?;
        }
        Ok(cgroups)
    }

    fn remove(&self) {
        for cgroup in &self.0 {
            let _ = fs::remove_dir(cgroup);
        }
        if let Some(parent) = self.0.first().and_then(|cgroup| cgroup.parent()) {
            let _ = fs::remove_dir(parent);
        }
    }
}
