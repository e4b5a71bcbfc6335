//! Node, and WebSocket servers that are not ours: its `ws`, Debian's package `node-ws` or npm's.

use std::process::Command;

use serde_json::Value;

use crate::process::Running;

/// Where Debian puts Node's packages.
const PACKAGES: &str = "/usr/share/nodejs";

/// A server per argument, on the port after its colon or a free one, which it says: `ok` upgrades,
/// `limit` the first 33 only, `forbid` answers 403, `hang` nothing. A decision with two parameters is
/// waited for.
const SCRIPT: &str = r"
const { WebSocketServer } = require('ws');
const http = require('http');
const decide = {
  ok: () => (_, done) => done(true),
  limit: (left) => (_, done) => done(left-- > 0, 503, 'Service Unavailable'),
  forbid: () => (_, done) => done(false, 403, 'Forbidden'),
  hang: () => (_, done) => {},
};
const [host, ...modes] = process.argv.slice(1);
Promise.all(modes.map((argument) => new Promise((listening) => {
  const [mode, port] = argument.split(':');
  const server = http.createServer((_, response) => response.writeHead(426).end());
  new WebSocketServer({ server, verifyClient: decide[mode](33) });
  server.listen(Number(port ?? 0), host, 4096, () => listening(server.address().port));
}))).then((ports) => console.log(JSON.stringify(ports)));
";

/// One process with several servers; killed on drop.
#[derive(Debug)]
pub struct Node {
    _process: Running,
    ports: Vec<u16>,
}

impl Node {
    /// Starts a server for each mode on the address `host`, and waits until they listen. `env` runs
    /// that program where the servers shall be.
    ///
    /// # Panics
    /// If Node does not start them.
    #[track_caller]
    #[must_use]
    pub fn start(env: Command, host: &str, modes: &[&str]) -> Self {
        Self::script(env, SCRIPT, &[&[host], modes].concat())
    }

    /// The same with a script of the test's own, which says its ports as a JSON array once it listens.
    ///
    /// # Panics
    /// If Node does not run it.
    #[track_caller]
    #[must_use]
    pub fn script(mut env: Command, script: &str, args: &[&str]) -> Self {
        env.arg(format!("NODE_PATH={}", path())).args(["node", "-e", script]).args(args);
        let process = Running::start(&mut env);
        let line = process.wait_stdout("[");
        let ports: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let ports = ports.as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| port.as_u64()?.try_into().ok()).collect();
        Self { _process: process, ports }
    }

    /// The port of the server with this number, in the order of the modes.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.ports[number]
    }
}

/// Where packages are looked for: Debian's place, and what `NODE_PATH` names.
#[must_use]
pub fn path() -> String {
    format!("{PACKAGES}:{}", std::env::var("NODE_PATH").unwrap_or_default())
}

/// True if Node is here and has the package.
#[must_use]
pub fn has(package: &str) -> bool {
    let mut command = Command::new("node");
    command.env("NODE_PATH", path()).args(["-e", &format!("require('{package}')")]);
    command.output().is_ok_and(|output| output.status.success())
}
