//! `lab run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;

use crate::error::{self, LabError};
use crate::fault::FaultSpec;
use crate::scenario::{self, Chosen, Custom, Scenario, Sequence, handshake, leak};
use crate::units::duration;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Which scenario
    #[arg(value_parser = scenario::find)]
    pub(crate) scenario: Chosen,

    /// Where truth, capture and reports go: a new or empty directory, or an earlier run's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,

    /// Shorten holds and intervals by this factor; rates stay
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = time_scale)]
    pub(crate) time_scale: f64,

    /// Fewer clients, and fewer slots of a balancer, by this factor: of scenarios of load; rates stay
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = count_scale)]
    pub(crate) count_scale: f64,

    /// Run it without its faults: nothing should be found
    #[arg(long)]
    pub(crate) fixed: bool,

    /// One more fault, and how many connections it hits: of the server in scenarios of load; of the
    /// balancer, or of all its shards, in those of failed handshakes; repeatable
    #[arg(long = "fault", value_name = "NAME[:AMOUNT]", value_parser = FaultSpec::of_either)]
    pub(crate) faults: Vec<FaultSpec>,

    /// What was done and found, as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) custom: CustomArgs,
}

/// Of `lab run custom`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Figures of `lab run custom`")]
pub(crate) struct CustomArgs {
    /// How many clients
    #[arg(long, value_name = "N")]
    connections: Option<u64>,

    /// How many start in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ramp: Option<u32>,

    /// How long they stay
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    hold: Option<Duration>,

    /// Send a message so often, each client
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    message_interval: Option<Duration>,

    /// Send a ping so often, each client
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    heartbeat: Option<Duration>,
}

impl From<&CustomArgs> for Custom {
    fn from(args: &CustomArgs) -> Self {
        Custom {
            connections: args.connections,
            ramp: args.ramp,
            hold: args.hold,
            message_interval: args.message_interval,
            heartbeat: args.heartbeat,
        }
    }
}

impl CustomArgs {
    fn is_empty(&self) -> bool {
        self.connections.is_none()
            && self.ramp.is_none()
            && self.hold.is_none()
            && self.message_interval.is_none()
            && self.heartbeat.is_none()
    }
}

impl Run {
    /// Runs it, until `stopped` resolves.
    pub(crate) async fn run(self, stopped: impl Future<Output = i32>) -> anyhow::Result<()> {
        let custom = matches!(self.scenario, Chosen::Phantoms(scenario) if scenario.is_custom());
        if !custom && !self.custom.is_empty() {
            return Err(LabError::usage(
                "--connections, --ramp, --hold, --message-interval and --heartbeat belong to \
                 `lab run custom`; other scenarios have theirs, and --time-scale",
            ));
        }
        let is_load = match self.scenario {
            Chosen::Phantoms(scenario) => scenario.is_load(),
            Chosen::Sequence(_) => true,
            Chosen::Handshakes(_) | Chosen::Leaks(_) => false,
        };
        if !is_load && self.count_scale != 1.0 {
            return Err(LabError::usage(
                "--count-scale belongs to scenarios of load; others have numbers that are looked for",
            ));
        }
        match self.scenario {
            Chosen::Leaks(_) if !self.faults.is_empty() => Err(LabError::usage(
                "--fault adds to scenarios of load and of failed handshakes; see `lab run --help`",
            )),
            Chosen::Phantoms(scenario) => {
                self.refuse_unfit_faults(scenario)?;
                scenario::run(&self.options(scenario, self.output.clone()), stopped).await
            }
            Chosen::Sequence(sequence) => self.run_all(sequence, stopped).await,
            Chosen::Leaks(scenario) => {
                let options = leak::Options {
                    scenario,
                    output: self.output,
                    time_scale: self.time_scale,
                    fixed: self.fixed,
                    json: self.json,
                };
                leak::run(&options, stopped).await
            }
            Chosen::Handshakes(scenario) => {
                let options = handshake::Options {
                    scenario,
                    output: self.output,
                    time_scale: self.time_scale,
                    fixed: self.fixed,
                    more_faults: self.faults,
                    json: self.json,
                };
                handshake::run(&options, stopped).await
            }
        }
    }

    fn refuse_unfit_faults(&self, scenario: &Scenario) -> anyhow::Result<()> {
        if !self.faults.is_empty() && !scenario.is_load() {
            return Err(LabError::usage(format!(
                "{} has its own faults; --fault adds to scenarios of load and of failed handshakes",
                scenario.name
            )));
        }
        if let Some(unfit) = self.faults.iter().find(|fault| !scenario.takes(fault)) {
            return Err(LabError::usage(format!(
                "--fault {} is a balancer's, and {} has none: expected one of `lab serve --help`",
                unfit.text(),
                scenario.name
            )));
        }
        Ok(())
    }

    fn options(&self, scenario: &Scenario, output: PathBuf) -> scenario::Options {
        scenario::Options {
            scenario: scenario.with(&(&self.custom).into()).scaled_to(self.count_scale),
            output,
            time_scale: self.time_scale,
            fixed: self.fixed,
            more_faults: self.faults.clone(),
            json: self.json,
        }
    }

    /// Each in a directory of its own. All of them run; the first that failed decides the exit code.
    async fn run_all(
        &self,
        sequence: &Sequence,
        stopped: impl Future<Output = i32>,
    ) -> anyhow::Result<()> {
        let stopped = stopped.shared();
        let mut result = Ok(());
        for (index, name) in sequence.of.iter().enumerate() {
            if index > 0 {
                let pause = sequence.pause.mul_f64(self.time_scale);
                eprintln!("pausing for {} before {name}", humantime::format_duration(pause));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    signal = stopped.clone() => return Err(LabError::Signal(signal).into()),
                }
            }
            let Ok(Chosen::Phantoms(scenario)) = scenario::find(name) else { continue };
            self.refuse_unfit_faults(scenario)?;
            let options = self.options(scenario, self.output.join(name));
            let ended = scenario::run(&options, stopped.clone()).await;
            match ended {
                Err(error) if error::exit_code(&error) >= 128 => return Err(error),
                ended => result = result.and(ended),
            }
        }
        result
    }
}

fn count_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 1.0 => Ok(scale),
        _ => Err(format!("`{text}` is no count scale: expected a number up to 1, such as 0.1")),
    }
}

fn time_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err(format!("`{text}` is no time scale: expected a number such as 0.1")),
    }
}
