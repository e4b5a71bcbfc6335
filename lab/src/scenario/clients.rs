//! The clients of a scenario: one `lab load`, or two where some stand behind a link that is cut.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::process::Child;

use super::directory::{CUT_OFF_RESULTS, RESULTS, TRUTH};
use super::run::{Run, SECRET};
use crate::children::{self, command, spawn};
use crate::client::record::Record;
use crate::error::file_error;
use crate::server::token::issue;
use crate::truth::{Hit, TruthLog};
use crate::units::unix_ns;

/// A client that leaves within this time, and without a word, is a failed handshake to the analyzer.
const WORDLESS: Duration = Duration::from_secs(1);

const TOKEN_VALID_S: i64 = 24 * 3600;

impl Run<'_> {
    /// Rates stay, so that a shorter time of coming and going has fewer of them.
    pub(super) fn clients(&self) -> u64 {
        let connections = self.scenario().connections;
        match self.scenario().churn {
            None => connections,
            Some(_) => (connections as f64 * self.options.time_scale).ceil() as u64,
        }
    }

    /// All clients, from the first to the end of the last. False if too few were upgraded.
    pub(super) async fn load(&self, address: &str) -> anyhow::Result<bool> {
        let scenario = self.scenario();
        let mut stay = self.client(self.server_namespace(), address, self.clients(), RESULTS)?;
        let Some(link) = &self.link else { return enough_upgraded(&mut stay).await };

        let cut_off = scenario.cut_off;
        let mut lost =
            self.client(Some(link.client_namespace()), address, cut_off, CUT_OFF_RESULTS)?;
        let ramp = Duration::from_secs_f64(scenario.connections as f64 / f64::from(scenario.ramp));
        tokio::time::sleep(ramp + self.scaled(scenario.end_at)).await;
        if !self.options.fixed {
            link.cut()?;
        }
        let enough = enough_upgraded(&mut stay).await? && enough_upgraded(&mut lost).await?;
        self.merge_cut_off()?;
        Ok(enough)
    }

    fn client(
        &self,
        namespace: Option<&str>,
        address: &str,
        connections: u64,
        results: &str,
    ) -> anyhow::Result<Child> {
        let scenario = self.scenario();
        let mut load = command(namespace, &self.lab);
        load.args(["load", "--json", "--url", &format!("ws://{address}/")]);
        load.args(["--ramp", &format!("{}/s", scenario.ramp)]);
        load.args(["--connections", &connections.to_string()]);
        match scenario.churn {
            None => {
                load.args(["--hold", &self.scaled_text(scenario.hold)]);
            }
            Some(stay) => {
                load.args(["--stay", &self.scaled_text(stay)]);
                if self.scaled(stay) < WORDLESS {
                    load.args(["--message-interval", &self.scaled_text(stay / 4)]);
                }
            }
        }
        if self.signs_tokens() {
            let now = unix_ns() / 1_000_000_000;
            load.env("AUTH_TOKEN", issue("lab", SECRET, now, now + TOKEN_VALID_S));
        }
        load.args(["--end-at", &self.scaled_text(scenario.end_at)]);
        load.args(["--min-success", &scenario.min_success.to_string()]);
        for end in scenario.ends {
            load.args(["--end", end]);
        }
        for (flag, every) in
            [("--heartbeat", scenario.heartbeat), ("--message-interval", scenario.message_interval)]
        {
            if let Some(every) = every {
                load.args([flag, &self.scaled_text(every)]);
            }
        }
        load.arg("-o").arg(self.dir().join(results));
        let name = Path::new(results).with_extension("summary.json");
        load.stdout(children::log(self.dir(), &name.to_string_lossy())?);
        // Where `probe watch` shows the progress, a second teller would only mix with it.
        if scenario.watch.is_some() {
            load.stderr(children::log(self.dir(), "load.log")?);
        }
        spawn(&mut load)
    }

    /// One results file for all clients; those behind the cut link are the truth.
    fn merge_cut_off(&self) -> anyhow::Result<()> {
        let path = self.dir().join(CUT_OFF_RESULTS);
        let lines =
            std::fs::read_to_string(&path).map_err(|error| file_error(&path, "read", &error))?;
        if !self.options.fixed {
            let truth = TruthLog::append_to(&self.dir().join(TRUTH))?;
            for line in lines.lines() {
                let record: Record = serde_json::from_str(line)?;
                if let (Some(address), Some(port)) = (record.local_address, record.local_port) {
                    // From the server's side, as its own faults are written.
                    truth.write(&Hit {
                        unix_ns: record.closed_unix_ns.unwrap_or(record.started_unix_ns),
                        fault: "half-open".to_owned(),
                        outcome: None,
                        client_address: address.clone(),
                        client_port: port,
                        remote_address: address,
                        remote_port: port,
                        local_address: record.remote_address,
                        local_port: record.remote_port,
                    })?;
                }
            }
        }
        let all = self.dir().join(RESULTS);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&all)
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(|error| file_error(&all, "append to", &error))?;
        std::fs::remove_file(&path).map_err(|error| file_error(&path, "remove", &error))
    }
}

async fn enough_upgraded(load: &mut Child) -> anyhow::Result<bool> {
    let status = load.wait().await?;
    match children::code(status) {
        0 => Ok(true),
        99 => Ok(false),
        _ => Err(children::unexpected("lab load", status)),
    }
}
