//! What `probe watch` prints: a block per interval, and the end. One model, two forms.

use std::fmt::Write;

use serde::Serialize;

use super::{
    checkpoint::Checkpoint,
    client_file::Totals,
    failures::{self, Failure},
    lines::fit,
    metrics::{self, Metrics},
    processes::ProcessesNow,
    resources::Resources,
    shards::Shards,
    style::{Style, Tone},
    verdict::INVESTIGATE_PERCENT,
};
use crate::{clock, truth::source::Backend};

/// Why counts are not exact; JSON has all.
const MOST_REASONS: usize = 2;

/// One interval.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Block {
    pub(crate) schema_version: &'static str,
    /// `block`
    pub(crate) r#type: &'static str,
    pub(crate) block: u64,
    pub(crate) at_unix_ns: i64,
    pub(crate) elapsed_ms: u64,
    pub(crate) kernel: Kernel,
    /// Null if the server could not be asked.
    pub(crate) reported: Option<i64>,
    pub(crate) reported_error: Option<String>,
    pub(crate) phantoms: Option<Phantoms>,
    pub(crate) ramp: Option<Ramp>,
    pub(crate) clients: Option<Totals>,
    pub(crate) resources: Option<Resources>,
    /// By the kernel's word, one for each service on the watched ports.
    pub(crate) processes: Vec<ProcessesNow>,
    /// Null where no metrics are asked for.
    pub(crate) metrics: Option<Metrics>,
    /// Since the watch began; null where no metrics are asked for.
    pub(crate) growth: Option<Checkpoint>,
    /// Null where the body lists none.
    pub(crate) shards: Option<Shards>,
    /// Handshakes that failed since the last block; null where packets are not looked at.
    pub(crate) failures: Option<Vec<Failure>>,
    pub(crate) verdict: Verdict,
    pub(crate) warnings: Vec<String>,
    pub(crate) next_checks: Vec<String>,
}

/// The watched population; the poll's own connection is left out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Kernel {
    pub(crate) established: i64,
    /// Lowest and highest count over the health request that was judged by.
    pub(crate) established_min: i64,
    pub(crate) established_max: i64,
    /// Left out of `established`: plain HTTP requests, and handshakes that are under way.
    pub(crate) plain_http: i64,
    pub(crate) close_wait: i64,
    /// Over, but a process still holds the descriptor.
    pub(crate) closed_held: i64,
    /// Of `established`: peers that have left two probes or retransmissions unanswered.
    pub(crate) silent: i64,
    pub(crate) backend: Backend,
    pub(crate) exact: bool,
    pub(crate) degraded: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Phantoms {
    /// Reported, and more than the kernel had at any moment of the request.
    pub(crate) count: i64,
    /// Of what is reported.
    pub(crate) percent: f64,
    /// In the kernel at every moment of the request, and not reported.
    pub(crate) reverse: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ramp {
    pub(crate) reached: i64,
    pub(crate) expected: i64,
    /// From the first connection to the last, or until now.
    pub(crate) elapsed_ms: u64,
    pub(crate) done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    Warning,
    /// Phantoms at a tenth of what is reported, or more.
    Investigate,
    /// The server could not be asked.
    Unavailable,
    /// Counts may be wrong.
    Inconclusive,
}

impl Verdict {
    fn word(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Warning => ("warning", Tone::Warning),
            Self::Investigate => ("investigate", Tone::Bad),
            Self::Unavailable => ("unavailable", Tone::Warning),
            Self::Inconclusive => ("inconclusive", Tone::Warning),
        }
    }
}

/// The last object: what the whole came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct End {
    pub(crate) schema_version: &'static str,
    /// `end`
    pub(crate) r#type: &'static str,
    pub(crate) at_unix_ns: i64,
    pub(crate) blocks: u64,
    pub(crate) stopped_by: &'static str,
    pub(crate) kernel: Return,
    pub(crate) reported: Return,
    /// The highest count of phantoms in any block.
    pub(crate) worst_phantoms: Option<Phantoms>,
    pub(crate) max_phantoms: String,
    pub(crate) threshold_crossed: bool,
    pub(crate) exit_code: u8,
}

/// Whether a number is back where it was at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Return {
    pub(crate) before: Option<i64>,
    pub(crate) after: Option<i64>,
    pub(crate) back: Option<bool>,
}

impl Return {
    pub(crate) fn new(before: Option<i64>, after: Option<i64>) -> Self {
        let back = before.zip(after).map(|(before, after)| after <= before);
        Self { before, after, back }
    }

    /// `kernel`: what the kernel's own count came to. While connections are open, more than before is as it should be.
    fn text(self, kernel: Self, style: Style) -> String {
        let number = |n: Option<i64>| n.map_or("unavailable".to_owned(), |n| n.to_string());
        let word = match (self.back, self.before.zip(self.after)) {
            (Some(true), _) => style.paint(Tone::Good, "back"),
            (Some(false), Some((before, after))) if kernel.back == Some(false) => {
                format!("{} more are open", after - before)
            }
            (Some(false), _) => style.paint(Tone::Bad, "not back"),
            (None, _) => style.paint(Tone::Warning, "unknown"),
        };
        format!("before {}, now {}   {word}", number(self.before), number(self.after))
    }
}

impl Block {
    pub(crate) fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let (word, tone) = self.verdict.word();
        let _ = writeln!(
            out,
            "{} UTC  block {}  +{:.1} s  {}",
            clock::time_of_day(self.at_unix_ns),
            self.block,
            self.elapsed_ms as f64 / 1e3,
            style.paint(tone, word)
        );
        let kernel = &self.kernel;
        let mut beside = String::new();
        if kernel.established_min != kernel.established_max {
            let _ = write!(beside, " ({} to {})", kernel.established_min, kernel.established_max);
        }
        for (count, name) in [
            (kernel.plain_http, "plain http left out"),
            (kernel.close_wait, "close_wait"),
            (kernel.closed_held, "closed, held"),
            (kernel.silent, "silent"),
        ] {
            if count > 0 {
                let _ = write!(beside, ", {count} {name}");
            }
        }
        let exact = if kernel.exact { "exact" } else { "not exact" };
        let _ =
            writeln!(out, "  kernel    {:>8} established{beside}   {exact}", kernel.established);
        // What was lost stands behind what this kernel lacks from the start.
        let reasons =
            kernel.degraded.iter().rev().take(if kernel.exact { 0 } else { MOST_REASONS });
        for reason in reasons {
            let words = reason.split(' ').map(str::to_owned);
            for line in fit("because", words, " ", "  ").lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
        match (self.reported, &self.reported_error) {
            (Some(reported), _) => {
                let _ = writeln!(out, "  reported  {reported:>8}");
            }
            (None, why) => {
                let why = why.as_deref().unwrap_or("not asked");
                let _ = writeln!(out, "  reported: unavailable ({why})");
            }
        }
        if let Some(phantoms) = self.phantoms {
            let tone = if phantoms.count == 0 {
                Tone::Good
            } else if phantoms.percent >= INVESTIGATE_PERCENT {
                Tone::Bad
            } else {
                Tone::Warning
            };
            let count = style.paint(tone, &format!("{:>8}", phantoms.count));
            let _ = write!(out, "  phantoms  {count} {:.1} %", phantoms.percent);
            if phantoms.reverse > 0 {
                let _ = write!(out, "   reverse phantoms {}", phantoms.reverse);
            }
            out.push('\n');
        }
        if let Some(ramp) = self.ramp {
            let seconds = ramp.elapsed_ms as f64 / 1e3;
            let _ =
                writeln!(out, "  ramp      {}/{} in {seconds:.1} s", ramp.reached, ramp.expected);
        }
        if let Some(clients) = self.clients {
            let _ = writeln!(
                out,
                "  clients   messages sent {}, received {}, errors {}",
                clients.messages_sent, clients.messages_received, clients.errors
            );
        }
        let resources = self.resources.as_ref().map_or(String::new(), Resources::line);
        let mut indented = |text: &str| {
            for line in text.lines() {
                let _ = writeln!(out, "  {line}");
            }
        };
        indented(&resources);
        for processes in &self.processes {
            indented(&processes.line());
        }
        if let Some(metrics) = &self.metrics {
            indented(&metrics::line(metrics));
        }
        if let Some(growth) = &self.growth {
            indented(&growth.text(Style::plain()));
        }
        if let Some(shards) = &self.shards {
            out.push_str(&shards.text(style));
        }
        if let Some(failures) = self.failures.as_ref().filter(|failures| !failures.is_empty()) {
            let failed = style.paint(Tone::Bad, &failures::line(failures));
            let _ = writeln!(out, "  failed    {failed}");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "  {} {warning}", style.paint(Tone::Warning, "warning:"));
        }
        for (index, check) in self.next_checks.iter().enumerate() {
            let lead = if index == 0 { "next:" } else { "     " };
            let _ = writeln!(out, "  {lead} {check}");
        }
        out
    }
}

impl End {
    pub(crate) fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "end after {} blocks, stopped by {}\n  kernel    {}\n  reported  {}",
            self.blocks,
            self.stopped_by,
            self.kernel.text(self.kernel, style),
            self.reported.text(self.kernel, style)
        );
        let (tone, text) = match self.worst_phantoms {
            None => (Tone::Warning, "nothing could be judged".to_owned()),
            Some(worst) => {
                let found = format!("at most {} phantoms, {:.1} %", worst.count, worst.percent);
                if self.threshold_crossed {
                    (Tone::Bad, format!("{found}: more than {} allowed", self.max_phantoms))
                } else {
                    (Tone::Good, format!("{found}: within the {} allowed", self.max_phantoms))
                }
            }
        };
        let _ = writeln!(out, "  verdict   {}", style.paint(tone, &text));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        Block {
            schema_version: "1.0",
            r#type: "block",
            block: 3,
            at_unix_ns: 1_700_000_000_000_000_000,
            elapsed_ms: 30_000,
            kernel: Kernel {
                established: 955,
                established_min: 955,
                established_max: 955,
                plain_http: 0,
                close_wait: 2,
                closed_held: 0,
                silent: 3,
                backend: Backend::Ebpf,
                exact: true,
                degraded: vec![],
            },
            reported: Some(1000),
            reported_error: None,
            phantoms: Some(Phantoms { count: 45, percent: 4.5, reverse: 0 }),
            ramp: Some(Ramp { reached: 1000, expected: 1000, elapsed_ms: 10_200, done: true }),
            clients: None,
            resources: None,
            processes: vec![],
            metrics: None,
            growth: None,
            shards: None,
            failures: Some(vec![Failure { port: 3005, outcome: "http_503".into(), count: 12 }]),
            verdict: Verdict::Warning,
            warnings: vec!["phantoms grew from 20 to 45".into()],
            next_checks: vec![],
        }
    }

    #[test]
    fn a_block_reads_as_people_expect() {
        assert_eq!(
            block().text(Style::plain()),
            "22:13:20 UTC  block 3  +30.0 s  warning
  kernel         955 established, 2 close_wait, 3 silent   exact
  reported      1000
  phantoms        45 4.5 %
  ramp      1000/1000 in 10.2 s
  failed    12 × http_503 on 3005
  warning: phantoms grew from 20 to 45
"
        );
    }

    #[test]
    fn a_count_that_is_not_exact_says_why_within_80_columns() {
        let mut block = block();
        block.kernel.exact = false;
        block.kernel.degraded = vec![
            "no fexit/inet_csk_accept".into(),
            "the last audit failed".into(),
            "3726 connections were not counted: more containers × ports have come by than there are \
             counters (`probe stop --purge`, then start anew, seeds them afresh)"
                .into(),
        ];
        let text = block.text(Style::plain());
        assert!(text.contains("not exact\n  because 3726 connections were not counted:"), "{text}");
        assert!(text.contains("  because the last audit failed\n"), "{text}");
        assert!(!text.contains("fexit") && text.contains("seeds\n    them afresh)\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn growth_is_a_line_of_the_block() {
        use std::time::Duration;

        use crate::watch::checkpoint::{Checkpoints, Sample};

        let mut checkpoints =
            Checkpoints::new(Duration::from_secs(120), Some(Duration::from_secs(1800)));
        let mut taken = [(0, 12.0), (6, 78.0)].map(|(minutes, goroutines)| {
            checkpoints.take(Sample {
                elapsed: Duration::from_secs(60 * minutes),
                values: [("goroutines".to_owned(), goroutines)].into(),
                ..Sample::default()
            })
        });
        taken.reverse();
        let [now, _baseline] = taken;
        let text = Block { growth: Some(now), ..block() }.text(Style::plain());
        assert!(text.contains("\n  [1/15] 6min: GOR=78 (+66, +11.0/min)\n"), "{text}");
    }

    #[test]
    fn what_is_unavailable_is_no_number() {
        let mut block = block();
        block.reported = None;
        block.reported_error = Some("cannot connect: Connection refused".into());
        block.phantoms = None;
        let text = block.text(Style::plain());
        assert!(text.contains("reported: unavailable (cannot connect: Connection refused)"));
        assert!(!text.contains("phantoms  "));
        let json = serde_json::to_value(&block).unwrap();
        assert!(json["reported"].is_null() && json["phantoms"].is_null());
    }

    fn end(kernel: Return, reported: Return) -> End {
        End {
            schema_version: "1.0",
            r#type: "end",
            at_unix_ns: 0,
            blocks: 7,
            stopped_by: "--until-idle",
            kernel,
            reported,
            worst_phantoms: Some(Phantoms { count: 45, percent: 4.5, reverse: 0 }),
            max_phantoms: "2%".into(),
            threshold_crossed: true,
            exit_code: 99,
        }
    }

    #[test]
    fn the_end_says_what_is_back() {
        let end = end(Return::new(Some(0), Some(0)), Return::new(Some(0), Some(45)));
        assert_eq!(
            end.text(Style::plain()),
            "end after 7 blocks, stopped by --until-idle
  kernel    before 0, now 0   back
  reported  before 0, now 45   not back
  verdict   at most 45 phantoms, 4.5 %: more than 2% allowed
"
        );
    }

    /// A watch that ends before the clients do is no reason for alarm.
    #[test]
    fn the_end_while_connections_are_open() {
        let open = Return::new(Some(3), Some(53));
        let text = end(open, open).text(Style::plain());
        let line = "before 3, now 53   50 more are open\n";
        assert!(text.contains(&format!("  kernel    {line}  reported  {line}")), "{text}");
        assert_eq!(open.back, Some(false));
    }
}
