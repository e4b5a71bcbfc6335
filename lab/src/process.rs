//! What this process uses, read from `/proc/self`.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::getrlimit;

/// Open descriptors of this process; the one that lists them is left out.
pub(crate) fn open_fds() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64)
}

/// How many descriptors this process may open.
pub(crate) fn max_fds() -> u64 {
    getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft descriptor limit to the hard one.
pub(crate) fn raise_fd_limit() {
    use rustix::process::{Resource, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused the old limit holds, and `max_fds` says so to whoever needs more.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Lets this process open no more than `max` descriptors from here on.
pub(crate) fn lower_fd_limit(max: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(max);
    setrlimit(Resource::Nofile, limit).map_err(|error| {
        crate::error::LabError::usage(format!(
            "cannot set the descriptor limit to {max}: {error}; choose at most {}",
            limit.maximum.unwrap_or(u64::MAX)
        ))
    })
}

/// Resident memory in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The memory this process may use: its cgroup's limit, else the host's memory. In bytes.
pub(crate) fn memory_limit_bytes() -> u64 {
    let cgroup = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    cgroup.unwrap_or_else(|| {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    })
}

/// CPU time this process has used, of all its threads.
pub(crate) fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or(0), used.tv_nsec.try_into().unwrap_or(0))
}

/// CPU use between two looks, in percent of one core.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    at: Instant,
    used: Duration,
}

impl CpuMeter {
    pub(crate) fn start() -> Self {
        CpuMeter { at: Instant::now(), used: cpu_time() }
    }

    pub(crate) fn percent_since_last(&mut self) -> f64 {
        let now = CpuMeter::start();
        let wall = now.at.duration_since(self.at).as_secs_f64();
        let busy = now.used.saturating_sub(self.used).as_secs_f64();
        *self = now;
        if wall > 0.0 { 100.0 * busy / wall } else { 0.0 }
    }
}
