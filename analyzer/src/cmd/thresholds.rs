//! `analyzer thresholds`: the figures that there are, and the presets.

use std::io::{self, Write};

use crate::cli;
use crate::error::Outcome;
use crate::threshold::measure::FIGURES;
use crate::threshold::rule::PRESETS;

pub(crate) fn run(args: &cli::Thresholds) -> anyhow::Result<Outcome> {
    let mut out = io::stdout().lock();
    if args.preset.is_none() {
        for (figure, meaning) in FIGURES {
            writeln!(out, "{figure:36} {meaning}")?;
        }
        writeln!(out, "\nPresets (--preset NAME):")?;
    }
    for preset in PRESETS {
        if args.preset.is_some_and(|wanted| wanted.name != preset.name) {
            continue;
        }
        match preset.scenarios {
            [] => writeln!(out, "{}", preset.name)?,
            scenarios => writeln!(out, "{} (also as {})", preset.name, scenarios.join(", "))?,
        }
        for rule in preset.rules()? {
            writeln!(out, "  {} {}", rule.figure, rule.limit_text())?;
        }
    }
    out.flush()?;
    Ok(Outcome::Held)
}
