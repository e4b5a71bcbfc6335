//! Processor time and memory, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// `USER_HZ`, which every Linux port has set to 100.
const TICKS_PER_SECOND: u64 = 100;

/// What all processors together have worked since boot.
pub(crate) fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let busy =
        ticks.iter().take(7).sum::<u64>() - ticks.get(3..5).unwrap_or_default().iter().sum::<u64>();
    Ok(of_ticks(busy))
}

/// What a process has worked, all threads, in and for it.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name may hold blanks; behind its parenthesis the state is field 3, utime and stime 14 and 15.
    let fields: Vec<&str> =
        text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let (user, system) = (ticks(14), ticks(15));
    Ok(of_ticks(user.zip(system).map(|(user, system)| user + system).context("no times")?))
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .with_context(|| format!("{path} has no VmRSS"))?;
    Ok(kib * 1024)
}
