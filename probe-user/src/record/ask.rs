//! Asks the server what it says of itself, in tasks of their own, so that a slow answer holds up no
//! count.

use std::{sync::Arc, time::Duration};

use status_page::Number;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::{Instant, MissedTickBehavior, sleep_until},
};

use crate::{
    cli::Questions,
    error::Error,
    filter::Filter,
    health::{
        listing::{Listing, ListingPoller},
        metrics::MetricsPoller,
        request::{Asked, Failure},
        url::HealthUrl,
    },
    identity::Identity,
    process::service::{ServiceFacts, Services},
    record::rows,
    truth::source::Source,
    watch::{poll::Watcher, population::Population},
};

/// What one request brought.
#[derive(Debug)]
pub(crate) enum Answer {
    Health(capture::schema::HealthRow),
    Metrics(HealthUrl, Asked<Vec<Number>>),
    Processes(Vec<ServiceFacts>),
    Listing(HealthUrl, Asked<Listing>),
}

/// Answers that may wait while rows are written.
const BACKLOG: usize = 64;

/// Reading every descriptor of the processes more often than this would show in their figures.
const PROCESSES_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Asks for everything that the command line names once, then at its interval.
///
/// # Errors
/// Where an answer shows that waiting will not mend it: a wrong URL or path.
pub(crate) async fn start(
    asked: &Questions,
    filter: &Filter,
    source: Arc<dyn Source>,
    identity: Arc<Identity>,
) -> anyhow::Result<Receiver<Answer>> {
    let (answers, receiver) = mpsc::channel(BACKLOG);
    let interval = asked.interval;
    keep_reading(
        interval.max(PROCESSES_AT_MOST_EVERY),
        answers.clone(),
        Services::new(filter.clone(), Arc::clone(&identity)),
    );
    ask_health(asked, filter, source, identity, answers.clone()).await?;
    for poller in asked.metrics.pollers(&asked.health) {
        let next =
            "expected a page of Prometheus metrics, nginx stub_status, haproxy CSV or Envoy /stats";
        check(&poller.target.url, &poller.ask().await.answer, next)?;
        keep_asking(interval, answers.clone(), Question::Metrics(poller));
    }
    if let Some(url) = asked.table.clone() {
        let target = asked.health.target(&url);
        let poller = ListingPoller { target, path: asked.peer.clone() };
        let next = "say where the addresses stand with --peer, for example .connections[].peer";
        check(&url, &poller.ask().await.answer, next)?;
        keep_asking(interval, answers, Question::Listing(poller));
    }
    Ok(receiver)
}

async fn ask_health(
    asked: &Questions,
    filter: &Filter,
    source: Arc<dyn Source>,
    identity: Arc<Identity>,
    answers: Sender<Answer>,
) -> anyhow::Result<()> {
    let Some(poller) = asked.health.poller() else { return Ok(()) };
    let filter = Filter { states: Vec::new(), ..filter.clone() };
    let population = Population::new(source, identity, filter, Some(poller.target.url.port))?;
    population.refresh().await?;
    if let Err(error) = population.check_ports() {
        eprintln!("probe: warning: {error}");
    }
    let first = Watcher::new(&poller, &population, Duration::ZERO).poll().await?;
    let next = format!(
        "expected JSON with the number of connections at {} (choose with --reported)",
        poller.reported
    );
    check(&poller.target.url, &first.sample.answer, &next)?;
    let interval = asked.interval;
    tokio::spawn(async move {
        let mut watcher = Watcher::new(&poller, &population, Duration::ZERO);
        let mut ticks = ticks(interval);
        loop {
            ticks.tick().await;
            // The recorder's own tick meets the same failure, and reports it or waits it out.
            let Ok(poll) = watcher.poll().await else {
                if answers.is_closed() {
                    return;
                }
                continue;
            };
            let row = rows::health(&poller.target.url, &poll.sample, Some(poll.bracket));
            if answers.send(Answer::Health(row)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// A server that is not there yet may come; a wrong path stays wrong.
fn check<T>(url: &HealthUrl, first: &Result<T, Failure>, next: &str) -> anyhow::Result<()> {
    match first {
        Ok(_) => {}
        Err(failure) if failure.is_misuse() => {
            return Err(Error::input(format!("{url}: {failure}"), next).into());
        }
        Err(failure) => {
            eprintln!("probe: warning: {url}: {failure}; recording goes on and keeps asking");
        }
    }
    Ok(())
}

fn keep_reading(interval: Duration, answers: Sender<Answer>, mut services: Services) {
    tokio::spawn(async move {
        loop {
            let begun = Instant::now();
            // The recorder's own tick meets the same failure, and reports it.
            let Ok(facts) = tokio::task::block_in_place(|| services.read()) else { return };
            if answers.send(Answer::Processes(facts)).await.is_err() {
                return;
            }
            sleep_until(begun + interval.max(services.rest())).await;
        }
    });
}

enum Question {
    Metrics(MetricsPoller),
    Listing(ListingPoller),
}

fn keep_asking(interval: Duration, answers: Sender<Answer>, question: Question) {
    tokio::spawn(async move {
        let mut ticks = ticks(interval);
        loop {
            ticks.tick().await;
            let answer = match &question {
                Question::Metrics(poller) => {
                    Answer::Metrics(poller.target.url.clone(), poller.ask().await)
                }
                Question::Listing(poller) => {
                    Answer::Listing(poller.target.url.clone(), poller.ask().await)
                }
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    });
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
