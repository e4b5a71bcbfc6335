//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use capture::schema::Table;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::input::client::mapped::ColumnMap;
use crate::leak::report::Plan;
use crate::leak::source::Choice;
use crate::threshold::Chosen;
use crate::threshold::limit::Limit;
use crate::threshold::rule::{Preset, preset_name};

#[derive(Debug, Parser)]
#[command(
    name = "analyzer",
    version,
    about = "Holds what a server reports against what the kernel counted",
    long_about = "Holds what a server reports against what the kernel counted, and names the phantoms.\n\n\
                  Works on captures that `probe record` wrote; needs no privileges and no BPF.",
    after_help = "Exit codes: 0 thresholds held · 1 a bug · 2 wrong usage or bad input · \
                  4 inconclusive · 99 a threshold was crossed"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything, as HTML, Markdown and JSON
    #[command(after_help = "Examples:\n  \
        analyzer report run1\n  \
        analyzer report run1 --client results.jsonl --max-phantoms 2%\n  \
        analyzer report run1 -o out --json | jq .verdict")]
    Report(Report),
    /// Phantoms and reverse phantoms: how many, since when, and what set them off
    #[command(after_help = "Examples:\n  \
        analyzer phantoms run1\n  \
        analyzer phantoms run1 --port 3005 --container web\n  \
        analyzer phantoms run1 --threshold 'phantoms.max_percent < 2'\n  \
        analyzer phantoms run1 --json | jq '{kind, count, cause}'")]
    Phantoms(Phantoms),
    /// Where handshakes fail, stage by stage, and why: causes ranked, with evidence
    #[command(after_help = "Examples:\n  \
        analyzer handshakes run1\n  \
        analyzer handshakes run1 --port 3005 --max-failed 1%\n  \
        analyzer handshakes run1 --threshold 'handshake.p99_ms < 50'\n  \
        analyzer handshakes run1 --attempts | jq -c 'select(.cause)'\n  \
        analyzer handshakes run1 --json | jq '.causes[] | {name, count, percent}'")]
    Handshakes(Handshakes),
    /// Connections per shard behind a balancer, their imbalance, and failures of each
    #[command(after_help = "Examples:\n  \
        analyzer shards run1\n  \
        analyzer shards run1 --port 3002-3004 --max-imbalance 5%\n  \
        analyzer shards run1 --json | jq '.shards[] | {port, peak, failed}'")]
    Shards(Shards),
    /// What grows while it should not: goroutines, descriptors, memory, sockets, phantoms
    #[command(after_help = "Examples:\n  \
        analyzer leaks run1\n  \
        analyzer leaks run1 --interval 2m --duration 30m --preset smoke-30m\n  \
        analyzer leaks --log metrics.log --series heap=go_memstats_heap_inuse_bytes\n  \
        analyzer leaks run1 --markdown > leaks.md\n  \
        analyzer leaks run1 --threshold 'leaks.goroutines_per_minute < 10'")]
    Leaks(Leaks),
    /// What the clients saw, beside what the kernel saw of them
    #[command(after_help = "Examples:\n  \
        analyzer clients run1 --client results.jsonl\n  \
        analyzer clients --client results.jsonl --threshold 'clients.success_rate > 0.99'\n  \
        analyzer clients run1 --client results.jsonl --json | jq .stages\n\n\
        Recognised by their content, also as .gz or .zst: JSON lines of lab load, k6 --out json and csv,\n\
        Artillery's report, Locust's CSV files. Others by their columns, one row per connection:\n  \
        --map time=ts,unit=ms,local_port=port,outcome=status,connect_ms=took")]
    Clients(Clients),
    /// Figures that thresholds can be set on, and the presets of the lab's scenarios
    #[command(after_help = "Examples:\n  analyzer thresholds\n  analyzer thresholds smoke-30m")]
    Thresholds(Thresholds),
    /// Runs side by side: what changed beyond noise
    #[command(after_help = "Examples:\n  \
        analyzer compare run1 run2\n  \
        analyzer compare run1 run2 --port 3005 --json | jq 'select(.beyond_noise)'")]
    Compare(Compare),
    /// The recorded connections, one leg each
    #[command(after_help = "Examples:\n  \
        analyzer connections run1 --port 3005 --state close_wait\n  \
        analyzer connections run1 --summary\n  \
        analyzer connections run1 --role passive --csv > connections.csv\n  \
        analyzer connections run1 --json | jq -c '{remote_port, closed_how}'")]
    Connections(Connections),
    /// Captures packed as Parquet, of many hosts in one directory: small, and what other engines read
    #[command(after_help = "Examples:\n  \
        analyzer export run1 run2 --parquet fleet\n  \
        analyzer report fleet -o out\n  \
        analyzer export run1 --parquet packed && analyzer handshakes packed\n\n\
        A fifth of the size, and every command here reads it. DuckDB, ClickHouse, Spark and polars do, too.\n\
        Written: fleet/<table>/host=<host>/date=<day>/<start>-<boot>.parquet")]
    Export(Export),
    /// Tables and columns of the capture format, the outcomes, and the JSON schema of report.json
    #[command(
        after_help = "Examples:\n  analyzer schema\n  analyzer schema connections --json\n  \
        analyzer schema outcomes\n  analyzer schema report > report.schema.json"
    )]
    Schema(Schema),
}

/// Which connections are meant. The same words as in `probe`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Service ports, such as 3005 or 3005,3002-3004
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = ports)]
    pub(crate) port: Vec<PortRange>,
    /// Containers, by name or by the start of their id
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) container: Vec<String>,
    /// passive (accepted) or active (connected)
    #[arg(long, value_delimiter = ',', value_parser = ["passive", "active", "unknown"])]
    pub(crate) role: Vec<String>,
}

impl Filter {
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.port.iter().flat_map(|range| range.first..=range.last).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

fn ports(text: &str) -> Result<PortRange, String> {
    let expected =
        || format!("expected a port such as 3005, or a range such as 3002-3004, not `{text}`");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.trim().parse().map_err(|_| expected())?;
    let last: u16 = last.trim().parse().map_err(|_| expected())?;
    if first > last { Err(expected()) } else { Ok(PortRange { first, last }) }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    number
        .ok()
        .filter(|percent| percent.is_finite() && *percent >= 0.0)
        .ok_or_else(|| format!("expected a percentage such as 5%, not `{text}`"))
}

/// How captures are judged.
#[derive(Clone, Debug, Args)]
pub(crate) struct Judging {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Most phantoms to pass: a count such as 20, or a share of what is reported such as 2%
    /// [default: 0, if there are no other thresholds]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_phantoms: Option<Limit>,
    /// Most reverse phantoms to pass [default: as --max-phantoms]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_reverse_phantoms: Option<Limit>,
    /// Most sockets that are over but never closed by their process [default: as --max-phantoms]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_unclosed: Option<Limit>,
    /// How late a server may notice that a connection was opened or closed
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,
}

impl Judging {
    /// Of these connections, with no limit and the usual patience.
    pub(crate) fn of(filter: &Filter) -> Self {
        Judging {
            filter: filter.clone(),
            max_phantoms: None,
            max_reverse_phantoms: None,
            max_unclosed: None,
            settle: Duration::from_millis(250),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Directories that `probe record -o` wrote
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    /// The fleet's directory; a capture that is there already is written anew
    #[arg(long, value_name = "DIR")]
    pub(crate) parquet: PathBuf,
    #[command(flatten)]
    pub(crate) judging: Judging,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) clients: ClientFiles,
    #[command(flatten)]
    pub(crate) over_time: OverTime,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Where report.html, report.md and report.json go [default: the first capture]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) judging: Judging,
    /// Most failed handshakes to pass: a count, or a share of the attempts such as 1%
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_failed: Option<Limit>,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// Files of load tools.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ClientFiles {
    /// Client results of lab, k6, Artillery or Locust, told by their content; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) client: Vec<PathBuf>,
    /// Columns of client results of other tools, such as time=ts,unit=ms,local_port=port
    #[arg(long, value_name = "KEY=COLUMN,…")]
    pub(crate) map: Option<ColumnMap>,
}

/// What is followed over time.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OverTime {
    /// A log of health or metrics pages kept with curl: JSON lines with a time, or Prometheus text
    /// with a time before each page; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Vec<PathBuf>,
    /// Another number to follow, by path or metric, or another place of a known one
    #[arg(long, value_name = "NAME=PATH")]
    pub(crate) series: Vec<Choice>,
    /// Time between checkpoints [default: a fifteenth of the run]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// How long the run was meant to last; a shorter one was stopped early
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
}

impl From<&OverTime> for Plan {
    fn from(args: &OverTime) -> Self {
        Plan { interval: args.interval, duration: args.duration, choices: args.series.clone() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Leaks {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    #[command(flatten)]
    pub(crate) over_time: OverTime,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Print a table for a pull request
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Print one JSON object per capture
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Clients {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) files: ClientFiles,
    #[command(flatten)]
    pub(crate) filter: Filter,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Thresholds {
    /// Only this preset's rules
    #[arg(value_name = "PRESET", value_parser = preset_name)]
    pub(crate) preset: Option<&'static Preset>,
}

#[derive(Debug, Args)]
pub(crate) struct Phantoms {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) judging: Judging,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Print one JSON object per finding
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Handshakes {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Most failed handshakes to pass: a count, or a share of the attempts such as 1%
    #[arg(long, value_name = "LIMIT")]
    pub(crate) max_failed: Option<Limit>,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Print one JSON object per capture
    #[arg(long)]
    pub(crate) json: bool,
    /// Print one JSON object per attempt: address, outcome, cause, and the shard it was passed on to
    #[arg(long, conflicts_with = "json")]
    pub(crate) attempts: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Shards {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    /// The shards' ports [default: those that a balancer's upstream connections go to]
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Highest imbalance to pass, such as 5%: 100·(max − min)/max at the time of the most connections
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) max_imbalance: Option<f64>,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Print one JSON object per capture
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Captures of two or more runs; all are compared with the first
    #[arg(required = true, num_args = 2.., value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Print one JSON object per figure
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Connections {
    /// Directories that `probe record -o` or `analyzer export --parquet` wrote, or tar archives
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Kernel states at the end, such as established or close_wait
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub(crate) state: Vec<String>,
    /// Columns to print, comma-separated; `analyzer schema connections` lists them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Print one JSON object per connection, with every column
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Count them per container, port and role instead
    #[arg(long, conflicts_with_all = ["port", "container", "role", "state", "columns", "csv"])]
    pub(crate) summary: bool,
    /// Print comma-separated values with a header, with every column
    #[arg(long)]
    pub(crate) csv: bool,
}

/// What `analyzer schema` calls the words of the column `outcome`.
pub(crate) const OUTCOMES: &str = "outcomes";

/// What `analyzer schema` calls report.json.
pub(crate) const REPORT_SCHEMA: &str = "report";

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Only this table; or `outcomes`, how handshakes end; or `report`, the JSON schema of what
    /// `analyzer report` writes
    #[arg(value_parser = PossibleValuesParser::new(
        Table::ALL.map(Table::name).into_iter().chain([OUTCOMES, REPORT_SCHEMA])
    ))]
    pub(crate) table: Option<String>,
    /// Print one JSON object per column or outcome
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ports_and_ranges() {
        let filter = Filter {
            port: vec![ports("3005").unwrap(), ports("3002-3004").unwrap()],
            ..Filter::default()
        };
        assert_eq!(filter.ports(), [3005, 3002, 3003, 3004]);
        assert_eq!(
            ports("9-1").unwrap_err(),
            "expected a port such as 3005, or a range such as 3002-3004, not `9-1`"
        );
        assert!(ports("70000").is_err());
    }
}
