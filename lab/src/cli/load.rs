//! `lab load`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::client::{self, EndSpec};
use crate::units::{Ramp, duration, duration_or_ms};

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Where to connect
    #[arg(long, env = "WS_URL", value_name = "ws://…")]
    pub(crate) url: String,

    /// How many connections
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "N", default_value_t = 100)]
    pub(crate) connections: u64,

    /// How fast they start: 100/s, or all within 10s
    #[arg(long, default_value = "100/s")]
    pub(crate) ramp: Ramp,

    /// How long they stay after the ramp (a bare number is ms)
    #[arg(long, env = "TEST_DURATION", value_parser = duration_or_ms, default_value = "60s")]
    pub(crate) hold: Duration,

    /// Instead of the hold: each connection stays so long, and then leaves
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) stay: Option<Duration>,

    /// How fast they leave after the hold; all at once, many servers report clients that are gone
    #[arg(long, value_name = "RAMP", default_value = "1000/s")]
    pub(crate) ramp_down: Ramp,

    /// Send a message so often, each connection (a bare number is ms)
    #[arg(long, env = "MESSAGE_FREQUENCY", value_parser = duration_or_ms, value_name = "DURATION")]
    pub(crate) message_interval: Option<Duration>,

    /// Send a ping so often, each connection
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) heartbeat: Option<Duration>,

    /// Bearer token for the Authorization header
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// So many end otherwise: HOW is close-frame, fin, rst or silent; AMOUNT is 45 or 4.5%
    #[arg(long = "end", value_name = "HOW[:AMOUNT]")]
    pub(crate) ends: Vec<EndSpec>,

    /// When they end, from the end of the ramp
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "5s")]
    pub(crate) end_at: Duration,

    /// Connect from these addresses in turn; without it, 127.0.0.2 and up beyond 20,000
    /// connections to loopback
    #[arg(long = "source", value_name = "ADDRESS")]
    pub(crate) sources: Vec<IpAddr>,

    /// Give up connecting after so long
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "30s")]
    pub(crate) connect_timeout: Duration,

    /// Give up waiting for the answer to the upgrade after so long
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "30s")]
    pub(crate) handshake_timeout: Duration,

    /// Write one JSON line per connection
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Exit 99 if fewer are upgraded, as it is when none is, and when the server dies
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) min_success: Option<f64>,

    /// The summary as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

impl From<Load> for client::Options {
    fn from(args: Load) -> Self {
        client::Options {
            url: args.url,
            connections: args.connections,
            ramp: args.ramp,
            hold: args.hold,
            stay: args.stay,
            ramp_down: args.ramp_down,
            message_interval: args.message_interval,
            heartbeat: args.heartbeat,
            token: args.token,
            ends: args.ends,
            end_at: args.end_at,
            sources: args.sources,
            connect_timeout: args.connect_timeout,
            handshake_timeout: args.handshake_timeout,
            output: args.output,
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err(format!("`{text}` is no percentage: expected a number from 0 to 100")),
    }
}
