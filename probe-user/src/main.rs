//! `probe`: exact connection counts from the kernel, and the phantoms in what servers report.

mod cli;
mod clock;
mod cmd;
mod config;
mod error;
mod exit;
mod export;
mod filter;
mod handshake;
mod health;
mod identity;
mod kernel;
mod limits;
mod memory;
mod page;
mod printable;
mod process;
mod record;
mod remote;
mod signal;
mod truth;
mod tui;
mod watch;

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use tokio::runtime::Builder;

use crate::{
    cli::{Cli, Command},
    error::Error,
    exit::Exit,
};

fn main() -> ExitCode {
    limits::raise_open_files();
    let bare = if cmd::top::is_on_terminal() { "top" } else { "count" };
    let result = match config::load(bare) {
        Ok(cli) => check_proc(&cli).and_then(|()| drop_capabilities(&cli)).and_then(|()| run(cli)),
        Err(config::Failure::Usage(error)) => error.exit(),
        Err(config::Failure::Settings(error)) => Err(error.into()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = match error.downcast_ref::<Error>() {
                Some(expected) => {
                    eprintln!("probe: {}", printable::lines(&expected.to_string()));
                    expected.exit()
                }
                None => {
                    let error = printable::lines(&format!("{error:#}"));
                    eprintln!("probe: unexpected failure, please report it: {error}");
                    Exit::Bug
                }
            };
            exit.into()
        }
    }
}

/// Without processes nothing can be told of sockets: a `chroot` may have none.
fn check_proc(cli: &Cli) -> anyhow::Result<()> {
    let needs_none = matches!(cli.command, Some(Command::Config(_) | Command::Generate(_)));
    if needs_none || Path::new("/proc/self").exists() {
        return Ok(());
    }
    let (what, why) = ("look at processes".into(), "/proc is not mounted".into());
    let cure = "mount it: mount -t proc proc /proc".into();
    Err(Error::Unsupported { what, why, cure }.into())
}

/// The agent stays, so it keeps no right that it does not use.
fn drop_capabilities(cli: &Cli) -> anyhow::Result<()> {
    let Some(Command::Serve(serve)) = &cli.command else { return Ok(()) };
    kernel::capabilities::keep_needed(serve.listen.listen.port())
        .context("cannot drop capabilities")
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let mut runtime = match &cli.command {
        // It asks once: more threads would take longer to start and to end than the answer.
        Some(Command::Count(_)) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    runtime.enable_all().build().context("cannot start its threads")?.block_on(obey(cli))
}

async fn obey(cli: Cli) -> anyhow::Result<Exit> {
    let socket = cli.agent_socket;
    match cli.command.context("the command line names no command")? {
        Command::Config(arguments) => cmd::config::run(cli.config.as_deref(), &arguments),
        Command::Doctor(arguments) => cmd::doctor::run(&arguments),
        Command::Count(arguments) => cmd::count::run(&socket, &arguments).await,
        Command::Connections(arguments) => cmd::connections::run(&socket, &arguments).await,
        Command::Watch(arguments) => cmd::watch::run(&socket, arguments).await,
        Command::Record(arguments) => cmd::record::run(&socket, arguments).await,
        Command::Top(arguments) => cmd::top::run(&socket, arguments).await,
        Command::Serve(arguments) => cmd::serve::run(&socket, cli.settings, &arguments).await,
        Command::Generate(arguments) => cmd::generate::run(&arguments),
        Command::Stop(arguments) => cmd::stop::run(&socket, &arguments),
    }
}
