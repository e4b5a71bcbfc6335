//! `probe record`: a capture, until it is told to stop.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use capture::{
    CaptureWriter, WriteError,
    meta::{Meta, Selection},
    schema::{MAJOR, MINOR},
};
use serde_json::json;
use tokio::{sync::mpsc::Receiver, time::MissedTickBehavior};

use crate::{
    cli::Record,
    clock::Pair,
    cmd::print_json,
    error::Error,
    exit::Exit,
    export::json::SCHEMA_VERSION,
    identity::Identity,
    record::{
        ask,
        recorder::{DRAIN, Recorder},
    },
    signal::Signals,
    truth::{
        choose::{self, Need},
        source::{Backend, Ended, Source},
    },
};

pub(crate) async fn run(socket: &Path, arguments: Record) -> anyhow::Result<Exit> {
    let mut signals = Signals::catch()?;
    let source = choose::open(socket, Need::Exact)?;
    // From here on nothing that ends is missed; what is open is asked for at the end.
    let mut ended = source.ended().ok_or_else(|| {
        Error::input(
            "the running agent only counts: there is nothing to record",
            "start it again without --counts-only",
        )
    })?;
    let identity = Arc::new(Identity::new()?);
    let slots = source.slots()?;
    identity.refresh(slots.iter().map(|slot| (slot.key.cgroup_id, slot.key.netns))).await;
    arguments.filter.check_containers(&identity)?;

    let mut meta = meta(&arguments, source.as_ref())?;
    let writer = CaptureWriter::create(&arguments.output, &meta).map_err(output_error)?;
    let mut recorder = Recorder::new(
        Arc::clone(&source),
        Arc::clone(&identity),
        arguments.filter.clone(),
        arguments.websocket.clone(),
        writer,
    );
    recorder.tick().await.map_err(named)?;
    let mut asked = ask::start(&arguments, source, identity).await?;
    eprintln!("probe: recording to {}", arguments.output.display());

    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::sleep(arguments.duration.unwrap_or(Duration::MAX));
    tokio::pin!(end);
    let exit = loop {
        tokio::select! {
            stop = signals.next() => break stop.exit(),
            () = &mut end => break Exit::Done,
            batch = ended.recv() => match batch {
                Some(batch) => recorder.take_ended(&batch).map_err(output_error)?,
                None => {
                    recorder.take_loss("the agent ended", 1).map_err(output_error)?;
                    return Err(Error::input(
                        "the agent ended while it was recorded from; the capture ends there",
                        "start it again with `probe serve`, or record without it",
                    )
                    .into());
                }
            },
            Some(asked) = asked.recv() => recorder.take_asked(asked).map_err(output_error)?,
            _ = ticks.tick() => recorder.tick().await.map_err(named)?,
        }
    };
    let summary = recorder
        .finish(&mut meta, async |recorder: &mut Recorder| drain(recorder, &mut ended).await)
        .await
        .map_err(named)?;
    let rows: Vec<String> = summary
        .rows
        .iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(table, rows)| format!("{rows} {}", table.name()))
        .collect();
    eprintln!("probe: recorded {} to {}", rows.join(", "), arguments.output.display());
    if arguments.json {
        let rows: serde_json::Map<String, serde_json::Value> = summary
            .rows
            .iter()
            .map(|(table, rows)| (table.name().to_owned(), (*rows).into()))
            .collect();
        print_json(&json!({
            "schema_version": SCHEMA_VERSION,
            "capture": arguments.output,
            "rows": rows,
            "bytes": summary.bytes,
            "degraded": meta.degraded,
        }))?;
    }
    Ok(exit)
}

/// Takes what ended up to now, and what was on its way.
async fn drain(recorder: &mut Recorder, ended: &mut Receiver<Ended>) -> Result<(), WriteError> {
    let until = tokio::time::Instant::now() + DRAIN;
    while let Ok(Some(batch)) = tokio::time::timeout_at(until, ended.recv()).await {
        recorder.take_ended(&batch)?;
    }
    Ok(())
}

fn meta(arguments: &Record, source: &dyn Source) -> anyhow::Result<Meta> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot read {path}"))
    };
    let Pair { mono_ns, unix_ns } = Pair::now();
    let filter = &arguments.filter;
    Ok(Meta {
        schema_major: MAJOR,
        schema_minor: MINOR,
        host: read("/proc/sys/kernel/hostname")?,
        kernel: read("/proc/sys/kernel/osrelease")?,
        boot_id: read("/proc/sys/kernel/random/boot_id")?,
        probe_version: env!("CARGO_PKG_VERSION").into(),
        command_line: std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        backend: match source.backend() {
            Backend::Ebpf => "ebpf".into(),
            Backend::SockDiag => "sock_diag".into(),
        },
        hooks: source.hooks(),
        degraded: source.exactness()?.degraded,
        started_mono_ns: mono_ns,
        started_unix_ns: unix_ns,
        ended_mono_ns: None,
        selection: Selection {
            ports: filter.ports.iter().collect(),
            websocket_ports: arguments.websocket.clone(),
            containers: filter.containers.clone(),
            roles: filter.roles.iter().map(|role| role.name().to_owned()).collect(),
            health_urls: arguments.health.health.iter().map(ToString::to_string).collect(),
            metrics_urls: arguments.metrics.metrics.iter().map(ToString::to_string).collect(),
            table_urls: arguments.table.iter().map(ToString::to_string).collect(),
        },
    })
}

/// A full disk or a directory in use is no bug.
fn output_error(error: WriteError) -> anyhow::Error {
    match &error {
        WriteError::Encode { .. } => error.into(),
        WriteError::NotEmpty(_) => Error::Output { message: error.to_string() }.into(),
        _ if error.is_disk_full() => Error::Output {
            message: format!("{error}\n  make room, or record to another file system with -o"),
        }
        .into(),
        _ => Error::Output {
            message: format!("{error}\n  record to a directory that can be written, with -o"),
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
