//! `probe record`: a capture, until it is told to stop.

use std::{path::Path, sync::Arc};

use capture::{CaptureWriter, WriteError};
use serde_json::json;

use crate::{
    cli::Record,
    cmd::print_json,
    error::Error,
    exit::Exit,
    export::json::SCHEMA_VERSION,
    identity::Identity,
    kernel::Options,
    record::{
        output::OnBreak,
        session::{Finished, Plan, Session},
    },
    remote::{client::Client, recording},
    signal::Signals,
    truth::choose::{self, Need},
};

pub(crate) async fn run(socket: &Path, arguments: Record) -> anyhow::Result<Exit> {
    let mut signals = Signals::catch()?;
    let duration = arguments.duration.unwrap_or(std::time::Duration::MAX);
    let output = arguments.output.clone();
    let plan = Plan {
        filter: arguments.filter,
        websocket: arguments.websocket,
        asked: arguments.asked,
        on_break: match arguments.resume {
            true => OnBreak::Resume { directory: output.clone(), agent: socket.to_owned() },
            false => OnBreak::Stop,
        },
        command_line: std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
    };
    // Begins when the recording does: to attach may take seconds on a busy host.
    let stop = async {
        tokio::select! {
            stop = signals.next() => stop.exit(),
            () = tokio::time::sleep(duration) => Exit::Done,
        }
    };
    let recording = || eprintln!("probe: recording to {}", output.display());
    let recorded = match Client::of(&arguments.remote, &plan.asked.health.trust)? {
        Some(agent) => recording::take(&agent, &plan, &output, recording, stop).await,
        None => {
            let options = Options { without: arguments.hooks.programs(), ..Options::default() };
            let source = choose::open_with(socket, Need::Exact, &options)?;
            let identity = Arc::new(Identity::new()?);
            let open = |meta: &_| CaptureWriter::create(&output, meta);
            let session = Session::begin(plan, source, identity, open).await.map_err(named)?;
            recording();
            session.run(stop).await
        }
    };
    let (exit, finished) = recorded.map_err(named)?;
    report(&output, &finished, arguments.json)?;
    Ok(exit)
}

fn report(output: &Path, finished: &Finished, as_json: bool) -> anyhow::Result<()> {
    let rows: Vec<String> = finished
        .rows
        .iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(table, rows)| format!("{rows} {table}"))
        .collect();
    eprintln!("probe: recorded {} to {}", rows.join(", "), output.display());
    if as_json {
        let rows: serde_json::Map<String, serde_json::Value> =
            finished.rows.iter().map(|(table, rows)| (table.clone(), (*rows).into())).collect();
        print_json(&json!({
            "schema_version": SCHEMA_VERSION,
            "capture": output,
            "rows": rows,
            "bytes": finished.bytes,
            "degraded": finished.degraded,
        }))?;
    }
    Ok(())
}

/// A full disk or a directory in use is no bug.
fn output_error(error: WriteError) -> anyhow::Error {
    match &error {
        WriteError::Encode { .. } => error.into(),
        WriteError::NotEmpty(_) => Error::Output { message: error.to_string() }.into(),
        _ if error.is_disk_full() => Error::Output {
            message: format!("{error}\n  make room, or record to another file system with -o; --resume waits for room"),
        }
        .into(),
        _ => Error::Output {
            message: format!("{error}\n  record to a directory that can be written, with -o; --resume waits for it"),
        }
        .into(),
    }
}

fn named(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<WriteError>() {
        Ok(error) => output_error(error),
        Err(error) => error,
    }
}
