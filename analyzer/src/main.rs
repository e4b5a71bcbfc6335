//! `analyzer`: holds what a server reports against what the kernel counted, and names the phantoms.

#![forbid(unsafe_code)]

mod both;
mod cli;
mod client;
mod clock;
mod cmd;
mod error;
mod fleet;
mod handshake;
mod input;
mod join;
mod leak;
mod listed;
mod lives;
mod population;
mod report;
mod rule;
mod slope;
mod threshold;
mod timeline;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::report::terminal::plain;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Report(args) => cmd::report::run(&args),
        Command::Phantoms(args) => cmd::phantoms::run(&args),
        Command::Handshakes(args) => cmd::handshakes::run(&args),
        Command::Shards(args) => cmd::shards::run(&args),
        Command::Leaks(args) => cmd::leaks::run(&args),
        Command::Clients(args) => cmd::clients::run(&args),
        Command::Thresholds(args) => cmd::thresholds::run(&args),
        Command::Compare(args) => cmd::compare::run(&args),
        Command::Connections(args) => cmd::connections::run(&args),
        Command::Export(args) => cmd::export::run(&args),
        Command::Schema(args) => cmd::schema::run(&args),
    };
    match result {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => {
            if !error::is_closed_pipe(&error) {
                eprintln!("analyzer: {}", plain(&format!("{error:#}")));
            }
            error::exit_code(&error)
        }
    }
}
