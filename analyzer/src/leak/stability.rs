//! Whether the server stayed up: restarts, crashes, kills, and requests without a good answer.

use std::time::Duration;

use capture::schema::KERNEL_PAGE;
use schemars::JsonSchema;
use serde::Serialize;
use status_page::ROUNDING_S;

use crate::clock::utc_time;
use crate::input::kept_log::KeptLog;
use crate::input::recording::Recording;
use crate::leak::source::{Page, metrics_pages};
use crate::report::verdict::plural;

const START: &str = "process_start_time_seconds";

#[derive(Debug, Default, JsonSchema, Serialize)]
pub(crate) struct Stability {
    pub(crate) observed_s: f64,
    /// How long the process that was started last had been up at its last sample; `null` where nothing
    /// tells.
    pub(crate) up_s: Option<f64>,
    pub(crate) requests: usize,
    /// Health and metrics requests without a good answer.
    pub(crate) http_errors: usize,
    /// Times that the process was replaced by one that started later.
    pub(crate) restarts: usize,
    /// Times that nothing listened any more on a port that was watched.
    pub(crate) crashes: Vec<Crash>,
    /// Processes that the kernel killed for lack of memory.
    pub(crate) oom_kills: usize,
    /// Answers in which the server called itself unhealthy.
    pub(crate) unhealthy: usize,
    /// Looks at the containers of the services that have a health check, and those at which it did not hold.
    pub(crate) container_looks: usize,
    pub(crate) container_unhealthy: usize,
    /// Stopped before the planned duration, or cut off.
    pub(crate) stopped_early: bool,
}

impl Stability {
    /// What each source said over time of its process's start, in Unix seconds; `restarts` tells how
    /// many of its changes were one.
    fn take_starts(&mut self, starts: &[&[(i64, f64)]], restarts: fn(&[(i64, f64)]) -> usize) {
        self.restarts += starts.iter().map(|of_one| restarts(of_one)).sum::<usize>();
        let up = starts.iter().filter_map(|of_one| of_one.last());
        let up = up.map(|(at, start)| (*at as f64 / 1e9 - start).max(0.0));
        self.up_s = up.chain(self.up_s).min_by(f64::total_cmp);
    }

    /// Whether anything happened that a run without a fault has none of.
    pub(crate) fn is_shaken(&self) -> bool {
        let counts = [
            self.restarts,
            self.crashes.len(),
            self.oom_kills,
            self.http_errors,
            self.container_unhealthy,
        ];
        self.stopped_early || counts.iter().any(|count| *count > 0)
    }

    /// `1 restart, 0 crashes, 2 killed for lack of memory`
    pub(crate) fn ends_text(&self) -> String {
        let crashes = match self.crashes.len() {
            1 => "1 crash".to_owned(),
            count => format!("{count} crashes"),
        };
        let restarts = plural(self.restarts as i64, "restart");
        format!("{restarts}, {crashes}, {} killed for lack of memory", self.oom_kills)
    }

    /// What health checks say: the server's own word, and Docker's where the container has a check.
    pub(crate) fn health_text(&self) -> String {
        let own = format!("{} answers unhealthy", self.unhealthy);
        match (self.container_looks, self.container_unhealthy) {
            (0, _) => format!("{own}, no container with a health check"),
            (looks, bad) => format!("{own}, container unhealthy in {bad} of {looks} looks"),
        }
    }

    /// `, up for 3 h 12 min`, or nothing.
    pub(crate) fn up_text(&self) -> String {
        let Some(up_s) = self.up_s else { return String::new() };
        format!(", up for {}", humantime::format_duration(Duration::from_secs(up_s as u64)))
    }
}

/// A service whose processes were gone.
#[derive(Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Crash {
    /// Its name and port.
    pub(crate) service: String,
    pub(crate) at_unix_ns: i64,
    /// `null` if it did not come back.
    pub(crate) back_unix_ns: Option<i64>,
}

impl Crash {
    pub(crate) fn text(&self) -> String {
        let at = utc_time(self.at_unix_ns);
        let back = self.back_unix_ns.map(|back| format!(" until {}", utc_time(back)));
        let back = back.unwrap_or_else(|| ", and did not come back".to_owned());
        format!("{} was gone from {at} UTC{back}.", self.service)
    }
}

/// Of what a capture and kept logs hold.
pub(super) fn stability(
    recording: Option<&Recording>,
    logs: &[KeptLog],
) -> anyhow::Result<Stability> {
    let mut found = Stability::default();
    let of_logs = logs.iter().filter_map(|log| log.numbers.get(START));
    found.take_starts(&of_logs.map(Vec::as_slice).collect::<Vec<_>>(), successors);
    found.requests = logs.iter().map(|log| log.pages_unix_ns.len()).sum();
    for log in logs {
        let healthy = log.numbers.iter().filter(|(name, _)| name.ends_with(".healthy"));
        let answers = healthy.flat_map(|(_, points)| points);
        found.unhealthy += answers.filter(|(_, value)| *value == 0.0).count();
    }
    let Some(recording) = recording else { return Ok(found) };
    let health = &recording.health;
    let error = health.column("error")?.str()?;
    let status = health.column("http_status")?.u32()?;
    let fields = health.column("fields")?.str()?;
    for row in 0..health.height() {
        found.requests += 1;
        let bad = error.get(row).is_some() || status.get(row).is_some_and(|status| status >= 400);
        found.http_errors += usize::from(bad);
        let unhealthy = fields.get(row).is_some_and(|text| text.contains("\".healthy\":0"));
        found.unhealthy += usize::from(unhealthy);
    }
    for row in recording.metrics.column("error")?.str()?.iter() {
        found.requests += usize::from(row.is_some());
        found.http_errors += usize::from(row.is_some());
    }
    // What the probe read itself knows of every restart; a page of the same process only repeats it.
    let (of_kernel, of_pages): (Vec<Page>, Vec<Page>) =
        metrics_pages(recording)?.into_iter().partition(Page::is_of_kernel);
    let answers = |page: &Page| page.numbers.values().map(Vec::len).max().unwrap_or(0);
    found.requests += of_pages.iter().map(answers).sum::<usize>();
    let pages = if of_kernel.is_empty() { &of_pages } else { &of_kernel };
    let restarts = if of_kernel.is_empty() { successors } else { newcomers };
    let starts = pages.iter().filter_map(|page| page.numbers.get(START).map(Vec::as_slice));
    found.take_starts(&starts.collect::<Vec<_>>(), restarts);
    for page in &of_kernel {
        let service = page.source.trim_start_matches(KERNEL_PAGE);
        found.crashes.extend(crashes(service, page.numbers.get("processes")));
        let kills = page.numbers.get("oom_kills_total").into_iter().flatten().map(|point| point.1);
        let kills: Vec<f64> = kills.collect();
        let more = kills.windows(2).map(|pair| (pair[1] - pair[0]).max(0.0)).sum::<f64>();
        found.oom_kills += more as usize;
        let healthy = page.numbers.get("container_healthy").into_iter().flatten();
        found.container_looks += healthy.clone().count();
        found.container_unhealthy += healthy.filter(|point| point.1 == 0.0).count();
    }
    Ok(found)
}

/// Each time that a service had no process left.
fn crashes(service: &str, processes: Option<&Vec<(i64, f64)>>) -> Vec<Crash> {
    let mut found: Vec<Crash> = Vec::new();
    let mut before = 0.0;
    for (at, count) in processes.into_iter().flatten() {
        if *count == 0.0 && before > 0.0 {
            let service = service.to_owned();
            found.push(Crash { service, at_unix_ns: *at, back_unix_ns: None });
        }
        if *count > 0.0
            && let Some(last) = found.last_mut()
            && last.back_unix_ns.is_none()
        {
            last.back_unix_ns = Some(*at);
        }
        before = *count;
    }
    found
}

/// How often the oldest process had started after the look before, by the same clock: then none of those
/// that were there is left. A start alone moves also when the oldest of several ends.
fn newcomers(starts: &[(i64, f64)]) -> usize {
    let is_newcomer = |pair: &&[(i64, f64)]| {
        let looked_unix_s = pair[0].0 as f64 / 1e9;
        pair[1].1 - pair[0].1 > ROUNDING_S && pair[1].1 > looked_unix_s - ROUNDING_S
    };
    starts.windows(2).filter(is_newcomer).count()
}

/// Of a page: its clock may be another, so that the time of the look proves nothing.
fn successors(starts: &[(i64, f64)]) -> usize {
    status_page::restarts(starts.iter().map(|(_, start)| *start))
}
