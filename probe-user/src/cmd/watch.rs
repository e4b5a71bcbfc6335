//! `probe watch`: holds what a server reports against the kernel, block by block.

use std::{sync::Arc, time::Duration};

use status_page::Number;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    cli::Watch,
    cmd::{checkpoints, print, print_json},
    error::Error,
    exit::Exit,
    export::json::key_of,
    handshake::outcome::Sight,
    health::{metrics::MetricsPoller, request::Failure, url::HealthUrl},
    identity::Identity,
    process::service::Services,
    signal::{Signals, Stop},
    truth::{
        choose::{self, Need},
        source::{Backend, Ended, Exactness},
    },
    watch::{
        client_file::ClientFile,
        failures::Failures,
        growth::{Growth, add_page},
        metrics::Metrics,
        poll::{Poll, Watcher},
        population::Population,
        processes::ProcessWatch,
        resources::Paths,
        session::{Seen, Session},
        shards::ShardWatch,
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
    let Some(poller) = arguments.health.poller() else {
        if !arguments.metrics.metrics.is_empty() {
            return checkpoints::run(arguments).await;
        }
        return Err(Error::input(
            "watch needs --health, the URL where the server reports its connections, or --metrics",
            "for example: probe watch --health http://127.0.0.1:3005/health",
        )
        .into());
    };
    let mut signals = Signals::catch()?;
    let need = Need::of(arguments.require_exact);
    let source = choose::open(socket, need)?;
    let Exactness { exact, inexact, .. } = source.exactness()?;
    need.check(exact, &inexact)?;
    let identity = Arc::new(Identity::new()?);
    let port = poller.target.url.port;
    let mut shards = ShardWatch::new(Arc::clone(&source), Arc::clone(&identity));
    let (ended, sight) = (source.ended(), Sight::of(&source.hooks()));
    let population = Population::new(source, identity, arguments.filter.clone(), Some(port))?;
    population.refresh().await?;
    population.filter().check_containers(&population.identity)?;
    let listeners = population.check_ports()?;
    if listeners.len() > 1 {
        eprintln!(
            "probe: warning: somebody listens on port {} in {} network namespaces, and the connections of all \
             are counted; choose with --container",
            population.filter().ports,
            listeners.len()
        );
    }
    for port in population.left_out() {
        eprintln!("probe: port {port} is also published by a proxy on this host; it is left out");
    }

    let mut watcher = Watcher::new(&poller, &population, LAG);
    let first = watcher.poll().await?;
    if let Err(failure) = &first.sample.answer {
        let next = match failure.next_step() {
            Some(next) => next.to_owned(),
            None if failure.is_misuse() => format!(
                "expected JSON with the number of connections at {} (choose with --reported)",
                poller.reported
            ),
            None => "does the server run there, and is this the URL of its health?".to_owned(),
        };
        return Err(Error::input(format!("{}: {failure}", poller.target.url), next).into());
    }
    let paths = Paths::new(&arguments.field);
    let mut session = Session::new(&first, arguments.max_phantoms, paths, arguments.expect);
    if let Some(warning) = session.apart(&first) {
        eprintln!("probe: warning: {warning}");
    }
    let style = if arguments.json { Style::plain() } else { Style::of_stdout() };
    let clients = arguments.client.as_deref().map(ClientFile::new);
    if let Ok(answer) = &first.sample.answer {
        shards.now(&answer.shards)?;
    }
    let metrics = arguments.metrics.pollers(&arguments.health);
    let mut pages = Vec::new();
    for page in &metrics {
        let answer = page.ask().await.answer;
        if let Ok(numbers) = &answer {
            add_page(&mut pages, numbers.clone());
        }
        check(&page.target.url, answer)?;
    }
    eprintln!(
        "probe: watching port {} and what {} reports",
        population.filter().ports,
        poller.target.url
    );
    let services = Services::new(population.filter().clone(), Arc::clone(&population.identity));
    let mut processes = ProcessWatch::new(services);
    let mut growth = metrics
        .first()
        .map(|page| Growth::new(arguments.interval, arguments.duration, page.names.clone()));
    if let Some(growth) = &mut growth {
        let baseline = growth.take(&pages, &tokio::task::block_in_place(|| processes.now())?);
        if !arguments.json {
            print(&baseline.text(style))?;
        }
    }
    let mut beside = Beside {
        clients,
        processes,
        growth,
        metrics,
        shards,
        ended,
        failures: Failures::new(sight),
    };
    let stopped =
        loop_blocks(&arguments, &mut watcher, &mut session, &mut beside, &mut signals, style)
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

/// A page that is not there yet may come; one without the metric will not get it.
fn check(url: &HealthUrl, first: Result<Vec<Number>, Failure>) -> anyhow::Result<()> {
    match first {
        Err(failure) if failure.is_misuse() => Err(Error::input(
            format!("{url}: {failure}"),
            "expected a page of Prometheus metrics, nginx stub_status, haproxy CSV or Envoy /stats",
        )
        .into()),
        _ => Ok(()),
    }
}

/// What stands in a block beside the server's report and the kernel's count.
struct Beside {
    clients: Option<ClientFile>,
    processes: ProcessWatch,
    /// `None` without metrics.
    growth: Option<Growth>,
    metrics: Vec<MetricsPoller>,
    shards: ShardWatch,
    /// `None` where connections are polled.
    ended: Option<Receiver<Ended>>,
    failures: Failures,
}

impl Beside {
    /// Never ready where connections are polled, or once the agent has ended (asking it for counts
    /// says so).
    async fn ended(&mut self) -> Ended {
        match &mut self.ended {
            Some(ended) => match ended.recv().await {
                Some(batch) => batch,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Counts failures among those that ended on the watched ports.
    fn take(&mut self, batch: &Ended, population: &Population) {
        let shards = &self.shards;
        self.failures.take(batch, |connection| {
            let key = key_of(connection);
            population.contains(&key) || shards.populations().any(|shard| shard.contains(&key))
        });
    }
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
    beside: &mut Beside,
    signals: &mut Signals,
    style: Style,
) -> anyhow::Result<Stopped> {
    let population = watcher.population;
    let backend = population.source.backend();
    let mut blocks =
        tokio::time::interval_at(Instant::now() + arguments.interval, arguments.interval);
    // One that comes late must not push the last one past the end.
    blocks.set_missed_tick_behavior(MissedTickBehavior::Skip);
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
            // The last block is due when the time is over.
            biased;
            stop = signals.next() => return Ok(Stopped::Signal(stop)),
            _ = blocks.tick() => {
                tokio::task::block_in_place(|| population.source.settle())?;
                population.refresh().await?;
                let polls = polls(watcher, arguments.interval).await?;
                let reported = polls.iter().rev().find_map(|poll| poll.sample.answer.as_ref().ok());
                let reported = reported.map_or(&[][..], |answer| &answer.shards);
                let mut metrics: Option<Metrics> = None;
                let mut pages = Vec::new();
                for page in &beside.metrics {
                    let answer = page.ask().await.answer;
                    if let Ok(numbers) = &answer {
                        add_page(&mut pages, numbers.clone());
                    }
                    metrics.get_or_insert_default().add(answer);
                }
                let processes = tokio::task::block_in_place(|| beside.processes.now())?;
                let growth = beside.growth.as_mut().map(|growth| growth.take(&pages, &processes));
                let shards = beside.shards.now(reported)?;
                while let Some(Ok(batch)) = beside.ended.as_mut().map(Receiver::try_recv) {
                    beside.take(&batch, population);
                }
                let seen = Seen {
                    backend,
                    silent: tokio::task::block_in_place(|| population.silent())?,
                    exactness: population.source.exactness()?,
                    clients: beside.clients.as_mut().map(ClientFile::read_on).transpose()?,
                    processes,
                    metrics,
                    growth,
                    shards,
                    failures: beside.ended.is_some().then(|| beside.failures.reset()),
                    polls,
                };
                let block = session.block(seen);
                if arguments.json { print_json(&block)? } else { print(&block.text(style))? }
            }
            () = &mut end => return Ok(Stopped::Duration),
            batch = beside.ended() => beside.take(&batch, population),
            // Between blocks only the ramp and the way back to idle need the count.
            _ = levels.tick(), if arguments.until_idle || arguments.expect.is_some() => {
                let level = population.level()?;
                session.level(level);
                if arguments.until_idle && idle.is_over(level.established) {
                    return Ok(Stopped::Idle);
                }
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
