//! One recording, from its first row to its last, wherever the rows go.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use capture::{
    CaptureWriter, WriteError,
    meta::{Meta, Selection},
    schema::{MAJOR, MINOR},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc::{Receiver, error::TryRecvError},
    time::{Interval, MissedTickBehavior},
};

use super::{
    ask::{self, Answer},
    output::{OnBreak, Output},
    recorder::{DRAIN, Recorder},
};
use crate::{
    cli::Questions,
    clock::Pair,
    error::Error,
    filter::Filter,
    identity::Identity,
    truth::{
        agent::Agent,
        source::{Ended, Source},
    },
};

/// What is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) filter: Filter,
    /// Ports whose every connection counts as a WebSocket.
    pub(crate) websocket: Vec<u16>,
    pub(crate) asked: Questions,
    pub(crate) on_break: OnBreak,
    pub(crate) command_line: Vec<String>,
}

/// What a recording came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// By the tables' names.
    pub(crate) rows: Vec<(String, u64)>,
    pub(crate) bytes: u64,
    pub(crate) degraded: Vec<String>,
}

pub(crate) struct Session {
    recorder: Recorder,
    meta: Meta,
    ended: Receiver<Ended>,
    answers: Receiver<Answer>,
    /// The socket of the agent that is waited for if the one that is recorded from ends.
    awaited: Option<PathBuf>,
}

impl Session {
    /// Returns once everything that ends from now on will be in the capture.
    ///
    /// # Errors
    /// [`Error::Input`] for a container or a URL that is none; what `open` fails with.
    pub(crate) async fn begin(
        plan: Plan,
        source: Arc<dyn Source>,
        identity: Arc<Identity>,
        open: impl FnOnce(&Meta) -> Result<CaptureWriter, WriteError>,
    ) -> anyhow::Result<Self> {
        // From here on nothing that ends is missed; what is open is asked for at the end.
        let ended = source.ended().ok_or_else(|| {
            Error::input(
                "the running agent only counts: there is nothing to record",
                "start it again without --counts-only",
            )
        })?;
        let slots = source.slots()?;
        identity.refresh(slots.iter().map(|slot| slot.key)).await;
        plan.filter.check_containers(&identity)?;
        let meta = meta(&plan, source.as_ref())?;
        let awaited = match &plan.on_break {
            OnBreak::Stop => None,
            OnBreak::Resume { agent, .. } => Some(agent.clone()),
        };
        let output = Output::new(open(&meta)?, plan.on_break);
        let mut recorder = Recorder::new(
            Arc::clone(&source),
            Arc::clone(&identity),
            plan.filter.clone(),
            plan.websocket,
            output,
        );
        recorder.tick().await?;
        let answers = ask::start(&plan.asked, &plan.filter, source, identity).await?;
        Ok(Self { recorder, meta, ended, answers, awaited })
    }

    /// Records until `stop`, whose outcome is handed back.
    ///
    /// # Errors
    /// [`WriteError`] for what cannot be written, [`Error::Input`] where the agent ends.
    pub(crate) async fn run<T>(
        mut self,
        stop: impl Future<Output = T>,
    ) -> anyhow::Result<(T, Finished)> {
        let mut ticks = every(Duration::from_secs(1));
        let mut takes = every(TAKE_EVERY);
        tokio::pin!(stop);
        let outcome = loop {
            let goes_on = tokio::select! {
                outcome = &mut stop => break outcome,
                _ = takes.tick() => loop {
                    match self.ended.try_recv() {
                        Ok(batch) => self.recorder.take_ended(&batch)?,
                        Err(TryRecvError::Empty) => break true,
                        Err(TryRecvError::Disconnected) => break false,
                    }
                },
                Some(answer) = self.answers.recv() => {
                    self.recorder.take_asked(answer).map(|()| true)?
                }
                _ = ticks.tick() => match self.recorder.tick().await {
                    Ok(()) => true,
                    Err(error) if self.agent_ends().await? => {
                        drop(error);
                        false
                    }
                    Err(error) => return Err(error),
                },
            };
            if !goes_on {
                tokio::select! {
                    _ = &mut stop => return Err(self.end_in_gap()),
                    again = self.next_agent() => again?,
                }
            }
        };
        let Self { recorder, mut meta, mut ended, .. } = self;
        let summary = recorder
            .finish(&mut meta, async |recorder: &mut Recorder| drain(recorder, &mut ended).await)
            .await?;
        let rows = summary.rows.iter().map(|(table, rows)| (table.name().to_owned(), *rows));
        let finished =
            Finished { rows: rows.collect(), bytes: summary.bytes, degraded: meta.degraded };
        Ok((outcome, finished))
    }

    /// Whether a look at the counts failed because the agent ends: it may show by this first.
    async fn agent_ends(&mut self) -> Result<bool, WriteError> {
        let until = tokio::time::Instant::now() + AGENTS_END;
        while let Ok(batch) = tokio::time::timeout_at(until, self.ended.recv()).await {
            match batch {
                None => return Ok(true),
                Some(batch) => self.recorder.take_ended(&batch)?,
            }
        }
        Ok(false)
    }

    /// Waits for the agent to be started again where that is wanted, and goes on from it. May be
    /// dropped.
    async fn next_agent(&mut self) -> anyhow::Result<()> {
        let Some(socket) = self.awaited.clone() else { return Err(self.end_in_gap()) };
        eprintln!("probe: the agent ended; goes on as soon as it is started again");
        let mut told = String::new();
        let (agent, ended) = loop {
            tokio::select! {
                Some(answer) = self.answers.recv() => self.recorder.take_asked(answer)?,
                () = tokio::time::sleep(AGENT_ASKED_EVERY) => {
                    match tokio::task::block_in_place(|| listen_to(&socket)) {
                        Ok(Some(found)) => break found,
                        Ok(None) => {}
                        // One of another version may be followed by the right one.
                        Err(error) if format!("{error:#}") == told => {}
                        Err(error) => {
                            told = format!("{error:#}");
                            eprintln!("probe: {told}; still waiting for the agent");
                        }
                    }
                }
            }
        };
        self.ended = ended;
        self.recorder.go_on_with(Arc::new(agent));
        self.recorder.name_gap(AGENT_ENDED)?;
        eprintln!(
            "probe: recording from the agent again; what ended meanwhile is missing, and the capture says so"
        );
        Ok(())
    }

    /// The capture's last row: what ends from here on is not in it.
    fn end_in_gap(&mut self) -> anyhow::Error {
        match self.recorder.name_gap(AGENT_ENDED) {
            Ok(()) => agent_ended().into(),
            Err(error) => error.into(),
        }
    }
}

/// Batches come every 20 ms: to wake for each of them costs more than to write its rows.
const TAKE_EVERY: Duration = Duration::from_millis(200);

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// An agent and what ends from now on; `None` where there is none.
fn listen_to(socket: &Path) -> anyhow::Result<Option<(Agent, Receiver<Ended>)>> {
    let Some(agent) = Agent::connect(socket)? else { return Ok(None) };
    let ended = agent.ended().context("the agent hands no connections out")?;
    Ok(Some((agent, ended)))
}

/// The reason of the gap.
const AGENT_ENDED: &str = "the agent ended";

const AGENT_ASKED_EVERY: Duration = Duration::from_millis(500);

/// From the first sign of an agent's end to the next.
const AGENTS_END: Duration = Duration::from_secs(2);

pub(crate) fn agent_ended() -> Error {
    Error::input(
        "the agent ended while it was recorded from; the capture ends there",
        "start it again with `probe serve`, or record without it",
    )
}

/// Takes what ended up to now, and what was on its way.
async fn drain(recorder: &mut Recorder, ended: &mut Receiver<Ended>) -> Result<(), WriteError> {
    let until = tokio::time::Instant::now() + DRAIN;
    while let Ok(Some(batch)) = tokio::time::timeout_at(until, ended.recv()).await {
        recorder.take_ended(&batch)?;
    }
    Ok(())
}

fn meta(plan: &Plan, source: &dyn Source) -> anyhow::Result<Meta> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot read {path}"))
    };
    let Pair { mono_ns, unix_ns } = Pair::now();
    let Plan { filter, asked, .. } = plan;
    Ok(Meta {
        schema_major: MAJOR,
        schema_minor: MINOR,
        host: read("/proc/sys/kernel/hostname")?,
        kernel: read("/proc/sys/kernel/osrelease")?,
        boot_id: read("/proc/sys/kernel/random/boot_id")?,
        probe_version: env!("CARGO_PKG_VERSION").into(),
        command_line: plan.command_line.clone(),
        backend: source.backend().name().into(),
        hooks: source.hooks(),
        degraded: source.exactness()?.degraded,
        started_mono_ns: mono_ns,
        started_unix_ns: unix_ns,
        ended_mono_ns: None,
        selection: Selection {
            ports: filter.ports.iter().collect(),
            websocket_ports: plan.websocket.clone(),
            containers: filter.containers.clone(),
            roles: filter.roles.iter().map(|role| role.name().to_owned()).collect(),
            health_urls: asked.health.health.iter().map(ToString::to_string).collect(),
            metrics_urls: asked.metrics.metrics.iter().map(ToString::to_string).collect(),
            table_urls: asked.table.iter().map(ToString::to_string).collect(),
        },
    })
}
