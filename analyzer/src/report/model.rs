//! The report as data: what every renderer shows, and what `report.json` holds. Times are Unix
//! nanoseconds of the capturing host's clock.

use schemars::JsonSchema;
use serde::Serialize;

use crate::client::report::ClientReport;
use crate::client::spread::Latency;
use crate::clock::ClockStep;
use crate::error::Outcome;
use crate::input::text::Unreadable;
use crate::join::{Agreement, Basis};
use crate::leak::report::LeakReport;
use crate::lives::Ending;
use crate::population::Population;
use crate::report::handshake::HandshakeReport;

pub(crate) const SCHEMA_VERSION: &str = "1.0";

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Report {
    pub(crate) schema_version: &'static str,
    pub(crate) analyzer_version: &'static str,
    pub(crate) command_line: Vec<String>,
    pub(crate) verdict: Verdict,
    pub(crate) thresholds: Vec<Threshold>,
    pub(crate) captures: Vec<CaptureReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients: Option<ClientReport>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Verdict {
    pub(crate) state: VerdictState,
    /// A few words: `45 phantoms`.
    pub(crate) headline: String,
    /// What a colleague would say.
    pub(crate) sentences: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictState {
    Held,
    /// Within every limit, and beyond a step before one. The exit code is that of `held`.
    Warning,
    Crossed,
    Inconclusive,
}

impl VerdictState {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            VerdictState::Held | VerdictState::Warning => Outcome::Held,
            VerdictState::Crossed => Outcome::Crossed,
            VerdictState::Inconclusive => Outcome::Inconclusive,
        }
    }
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Threshold {
    pub(crate) name: String,
    /// The limit as it was given: `20`, `2%`, `< 50` or `<= 5, warn < 1`.
    pub(crate) limit: String,
    /// Of what was measured: `%`, `ms`, `/min`, `MiB`, or nothing for a count.
    pub(crate) unit: &'static str,
    /// `null` where it could not be judged.
    pub(crate) measured: Option<f64>,
    pub(crate) state: VerdictState,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct CaptureReport {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) kernel: String,
    pub(crate) probe_version: String,
    /// The command that recorded it.
    pub(crate) command_line: Vec<String>,
    pub(crate) started_unix_ns: i64,
    pub(crate) ended_unix_ns: i64,
    pub(crate) servers: Vec<ServerReport>,
    /// Where any connection asked for an upgrade.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshakes: Option<HandshakeReport>,
    /// From the SYN to the answer, of those that were upgraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshake_time: Option<Latency>,
    /// Where the server's resources were followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaks: Option<LeakReport>,
    pub(crate) connections: ConnectionSummary,
    pub(crate) quality: Quality,
}

/// What may be missing from the figures.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Quality {
    pub(crate) backend: String,
    pub(crate) hooks: Vec<String>,
    pub(crate) degraded: Vec<String>,
    /// The recorder did not end the capture: it was killed, or is still at work.
    pub(crate) cut_off: bool,
    pub(crate) truncated_tables: Vec<Truncation>,
    pub(crate) losses: Vec<LossReport>,
    pub(crate) clock_steps: Vec<ClockStep>,
    /// The largest difference between the probe's count and the kernel's own; `null` if not audited.
    pub(crate) worst_drift: Option<f64>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Truncation {
    pub(crate) table: &'static str,
    pub(crate) at_byte: u64,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct LossReport {
    pub(crate) from_unix_ns: i64,
    pub(crate) to_unix_ns: i64,
    pub(crate) reason: String,
    pub(crate) count: u64,
}

/// All connections of the capture, whatever the population.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ConnectionSummary {
    pub(crate) total: usize,
    pub(crate) by_service: Vec<ServiceSummary>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ServiceSummary {
    pub(crate) container: String,
    pub(crate) port: u32,
    pub(crate) role: String,
    pub(crate) connections: usize,
    pub(crate) established: usize,
    pub(crate) open_at_end: usize,
}

/// One polled server beside the kernel's counts.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ServerReport {
    pub(crate) url: String,
    pub(crate) population: Population,
    /// The population in words.
    pub(crate) population_label: String,
    pub(crate) basis: Basis,
    pub(crate) agreement: Agreement,
    pub(crate) settle_ms: i64,
    pub(crate) left_out_health_polls: usize,
    pub(crate) left_out_http: usize,
    pub(crate) samples: usize,
    pub(crate) judged: usize,
    pub(crate) unavailable: Vec<Tally>,
    pub(crate) inconclusive: Vec<Tally>,
    /// Highest report, with the kernel's count then, and the last one.
    pub(crate) reported_peak: Option<i64>,
    pub(crate) last: Option<Point>,
    pub(crate) phantoms: Magnitude,
    pub(crate) reverse_phantoms: Magnitude,
    pub(crate) unclosed: Magnitude,
    pub(crate) findings: Vec<Finding>,
    pub(crate) notes: Vec<String>,
    pub(crate) series: Vec<Point>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Tally {
    pub(crate) why: String,
    pub(crate) count: usize,
}

/// One judged health sample.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize)]
pub(crate) struct Point {
    pub(crate) at_unix_ns: i64,
    pub(crate) reported: i64,
    pub(crate) kernel_low: i64,
    pub(crate) kernel_high: i64,
    pub(crate) phantoms: i64,
    pub(crate) reverse_phantoms: i64,
}

/// How much of something there was that lasted; `None` where nothing could be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Magnitude {
    pub(crate) peak: Option<i64>,
    /// Of what was reported at that time.
    pub(crate) peak_percent: Option<f64>,
    pub(crate) at_end: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    ApplicationLeak,
    DescriptorLeak,
    HalfOpen,
    ReversePhantom,
    DoubleDecrement,
}

impl Kind {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::ApplicationLeak => "application leak",
            Kind::DescriptorLeak => "descriptor leak",
            Kind::HalfOpen => "half-open",
            Kind::ReversePhantom => "reverse phantom",
            Kind::DoubleDecrement => "double decrement",
        }
    }

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Kind::ApplicationLeak => {
                "reported, but there is no socket at all: the server's counter or table was not cleaned"
            }
            Kind::DescriptorLeak => {
                "the connection is over, but the process never closed its end of it"
            }
            Kind::HalfOpen => "established, but the remote end has gone silent",
            Kind::ReversePhantom => "established, but not reported",
            Kind::DoubleDecrement => {
                "the server counts some closes twice, so it reports fewer than there are"
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Certainty {
    Certain,
    Likely,
    Possible,
    Unknown,
}

impl Certainty {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Certainty::Certain => "certain",
            Certainty::Likely => "likely",
            Certainty::Possible => "possible",
            Certainty::Unknown => "unknown",
        }
    }
}

/// One kind of difference between reported and established, with what speaks for and against it.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// The most there were at one time.
    pub(crate) count: i64,
    /// Of what was reported then.
    pub(crate) percent: Option<f64>,
    pub(crate) at_end: i64,
    /// How sure it is that they are of this kind.
    pub(crate) certainty: Certainty,
    /// What set them off, in a sentence; `null` if nothing explains it.
    pub(crate) cause: Option<String>,
    pub(crate) cause_certainty: Certainty,
    pub(crate) episodes: Vec<Episode>,
    pub(crate) births: Vec<Birth>,
    pub(crate) evidence_for: Vec<String>,
    pub(crate) evidence_against: Vec<String>,
    /// Whether `examples` are the very connections, or only candidates.
    pub(crate) examples_are_named: bool,
    pub(crate) examples: Vec<Example>,
    pub(crate) next_steps: Vec<String>,
}

/// A time throughout which there were some.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Episode {
    pub(crate) from_unix_ns: i64,
    pub(crate) to_unix_ns: i64,
    /// Still going on at the last sample.
    pub(crate) ongoing: bool,
    pub(crate) peak: i64,
    /// Median slope: 0 for a jump that stays.
    pub(crate) growth_per_minute: f64,
}

/// A time in which their number rose, and the connections that ended then.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Birth {
    pub(crate) from_unix_ns: i64,
    pub(crate) to_unix_ns: i64,
    pub(crate) count: i64,
    /// They were there at the first sample already.
    pub(crate) before_first_sample: bool,
    pub(crate) opened: usize,
    pub(crate) ended: Vec<EndingCount>,
}

#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct EndingCount {
    #[serde(flatten)]
    pub(crate) ending: Ending,
    pub(crate) count: usize,
}

#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub(crate) struct Example {
    pub(crate) local_address: String,
    pub(crate) local_port: u32,
    pub(crate) remote_address: String,
    pub(crate) remote_port: u32,
    pub(crate) cookie: u64,
    pub(crate) state: String,
    pub(crate) left_established_unix_ns: Option<i64>,
}

/// A line that could not be used.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct UnreadableLine {
    pub(crate) file: String,
    pub(crate) line: u64,
    pub(crate) why: String,
}

/// At most this many lines that could not be read are shown.
const SHOWN_LINES: usize = 5;

pub(crate) fn shown_lines<'a>(
    unreadable: impl Iterator<Item = &'a Unreadable>,
) -> Vec<UnreadableLine> {
    unreadable
        .take(SHOWN_LINES)
        .map(|bad| UnreadableLine {
            file: bad.path.display().to_string(),
            line: bad.line,
            why: bad.why.clone(),
        })
        .collect()
}
