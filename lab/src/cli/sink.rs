//! `lab sink`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::sink::SinkMode;
use crate::units::duration;

#[derive(Debug, Args)]
pub(crate) struct Sink {
    /// Address to listen on, repeatable; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub(crate) listen: Vec<SocketAddr>,

    /// What to do with a connection
    #[arg(long, value_enum, default_value_t = SinkMode::Hold)]
    pub(crate) mode: SinkMode,

    /// Stop after so long
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Say where it listens, and the totals at the end, as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}
