//! `lab generate`.

use std::path::PathBuf;

use clap::Args;

use crate::generate::Options;
use crate::units::count;

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Where capture/, clients.jsonl and answers.json go: a new or empty directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,

    /// How many connections clients make: 1000, 50k, 10M
    #[arg(long, value_name = "N", value_parser = count, default_value = "1M")]
    pub(crate) connections: u64,

    /// Rows of the client results [default: a tenth of the connections]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) clients: Option<u64>,

    /// Health samples, one a second: the recording lasts as long
    #[arg(long, value_name = "N", default_value_t = 3600)]
    pub(crate) health: u32,

    /// Connections that the server still reports after they were reset
    #[arg(long, value_name = "N", value_parser = count, default_value = "23")]
    pub(crate) phantoms: u64,

    /// Connections that stay open to the end
    #[arg(long, value_name = "N", value_parser = count, default_value = "97")]
    pub(crate) open: u64,

    /// The host's name in the capture
    #[arg(long, value_name = "NAME", default_value = "generated")]
    pub(crate) host: String,

    /// Same seed, same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

impl From<Generate> for Options {
    fn from(args: Generate) -> Self {
        Options {
            output: args.output,
            seed: args.seed,
            host: args.host,
            clients: args.clients.unwrap_or(args.connections / 10),
            connections: args.connections,
            health: args.health,
            phantoms: args.phantoms,
            open: args.open,
        }
    }
}
