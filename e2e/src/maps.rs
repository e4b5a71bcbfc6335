//! An agent's pinned maps: what a kernel that left out an event, or refused a change, would have left in them, is
//! written by hand, since neither happens when a test asks for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData};
use probe_common::connection::Connection;
use probe_common::handshake::{self, Handshake};
use probe_common::key::ListenerKey;
use probe_common::loss::Stat;
use probe_common::state;

use crate::truth::wait_equal_within;

const PINS: &str = "/sys/fs/bpf/groundtruth";
/// More than two walks take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// `BPF_EXIST`
pub const EXIST: u64 = 2;
/// Cookie and remote port of the socket that was at the address before.
pub const GONE: (u64, u16) = (u64::MAX, 1);

/// Both ends of a connection on this host.
#[derive(Debug)]
pub struct Pair {
    pub server: TcpStream,
    pub client: TcpStream,
    _listener: TcpListener,
}

impl Pair {
    /// # Panics
    /// If the host has no loopback.
    #[track_caller]
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it opens sockets")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        server.set_nodelay(true).unwrap();
        Self { server, client, _listener: listener }
    }

    pub fn port(&self) -> u16 {
        self.server.local_addr().unwrap().port()
    }

    /// The server sends a packet, and the client has it.
    pub fn send(&mut self) {
        self.server.write_all(b"x").unwrap();
        self.client.read_exact(&mut [0]).unwrap();
    }
}

/// The agent's maps.
#[expect(missing_debug_implementations, reason = "an array of aya has none")]
pub struct Maps {
    pub connections: HashMap<MapData, u64, Connection>,
    pub claims: HashMap<MapData, u64, u64>,
    pub listeners: HashMap<MapData, ListenerKey, u32>,
    pub handshakes: HashMap<MapData, handshake::Pair, Handshake>,
    pub statistics: Array<MapData, u64>,
}

impl Maps {
    pub fn open() -> Self {
        let ours = fs::read_dir(PINS).unwrap().next().expect("the agent has pinned").unwrap();
        let map = |name: &str| MapData::from_pin(ours.path().join(name)).expect("it is pinned");
        Self {
            connections: Map::HashMap(map("CONNECTIONS")).try_into().unwrap(),
            claims: Map::HashMap(map("CLAIMS")).try_into().unwrap(),
            listeners: Map::HashMap(map("LISTENERS")).try_into().unwrap(),
            handshakes: Map::HashMap(map("HANDSHAKES")).try_into().unwrap(),
            statistics: Map::Array(map("STATISTICS")).try_into().unwrap(),
        }
    }

    pub fn statistic(&self, which: Stat) -> u64 {
        self.statistics.get(&(which as u32), 0).unwrap()
    }

    /// The entry of the server's end.
    pub fn find(&self, pair: &Pair) -> Connection {
        self.find_from(pair.port())
    }

    /// The entry of an established socket that has this port.
    pub fn find_from(&self, local_port: u16) -> Connection {
        let is_its = |entry: &Connection| {
            entry.local_port == local_port && entry.state == state::ESTABLISHED
        };
        let mut entries = self.connections.iter().filter_map(|entry| Some(entry.ok()?.1));
        entries.find(is_its).expect("it is followed")
    }

    /// Cookie and remote port of the entry at an address.
    pub fn whose(&self, address: u64) -> Option<(u64, u16)> {
        let entry = self.connections.get(&address, 0).ok()?;
        Some((entry.cookie, entry.remote_port))
    }

    /// What is left at the address where the end of the socket before was missed, and the birth of this one.
    /// False if there is none to be replaced any more.
    pub fn leave_stale(&mut self, entry: Connection) -> bool {
        let (cookie, remote_port) = GONE;
        let stale = Connection { cookie, remote_port, ..entry };
        self.connections.insert(entry.sk, stale, EXIST).is_ok()
    }

    /// The entry of this socket, once there is one.
    pub fn wait_followed(&self, socket: Connection) -> Option<Connection> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let entry = self.connections.get(&socket.sk, 0).ok();
            let ours = entry.filter(|entry| entry.cookie == socket.cookie);
            if ours.is_some() {
                return ours;
            }
        }
        None
    }

    /// So far in the future that it does not get old.
    pub fn claim(&mut self, address: u64) {
        self.statistics.set(Stat::ClaimsHeld as u32, 1, 0).unwrap();
        self.claims.insert(address, u64::MAX, 0).unwrap();
    }

    pub fn unclaim(&mut self, address: u64) {
        self.claims.remove(&address).unwrap();
        self.statistics.set(Stat::ClaimsHeld as u32, 0, 0).unwrap();
    }

    /// Two walks, so that a whole one came after this was called.
    pub fn wait_walked(&self) {
        let before = self.statistic(Stat::Walk);
        wait_equal_within(PATIENCE, "walks", &true, || self.statistic(Stat::Walk) >= before + 2);
    }
}
