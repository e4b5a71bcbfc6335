//! `probe watch`: holds what a server reports against the kernel, block by block.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    cli::Watch,
    cmd::{print, print_json},
    error::Error,
    exit::Exit,
    identity::Identity,
    signal::{Signals, Stop},
    truth::{
        choose::{self, Need},
        source::Backend,
    },
    watch::{
        client_file::ClientFile,
        poll::{Poll, Watcher},
        population::Population,
        resources::Paths,
        session::{Seen, Session},
        style::Style,
    },
};

/// Requests per block. A phantom is in all of them; a server that is a moment behind is not.
const POLLS: u32 = 3;
/// How far a server's own count may be behind the kernel's.
const LAG: Duration = Duration::from_millis(100);
/// How long a server may take to clean up after the last connection has ended.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the kernel's count must stay back at the start for `--until-idle`.
const IDLE: Duration = Duration::from_secs(2);

pub(crate) async fn run(socket: &std::path::Path, arguments: Watch) -> anyhow::Result<Exit> {
    let Some(poller) = arguments.health.poller(&arguments.shards) else {
        return Err(Error::input(
            "watch needs --health: the URL where the server reports its connections",
            "for example: probe watch --health http://127.0.0.1:3005/health",
        )
        .into());
    };
    let mut signals = Signals::catch()?;
    let need = if arguments.require_exact { Need::Exact } else { Need::Any };
    let source = choose::open(socket, need)?;
    let identity = Arc::new(Identity::new()?);
    let port = poller.target.url.port;
    let population = Population::new(source, identity, arguments.filter.clone(), Some(port))?;
    population.refresh().await?;
    population.filter().check_containers(&population.identity)?;
    population.check_ports()?;
    for port in population.left_out() {
        eprintln!("probe: port {port} is also published by a proxy on this host; it is left out");
    }

    let mut watcher = Watcher::new(&poller, &population, LAG);
    let first = watcher.poll().await?;
    if let Err(failure) = &first.sample.answer {
        return Err(Error::input(
            format!("{}: {failure}", poller.target.url),
            format!(
                "expected JSON with the number of connections at {} (choose with --reported)",
                poller.reported
            ),
        )
        .into());
    }
    let paths = Paths::new(&arguments.field);
    let mut session = Session::new(&first, arguments.max_phantoms, paths, arguments.expect);
    if let Some(warning) = session.apart(&first) {
        eprintln!("probe: warning: {warning}");
    }
    let style = if arguments.json { Style::plain() } else { Style::of_stdout() };
    let mut clients = arguments.client.as_deref().map(ClientFile::new);

    let stopped =
        loop_blocks(&arguments, &mut watcher, &mut session, &mut clients, &mut signals, style)
            .await?;

    let last = settle(&mut watcher, &session, &mut signals).await?;
    let (stopped_by, exit) = match stopped {
        Stopped::Signal(stop) => (stop.name(), stop.exit()),
        Stopped::Duration => ("--duration", Exit::Done),
        Stopped::Idle => ("--until-idle", Exit::Done),
    };
    let end = session.end(&last, stopped_by, exit as u8);
    let exit = match end.exit_code {
        99 => Exit::Threshold,
        4 => Exit::Inconclusive,
        _ => exit,
    };
    if arguments.json {
        print_json(&end)?;
    } else {
        print(&end.text(style))?;
    }
    Ok(exit)
}

#[derive(Clone, Copy, Debug)]
enum Stopped {
    Signal(Stop),
    Duration,
    Idle,
}

async fn loop_blocks(
    arguments: &Watch,
    watcher: &mut Watcher<'_>,
    session: &mut Session,
    clients: &mut Option<ClientFile>,
    signals: &mut Signals,
    style: Style,
) -> anyhow::Result<Stopped> {
    let population = watcher.population;
    let backend = population.source.backend();
    let mut blocks =
        tokio::time::interval_at(Instant::now() + arguments.interval, arguments.interval);
    blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut levels = tokio::time::interval(match backend {
        Backend::Ebpf => Duration::from_millis(50),
        Backend::SockDiag => Duration::from_millis(500),
    });
    levels.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::sleep(arguments.duration.unwrap_or(Duration::MAX));
    tokio::pin!(end);
    let mut idle = Idle::new(session.kernel_before());
    loop {
        tokio::select! {
            stop = signals.next() => return Ok(Stopped::Signal(stop)),
            () = &mut end => return Ok(Stopped::Duration),
            _ = levels.tick() => {
                let level = population.level()?;
                session.level(level);
                if arguments.until_idle && idle.is_over(level.established) {
                    return Ok(Stopped::Idle);
                }
            }
            _ = blocks.tick() => {
                tokio::task::block_in_place(|| population.source.settle())?;
                population.refresh().await?;
                let seen = Seen {
                    polls: polls(watcher, arguments.interval).await?,
                    backend,
                    exactness: population.source.exactness()?,
                    clients: clients.as_mut().map(ClientFile::read_on).transpose()?,
                };
                let block = session.block(seen);
                if arguments.json { print_json(&block)? } else { print(&block.text(style))? }
            }
        }
    }
}

/// The requests of one block, close together, in at most a third of the interval.
async fn polls(watcher: &mut Watcher<'_>, interval: Duration) -> anyhow::Result<Vec<Poll>> {
    let pause = (interval / 10).min(Duration::from_millis(300));
    let mut polls = vec![watcher.poll().await?];
    while (polls.len() as u32) < POLLS && polls.iter().all(is_off) {
        tokio::time::sleep(pause).await;
        polls.push(watcher.poll().await?);
    }
    Ok(polls)
}

/// True for what another request might show in a better light.
fn is_off(poll: &Poll) -> bool {
    match &poll.sample.answer {
        Ok(answer) => {
            poll.bracket.phantoms(answer.reported) > 0
                || poll.bracket.reverse_phantoms(answer.reported) > 0
        }
        Err(_) => true,
    }
}

/// Gives the server its time to clean up after the end, and no more than it takes.
async fn settle(
    watcher: &mut Watcher<'_>,
    session: &Session,
    signals: &mut Signals,
) -> anyhow::Result<Poll> {
    let began = Instant::now();
    loop {
        let poll = watcher.poll().await?;
        if began.elapsed() >= SETTLE || !session.is_unsettled(&poll) {
            return Ok(poll);
        }
        tokio::select! {
            _ = signals.next() => return Ok(poll),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
    }
}

/// Tells when everything that came has gone again.
struct Idle {
    before: i64,
    rose: bool,
    since: Option<Instant>,
}

impl Idle {
    fn new(before: i64) -> Self {
        Self { before, rose: false, since: None }
    }

    fn is_over(&mut self, established: i64) -> bool {
        // One more than before may be somebody's health request.
        self.rose |= established > self.before + 1;
        if !self.rose || established > self.before {
            self.since = None;
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() >= IDLE
    }
}
