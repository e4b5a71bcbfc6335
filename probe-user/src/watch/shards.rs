//! A balancer's shards: what it reports of each, held against the kernel's count of the shard's port, in its
//! container where several have one port.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    net::IpAddr,
    sync::Arc,
};

use probe_common::state::{self, role};
use serde::Serialize;

use super::{
    population::Population,
    style::{Style, Tone},
    verdict::percent,
};
use crate::{
    export::json::address,
    filter::{Filter, Ports, Role},
    health::shards::ShardReport,
    identity::{Identity, cgroup::Container},
    truth::{
        polled::{dump_all, keyed},
        sock_diag::{Detail, DiagSocket},
        source::Source,
    },
};

/// Utilisation from which a shard is nearly full, and from which it is.
const BUSY_PERCENT: f64 = 80.0;
const FULL_PERCENT: f64 = 95.0;
/// How far kernel and report may be apart, of the larger one, before a human should look.
const APART_PERCENT: f64 = 2.0;
const FAR_APART_PERCENT: f64 = 10.0;
/// Imbalances likewise.
const UNEVEN_PERCENT: f64 = 10.0;
const LOPSIDED_PERCENT: f64 = 30.0;

/// All shards at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shards {
    pub(crate) shards: Vec<Shard>,
    pub(crate) total: Total,
    /// 100 · (max − min) / max of the shards' connections.
    pub(crate) imbalance_percent: f64,
    /// `kernel`, or `reported` where a shard is not in the kernel's count.
    pub(crate) imbalance_of: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shard {
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    /// Null where nothing says which connections are the shard's: no port, or one that several shards have, of which
    /// this is in no container of this host.
    pub(crate) kernel: Option<i64>,
    pub(crate) reported: i64,
    pub(crate) capacity: Option<i64>,
    pub(crate) available: Option<i64>,
    pub(crate) utilisation_percent: Option<f64>,
    pub(crate) state: State,
}

/// Sums; null where a shard lacks the number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Total {
    pub(crate) kernel: Option<i64>,
    pub(crate) reported: i64,
    pub(crate) capacity: Option<i64>,
    pub(crate) available: Option<i64>,
    pub(crate) utilisation_percent: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Ok,
    /// Nearly full, or kernel and report are apart.
    Warning,
    /// Full, or they are far apart.
    Critical,
}

impl State {
    fn of(kernel: Option<i64>, report: &ShardReport, utilisation: Option<f64>) -> Self {
        let apart = kernel.map_or(0, |kernel| (kernel - report.connections).abs());
        let most = kernel.unwrap_or(0).max(report.connections);
        let over = |full: f64, far: f64| {
            utilisation.is_some_and(|used| used >= full) || apart > 1 && percent(apart, most) > far
        };
        if over(FULL_PERCENT, FAR_APART_PERCENT) {
            Self::Critical
        } else if over(BUSY_PERCENT, APART_PERCENT) {
            Self::Warning
        } else {
            Self::Ok
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warning => Tone::Warning,
            Self::Critical => Tone::Bad,
        }
    }
}

impl Shards {
    /// `None` where nothing is reported. `kernel` counts the connections of a shard.
    fn new(reports: &[ShardReport], kernel: impl Fn(&ShardReport) -> Option<i64>) -> Option<Self> {
        if reports.is_empty() {
            return None;
        }
        let shards: Vec<Shard> = reports
            .iter()
            .map(|report| {
                let kernel = kernel(report);
                let utilisation_percent = utilisation(report.connections, report.capacity);
                Shard {
                    name: report.name.clone(),
                    port: report.port,
                    kernel,
                    reported: report.connections,
                    capacity: report.capacity,
                    available: report.available,
                    utilisation_percent,
                    state: State::of(kernel, report, utilisation_percent),
                }
            })
            .collect();
        let sum = |of: fn(&Shard) -> Option<i64>| shards.iter().map(of).sum::<Option<i64>>();
        let (kernel, capacity) = (sum(|shard| shard.kernel), sum(|shard| shard.capacity));
        let reported = shards.iter().map(|shard| shard.reported).sum();
        let loads = shards.iter().map(|shard| match kernel {
            Some(_) => shard.kernel.unwrap_or(0),
            None => shard.reported,
        });
        let (most, fewest) = (loads.clone().max().unwrap_or(0), loads.min().unwrap_or(0));
        Some(Self {
            total: Total {
                kernel,
                reported,
                capacity,
                available: sum(|shard| shard.available),
                utilisation_percent: utilisation(reported, capacity),
            },
            imbalance_percent: percent(most - fewest, most),
            imbalance_of: if kernel.is_some() { "kernel" } else { "reported" },
            shards,
        })
    }

    pub(crate) fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "  {:<16} {:>5} {:>8} {:>9} {:>9} {:>9} {:>7}",
            "SHARD", "PORT", "KERNEL", "REPORTED", "CAPACITY", "AVAILABLE", "USED %"
        );
        let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let share = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
        for shard in &self.shards {
            let line = format!(
                "{:<16} {:>5} {:>8} {:>9} {:>9} {:>9} {:>7}",
                shard.name,
                number(shard.port.map(i64::from)),
                number(shard.kernel),
                shard.reported,
                number(shard.capacity),
                number(shard.available),
                share(shard.utilisation_percent)
            );
            let _ = writeln!(out, "  {}", style.paint(shard.state.tone(), &line));
        }
        let total = &self.total;
        let _ = writeln!(
            out,
            "  {:<16} {:>5} {:>8} {:>9} {:>9} {:>9} {:>7}",
            "total",
            "",
            number(total.kernel),
            total.reported,
            number(total.capacity),
            number(total.available),
            share(total.utilisation_percent)
        );
        let tone = match self.imbalance_percent {
            part if part >= LOPSIDED_PERCENT => Tone::Bad,
            part if part >= UNEVEN_PERCENT => Tone::Warning,
            _ => Tone::Good,
        };
        let imbalance = style.paint(tone, &format!("{:.1} %", self.imbalance_percent));
        let _ = writeln!(out, "  imbalance {imbalance} ({})", self.imbalance_of);
        out
    }
}

fn utilisation(used: i64, capacity: Option<i64>) -> Option<f64> {
    capacity.filter(|&capacity| capacity > 0).map(|capacity| percent(used, capacity))
}

/// Counts the shards' connections.
pub(crate) struct ShardWatch {
    source: Arc<dyn Source>,
    identity: Arc<Identity>,
    /// By port, and where several shards have it by their addresses' hosts.
    populations: BTreeMap<Place, Population>,
}

type Place = (u16, Option<String>);

/// `None` where the report does not say where the shard is.
fn place(report: &ShardReport, reports: &[ShardReport]) -> Option<Place> {
    let port = report.port?;
    let is_alone = reports.iter().filter(|other| other.port == report.port).count() == 1;
    Some((port, if is_alone { None } else { Some(report.host.clone()?) }))
}

impl ShardWatch {
    pub(crate) fn new(source: Arc<dyn Source>, identity: Arc<Identity>) -> Self {
        Self { source, identity, populations: BTreeMap::new() }
    }

    /// The shards' connections on this host: the accepted ones where the shards run here, else the
    /// balancer's own ends.
    pub(crate) fn populations(&self) -> impl Iterator<Item = &Population> {
        self.populations.values()
    }

    /// Holds what was reported against the count now.
    ///
    /// # Errors
    /// Where the kernel or the agent cannot be asked.
    pub(crate) fn now(&mut self, reports: &[ShardReport]) -> anyhow::Result<Option<Shards>> {
        for place in reports.iter().filter_map(|report| place(report, reports)) {
            if !self.populations.contains_key(&place) {
                let found = match &place {
                    (port, None) => Some(self.find(*port)?),
                    (port, Some(host)) => self.find_at(*port, host)?,
                };
                self.populations.extend(found.map(|population| (place, population)));
            }
        }
        let mut kernel = HashMap::new();
        for (place, population) in &self.populations {
            kernel.insert(place, population.level()?.established);
        }
        Ok(Shards::new(reports, |report| kernel.get(&place(report, reports)?).copied()))
    }

    /// The container of this name, or with this address; `None` where there is none, or no connection that tells.
    fn find_at(&self, port: u16, host: &str) -> anyhow::Result<Option<Population>> {
        let container = match host.parse::<IpAddr>() {
            Ok(host) => self.container_at(host, port)?,
            Err(_) => self.identity.containers().into_iter().find(|one| one.name == host),
        };
        let Some(container) = container.filter(|one| one.id.is_some()) else { return Ok(None) };
        let filter = Filter {
            ports: Ports::one(port),
            roles: vec![Role::Passive],
            containers: vec![container.name],
            ..Filter::default()
        };
        let (source, identity) = (Arc::clone(&self.source), Arc::clone(&self.identity));
        Population::new(source, identity, filter, None).map(Some)
    }

    fn container_at(&self, host: IpAddr, port: u16) -> anyhow::Result<Option<Container>> {
        let dumped = dump_all(Detail::Basic)?;
        let is_its = |socket: &DiagSocket| {
            socket.local_port == port
                && socket.state == state::ESTABLISHED
                && address(socket.local_address) == host
        };
        let sockets = keyed(&dumped.sockets);
        let key = sockets.iter().find(|(socket, key)| key.role == role::PASSIVE && is_its(socket));
        Ok(key.map(|(_, key)| self.identity.of(key)))
    }

    fn find(&self, port: u16) -> anyhow::Result<Population> {
        let of_role = |role| {
            let filter = Filter { ports: Ports::one(port), roles: vec![role], ..Filter::default() };
            let (source, identity) = (Arc::clone(&self.source), Arc::clone(&self.identity));
            Population::new(source, identity, filter, None)
        };
        let here = of_role(Role::Passive)?;
        if here.check_ports().is_ok() { Ok(here) } else { of_role(Role::Active) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(port: u16, connections: i64, capacity: i64) -> ShardReport {
        ShardReport {
            name: format!("shard-{port}"),
            port: Some(port),
            host: None,
            connections,
            capacity: Some(capacity),
            available: Some(capacity - connections),
        }
    }

    #[test]
    fn a_table_of_shards() {
        let reports = [report(3002, 1999, 6000), report(3003, 5000, 6000), report(3004, 10, 6000)];
        let kernel = |report: &ShardReport| {
            report.port.map(|port| if port == 3004 { 0 } else { i64::from(port) - 1003 })
        };
        let shards = Shards::new(&reports, kernel).unwrap();
        assert_eq!(
            shards.text(Style::plain()),
            "  SHARD             PORT   KERNEL  REPORTED  CAPACITY AVAILABLE  USED %
  shard-3002        3002     1999      1999      6000      4001    33.3
  shard-3003        3003     2000      5000      6000      1000    83.3
  shard-3004        3004        0        10      6000      5990     0.2
  total                      3999      7009     18000     10991    38.9
  imbalance 100.0 % (kernel)
"
        );
        let states: Vec<State> = shards.shards.iter().map(|shard| shard.state).collect();
        assert_eq!(states, [State::Ok, State::Critical, State::Critical]);
        assert!(shards.text(Style::plain()).lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn one_port_on_several_addresses_is_told_apart_by_them() {
        let at = |host: &str, port| ShardReport { host: Some(host.into()), ..report(port, 6, 10) };
        let reports = [report(80, 6, 10), at("10.0.0.2", 80), at("10.0.0.2", 81)];
        let places = reports.each_ref().map(|report| place(report, &reports));
        assert_eq!(places, [None, Some((80, Some("10.0.0.2".into()))), Some((81, None))]);
        let shards = Shards::new(&[report(80, 6, 10), report(80, 9, 10)], |_| None).unwrap();
        assert_eq!(shards.imbalance_of, "reported");
        assert!((shards.imbalance_percent - 100.0 / 3.0).abs() < 1e-9);
        assert_eq!(Shards::new(&[], |_| None), None);
    }
}
