//! `probe doctor`: what can run on this host, what cannot, and why.

use serde_json::json;

use crate::{
    cli::Doctor,
    cmd::{print, print_json, table},
    exit::Exit,
    export::json::SCHEMA_VERSION,
    kernel::features::{self, Feature, State},
    watch::style::{Style, Tone},
};

pub(crate) fn run(arguments: &Doctor) -> anyhow::Result<Exit> {
    let features = features::probe();
    // Everything that is only degraded still counts; what is missing and needed does not load.
    let exact = features::can_count(&features);
    if arguments.json {
        let listed: Vec<_> = features
            .iter()
            .map(|feature| {
                json!({
                    "name": feature.name,
                    "state": word(feature.state),
                    "why": feature.why,
                    "cure": feature.cure,
                })
            })
            .collect();
        print_json(&json!({
            "schema_version": SCHEMA_VERSION,
            "exact_counts": exact,
            "features": listed,
        }))?;
    } else {
        print(&text(&features, Style::of_stdout()))?;
        let verdict = if exact {
            "exact counts can be had on this host"
        } else {
            "exact counts cannot be had on this host; count and watch poll sock_diag instead"
        };
        print(&format!("\n{verdict}\n"))?;
    }
    Ok(if exact { Exit::Done } else { Exit::Unsupported })
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Missing => "missing",
        State::Degraded => "degraded",
    }
}

fn text(features: &[Feature], style: Style) -> String {
    let mut table = table::new(["FEATURE", "STATE", "WHY", "WHAT TO DO"], &[]);
    for feature in features {
        let tone = match feature.state {
            State::Ok => Tone::Good,
            State::Missing => Tone::Bad,
            State::Degraded => Tone::Warning,
        };
        table.add_row([
            table::text(&feature.name),
            table::word(word(feature.state), tone, style),
            table::text(&feature.why),
            table::text(&feature.cure),
        ]);
    }
    table::render(&table)
}
