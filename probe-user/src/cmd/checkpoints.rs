//! `probe watch --metrics` without `--health`: what grows, checkpoint by checkpoint.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    cli::Watch,
    clock,
    cmd::{print, print_json},
    error::Error,
    exit::Exit,
    filter::Ports,
    health::{metrics::MetricsPoller, request::Failure},
    identity::Identity,
    process::service::Services,
    signal::{Signals, Stop},
    watch::{
        checkpoint::{Checkpoints, Sample},
        growth::add_page,
        style::Style,
    },
};

pub(crate) async fn run(arguments: Watch) -> anyhow::Result<Exit> {
    let mut signals = Signals::catch()?;
    let pollers = arguments.metrics.pollers(&arguments.health);
    let mut filter = arguments.filter.clone();
    if let (true, Some(first)) = (filter.ports.is_empty(), pollers.first()) {
        filter.ports = Ports::one(first.target.url.port);
    }
    let identity = Arc::new(Identity::new()?);
    identity.refresh([]).await;
    filter.check_containers(&identity)?;
    let mut sampler = Sampler {
        pollers,
        services: Services::new(filter, identity),
        began: Instant::now(),
        failed: None,
    };
    let style = if arguments.json { Style::plain() } else { Style::of_stdout() };

    // A run that is shorter than an interval has one checkpoint, at its end.
    let interval = arguments.duration.map_or(arguments.interval, |all| arguments.interval.min(all));
    let mut checkpoints = Checkpoints::new(interval, arguments.duration);
    let mut left = checkpoints.planned();
    let baseline = sampler.sample().await?;
    if let (Some(error), Some(failure)) = (&baseline.error, &sampler.failed) {
        let next = match failure.next_step() {
            Some(next) => next,
            None if failure.is_misuse() => {
                "expected a page of Prometheus metrics, nginx stub_status, haproxy CSV or Envoy /stats"
            }
            None => "does the server run there, and is this the URL of its metrics?",
        };
        return Err(Error::input(error, next).into());
    }
    let mut say = |sample: Sample| {
        let checkpoint = checkpoints.take(sample);
        if arguments.json { print_json(&checkpoint) } else { print(&checkpoint.text(style)) }
    };
    say(baseline)?;
    let mut ticks = tokio::time::interval_at(sampler.began + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopped: Option<Stop> = loop {
        tokio::select! {
            stop = signals.next() => break Some(stop),
            _ = ticks.tick() => {
                say(sampler.sample().await?)?;
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    break None;
                }
            }
        }
    };
    let stopped_by = stopped.map_or("--duration", Stop::name);
    let end = checkpoints.end(sampler.began.elapsed(), stopped_by, stopped.is_some());
    if arguments.json {
        print_json(&end)?;
    } else {
        print(&end.text(style))?;
    }
    Ok(if !end.failures.is_empty() {
        Exit::Threshold
    } else if end.inconclusive {
        Exit::Inconclusive
    } else {
        stopped.map_or(Exit::Done, Stop::exit)
    })
}

/// Asks every page, and reads `/proc`.
struct Sampler {
    pollers: Vec<MetricsPoller>,
    services: Services,
    began: Instant,
    /// Why a page had no answer the last time.
    failed: Option<Failure>,
}

impl Sampler {
    async fn sample(&mut self) -> anyhow::Result<Sample> {
        let (mut pages, mut error) = (Vec::new(), None);
        self.failed = None;
        for poller in &self.pollers {
            match poller.ask().await.answer {
                Ok(numbers) => add_page(&mut pages, numbers),
                Err(failure) => {
                    error = Some(format!("{}: {failure}", poller.target.url));
                    self.failed = Some(failure);
                }
            }
        }
        let services = tokio::task::block_in_place(|| self.services.read())?;
        let asked = self.pollers.first().map_or(&[][..], |poller| &poller.names);
        Ok(Sample {
            at_unix_ns: clock::Pair::now().unix_ns,
            elapsed: self.began.elapsed(),
            error,
            ..Sample::new(&pages, &services, asked)
        })
    }
}
