//! A recording of many short connections: what it takes, what it writes, and whether it loses any.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::probe::Recording;
use super::process::{Running, free_port, output, wait_until_open};
use super::row::{Goal, Row};
use super::{Context, cpu};

const STEADY_PER_S: u64 = 1000;
/// What the ring's goal is set at; the load below is as fast as it goes.
const FLOOD_PER_S: f64 = 25_000.0;

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    let sink = Sink::start(context)?;
    let (seconds, flood) = if context.quick { (3, 25_000) } else { (20, 250_000) };
    let steady = run(context, &sink, seconds * STEADY_PER_S, Some(STEADY_PER_S))?;
    let flood = run(context, &sink, flood, None)?;
    let lost = 2.0 * flood.established - flood.rows;
    Ok(vec![
        Row::new(
            "processor time of `probe record` at 1,000 connections/s",
            Goal::AtMost(1.0),
            "% of a core",
            steady.cpu_s / steady.seconds * 100.0,
        )
        .detail(format!(
            "{:.0} connections in {:.1} s, both ends recorded",
            steady.established, steady.seconds
        ))
        .limit(
            "A profile, at 0.7 % of a core and with few network namespaces: 22 % is a walk over all sockets every \
             5 s, 7 % dumps of the audit and of a search for listeners, 8 % the thread that looks into the ring; \
             most of the rest is the making and writing of a row of 40 columns for each leg.",
        ),
        Row::new("capture, as recorded", Goal::None, "B/leg", flood.table_bytes / flood.rows)
            .detail("Arrow IPC, a batch a second or 8,192 rows, not compressed"),
        Row::new(
            &format!("legs lost at {FLOOD_PER_S:.0} connects/s, default settings"),
            Goal::AtMost(0.0),
            "",
            lost,
        )
        .detail(format!(
            "{:.0} of {:.0} legs recorded, at {:.0} connects/s: as fast as both ends go here",
            flood.rows,
            2.0 * flood.established,
            flood.established / flood.seconds
        )),
    ])
}

/// `lab sink`: accepts, and closes when the client has.
struct Sink {
    _running: Running,
    address: SocketAddr,
}

impl Sink {
    fn start(context: &Context) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(context.binary("lab"));
        command.args(["sink", "--listen", &address.to_string()]).stdout(Stdio::null());
        let running = Running::start(&mut command, context.file("sink.log"))?;
        wait_until_open(address)?;
        Ok(Self { _running: running, address })
    }
}

struct Outcome {
    established: f64,
    seconds: f64,
    cpu_s: f64,
    rows: f64,
    table_bytes: f64,
}

/// Records the port while `count` connections come and go.
fn run(context: &Context, sink: &Sink, count: u64, per_s: Option<u64>) -> Result<Outcome> {
    let port = sink.address.port().to_string();
    let recording = Recording::start(context, "churn", &["--port", &port])?;
    let before = cpu::of_process(recording.pid())?;
    let mut churn = Command::new(context.binary("lab"));
    churn.args(["churn", "--json", "--to", &sink.address.to_string()]);
    churn.args(["--count", &count.to_string()]);
    if let Some(per_s) = per_s {
        churn.args(["--rate", &format!("{per_s}/s")]);
    }
    let totals: Value = serde_json::from_str(&output(&mut churn)?)?;
    let worked = cpu::of_process(recording.pid())?.saturating_sub(before);
    let summary = recording.stop()?;
    let capture = context.file("churn");
    let number = |value: &Value, name: &str| {
        value[name].as_f64().with_context(|| format!("no {name} in {value}"))
    };
    let outcome = Outcome {
        established: number(&totals, "established")?,
        seconds: number(&totals, "duration_s")?,
        cpu_s: worked.as_secs_f64(),
        rows: number(&summary["rows"], "connections")?,
        table_bytes: fs::metadata(capture.join("connections.arrows"))?.len() as f64,
    };
    fs::remove_dir_all(&capture)?;
    Ok(outcome)
}
