//! `lab run`.

use std::path::PathBuf;

use clap::Args;

use crate::error::LabError;
use crate::fault::FaultSpec;
use crate::scenario::{self, Chosen, handshake, leak};

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

    /// Run it without its faults: nothing should be found
    #[arg(long)]
    pub(crate) fixed: bool,

    /// One more fault of failed handshakes, and how many connections it hits: the balancer's, or of
    /// all its shards; repeatable
    #[arg(long = "fault", value_name = "NAME[:AMOUNT]", value_parser = FaultSpec::of_either)]
    pub(crate) faults: Vec<FaultSpec>,

    /// What was done and found, as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

impl Run {
    /// Runs it, until `stopped` resolves.
    pub(crate) async fn run(self, stopped: impl Future<Output = i32>) -> anyhow::Result<()> {
        match self.scenario {
            Chosen::Phantoms(_) | Chosen::Leaks(_) if !self.faults.is_empty() => {
                Err(LabError::usage(
                    "--fault adds to scenarios of failed handshakes only; see `lab run --help`",
                ))
            }
            Chosen::Phantoms(scenario) => {
                let options = scenario::Options {
                    scenario,
                    output: self.output,
                    time_scale: self.time_scale,
                    fixed: self.fixed,
                    json: self.json,
                };
                scenario::run(&options, stopped).await
            }
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
}

fn time_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err(format!("`{text}` is no time scale: expected a number such as 0.1")),
    }
}
