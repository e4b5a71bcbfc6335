//! The rows of the connections screen: how they are sorted and searched.

use std::{net::SocketAddr, time::Duration};

use super::{board::Service, leg::Leg};
use crate::{clock, export::json::ConnectionJson};

/// A socket, as text and as what it is sorted by.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) state: String,
    pub(crate) class: String,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) age_ms: Option<u64>,
    /// Since anything came from the peer.
    pub(crate) silent_ms: Option<u64>,
    pub(crate) retransmits: Option<u32>,
    pub(crate) process: String,
}

impl Connection {
    /// The rows of one service among those found.
    pub(crate) fn of_service(found: &[ConnectionJson], service: &Service) -> Vec<Self> {
        let is_own = |found: &&ConnectionJson| {
            found.container.name == service.container
                && (service.netns == 0 || found.netns == service.netns)
        };
        found.iter().filter(is_own).map(Self::of_json).collect()
    }

    fn of_json(json: &ConnectionJson) -> Self {
        let owners: Vec<String> =
            json.processes.iter().map(|owner| format!("{}/{}", owner.comm, owner.pid)).collect();
        Self {
            state: json.state.to_string(),
            class: json.class.to_string(),
            local: SocketAddr::new(json.local_address, json.local_port),
            peer: SocketAddr::new(json.remote_address, json.remote_port),
            age_ms: json.age_ms,
            silent_ms: json.last_heard_ms.map(u64::from),
            retransmits: json.retransmits,
            process: owners.join(" "),
        }
    }

    /// As a capture knows it at a moment.
    pub(crate) fn of_leg(leg: &Leg, at_mono_ns: i64) -> Self {
        let age = leg.stages[1].map(|established| (at_mono_ns - established).max(0) / 1_000_000);
        Self {
            state: leg.state.to_string(),
            class: leg.class.to_string(),
            local: leg.local,
            peer: leg.peer,
            age_ms: age.map(i64::cast_unsigned),
            silent_ms: None,
            retransmits: leg.retransmits,
            process: leg.process.clone(),
        }
    }

    fn contains(&self, text: &str) -> bool {
        [&self.state, &self.class, &self.process].iter().any(|field| field.contains(text))
            || self.peer.to_string().contains(text)
            || self.local.to_string().contains(text)
    }
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    Age,
    Peer,
    State,
    Silent,
    Retransmits,
    Process,
}

impl Order {
    const ALL: [Self; 6] =
        [Self::Age, Self::Peer, Self::State, Self::Silent, Self::Retransmits, Self::Process];

    pub(crate) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&order| order == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Peer => "peer",
            Self::State => "state",
            Self::Silent => "silent",
            Self::Retransmits => "retransmits",
            Self::Process => "process",
        }
    }
}

/// The rows that hold `text`, in this order: the largest number or the first word on top.
pub(crate) fn arranged<'a>(
    rows: &'a [Connection],
    text: &str,
    order: Order,
    reverse: bool,
) -> Vec<&'a Connection> {
    let mut found: Vec<&Connection> = rows.iter().filter(|row| row.contains(text)).collect();
    found.sort_by(|a, b| {
        let ordering = match order {
            Order::Age => b.age_ms.cmp(&a.age_ms),
            Order::Peer => a.peer.cmp(&b.peer),
            Order::State => a.state.cmp(&b.state),
            Order::Silent => b.silent_ms.cmp(&a.silent_ms),
            Order::Retransmits => b.retransmits.cmp(&a.retransmits),
            Order::Process => a.process.cmp(&b.process),
        };
        let ordering = ordering.then_with(|| a.peer.cmp(&b.peer));
        if reverse { ordering.reverse() } else { ordering }
    });
    found
}

/// A time in at most five characters: `250ms`, `12s`, `5m`, `3h`, `2d`.
pub(crate) fn brief(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}s", ms / 1_000),
        60_000..3_600_000 => format!("{}m", ms / 60_000),
        3_600_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// Microseconds in at most five characters: `640us`, `1.2ms`, `35ms`, `2.5s`.
pub(crate) fn brief_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..10_000 => format!("{:.1}ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", us / 1_000),
        1_000_000..100_000_000 => format!("{:.1}s", us as f64 / 1e6),
        _ => clock::short(Duration::from_secs(us / 1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(peer: &str, age_ms: u64, process: &str) -> Connection {
        Connection {
            state: "established".into(),
            class: "upgraded".into(),
            local: "127.0.0.1:3005".parse().unwrap(),
            peer: peer.parse().unwrap(),
            age_ms: Some(age_ms),
            silent_ms: None,
            retransmits: None,
            process: process.into(),
        }
    }

    #[test]
    fn rows_are_found_and_sorted() {
        let rows = [
            row("10.0.0.2:9", 5, "nginx/7"),
            row("10.0.0.1:9", 50, "node/8"),
            row("10.0.0.3:9", 1, "nginx/9"),
        ];
        let peers = |text, order, reverse| -> Vec<String> {
            arranged(&rows, text, order, reverse).iter().map(|row| row.peer.to_string()).collect()
        };
        assert_eq!(peers("", Order::Age, false), ["10.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9"]);
        assert_eq!(peers("nginx", Order::Age, true), ["10.0.0.3:9", "10.0.0.2:9"]);
        assert_eq!(peers("10.0.0.3", Order::Peer, false), ["10.0.0.3:9"]);
    }

    #[test]
    fn times_fit_five_columns() {
        for (ms, text) in [(250, "250ms"), (12_000, "12s"), (86_400_000, "24h"), (3 << 30, "37d")] {
            assert_eq!(brief(ms), text);
        }
        for (us, text) in [(640, "640us"), (1_240, "1.2ms"), (35_000, "35ms"), (2_500_000, "2.5s")]
        {
            assert_eq!(brief_us(us), text);
        }
    }
}
