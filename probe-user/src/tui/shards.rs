//! What a port's processes connect to: of a balancer's port, its shards.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use super::board::{Attempts, Board, PEERS, Service, Tally, WINDOW_NS, percentile};
use crate::health::shards::ShardReport;

/// One of them, as its connecting end sees it.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    /// Whose port has more to tell: the connecting ends, or where several addresses have one port, those of this
    /// address's own end if that is on this host.
    pub(crate) service: Service,
    pub(crate) port: u16,
    /// Where several have one port.
    pub(crate) address: Option<SocketAddr>,
    /// The container that has the address.
    pub(crate) container: Option<String>,
    /// What the balancer's health says of it.
    pub(crate) said: Option<ShardReport>,
    pub(crate) established: i64,
    pub(crate) upgraded: i64,
    /// The kernel counts no addresses.
    pub(crate) opened_rate: Option<f64>,
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
    pub(crate) tally: Tally,
}

impl Shard {
    pub(crate) fn name(&self) -> Option<&str> {
        self.said.as_ref().map(|said| said.name.as_str()).or(self.container.as_deref())
    }
}

/// Connections to one address.
#[derive(Clone, Default)]
struct Peer {
    established: i64,
    upgraded: i64,
    attempts: Attempts,
}

/// The board's numbers by address, made once for all ports of a picture.
pub(crate) struct Behind<'a> {
    board: &'a Board,
    tallies: &'a BTreeMap<&'a Service, Tally>,
    pub(crate) times: BTreeMap<&'a Service, Vec<u64>>,
    peers: HashMap<&'a Service, BTreeMap<SocketAddr, Peer>>,
    /// Who has an address.
    homes: HashMap<SocketAddr, &'a Service>,
}

impl<'a> Behind<'a> {
    pub(crate) fn new(board: &'a Board, tallies: &'a BTreeMap<&'a Service, Tally>) -> Self {
        let active = board.lines.iter().filter(|(service, _)| service.role == "active");
        let ended = |(address, attempts): (&SocketAddr, &Attempts)| {
            (*address, Peer { attempts: attempts.clone(), ..Peer::default() })
        };
        let mut peers: HashMap<&Service, BTreeMap<SocketAddr, Peer>> =
            active.map(|(of, line)| (of, line.ended_at.iter().map(ended).collect())).collect();
        let mut homes = HashMap::new();
        for leg in board.open() {
            if leg.service.role == "passive" {
                homes.insert(leg.local, &*leg.service);
            } else if let Some(peers) = peers.get_mut(&*leg.service)
                && (peers.len() <= PEERS || peers.contains_key(&leg.peer))
            {
                let peer = peers.entry(leg.peer).or_default();
                peer.established += i64::from(leg.state == "established");
                peer.upgraded += i64::from(leg.state == "established" && leg.class == "upgraded");
                peer.attempts.add(leg);
            }
        }
        for peers in peers.values_mut() {
            peers.values_mut().for_each(|peer| peer.attempts.forget(board.at_mono_ns - WINDOW_NS));
            peers.retain(|_, peer| peer.established > 0 || peer.attempts.tally.attempts > 0);
        }
        Self { board, tallies, times: board.times(), peers, homes }
    }

    /// In the order of their ports and addresses; none where no process is known that holds an end on both sides.
    pub(crate) fn of(&self, service: &Service) -> Vec<Shard> {
        let lines = &self.board.lines;
        let Some(line) = lines.get(service).filter(|_| service.role == "passive") else {
            return Vec::new();
        };
        let said = self.board.reported_of(service).map(|reported| reported.shards.as_slice());
        let said = said.unwrap_or_default();
        let is_near = |other: &Service| {
            (&other.container, other.netns) == (&service.container, service.netns)
        };
        let mut shards: Vec<Shard> = lines
            .iter()
            .filter(|(other, _)| other.role == "active" && is_near(other))
            .filter(|(_, other)| !other.pids.is_disjoint(&line.pids))
            .flat_map(|(other, _)| match self.peers.get(other) {
                Some(peers) if (2..=PEERS).contains(&peers.len()) => {
                    peers.iter().map(|(at, peer)| self.at_address(other, *at, peer, said)).collect()
                }
                _ => vec![self.of_port(other, said)],
            })
            .collect();
        shards.sort_by_key(|shard| (shard.port, shard.address));
        shards
    }

    fn of_port(&self, service: &Service, said: &[ShardReport]) -> Shard {
        let line = &self.board.lines[service];
        let times = self.times.get(service).map(Vec::as_slice).unwrap_or_default();
        Shard {
            service: service.clone(),
            port: service.port,
            address: None,
            container: None,
            said: said.iter().find(|said| said.port == Some(service.port)).cloned(),
            established: line.level.established,
            upgraded: line.level.upgraded,
            opened_rate: Some(line.opened_rate),
            p50_us: percentile(times, 50.0),
            p99_us: percentile(times, 99.0),
            tally: self.tallies.get(service).cloned().unwrap_or_default(),
        }
    }

    fn at_address(
        &self,
        service: &Service,
        address: SocketAddr,
        peer: &Peer,
        said: &[ShardReport],
    ) -> Shard {
        let home = self.homes.get(&address).copied();
        let container = home.map(|home| self.board.name(home)).filter(|name| name != "host");
        let names = [Some(address.ip().to_string()), container.clone()];
        let is_its = |said: &&ShardReport| {
            said.port == Some(address.port()) && said.host.is_some() && names.contains(&said.host)
        };
        let mut times: Vec<u64> = peer.attempts.times.iter().map(|&(_, took)| took).collect();
        times.sort_unstable();
        Shard {
            service: home.unwrap_or(service).clone(),
            port: address.port(),
            address: Some(address),
            said: said.iter().find(is_its).cloned(),
            container,
            established: peer.established,
            upgraded: peer.upgraded,
            opened_rate: None,
            p50_us: percentile(&times, 50.0),
            p99_us: percentile(&times, 99.0),
            tally: peer.attempts.tally.clone(),
        }
    }
}

/// Attempts at all of them.
pub(crate) fn sum<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Tally {
    tallies.fold(Tally::default(), Tally::plus)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tui::{board::Level, leg::Leg};

    fn service(port: u16, role: &'static str) -> Service {
        Service { container: "web".into(), port, role: role.into(), netns: 0 }
    }

    fn leg(cookie: u64, port: u16, role: &'static str, pid: u32) -> Leg {
        let end: SocketAddr = "127.0.0.1:1".parse().unwrap();
        Leg {
            key: (cookie, 0, 1),
            service: Arc::new(service(port, role)),
            local: end,
            peer: end,
            state: "established".into(),
            class: "http".into(),
            outcome: None,
            stages: [None; 7],
            from_ns: 1,
            until_ns: None,
            retransmits: None,
            process: String::new(),
            pid,
            asked: false,
        }
    }

    #[test]
    fn a_ports_shards_are_what_its_processes_connect_to() {
        let mut board = Board::default();
        let up = Level { established: 1, ..Level::default() };
        let ports = [
            (3005, "passive"),
            (3005, "active"),
            (3002, "active"),
            (80, "active"),
            (3003, "active"),
        ];
        board.count(1, 0, ports.map(|(port, role)| (service(port, role), up)).to_vec());
        // 7 balances, 8 is its client, 9 goes to port 80 only; of 3003 nothing is known.
        board.take_open([
            leg(1, 3005, "passive", 7),
            leg(2, 3005, "active", 8),
            leg(3, 3002, "active", 7),
            leg(4, 80, "active", 9),
            leg(5, 3003, "active", 0),
        ]);
        let tallies = board.tallies();
        let behind = Behind::new(&board, &tallies);
        let ports =
            |of: &Service| -> Vec<u16> { behind.of(of).iter().map(|shard| shard.port).collect() };
        assert_eq!(ports(&service(3005, "passive")), [3002]);
        assert!(ports(&service(3005, "active")).is_empty());
    }
}
