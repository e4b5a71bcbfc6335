//! How often `inet_sock_set_state` fired, by a counter of perf, against the runs of the probe's programs.

use std::ffi::CString;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use serde_json::Value;

use super::report::Check;
use crate::machine::tool;

const TRACEPOINT: &str = "events/sock/inet_sock_set_state/id";
/// The two copies of the program that follows state changes.
const PROGRAMS: [&str; 2] = ["set_state_1", "set_state_2"];
const BPF_ENABLE_STATS: libc::c_int = 32;

/// With packet steering Linux 6.18 leaves out all tracing programs at once now and then, in bursts of some
/// milliseconds, and counts no miss: 0.17 to 0.39 % of all events where that was measured. Without, it does so to 0 to
/// 45 of a million.
const LEFT_OUT_STEERED: Share = Share { of: 50, name: "2 %" };
const LEFT_OUT: Share = Share { of: 1000, name: "0.1 %" };

/// The most that may be left out.
struct Share {
    of: i64,
    name: &'static str,
}

/// Counts round by round.
pub(super) struct Fired {
    all: Counter,
    /// Makes the kernel count runs as long as it is open.
    _statistics: OwnedFd,
    programs: Vec<(String, u64)>,
    /// When the round began.
    begun: Reading,
}

/// How often the tracepoint fired until one moment; the runs and counted misses of each copy of the program shortly
/// before, and shortly after: other programs of the host open connections, too.
struct Reading {
    earlier: Vec<i64>,
    fired: i64,
    later: Vec<i64>,
}

impl Reading {
    fn of(all: &Counter, programs: &[(String, u64)]) -> Self {
        let runs = || programs.iter().map(|(_, id)| runs_and_misses(*id)).collect();
        Self { earlier: runs(), fired: all.read().cast_signed(), later: runs() }
    }
}

impl Fired {
    pub(super) fn watch(agent: u32) -> Self {
        let statistics = enable_statistics().expect("the kernel counts runs (BPF_ENABLE_STATS)");
        let programs = programs_of(agent);
        let names: Vec<&str> = programs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, PROGRAMS, "programs of the agent that follow state changes");
        let all = Counter::new(None).expect("perf counts the tracepoint");
        let begun = Reading::of(&all, &programs);
        Self { all, _statistics: statistics, programs, begun }
    }

    /// State changes of all protocols that have them, on the whole host.
    pub(super) fn transitions(&self) -> u64 {
        self.all.read()
    }

    /// The round until now.
    pub(super) fn round(&self) -> Round {
        let now = Reading::of(&self.all, &self.programs);
        let fired = now.fired - self.begun.fired;
        let seen = self.programs.iter().enumerate().map(|(index, (name, _))| {
            let least = now.earlier[index] - self.begun.later[index];
            let most = now.later[index] - self.begun.earlier[index];
            (name.clone(), fired.clamp(least, most))
        });
        Round { seen: seen.collect(), fired, end: now }
    }

    /// Another begins where that one ended.
    pub(super) fn begin(&mut self, after: Round) {
        self.begun = after.end;
    }
}

/// What one round fired.
pub(super) struct Round {
    /// Of each copy: runs and counted misses.
    seen: Vec<(String, i64)>,
    fired: i64,
    end: Reading,
}

impl Round {
    /// By one copy at the most; with both, a connection that begins and ends meanwhile may go unseen.
    pub(super) fn left_out(&self) -> i64 {
        self.seen.iter().map(|(_, seen)| self.fired - seen).max().unwrap_or(0).max(0)
    }

    pub(super) fn checks(&self, at: &str, steered: bool) -> Vec<Check> {
        let Share { of, name: share } = if steered { LEFT_OUT_STEERED } else { LEFT_OUT };
        let checks = self.seen.iter().map(|(name, seen)| {
            let what = format!("{name}: runs + skipped = fired, but for {share}");
            Check::short_by(at, &what, *seen, self.fired, self.fired / of)
        });
        checks.collect()
    }
}

/// What perf counts of the tracepoint, on all CPUs.
pub(super) struct Counter(Vec<OwnedFd>);

impl Counter {
    /// State changes of TCP sockets that have one of these ports at either end; `change` in the
    /// words of the tracepoint.
    pub(super) fn of_ports(ports: &Range<u16>, change: &str) -> Self {
        let Range { start, end } = ports;
        let filter = format!(
            "protocol == 6 && {change} && ((sport >= {start} && sport < {end}) || \
             (dport >= {start} && dport < {end}))"
        );
        Self::new(Some(&filter)).expect("perf takes the filter")
    }

    fn new(filter: Option<&str>) -> io::Result<Self> {
        let counters = perf_counters()?;
        if let Some(filter) = filter {
            let filter = CString::new(filter)?;
            for counter in &counters {
                // SAFETY: the request reads a string that ends with NUL and outlives the call.
                let result =
                    unsafe { libc::ioctl(counter.as_raw_fd(), SET_FILTER, filter.as_ptr()) };
                if result != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(Self(counters))
    }

    pub(super) fn read(&self) -> u64 {
        self.0.iter().map(|counter| read_counter(counter).expect("a perf counter")).sum()
    }
}

/// `PERF_EVENT_IOC_SET_FILTER`
const SET_FILTER: libc::Ioctl = 0x4008_2406;

/// `struct perf_event_attr` of its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    config1: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;

/// A counter on each CPU.
fn perf_counters() -> io::Result<Vec<OwnedFd>> {
    let paths = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let read =
        || paths.iter().find_map(|path| fs::read_to_string(format!("{path}/{TRACEPOINT}")).ok());
    let id = read()
        .or_else(|| {
            tool("mount", &["-t", "tracefs", "none", paths[0]]);
            read()
        })
        .ok_or_else(|| io::Error::other("no tracefs: mount -t tracefs none /sys/kernel/tracing"))?;
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id.trim().parse().map_err(io::Error::other)?,
        ..Attributes::default()
    };
    online_cpus()?
        .into_iter()
        .map(|cpu| {
            // SAFETY: `attributes` is a perf_event_attr whose size it says, and outlives the call.
            let fd = unsafe {
                libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, cpu, -1, 8)
            };
            owned(fd)
        })
        .collect()
}

fn online_cpus() -> io::Result<Vec<i32>> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let range = |part: &str| -> Option<Vec<i32>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.parse().ok()?..=to.parse().ok()?).collect())
    };
    let cpus: Option<Vec<Vec<i32>>> = text.trim().split(',').map(range).collect();
    Ok(cpus.ok_or_else(|| io::Error::other(format!("CPUs {text:?}")))?.concat())
}

fn read_counter(counter: &OwnedFd) -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::io::read(counter, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn enable_statistics() -> io::Result<OwnedFd> {
    // `enable_stats.type`: BPF_STATS_RUN_TIME.
    let attributes = 0_u32;
    // SAFETY: the command reads four bytes, which outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const attributes, size_of::<u32>())
    };
    owned(fd)
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Names and ids of the programs that a process holds, as far as they follow state changes.
fn programs_of(pid: u32) -> Vec<(String, u64)> {
    let held = crate::probe::kernel_ids(pid, "prog");
    let text = tool("bpftool", &["prog", "list", "--json"]);
    let programs: Value = serde_json::from_str(&text).expect("bpftool prints JSON");
    let programs = programs.as_array().into_iter().flatten();
    programs
        .filter_map(|program| Some((program["name"].as_str()?, program["id"].as_u64()?)))
        .filter(|(name, id)| PROGRAMS.contains(name) && held.contains(id))
        .map(|(name, id)| (name.to_owned(), id))
        .collect()
}

fn runs_and_misses(id: u64) -> i64 {
    let text = tool("bpftool", &["prog", "show", "id", &id.to_string(), "--json"]);
    let program: Value = serde_json::from_str(&text).expect("bpftool prints JSON");
    ["run_cnt", "recursion_misses"].iter().filter_map(|field| program[field].as_i64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_takes_the_attributes_of_its_first_version() {
        assert_eq!(size_of::<Attributes>(), 64);
    }
}
