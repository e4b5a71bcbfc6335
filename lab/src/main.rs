//! `lab`: servers, clients and faults whose truth is known.

use std::process::ExitCode;

use clap::Parser;

mod balancer;
mod children;
mod churn;
mod cli;
mod client;
mod error;
mod fault;
mod generate;
mod http;
mod net;
mod process;
mod progress;
mod scenario;
mod server;
mod signal;
mod sink;
mod truth;
mod units;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match children::end_with_parent().map_err(Into::into).and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error::exit_code(&error);
            // A signal is no news to whoever sent it.
            if !matches!(code, 130 | 143) {
                eprintln!("lab: {error:#}");
            }
            ExitCode::from(code)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match command {
            Command::Serve(args) => {
                let stopped = signal::signalled_within(args.duration);
                let json = args.json;
                server::run(args.into(), json, stopped).await
            }
            Command::Load(args) => {
                let (json, min_success) = (args.json, args.min_success);
                let (summary, signal) = client::run(&args.into(), signal::signalled()).await?;
                client::conclude(&summary, signal, json, min_success)
            }
            Command::Token(args) => {
                args.run();
                Ok(())
            }
            Command::Run(args) => args.run(signal::signalled()).await,
            Command::Sink(args) => {
                let stopped = signal::signalled_within(args.duration);
                sink::run(&args.listen, args.mode, args.json, stopped).await
            }
            Command::Balance(args) => {
                let json = args.json;
                let stopped = signal::signalled_within(args.duration);
                match args.worker.clone() {
                    Some(role) => balancer::worker::run(&role, args.into()).await,
                    None => balancer::run(&args.into(), json, stopped).await,
                }
            }
            Command::Generate(args) => tokio::task::block_in_place(|| generate::run(&args.into())),
            Command::Churn(args) => {
                let json = args.json;
                let totals = tokio::task::block_in_place(|| churn::run(&args.into()))?;
                churn::conclude(&totals, json)
            }
        }
    })
}
