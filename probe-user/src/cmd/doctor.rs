//! `probe doctor`: what can run on this host, what cannot, and why; and what it costs.

use serde_json::json;

use crate::{
    cli::Doctor,
    cmd::{print, print_json, table},
    exit::Exit,
    export::json::SCHEMA_VERSION,
    kernel::{
        Options, Unavailable, cost,
        features::{self, Feature, State},
    },
    truth::choose::unsupported,
    watch::style::{Style, Tone},
};

pub(crate) fn run(arguments: &Doctor) -> anyhow::Result<Exit> {
    if arguments.cost {
        return cost(arguments);
    }
    let options = Options { without: arguments.hooks.programs(), ..Options::default() };
    let features = features::probe(&options);
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
                    "columns": feature.columns,
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

fn cost(arguments: &Doctor) -> anyhow::Result<Exit> {
    let seconds = arguments.duration.as_secs_f64();
    eprintln!("probe: making connections on loopback for {seconds:.0} s");
    let measured =
        cost::measure(arguments.duration, arguments.counts_only).map_err(|error| match error
            .downcast::<Unavailable>(
        ) {
            Ok(unavailable) => unsupported(unavailable).into(),
            Err(error) => error,
        })?;
    if arguments.json {
        print_json(&json!({
            "schema_version": SCHEMA_VERSION,
            "counts_only": arguments.counts_only,
            "seconds": measured.seconds,
            "connections": measured.connections,
            "state_changes": measured.state_changes,
            "ns_per_state_change": measured.ns_per_state_change(),
            "empty_ns_per_run": measured.empty_ns_per_run,
            "ns_per_connection": measured.ns_per_connection(),
            "hooks": measured.hooks,
        }))?;
        return Ok(Exit::Done);
    }
    let mut table = table::new(["HOOK", "RUNS", "NS PER RUN", "NS PER CONNECTION"], &[1, 2, 3]);
    let connections = measured.connections.max(1) as f64;
    for cost in &measured.hooks {
        table.add_row([
            table::text(&cost.hook),
            cost.runs.into(),
            format!("{:.0}", cost.ns_per_run()).into(),
            format!("{:.0}", cost.run_time_ns as f64 / connections).into(),
        ]);
    }
    let per_connection = measured.ns_per_connection();
    print(&format!(
        "{}\n{:.0} ns per state change, all copies together; a program that does nothing there takes {:.0} ns.\n\
         {:.1} µs per connection, both ends on this host: {:.2} % of a core at 1,000 connections/s.\n",
        table::render(&table),
        measured.ns_per_state_change(),
        measured.empty_ns_per_run,
        per_connection / 1e3,
        per_connection * 1000.0 / 1e9 * 100.0,
    ))?;
    Ok(Exit::Done)
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
