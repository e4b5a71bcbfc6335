//! The probe while something is measured: a recording, or an agent.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Context;
use super::process::{Running, free_port, output};

/// `probe record`, attached.
pub(crate) struct Recording(Running);

impl Recording {
    /// Returns once it records to the new directory `name` of the scratch directory.
    pub(crate) fn start(context: &Context, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(context.binary("probe"));
        // No agent of this machine: the recording's own programs are what is measured.
        command.arg("--agent-socket").arg(context.file("no-agent.sock"));
        command.args(["record", "--json", "-o"]).arg(context.file(name)).args(arguments);
        command.stdout(Stdio::piped());
        let mut running = Running::start(&mut command, context.file("record.log"))?;
        running.wait_for("recording to")?;
        Ok(Self(running))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Ends it; returns its summary.
    pub(crate) fn stop(self) -> Result<Value> {
        let summary = self.0.stop()?;
        serde_json::from_str(&summary).with_context(|| format!("no summary: {summary:?}"))
    }
}

/// `probe serve`, attached and seeded. Dropping it unloads its programs.
pub(crate) struct Agent {
    running: Option<Running>,
    probe: PathBuf,
    socket: PathBuf,
    pub(crate) port: u16,
}

impl Agent {
    pub(crate) fn start(context: &Context, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self {
            running: None,
            probe: context.binary("probe"),
            socket: context.file("agent.sock"),
            port: free_port()?,
        };
        let mut command = agent.command();
        command.args(["serve", "--listen", &format!("127.0.0.1:{}", agent.port)]).args(arguments);
        let mut running = Running::start(&mut command, context.file("agent.log"))?;
        running.wait_for("listening on")?;
        agent.running = Some(running);
        Ok(agent)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Running::pid)
    }

    /// `probe`, asking this agent.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.probe);
        command.arg("--agent-socket").arg(&self.socket);
        command
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What is pinned outlives the agent, however that ends.
        let _ = output(self.command().args(["stop", "--purge"]));
    }
}
