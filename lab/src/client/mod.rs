//! WebSocket clients by the thousand against anybody's server.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue};

use crate::error::{LabError, file_error};
use crate::progress::Progress;
use crate::units::{Amount, Ramp, name_and_amount};
use crate::{net, process};

mod connection;
mod death;
mod live;
mod outstanding;
pub(crate) mod record;

use connection::Part;
use death::{CutOff, DeathWatch};
use live::Live;
pub(crate) use live::Summary;
use record::{End, Record};

/// What `lab load` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) connections: u64,
    pub(crate) ramp: Ramp,
    pub(crate) hold: Duration,
    /// Each stays so long from its own start, instead of until the end of the hold.
    pub(crate) stay: Option<Duration>,
    /// How fast they leave after the hold.
    pub(crate) ramp_down: Ramp,
    pub(crate) message_interval: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) token: Option<String>,
    pub(crate) ends: Vec<EndSpec>,
    /// From the end of the ramp.
    pub(crate) end_at: Duration,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) output: Option<PathBuf>,
}

impl Options {
    /// From the first connection's start to the last one's end, if all goes well.
    fn planned(&self) -> Duration {
        let ramp = self.ramp.offset(self.connections, self.connections);
        match self.stay {
            Some(stay) => ramp + stay,
            None => ramp + self.hold + self.ramp_down.offset(self.connections, self.connections),
        }
    }
}

/// `--end HOW[:AMOUNT]`: so many connections end in another way than by close frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndSpec {
    end: End,
    amount: Amount,
}

impl std::str::FromStr for EndSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, amount) = name_and_amount(text)?;
        let end = match name {
            "close-frame" => End::CloseFrame,
            "fin" => End::Fin,
            "rst" => End::Rst,
            "silent" => End::Silent,
            _ => {
                return Err(format!(
                    "`{name}` is no end: expected close-frame, fin, rst or silent, as in rst:45"
                ));
            }
        };
        Ok(EndSpec { end, amount })
    }
}

/// What every connection of a run shares.
#[derive(Debug)]
struct Plan {
    remote: SocketAddr,
    request: Request,
    message_interval: Option<Duration>,
    heartbeat: Option<Duration>,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    live: Live,
}

/// A line with figures so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Descriptors that are not connections: standard streams, epoll, the results file, ….
const OTHER_FDS: u64 = 32;

/// Opens the connections, holds them, ends them as asked, and writes one line each to the results
/// file. `stopped` ends the run early and politely; the summary then comes with its signal.
pub(crate) async fn run(
    options: &Options,
    stopped: impl Future<Output = i32>,
) -> anyhow::Result<(Summary, Option<i32>)> {
    process::raise_fd_limit();
    if options.connections + OTHER_FDS > process::max_fds() {
        return Err(LabError::usage(format!(
            "{} connections need as many descriptors, and this process may open {}; \
             raise the limit (ulimit -n) or start several `lab load`",
            options.connections,
            process::max_fds()
        )));
    }
    let plan = Arc::new(plan(options)?);
    let ends = assign_ends(&options.ends, options.connections)?;
    let sources = net::sources(&options.sources, plan.remote, options.connections);
    let mut output = options.output.as_deref().map(ResultsFile::create).transpose()?;

    let began = Instant::now();
    let ramp_end = began + options.ramp.offset(options.connections, options.connections);
    let hold_end = ramp_end + options.hold;
    let (stop, stop_seen) = watch::channel(false);
    let (done, mut results) = mpsc::channel(1024);
    let starter = {
        let plan = Arc::clone(&plan);
        let (ramp, ramp_down, stay) = (options.ramp, options.ramp_down, options.stay);
        let end_at = (ramp_end + options.end_at).min(hold_end);
        tokio::spawn(async move {
            let total = ends.len() as u64;
            for (connection, end) in (0..).zip(ends) {
                tokio::time::sleep_until(began + ramp.offset(connection, total)).await;
                if *stop_seen.borrow() {
                    break;
                }
                let last = match stay {
                    Some(stay) => began + ramp.offset(connection, total) + stay,
                    None => hold_end + ramp_down.offset(connection, total),
                };
                let part = Part {
                    connection,
                    source: pick(&sources, connection),
                    end: end.unwrap_or(End::CloseFrame),
                    end_at: if end.is_some() { end_at.min(last) } else { last },
                    last,
                    stop: stop_seen.clone(),
                };
                let (plan, done) = (Arc::clone(&plan), done.clone());
                tokio::spawn(async move {
                    let _ = done.send(connection::run(&plan, part).await).await;
                });
            }
            began.elapsed()
        })
    };

    let mut records = Vec::new();
    let mut death_watch = DeathWatch::new(plan.remote);
    let mut failed = 0;
    let mut signal = None;
    let progress = Progress::start(options.planned());
    let mut tick = tokio::time::interval(LINE_EVERY);
    tick.tick().await;
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            result = results.recv() => {
                let Some(record) = result else { break };
                failed += u64::from(!record.upgraded());
                death_watch.take(&record).await;
                if let Some(output) = &mut output {
                    output.write(&record)?;
                }
                records.push(record);
            }
            _ = tick.tick() => {
                progress.line(plan.live.line(began.into_std(), options.connections, failed));
                if let Some(output) = &mut output {
                    output.flush()?;
                }
            }
            _ = beat.tick() => progress.say(plan.live.few_words(failed)),
            number = &mut stopped, if signal.is_none() => {
                progress.line("stopping: closing what is open");
                signal = Some(number);
                stop.send_replace(true);
            }
        }
    }
    let ramp = starter.await?;
    if let Some(output) = &mut output {
        output.flush()?;
    }
    death_watch.take_last(&records).await;
    let mut summary = Summary::of(options.url.clone(), &records, began.elapsed(), ramp);
    summary.server_died = death_watch.death(&records);
    summary.cut_off = CutOff::find(&records).filter(|_| summary.server_died.is_none());
    Ok((summary, signal))
}

/// Prints the summary, and judges it.
pub(crate) fn conclude(
    summary: &Summary,
    signal: Option<i32>,
    json: bool,
    min_success_percent: Option<f64>,
) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
    } else {
        println!("{}", summary.table());
    }
    if let Some(signal) = signal {
        return Err(LabError::Signal(signal).into());
    }
    if let Some(death) = summary.server_died {
        return Err(LabError::Threshold(format!("the server died: {}", death.text())).into());
    }
    if let Some(cut_off) = summary.cut_off {
        return Err(LabError::Threshold(format!("cut off: {}", cut_off.text())).into());
    }
    match min_success_percent {
        Some(min) if summary.connections == 0 => Err(LabError::Inconclusive(format!(
            "no connection was tried, so that {min} % success cannot be judged"
        ))
        .into()),
        Some(min) if summary.success_percent() < min => Err(LabError::Threshold(format!(
            "{:.2} % were upgraded, and at least {min} % were expected",
            summary.success_percent()
        ))
        .into()),
        None if summary.upgraded == 0 && summary.connections > 0 => {
            Err(LabError::Threshold(format!(
                "none of {} connections was upgraded; --min-success 0 takes that, too",
                summary.connections
            ))
            .into())
        }
        _ => Ok(()),
    }
}

fn pick(sources: &[IpAddr], connection: u64) -> Option<IpAddr> {
    let index = connection % u64::try_from(sources.len()).ok().filter(|&len| len > 0)?;
    sources.get(usize::try_from(index).ok()?).copied()
}

fn plan(options: &Options) -> anyhow::Result<Plan> {
    let url = &options.url;
    let expected = "expected ws://host:port/path";
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|error| LabError::usage(format!("bad URL `{url}`: {error}; {expected}")))?;
    let uri = request.uri();
    if uri.scheme_str() != Some("ws") {
        return Err(LabError::usage(format!(
            "bad URL `{url}`: this client speaks no TLS; {expected}"
        )));
    }
    let host = uri.host().ok_or_else(|| LabError::usage(format!("bad URL `{url}`: {expected}")))?;
    let remote = net::resolve(host, uri.port_u16().unwrap_or(80))?;
    if let Some(token) = &options.token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            LabError::usage("the token has characters that no header may have; check --token")
        })?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(Plan {
        remote,
        request,
        message_interval: options.message_interval,
        heartbeat: options.heartbeat,
        connect_timeout: options.connect_timeout,
        handshake_timeout: options.handshake_timeout,
        live: Live::default(),
    })
}

/// Which connection ends how, evenly spread; `None` stays to the end of the run.
fn assign_ends(specs: &[EndSpec], connections: u64) -> anyhow::Result<Vec<Option<End>>> {
    let mut ends = vec![None; usize::try_from(connections)?];
    for spec in specs {
        let wanted = spec.amount.of(connections);
        let free: Vec<_> = (0..ends.len()).filter(|&i| ends[i].is_none()).collect();
        if wanted > free.len() as u64 {
            return Err(LabError::usage(format!(
                "--end asks for more than the {connections} connections there are"
            )));
        }
        let step = free.len() as f64 / wanted.max(1) as f64;
        for nth in 0..wanted {
            ends[free[(nth as f64 * step) as usize]] = Some(spec.end);
        }
    }
    Ok(ends)
}

struct ResultsFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl ResultsFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)
            .map_err(|error| file_error(path, "create the results file", &error))?;
        Ok(ResultsFile { path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.map_err(|error| file_error(&self.path, "write the results to", &error))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let flushed = self.file.flush();
        flushed.map_err(|error| file_error(&self.path, "write the results to", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_exact_and_do_not_overlap() {
        let specs = ["rst:45".parse().unwrap(), "fin:10%".parse().unwrap()];
        let ends = assign_ends(&specs, 1000).unwrap();
        let count = |end| ends.iter().filter(|e| **e == end).count();
        assert_eq!(count(Some(End::Rst)), 45);
        assert_eq!(count(Some(End::Fin)), 100);
        assert_eq!(count(None), 855);
        assert!(ends[..30].contains(&Some(End::Rst)) && ends[970..].contains(&Some(End::Rst)));
        assert!(assign_ends(&["rst:5".parse().unwrap(), "fin:6".parse().unwrap()], 10).is_err());
    }

    #[test]
    fn bad_ends_say_what_is_expected() {
        let error = "abort:3".parse::<EndSpec>().unwrap_err();
        assert!(error.contains("close-frame, fin, rst or silent"), "{error}");
    }
}
