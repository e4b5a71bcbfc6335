//! `probe top`: the live view in a terminal.

use std::{
    io::{self, IsTerminal},
    path::Path,
    sync::Arc,
};

use tokio::sync::{mpsc, watch};

use crate::{
    cli::Top,
    error::Error,
    exit::Exit,
    identity::Identity,
    remote::{asked_there, client::Client, view},
    truth::choose::{self, Need},
    tui::{
        self, Feed, Title,
        live::{self, Live},
        replay::Replay,
    },
};

/// Updates that wait for a slow terminal.
const BACKLOG: usize = 1024;

/// Whether somebody is there to look and to press keys.
pub(crate) fn is_on_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

pub(crate) async fn run(socket: &Path, arguments: Top) -> anyhow::Result<Exit> {
    if !is_on_terminal() {
        return Err(Error::input(
            "top draws on a terminal, and standard input or output is none",
            "for one look use `probe count`, for a line per interval `probe watch`",
        )
        .into());
    }
    if let Some(capture) = &arguments.replay {
        let replay = Replay::open(capture, &arguments.filter)?;
        let title = Title { host: replay.host().to_owned(), backend: replay.backend().to_owned() };
        return tui::run(Feed::Replay(Box::new(replay)), title, arguments.mouse).await;
    }
    let (wish, wished) = watch::channel(None);
    if let Some(agent) = Client::of(&arguments.remote, &arguments.health.trust)? {
        if arguments.health.health.is_some() {
            return Err(asked_there().into());
        }
        let (sender, updates) = mpsc::channel(BACKLOG);
        let title = view::start(agent, &arguments.filter, sender, wished).await?;
        return tui::run(Feed::Live { updates, wish }, title, arguments.mouse).await;
    }
    let source = choose::open(socket, Need::Any)?;
    let identity = Arc::new(Identity::new()?);
    let slots = source.slots()?;
    identity.refresh(slots.iter().map(|slot| slot.key)).await;
    arguments.filter.check_containers(&identity)?;
    let title = Title { host: host(), backend: source.backend().name().into() };

    let open_every = live::OPEN_EVERY;
    let live = Live { source, identity, filter: arguments.filter, open_every };
    let (sender, updates) = mpsc::channel(BACKLOG);
    if let Some(poller) = arguments.health.poller() {
        let population = live.population(poller.target.url.port)?;
        population.refresh().await?;
        population.check_ports()?;
        tokio::spawn(live::ask(poller, population, arguments.interval, sender.clone()));
    }
    tokio::spawn(live.run(sender, wished));
    tui::run(Feed::Live { updates, wish }, title, arguments.mouse).await
}

/// This host's name.
pub(crate) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "this host".into(), |name| name.trim().to_owned())
}
