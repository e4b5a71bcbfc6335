//! What the kernel programs take, by the kernel's own statistics (`probe doctor --cost`).

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Context;
use super::process::output;
use super::row::{Goal, Row};
use super::statistics::Median;

/// Figures by name, a value for each round.
type Figures = BTreeMap<String, Vec<f64>>;

const LIMIT: &str = "Two runs of an empty program are in it: the second copy of `inet_sock_set_state` hardly does \
    more. Of the first, sampled with all stages (`perf record -a -g -e cpu-clock` beside `probe doctor --cost`), 42 % \
    are its own instructions, 25 % entries put into hash maps and taken out, 13 % entries looked up, 11 % the clock. \
    The first state change of a connection (an entry is made) and the last (it becomes a record) do most of it.";

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    let (mut all, mut counts) = (Figures::new(), Figures::new());
    for _ in 0..context.rounds() {
        add(&mut all, &cost(context, false)?)?;
        add(&mut counts, &cost(context, true)?)?;
    }
    let mut rows = Vec::new();
    for (what, goal, figures) in [
        ("run time per state change, all stages", 250.0, &all),
        ("run time per state change, counts only", 150.0, &counts),
    ] {
        let median = median(figures, "ns_per_state_change")?;
        rows.push(
            Row::new(what, Goal::AtMost(goal), "ns", median.value)
                .interval(median.interval)
                .detail(breakdown(figures)?)
                .limit(LIMIT),
        );
    }
    let empty = median(&all, "empty_ns_per_run")?;
    rows.push(
        Row::new("an empty program on the same hook", Goal::None, "ns", empty.value)
            .interval(empty.interval),
    );
    Ok(rows)
}

fn cost(context: &Context, counts_only: bool) -> Result<Value> {
    let mut command = Command::new(context.binary("probe"));
    command.args(["doctor", "--cost", "--json", "--duration", "500ms"]);
    if counts_only {
        command.arg("--counts-only");
    }
    serde_json::from_str(&output(&mut command)?).context("no JSON of `probe doctor --cost`")
}

fn add(figures: &mut Figures, cost: &Value) -> Result<()> {
    let mut push = |name: &str, value: &Value| -> Result<()> {
        let value = value.as_f64().with_context(|| format!("no {name} in {cost}"))?;
        figures.entry(name.to_owned()).or_default().push(value);
        Ok(())
    };
    for name in ["ns_per_state_change", "empty_ns_per_run", "ns_per_connection"] {
        push(name, &cost[name])?;
    }
    for hook in cost["hooks"].as_array().context("no hooks")? {
        let name = hook["hook"].as_str().context("a hook without a name")?;
        let (runs, time) = (hook["runs"].as_f64(), hook["run_time_ns"].as_f64());
        if let Some(mean) = runs.zip(time).filter(|(runs, _)| *runs > 0.0).map(|(r, t)| t / r) {
            push(&format!("`{name}`"), &mean.into())?;
        }
    }
    Ok(())
}

fn median(figures: &Figures, name: &str) -> Result<Median> {
    figures.get(name).and_then(|values| Median::of(values)).with_context(|| format!("no {name}"))
}

/// The hooks, by the time of one run.
fn breakdown(figures: &Figures) -> Result<String> {
    let per_connection = median(figures, "ns_per_connection")?.value / 1e3;
    let hooks: Vec<String> = figures
        .keys()
        .filter(|name| name.starts_with('`'))
        .map(|name| Ok(format!("{name} {:.0} ns", median(figures, name)?.value)))
        .collect::<Result<_>>()?;
    Ok(format!(
        "{per_connection:.1} µs for a connection's whole life, both ends; a run of {}",
        hooks.join(", ")
    ))
}
