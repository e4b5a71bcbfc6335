//! Where the load runs: namespaces, cgroups, and the load processes in them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

use super::fired::Counter;
use super::kernel;
use super::load::PORTS;
use crate::cgroup::Cgroup;
use crate::net::{Cable, Netns, Place};
use crate::process::{Running, binary};

/// Changes of state, in the numbers of `include/net/tcp_states.h`.
const TO_ESTABLISHED: &str = "newstate == 1";
const TO_SYN_SENT: &str = "newstate == 2";
/// Threads of each load process.
const WORKERS: u16 = 4;
/// The load processes use ports from here on. Perf knows no namespaces, and so must tell the load by its
/// ports: below 1024 no other program's connections have one by chance.
const FIRST_PORT: u16 = 200;

/// A namespace that the load uses, by name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) place: Place,
}

/// What one load process does, counted by its ports.
pub(super) struct Load {
    process: Running,
    pub(super) name: &'static str,
    pub(super) ports: Range<u16>,
    /// State changes to `established`, as perf counts them.
    pub(super) established: Counter,
    /// To `syn_sent`: attempts to connect.
    pub(super) attempted: Counter,
}

pub(super) struct World {
    cable: Cable,
    alone: Netns,
    _cgroups: [Cgroup; 2],
    pub(super) loads: Vec<Load>,
    books: BTreeMap<String, (u64, u64)>,
    pub(super) steered: bool,
    cookies: u8,
    pub(super) curr_estab_has_close_wait: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let (cable, alone) = (Cable::new(), Netns::new());
        for netns in [&cable.server, &cable.client, &alone] {
            // Below are the listeners.
            netns.sysctl("net/ipv4/ip_local_port_range", "30000 65000");
            netns.sysctl("net/ipv4/tcp_tw_reuse", "1");
            // Client and server, every listener, with and without a cookie.
            netns.sysctl("net/ipv4/tcp_fastopen", "1543");
        }
        let curr_estab_has_close_wait = kernel::curr_estab_has_close_wait(&alone);
        let cgroups = [Cgroup::new("torture-a"), Cgroup::new("torture-b")];
        let path = |place: &Place| place.path().to_string_lossy().into_owned();
        let (server, client) = (path(&cable.server.place()), path(&cable.client.place()));
        let loopback = path(&alone.place());
        // Name; namespace, IPv4 and IPv6 address of the server; the same of the client.
        let sides = [
            (
                "cable",
                [&server, Cable::SERVER, Cable::SERVER_V6],
                [&client, Cable::CLIENT, Cable::CLIENT_V6],
            ),
            // The other way round, so that each namespace has both roles.
            (
                "cable backwards",
                [&client, Cable::CLIENT, Cable::CLIENT_V6],
                [&server, Cable::SERVER, Cable::SERVER_V6],
            ),
            ("loopback", [&loopback, "127.0.0.1", "::1"], [&loopback, "127.0.0.1", "::1"]),
        ];
        let mut loads = Vec::new();
        let mut port = FIRST_PORT;
        for (number, (name, listens, connects)) in (0_u64..).zip(sides) {
            let mut command = std::process::Command::new(binary("e2e-torture"));
            command.arg("load").arg((seed + 1000 * number).to_string());
            command.arg(WORKERS.to_string()).arg(port.to_string());
            command.args(listens).args(connects);
            if let Some(cgroup) = cgroups.get(number as usize) {
                command.arg(cgroup.path());
            }
            let ports = port..port + PORTS;
            loads.push(Load {
                name,
                established: Counter::of_ports(&ports, TO_ESTABLISHED),
                attempted: Counter::of_ports(&ports, TO_SYN_SENT),
                process: Running::start(&mut command),
                ports,
            });
            port += PORTS;
        }
        Self {
            cable,
            alone,
            _cgroups: cgroups,
            loads,
            books: BTreeMap::new(),
            steered: true,
            cookies: 1,
            curr_estab_has_close_wait,
        }
    }

    /// For filters: all ports of the load.
    pub(super) fn ports(&self) -> String {
        format!(
            "{FIRST_PORT}-{}",
            usize::from(FIRST_PORT) + usize::from(PORTS) * self.loads.len() - 1
        )
    }

    pub(super) fn places(&self) -> [Named; 3] {
        [
            Named { name: "cable, server's end", place: self.cable.server.place() },
            Named { name: "cable, client's end", place: self.cable.client.place() },
            Named { name: "loopback", place: self.alone.place() },
        ]
    }

    /// Other settings for each round.
    pub(super) fn vary(&mut self, round: u32, steering: bool) {
        self.steered = steering && round.is_multiple_of(2);
        self.cookies = (round % 3) as u8;
        let mask = if self.steered { "3" } else { "0" };
        for (netns, device) in [
            (&self.cable.server, Cable::DEVICE),
            (&self.cable.client, Cable::DEVICE),
            (&self.alone, "lo"),
        ] {
            netns.steer_packets(device, mask);
            netns.sysctl("net/ipv4/tcp_syncookies", &self.cookies.to_string());
        }
    }

    pub(super) fn settings(&self) -> String {
        let steering = if self.steered { "on" } else { "off" };
        let cookies = ["never", "when full", "always"][usize::from(self.cookies)];
        format!("steering {steering}, SYN cookies {cookies}")
    }

    /// Lets all processes work for so long, and waits until each thread has ended its episode.
    pub(super) fn churn(&mut self, duration: Duration) {
        for load in &mut self.loads {
            assert_eq!(load.process.ask("go"), "ok");
        }
        std::thread::sleep(duration);
        let mut books: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for load in &mut self.loads {
            let answer = load.process.ask("pause");
            let topics: BTreeMap<String, (u64, u64)> =
                serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
            for (topic, (done, failed)) in topics {
                let sum = books.entry(topic).or_default();
                sum.0 += done;
                sum.1 += failed;
            }
        }
        self.books = books;
    }

    /// Episodes by topic: done, and failed.
    pub(super) fn books(&self) -> Value {
        serde_json::json!(self.books)
    }
}
