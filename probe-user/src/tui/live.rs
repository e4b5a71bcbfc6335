//! Feeds the board from a running kernel: counts once a second, connections as often as they are
//! cheap, and whatever ends in between.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use probe_common::{
    connection::class,
    connection::flag,
    key::{CountKey, CountSlot},
    state::{self, role},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    board::{Level, Reported, Service, sums},
    leg::Leg,
    table::Connection,
};
use crate::{
    cli::Questions,
    clock,
    cmd::connections::{self, Wanted},
    export::json::key_of,
    filter::{Filter, Ports, Role},
    handshake::{follow::Observed, outcome::Sight},
    health::poller::Poller,
    identity::{Identity, cgroup::Runtime, process::Owner},
    process::listener::listeners,
    truth::source::Source,
    watch::{poll::Watcher, population::Population},
};

/// Between two looks at every socket, which note what no event has shown.
const SETTLE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at who listens, which means every descriptor of the host.
const LISTENERS_EVERY: Duration = Duration::from_secs(10);
/// Between two reads of all connections at least, in a view of this host.
pub(crate) const OPEN_EVERY: Duration = Duration::from_secs(1);
/// How many times their own time they rest.
const OPEN_SHARE: u32 = 20;

/// Between two samples of the counts.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Updates that wait for a slow view.
const BACKLOG: usize = 1024;

/// What has changed. `probe top --remote` is sent these by another host's agent, which may be newer or
/// older: fields are added with a default, and none is taken away.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Update {
    Counts {
        at_mono_ns: i64,
        unix_ns: i64,
        levels: Vec<(Service, Level)>,
        degraded: Vec<String>,
        exact: bool,
    },
    Open(Vec<Leg>),
    Ended(Vec<Leg>),
    Reported(Reported),
    /// The processes that hold each service's listening sockets.
    Listeners(Vec<(Service, Vec<u32>)>),
    /// The rows of the service that was asked for.
    #[serde(skip)]
    Connections(Vec<Connection>),
    /// The kernel or the agent cannot be asked any more.
    #[serde(skip)]
    Failed(anyhow::Error),
}

impl Update {
    /// Those that are sent to other hosts.
    pub(crate) const KINDS: [&str; 5] = ["Counts", "Open", "Ended", "Reported", "Listeners"];
}

/// What the view wants beside the counts: the connections of one service.
pub(crate) type Wish = watch::Receiver<Option<Service>>;

pub(crate) struct Live {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) filter: Filter,
    /// Between two reads of all connections at least.
    pub(crate) open_every: Duration,
}

/// Feeds until nobody takes it any more.
///
/// # Errors
/// When the populations of this host cannot be looked at.
pub(crate) fn start(
    live: Live,
    questions: &Questions,
    wish: Wish,
) -> anyhow::Result<mpsc::Receiver<Update>> {
    let (sender, updates) = mpsc::channel(BACKLOG);
    if let Some(poller) = questions.health.poller() {
        let population = live.population(poller.target.url.port)?;
        tokio::spawn(ask(poller, population, questions.interval, sender.clone()));
    }
    tokio::spawn(live.run(sender, wish));
    Ok(updates)
}

/// Whose connections make up a service's list, but for their container.
pub(crate) fn wanted_of(service: &Service, filter: &Filter) -> Filter {
    Filter {
        ports: Ports::one(service.port),
        roles: Role::of_name(&service.role).into_iter().collect(),
        ..filter.clone()
    }
}

impl Live {
    /// What a server on this port is held against, as `probe watch` and `probe record` do.
    ///
    /// # Errors
    /// When the populations of this host cannot be looked at.
    pub(crate) fn population(&self, port: u16) -> anyhow::Result<Population> {
        let (source, identity) = (Arc::clone(&self.source), Arc::clone(&self.identity));
        Population::new(source, identity, self.filter.clone(), Some(port))
    }

    /// Sends until nobody takes it any more, or the source fails.
    pub(crate) async fn run(self, updates: mpsc::Sender<Update>, mut wish: Wish) {
        if let Err(error) = self.feed(&updates, &mut wish).await {
            let _ = updates.send(Update::Failed(error)).await;
        }
    }

    async fn feed(&self, updates: &mpsc::Sender<Update>, wish: &mut Wish) -> anyhow::Result<()> {
        let mut ended = self.source.ended();
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settled = Instant::now();
        let mut open_due = Instant::now();
        let mut listeners_due = Instant::now();
        loop {
            tokio::select! {
                batch = next(&mut ended) => match batch {
                    Some(batch) => {
                        let legs = self.legs(&batch);
                        if updates.send(Update::Ended(legs)).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => anyhow::bail!("the agent ended: start it again, or `probe top` without it"),
                },
                changed = wish.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.send_connections(updates, wish).await?;
                }
                _ = ticks.tick() => {
                    if updates.send(self.counts().await?).await.is_err() {
                        return Ok(());
                    }
                    if Instant::now() >= open_due {
                        let began = Instant::now();
                        let legs = tokio::task::block_in_place(|| {
                            anyhow::Ok(self.legs(&self.source.connections()?))
                        })?;
                        open_due = Instant::now() + self.open_every.max(began.elapsed() * OPEN_SHARE);
                        let _ = updates.send(Update::Open(legs)).await;
                        self.send_connections(updates, wish).await?;
                    }
                    // Last, so that the first numbers are there at once.
                    if Instant::now() >= listeners_due {
                        let found = tokio::task::block_in_place(|| self.listeners())?;
                        listeners_due = Instant::now() + LISTENERS_EVERY;
                        let _ = updates.send(Update::Listeners(found)).await;
                    }
                    if settled.elapsed() >= SETTLE_EVERY {
                        tokio::task::block_in_place(|| self.source.settle())?;
                        settled = Instant::now();
                    }
                }
            }
        }
    }

    async fn counts(&self) -> anyhow::Result<Update> {
        let mut slots = self.source.slots()?;
        self.identity.refresh(slots.iter().map(|slot| slot.key)).await;
        slots.retain(|slot| self.filter.keeps_of(&slot.key, &self.identity));
        let levels =
            slots.iter().map(|slot| (self.service(&slot.key), slot.key.netns, level(slot)));
        let levels = sums(levels);
        let exactness = self.source.exactness()?;
        Ok(Update::Counts {
            at_mono_ns: clock::mono_ns(),
            unix_ns: clock::unix_ns(),
            levels,
            degraded: exactness.degraded,
            exact: exactness.exact,
        })
    }

    fn listeners(&self) -> anyhow::Result<Vec<(Service, Vec<u32>)>> {
        let found = listeners(|key| self.filter.keeps_of(key, &self.identity))?;
        let pids = |held: Vec<Owner>| held.into_iter().map(|owner| owner.pid).collect();
        Ok(found.into_iter().map(|(key, held)| (self.service(&key), pids(held))).collect())
    }

    async fn send_connections(
        &self,
        updates: &mpsc::Sender<Update>,
        wish: &mut Wish,
    ) -> anyhow::Result<()> {
        let Some(service) = wish.borrow_and_update().clone() else { return Ok(()) };
        let filter = wanted_of(&service, &self.filter);
        let found =
            connections::find(self.source.as_ref(), &self.identity, &filter, Wanted::default())
                .await?;
        let rows = Connection::of_service(&found, &service);
        let _ = updates.send(Update::Connections(rows)).await;
        Ok(())
    }

    pub(crate) fn legs(&self, observed: &[Observed]) -> Vec<Leg> {
        let mut services: HashMap<CountKey, Arc<Service>> = HashMap::new();
        let sight = Sight::of(&self.source.hooks());
        observed
            .iter()
            .filter(|seen| seen.flags & flag::LISTENER == 0)
            .filter_map(|seen| {
                let key = key_of(seen);
                if !self.filter.keeps_of(&key, &self.identity) {
                    return None;
                }
                let service =
                    services.entry(key).or_insert_with(|| Arc::new(self.service(&key))).clone();
                Some(Leg::of(seen, service, sight))
            })
            .collect()
    }

    fn service(&self, key: &CountKey) -> Service {
        service(&self.identity, key)
    }
}

fn service(identity: &Identity, key: &CountKey) -> Service {
    let container = identity.of(key);
    Service {
        netns: if container.runtime == Runtime::Host { key.netns } else { 0 },
        container: container.name,
        port: key.port,
        role: role::name(key.role).into(),
    }
}

fn level(slot: &CountSlot) -> Level {
    let state = |state: u8| slot.states[usize::from(state) - 1];
    Level {
        established: state(state::ESTABLISHED),
        upgraded: slot.classes[usize::from(class::UPGRADED)],
        close_wait: state(state::CLOSE_WAIT),
        closed_held: state(state::CLOSE),
        listening: state(state::LISTEN) > 0,
        opened_total: slot.established_total,
        closed_total: slot.closed_total,
        namespaces: 0,
    }
}

/// Never ready where there is no stream of ended connections.
pub(crate) async fn next<T>(ended: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match ended {
        Some(ended) => ended.recv().await,
        None => std::future::pending().await,
    }
}

/// Asks a server what it holds, until nobody wants to know.
pub(crate) async fn ask(
    poller: Poller,
    population: Population,
    interval: Duration,
    updates: mpsc::Sender<Update>,
) {
    let mut watcher = Watcher::new(&poller, &population, Duration::ZERO);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // The counts meet the same failure, and report it.
        let (Ok(()), Ok(poll), Ok(slots)) =
            (population.refresh().await, watcher.poll().await, population.slots())
        else {
            return;
        };
        let services: BTreeSet<Service> =
            slots.iter().map(|slot| service(&population.identity, &slot.key)).collect();
        let (answer, shards) = match poll.sample.answer {
            Ok(answer) => (Ok(answer.reported), answer.shards),
            Err(failure) => (Err(failure.to_string()), Vec::new()),
        };
        let reported = Reported {
            url: poller.target.url.to_string(),
            answer,
            kernel_min: Some(poll.bracket.min),
            kernel_max: Some(poll.bracket.max),
            services: services.into_iter().collect(),
            shards,
        };
        if updates.send(Update::Reported(reported)).await.is_err() {
            return;
        }
    }
}
