//! `lab churn`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;

use crate::churn::{self, ChurnEnd};
use crate::units::{Amount, Ramp, duration, name_and_amount};

#[derive(Debug, Args)]
pub(crate) struct Churn {
    /// Where to connect, repeatable: taken in turn
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) to: Vec<SocketAddr>,

    /// How many connections in all
    #[arg(long, value_name = "N")]
    pub(crate) count: u64,

    /// How fast they start: 500/s, or all within 10s; without it, as fast as they go
    #[arg(long)]
    pub(crate) rate: Option<Ramp>,

    /// How long each stays open
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub(crate) hold: Duration,

    /// So many end otherwise than by a FIN: HOW is rst, or peer (the server closes first);
    /// AMOUNT is 45 or 4.5%
    #[arg(long = "end", value_name = "HOW[:AMOUNT]", value_parser = churn_end)]
    pub(crate) ends: Vec<(ChurnEnd, Amount)>,

    /// Connect from these addresses in turn; without it, 127.0.0.2 and up beyond 20,000
    /// connections to loopback
    #[arg(long = "source", value_name = "ADDRESS")]
    pub(crate) sources: Vec<IpAddr>,

    /// Threads that connect
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,

    /// The totals as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

impl From<Churn> for churn::Options {
    fn from(args: Churn) -> Self {
        churn::Options {
            to: args.to,
            count: args.count,
            rate: args.rate,
            hold: args.hold,
            ends: args.ends,
            sources: args.sources,
            threads: args.threads,
        }
    }
}

fn churn_end(text: &str) -> Result<(ChurnEnd, Amount), String> {
    let (name, amount) = name_and_amount(text)?;
    let end = match name {
        "fin" => ChurnEnd::Fin,
        "rst" => ChurnEnd::Rst,
        "peer" => ChurnEnd::Peer,
        _ => return Err(format!("`{name}` is no end: expected fin, rst or peer, as in rst:45")),
    };
    Ok((end, amount))
}
