//! What a port's processes connect to: of a balancer's port, its shards.

use super::board::{Board, Service, Tally};
use crate::health::shards::ShardReport;

/// One of them, as its connecting end is counted.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) service: Service,
    /// What the balancer's health says of it.
    pub(crate) said: Option<ShardReport>,
}

/// In the order of their ports; none where no process is known that holds an end on both sides.
pub(crate) fn of(board: &Board, service: &Service) -> Vec<Shard> {
    let Some(line) = board.lines.get(service).filter(|_| service.role == "passive") else {
        return Vec::new();
    };
    let said = board.reported_of(service).map(|reported| reported.shards.as_slice());
    let mut shards: Vec<Shard> = board
        .lines
        .iter()
        .filter(|(other, _)| other.role == "active" && other.container == service.container)
        .filter(|(_, other)| !other.pids.is_disjoint(&line.pids))
        .map(|(other, _)| Shard {
            service: other.clone(),
            said: said.unwrap_or_default().iter().find(|s| s.port == Some(other.port)).cloned(),
        })
        .collect();
    shards.sort_by_key(|shard| shard.service.port);
    shards
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
        Service { container: "web".into(), port, role: role.into() }
    }

    fn leg(cookie: u64, port: u16, role: &'static str, pid: u32) -> Leg {
        let end: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
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
        let ports = |of: &Service| -> Vec<u16> {
            super::of(&board, of).iter().map(|shard| shard.service.port).collect()
        };
        assert_eq!(ports(&service(3005, "passive")), [3002]);
        assert!(ports(&service(3005, "active")).is_empty());
    }
}
