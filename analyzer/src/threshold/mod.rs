//! Limits, and holding what was measured against them: one way for every command.

pub(crate) mod limit;
pub(crate) mod measure;
pub(crate) mod rule;

use clap::Args;

use crate::error::InputError;
use crate::report::model::{Threshold, VerdictState};
use measure::{Measure, Subject, measure};
use rule::Rule;

/// Thresholds of the command line.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Thresholds")]
pub(crate) struct Chosen {
    /// A threshold such as 'handshake.p99_ms < 50', or with a step before it:
    /// 'clients.errors_percent <= 5, warn < 1'; repeatable
    #[arg(long = "threshold", value_name = "RULE")]
    rules: Vec<Rule>,
    /// A TOML file with a table [thresholds], e.g. leaks.goroutines_per_minute = "< 10"
    #[arg(long = "thresholds", value_name = "FILE")]
    files: Vec<std::path::PathBuf>,
    /// Thresholds of a scenario: `analyzer thresholds` lists them
    #[arg(long = "preset", value_name = "NAME", value_parser = rule::preset_name)]
    presets: Vec<&'static rule::Preset>,
}

impl Chosen {
    /// All of them, presets first; a later rule on the same figure and in the same direction takes the
    /// place of an earlier one.
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, InputError> {
        let mut all: Vec<Rule> = Vec::new();
        let mut take = |rules: Vec<Rule>| {
            for rule in rules {
                all.retain(|known| !known.is_replaced_by(&rule));
                all.push(rule);
            }
        };
        for preset in &self.presets {
            take(preset.rules()?);
        }
        for file in &self.files {
            take(rule::read(file)?);
        }
        take(self.rules.clone());
        Ok(all)
    }
}

/// Each rule with what was measured.
pub(crate) fn judge(rules: &[Rule], subject: &Subject<'_>) -> Vec<Threshold> {
    rules
        .iter()
        .map(|rule| {
            let measure = measure(&rule.figure, subject);
            let state = match state(&measure, |value| rule.holds(value)) {
                VerdictState::Held if measure.value.is_some_and(|value| rule.warns(value)) => {
                    VerdictState::Warning
                }
                state => state,
            };
            Threshold {
                name: rule.figure.clone(),
                limit: rule.limit_text(),
                unit: measure.unit,
                measured: measure.value,
                state,
            }
        })
        .collect()
}

/// Why a threshold decides nothing, and what would; `None` where it decides.
pub(crate) fn undecided(threshold: &Threshold) -> Option<&'static str> {
    if threshold.state != VerdictState::Inconclusive {
        return None;
    }
    let name = threshold.name.as_str();
    let family = name.split_once('.').map_or(name, |(family, _)| family);
    Some(match (threshold.measured, family) {
        (Some(_), "leaks") => {
            "chance or the connections that opened explain this rate as well: measure for longer, \
             and while their number stays"
        }
        (Some(_), _) => "too much was lost or could not be polled, as the report says of its data",
        (None, _) if name == "end.drained_s" => {
            "it takes client results that say when they closed, and a health URL that comes back to 0"
        }
        (None, "clients") => "no client results tell it: give some with --client FILE",
        (None, "handshake" | "failed handshakes") => {
            "no attempt was recorded: record the service's port while clients connect"
        }
        (None, "shards") => {
            "nothing was followed to a shard: record the balancer's port and the shards'"
        }
        (None, "leaks") => {
            "nothing of this name was followed long enough: record with --metrics URL or --health \
             URL, give a log with --log, or name the number with --series NAME=PATH"
        }
        (None, _) => "no health sample could be judged: record with --health URL",
    })
}

/// What was crossed stays crossed, whatever else is not known.
fn state(measure: &Measure, holds: impl Fn(f64) -> bool) -> VerdictState {
    match measure.value {
        None => VerdictState::Inconclusive,
        Some(value) if !holds(value) && measure.certain => VerdictState::Crossed,
        Some(value) if holds(value) && measure.complete => VerdictState::Held,
        Some(_) => VerdictState::Inconclusive,
    }
}
