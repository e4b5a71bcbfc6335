//! Which connections a number is about: ports, roles, containers.

use std::collections::BTreeSet;

use polars::prelude::{BooleanChunked, DataFrame, NewChunkedArray, PlSmallStr};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::Filter;
use crate::error::InputError;
use crate::input::connections::{Connections, Number, Word};
use crate::input::recording::Recording;

/// A selection of connections. Empty lists mean "all".
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct Population {
    pub(crate) ports: Vec<u16>,
    pub(crate) roles: Vec<String>,
    pub(crate) containers: Vec<String>,
    #[serde(skip)]
    cgroups: Vec<u64>,
}

impl Population {
    /// The filters of the command line, else those of the recording, else the passive connections to
    /// the health URL's own port. Not its own are ports `behind` it, of a balancer's shards.
    pub(crate) fn of_server(
        recording: &Recording,
        filter: &Filter,
        url: &str,
        behind: &BTreeSet<u32>,
    ) -> Result<Self, InputError> {
        let selection = &recording.meta.selection;
        let mut ports =
            if filter.port.is_empty() { polled_ports(recording, url) } else { filter.ports() };
        if filter.port.is_empty() {
            ports.retain(|port| !behind.contains(&u32::from(*port)));
        }
        let roles =
            if filter.role.is_empty() { polled_roles(recording) } else { filter.role.clone() };
        let containers =
            if filter.container.is_empty() { &selection.containers } else { &filter.container };
        Self::new(recording, ports, roles, containers)
    }

    /// Whether the counts that the probe took at each poll of this URL are of the same connections.
    pub(crate) fn is_as_polled(&self, recording: &Recording, url: &str) -> bool {
        self.ports == polled_ports(recording, url)
            && self.roles == polled_roles(recording)
            && self.containers == recording.meta.selection.containers
    }

    /// Exactly the filters of the command line.
    pub(crate) fn of_filter(recording: &Recording, filter: &Filter) -> Result<Self, InputError> {
        Self::new(recording, filter.ports(), filter.role.clone(), &filter.container)
    }

    fn new(
        recording: &Recording,
        ports: Vec<u16>,
        roles: Vec<String>,
        containers: &[String],
    ) -> Result<Self, InputError> {
        let mut cgroups = Vec::new();
        for wanted in containers {
            let before = cgroups.len();
            cgroups.extend(
                recording
                    .containers
                    .iter()
                    .filter(|known| {
                        known.name == *wanted
                            || known.container_id.as_ref().is_some_and(|id| {
                                wanted.len() >= 6 && id.starts_with(wanted.as_str())
                            })
                    })
                    .map(|known| known.cgroup_id),
            );
            if cgroups.len() == before {
                return Err(no_container(recording, wanted));
            }
        }
        Ok(Self { ports, roles, containers: containers.to_vec(), cgroups })
    }

    pub(crate) fn members<'a>(&'a self, connections: &'a Connections) -> Members<'a> {
        let roles = connections.words(Word::Role).iter();
        let roles =
            roles.map(|role| self.roles.is_empty() || self.roles.iter().any(|r| **r == **role));
        Members { population: self, connections, roles: roles.collect() }
    }

    /// The rows of a table as it was recorded that belong to it.
    pub(crate) fn mask(&self, table: &DataFrame) -> anyhow::Result<BooleanChunked> {
        let ports = table.column("port")?.u32()?;
        let roles = table.column("role")?.str()?;
        let cgroups = table.column("cgroup_id")?.u64()?;
        let rows = ports.iter().zip(roles.iter()).zip(cgroups.iter());
        let mask = rows.map(|((port, role), cgroup)| {
            (self.ports.is_empty()
                || port.is_some_and(|port| self.ports.iter().any(|p| u32::from(*p) == port)))
                && (self.roles.is_empty()
                    || role.is_some_and(|role| self.roles.iter().any(|r| r == role)))
                && (self.cgroups.is_empty()
                    || cgroup.is_some_and(|cgroup| self.cgroups.contains(&cgroup)))
        });
        Ok(BooleanChunked::from_iter_values(PlSmallStr::EMPTY, mask))
    }

    /// Whose connections they are, by name.
    pub(crate) fn container_names(&self, recording: &Recording) -> Vec<String> {
        let connections = &recording.connections;
        let members = self.members(connections);
        let cgroup = |row| connections.number(Number::Cgroup, row);
        let cgroups: BTreeSet<u64> = members.rows().filter_map(cgroup).collect();
        let mut names: Vec<String> =
            cgroups.into_iter().map(|cgroup| recording.container_name(cgroup)).collect();
        names.sort_unstable();
        names
    }

    /// `passive connections to port 3005 of web`, for sentences.
    pub(crate) fn label(&self) -> String {
        let role = match self.roles.as_slice() {
            [] => String::new(),
            roles => format!("{} ", roles.join(" and ")),
        };
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        let ports = match ports.len() {
            0 => String::new(),
            1 => format!(" to port {}", ports[0]),
            _ => format!(" to ports {}", ports.join(", ")),
        };
        let containers = match self.containers.as_slice() {
            [] => String::new(),
            names => format!(" of {}", names.join(", ")),
        };
        format!("{role}connections{ports}{containers}")
    }
}

/// Which connections belong to a population.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    population: &'a Population,
    connections: &'a Connections,
    /// Whether each of the words for roles is wanted.
    roles: Vec<bool>,
}

impl Members<'_> {
    pub(crate) fn has(&self, row: usize) -> bool {
        let Population { ports, roles, cgroups, .. } = self.population;
        let number = |number| self.connections.number(number, row);
        let in_ports =
            || number(Number::Port).is_some_and(|port| ports.iter().any(|p| u64::from(*p) == port));
        let in_roles =
            || self.connections.word_place(Word::Role, row).is_some_and(|place| self.roles[place]);
        let in_cgroups = || number(Number::Cgroup).is_some_and(|cgroup| cgroups.contains(&cgroup));
        (ports.is_empty() || in_ports())
            && (roles.is_empty() || in_roles())
            && (cgroups.is_empty() || in_cgroups())
    }

    /// Rows, in their order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.connections.len()).filter(|row| self.has(*row))
    }
}

fn no_container(recording: &Recording, wanted: &str) -> InputError {
    let mut known: Vec<_> = recording.containers.iter().map(|known| known.name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    let more = known.len().saturating_sub(10);
    known.truncate(10);
    let mut known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    if more > 0 {
        known.push_str(&format!(" and {more} more"));
    }
    InputError::NoContainer { wanted: wanted.to_owned(), known, dir: recording.name.clone().into() }
}

/// The ports of the connections that the probe counted at each poll.
fn polled_ports(recording: &Recording, url: &str) -> Vec<u16> {
    let ports = &recording.meta.selection.ports;
    if ports.is_empty() { url_port(url).into_iter().collect() } else { ports.clone() }
}

fn polled_roles(recording: &Recording) -> Vec<String> {
    let roles = &recording.meta.selection.roles;
    if roles.is_empty() { vec!["passive".to_owned()] } else { roles.clone() }
}

/// The port of `http://host:port/path`, or the scheme's own.
pub(crate) fn url_port(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after_host = host_port.rsplit_once(']').map_or(host_port, |(_, rest)| rest);
    match after_host.rsplit_once(':') {
        Some((_, port)) => port.parse().ok(),
        None if scheme == "https" => Some(443),
        None => Some(80),
    }
}

#[cfg(test)]
mod tests {
    use super::url_port;

    #[test]
    fn the_port_of_a_url() {
        let ports = [
            ("http://127.0.0.1:3005/health", Some(3005)),
            ("http://[::1]:8080/health?x=1:2", Some(8080)),
            ("http://[::1]/", Some(80)),
            ("https://user:pw@example.org", Some(443)),
            ("unix:/run/x", None),
        ];
        for (url, port) in ports {
            assert_eq!(url_port(url), port, "{url}");
        }
    }
}
