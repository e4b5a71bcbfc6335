//! Resources of processes, from `/proc` and their cgroup.

use std::{fs, path::PathBuf, sync::LazyLock};

use serde::Serialize;

/// Of several processes together, at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Facts {
    /// How many there are; 0 where none is left, and the rest says nothing.
    pub(crate) processes: u64,
    pub(crate) open_fds: u64,
    /// Of the descriptors.
    pub(crate) sockets: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
    /// User and system time since their start.
    pub(crate) cpu_seconds: f64,
    /// How long the threads that there are were ready and had no processor; `None` where the kernel
    /// does not say.
    pub(crate) run_queue_seconds: Option<f64>,
    /// Of the oldest.
    pub(crate) start_unix_s: f64,
    /// Of their cgroup, also when they are gone; `None` where they have none of their own, or it keeps
    /// no such count.
    pub(crate) oom_kills: Option<u64>,
}

impl Facts {
    /// Processes that are gone, or that this user may not look at, are left out.
    pub(crate) fn of(pids: &[u32], kills: Option<&KillCount>) -> Self {
        let mut all = Facts { oom_kills: kills.and_then(KillCount::read), ..Facts::default() };
        for &pid in pids {
            let Some(one) = of_process(pid) else { continue };
            all.start_unix_s = match all.processes {
                0 => one.start_unix_s,
                _ => all.start_unix_s.min(one.start_unix_s),
            };
            all.processes += 1;
            all.open_fds += one.open_fds;
            all.sockets += one.sockets;
            all.resident_bytes += one.resident_bytes;
            all.threads += one.threads;
            all.cpu_seconds += one.cpu_seconds;
            if let Some(waited) = one.run_queue_seconds {
                *all.run_queue_seconds.get_or_insert(0.0) += waited;
            }
        }
        all
    }

    /// By the names of the common Prometheus client libraries where these have one.
    pub(crate) fn named(&self) -> Vec<(&'static str, f64)> {
        let mut named = vec![("processes", self.processes as f64)];
        if self.processes > 0 {
            named.extend([
                ("process_open_fds", self.open_fds as f64),
                ("process_sockets", self.sockets as f64),
                ("process_resident_memory_bytes", self.resident_bytes as f64),
                ("process_threads", self.threads as f64),
                ("process_cpu_seconds_total", self.cpu_seconds),
                ("process_start_time_seconds", self.start_unix_s),
            ]);
            let waited = self.run_queue_seconds;
            named.extend(waited.map(|waited| ("process_run_queue_seconds_total", waited)));
        }
        named.extend(self.oom_kills.map(|kills| ("oom_kills_total", kills as f64)));
        named
    }
}

fn of_process(pid: u32) -> Option<Facts> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let stat = Stat::parse(&stat)?;
    let (mut open_fds, mut sockets) = (0, 0);
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        open_fds += 1;
        let link = fs::read_link(descriptor.path()).unwrap_or_default();
        sockets += u64::from(link.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
    }
    // SAFETY: sysconf reads a constant of this system, and has no other effect.
    let of_system = |name| unsafe { libc::sysconf(name) }.max(1) as f64;
    let ticks = of_system(libc::_SC_CLK_TCK);
    Some(Facts {
        processes: 1,
        open_fds,
        sockets,
        resident_bytes: (stat.resident_pages as f64 * of_system(libc::_SC_PAGESIZE)) as u64,
        threads: stat.threads,
        cpu_seconds: stat.cpu_ticks as f64 / ticks,
        run_queue_seconds: run_queue_seconds(pid),
        start_unix_s: booted_unix_s()? + stat.start_ticks as f64 / ticks,
        oom_kills: None,
    })
}

/// A thread at a time: the process's own file has that of its first one alone.
fn run_queue_seconds(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let waited_ns = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    waited_ns.map(|ns| ns as f64 / 1e9).reduce(|all, one| all + one)
}

/// The part of `/proc/PID/stat` that is of use.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// Since boot.
    start_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses as well.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // As numbered in proc(5), where the state after the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// As it was at first: it moves with the clock, which is set now and then, and no process starts anew by that.
fn booted_unix_s() -> Option<f64> {
    static BOOTED: LazyLock<Option<f64>> = LazyLock::new(|| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    });
    *BOOTED
}

/// Where a cgroup counts the processes that the kernel killed in it for lack of memory, by either version
/// of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KillCount(PathBuf);

impl KillCount {
    /// Of the process's cgroup.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let files = cgroups.lines().filter_map(events_file);
        let mut counts = files.filter_map(|(file, below)| Some(Self(mounted(file)?.join(below))));
        counts.find(|count| count.read().is_some())
    }

    fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.0).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }
}

/// The file with the count for a line of `/proc/PID/cgroup`: which kind of mount, and the path below
/// it. The root has no such file.
fn events_file(line: &str) -> Option<(&'static str, PathBuf)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let below = PathBuf::from(path.trim_start_matches('/'));
    match controllers {
        _ if path == "/" => None,
        "" => Some(("cgroup2", below.join("memory.events"))),
        "memory" => Some(("cgroup", below.join("memory.oom_control"))),
        _ => None,
    }
}

/// Where cgroups of this kind are mounted; of version 1, those of memory.
fn mounted(kind: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, at, found, options, ..] = fields.as_slice() else { return None };
        let is_memory = kind == "cgroup2" || options.split(',').any(|option| option == "memory");
        (*found == kind && is_memory).then(|| PathBuf::from(at))
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::Barrier, thread, time::Duration};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;
    use crate::clock;

    #[test]
    fn fields_are_those_of_proc_5() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 9 0 12345 1000 321 \
                    18446744073709551615 1 1";
        let expected = Stat { cpu_ticks: 12, threads: 9, start_ticks: 12_345, resident_pages: 321 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (a) S 1"), None);
    }

    #[test]
    fn the_test_itself_holds_what_it_opened() {
        let me = [std::process::id()];
        let before = Facts::of(&me, None);
        let opened: Vec<TcpListener> =
            (0..23).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let after = Facts::of(&me, None);
        // Other tests of this program may open and close some meanwhile.
        assert!(after.sockets >= 23 && after.open_fds > after.sockets, "{after:?}");
        assert_eq!((before.processes, after.processes), (1, 1));
        assert_eq!(before.start_unix_s, after.start_unix_s);
        assert!(after.resident_bytes > 1 << 20 && after.threads >= 1, "{after:?}");
        drop(opened);
        assert_eq!(Facts::of(&[u32::MAX], None).named(), [("processes", 0.0)]);
    }

    /// Two that want the same processor for 100 ms each: whoever ends last has waited for all of the
    /// other's.
    #[test]
    fn threads_that_wait_for_a_processor_are_seen_to() {
        const WANTED: Duration = Duration::from_millis(100);
        let me = [std::process::id()];
        let waited = || Facts::of(&me, None).run_queue_seconds.unwrap();
        let (ready, over) = (Barrier::new(2), Barrier::new(3));
        let before = waited();
        let after = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    stay_on_one_processor();
                    ready.wait();
                    let begun = clock::thread_cpu();
                    while clock::thread_cpu() - begun < WANTED {}
                    over.wait();
                    // The kernel forgets what a thread waited when it is gone.
                    over.wait();
                });
            }
            over.wait();
            let after = waited();
            over.wait();
            after
        });
        assert!(after - before > 0.95 * WANTED.as_secs_f64(), "{before} {after}");
    }

    fn stay_on_one_processor() {
        let may = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| may.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
    }

    #[test]
    fn files_of_cgroups() {
        let file = |line| events_file(line).map(|(kind, path)| (kind, path.display().to_string()));
        assert_eq!(
            file("0::/system.slice/a.service"),
            Some(("cgroup2", "system.slice/a.service/memory.events".into()))
        );
        assert_eq!(
            file("9:memory:/docker/ab"),
            Some(("cgroup", "docker/ab/memory.oom_control".into()))
        );
        for line in ["0::/", "9:memory:/", "3:cpu,cpuacct:/docker/ab", "x"] {
            assert_eq!(file(line), None, "{line}");
        }
    }
}
