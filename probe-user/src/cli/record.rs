//! `probe record`

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Hooks, Questions, Remote};
use crate::filter::Filter;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe record -o capture --health http://127.0.0.1:3005/health
  sudo probe record -o capture --port 3005 --duration 10m
  sudo probe record -o capture --health http://127.0.0.1:3005/health \\
      --metrics http://127.0.0.1:3005/metrics --table http://127.0.0.1:3005/connections
  probe record -o capture --remote https://vm:9464 --token-file token --port 3005 --duration 10m
  analyzer report capture

Records until Ctrl-C, SIGTERM or --duration; \"recording to DIR\" on stderr says that it has begun.
With --remote the other host's agent records, and asks the URLs that it was started with.")]
pub(crate) struct Record {
    /// A new or empty directory for the capture
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) filter: Filter,

    #[command(flatten)]
    pub(crate) asked: Questions,

    /// Stop after this long
    #[arg(long, value_name = "10m", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Ports whose every connection counts as a WebSocket
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) websocket: Vec<u16>,

    /// Go on after the capture could not be written (a full disk, a removed directory) or the agent ended,
    /// as soon as it can; the gap is named in it
    #[arg(long, conflicts_with = "remote")]
    pub(crate) resume: bool,

    #[command(flatten)]
    pub(crate) hooks: Hooks,

    /// Print a JSON summary at the end
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) remote: Remote,
}
