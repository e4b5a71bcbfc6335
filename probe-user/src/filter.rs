//! The filters that every command shares: `--container`, `--port`, `--role`, `--state`.

use std::{collections::HashMap, ffi::OsStr, ops::RangeInclusive, str::FromStr};

use clap::{
    Arg, Args, Command, ValueEnum,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
};
use probe_common::{key::CountKey, state};

use crate::{
    error::Error,
    identity::{Identity, cgroup::Container},
};

/// Which connections are meant; what is not given is not filtered by.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filter {
    /// Container, unit or `host`, by name or by 6 or more digits of the id; may be repeated
    #[arg(long = "container", value_name = "NAME", value_delimiter = ',')]
    pub(crate) containers: Vec<String>,

    /// The service's ports: local of accepted connections, remote of outgoing ones; in every network namespace
    /// of this host, so that of several services on one port `--container` chooses
    #[arg(
        long = "port",
        value_name = "3005,3002-3004",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) ports: Ports,

    /// Who opened the connection: a client of this host (active), or one it accepted (passive)
    #[arg(
        long = "role",
        value_name = "ROLE",
        value_parser = Trimmed(EnumValueParser::<Role>::new()),
        value_delimiter = ','
    )]
    pub(crate) roles: Vec<Role>,

    /// Kernel state; as `ss` writes it will do
    #[arg(
        long = "state",
        value_name = "STATE",
        value_parser = Trimmed(EnumValueParser::<State>::new()),
        ignore_case = true,
        value_delimiter = ','
    )]
    pub(crate) states: Vec<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Passive,
    Active,
    Unknown,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        state::role::name(self.number())
    }

    /// By the name that [`Role::name`] gives.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|role| role.name() == name)
    }

    fn number(self) -> u8 {
        match self {
            Self::Passive => state::role::PASSIVE,
            Self::Active => state::role::ACTIVE,
            Self::Unknown => state::role::UNKNOWN,
        }
    }
}

impl Filter {
    /// The same filters as parameters of a URL; `others` are parameters that are none.
    pub(crate) fn from_query(
        parameters: &HashMap<String, String>,
        others: &[&str],
    ) -> Result<Self, String> {
        let mut filter = Self::default();
        for (name, value) in parameters {
            let parts = value.split(',').filter(|part| !part.is_empty());
            match name.as_str() {
                "container" => filter.containers = parts.map(str::to_owned).collect(),
                "port" => filter.ports = value.parse()?,
                "role" => {
                    filter.roles = parts
                        .map(|part| {
                            Role::from_str(part, true).map_err(|_| {
                                format!("{part:?} is no role: expected passive, active, unknown")
                            })
                        })
                        .collect::<Result<_, _>>()?;
                }
                "state" => {
                    filter.states = parts
                        .map(|part| {
                            State::from_str(part, true).map_err(|_| {
                                let names = state::STATE_NAMES[..11].join(", ");
                                format!("{part:?} is no TCP state: expected one of {names}")
                            })
                        })
                        .collect::<Result<_, _>>()?;
                }
                other if others.contains(&other) => {}
                other => {
                    return Err(format!(
                        "no parameter {other:?}: expected container, port, role, state"
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// What [`Filter::from_query`] reads back.
    pub(crate) fn to_query(&self) -> Vec<(&'static str, String)> {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.name()).collect();
        let states: Vec<&str> =
            self.states.iter().map(|state| state::state_name(state.0)).collect();
        [
            ("container", self.containers.join(",")),
            ("port", self.ports.to_string()),
            ("role", roles.join(",")),
            ("state", states.join(",")),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
    }

    /// True where nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.to_query().is_empty()
    }

    pub(crate) fn keeps(&self, key: &CountKey, container: &Container) -> bool {
        self.keeps_key(key) && self.keeps_container(container)
    }

    /// As [`Filter::keeps`], but looks the container up only where it matters.
    pub(crate) fn keeps_of(&self, key: &CountKey, identity: &Identity) -> bool {
        self.keeps_key(key)
            && (self.containers.is_empty() || self.keeps_container(&identity.of(key)))
    }

    fn keeps_container(&self, container: &Container) -> bool {
        self.containers.is_empty() || self.containers.iter().any(|wanted| container.matches(wanted))
    }

    fn keeps_key(&self, key: &CountKey) -> bool {
        self.keeps_role(key.role) && self.ports.contains(key.port)
    }

    fn keeps_role(&self, role: u8) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|wanted| wanted.number() == role)
    }

    pub(crate) fn keeps_state(&self, state: u8) -> bool {
        self.states.is_empty() || self.states.contains(&State(state))
    }

    /// Refuses a container that this host does not have.
    pub(crate) fn check_containers(&self, identity: &Identity) -> Result<(), Error> {
        if self.containers.is_empty() {
            return Ok(());
        }
        let known = identity.containers();
        for wanted in &self.containers {
            if wanted == "host" || known.iter().any(|container| container.matches(wanted)) {
                continue;
            }
            let mut names: Vec<&str> = known.iter().map(|c| c.name.as_str()).collect();
            names.dedup();
            let more = names.len().saturating_sub(20);
            names.truncate(20);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Error::input(
                format!("no such container: {wanted:?}"),
                format!("known on this host: {}{more}", names.join(", ")),
            ));
        }
        Ok(())
    }
}

/// A set of ports, `3005,3002-3004`; the empty one holds all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    pub(crate) fn one(port: u16) -> Self {
        Self(vec![port..=port])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&port))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().cloned().flatten()
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(0) | Err(_) => Err(format!("{text:?} is no port: expected 1 to 65535")),
            Ok(port) => Ok(port),
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(format!("{part:?} runs backwards: expected {last}-{first}"));
            }
            Ok(first..=last)
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

/// Blanks around a name in a list are no part of it.
#[derive(Clone)]
struct Trimmed<E: ValueEnum + Clone + Send + Sync + 'static>(EnumValueParser<E>);

impl<E: ValueEnum + Clone + Send + Sync + 'static> TypedValueParser for Trimmed<E> {
    type Value = E;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<E, clap::Error> {
        let trimmed = value.to_str().map_or(value, |text| OsStr::new(text.trim()));
        self.0.parse_ref(command, argument, trimmed)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// A kernel state, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u8);

impl ValueEnum for State {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [State; 11] = [
            State(state::ESTABLISHED),
            State(state::SYN_SENT),
            State(state::SYN_RECV),
            State(state::FIN_WAIT_1),
            State(state::FIN_WAIT_2),
            State(state::TIME_WAIT),
            State(state::CLOSE),
            State(state::CLOSE_WAIT),
            State(state::LAST_ACK),
            State(state::LISTEN),
            State(state::CLOSING),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let others: &[&str] = match self.0 {
            state::ESTABLISHED => &["estab", "connected"],
            state::SYN_SENT => &["syn-sent"],
            state::SYN_RECV => &["syn-recv"],
            state::FIN_WAIT_1 => &["fin-wait-1", "fin_wait1", "fin-wait1"],
            state::FIN_WAIT_2 => &["fin-wait-2", "fin_wait2", "fin-wait2"],
            state::TIME_WAIT => &["time-wait"],
            state::CLOSE => &["closed"],
            state::CLOSE_WAIT => &["close-wait"],
            state::LAST_ACK => &["last-ack"],
            state::LISTEN => &["listening"],
            _ => &[],
        };
        Some(PossibleValue::new(state::state_name(self.0)).aliases(others.iter().copied()))
    }
}

/// What a request asks for: the path, and these parameters if there are any.
pub(crate) fn with_query(path: &str, parameters: &[(&'static str, String)]) -> String {
    if parameters.is_empty() {
        return path.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::identity::cgroup::Runtime;

    #[test]
    fn ports_are_lists_of_ranges() {
        let ports: Ports = "3005,3002-3004".parse().unwrap();
        assert!([3002, 3003, 3004, 3005].iter().all(|&port| ports.contains(port)));
        assert!(!ports.contains(3001) && !ports.contains(3006));
        assert_eq!(ports.to_string(), "3005,3002-3004");
        assert!("".parse::<Ports>().unwrap().contains(1));
    }

    #[test]
    fn what_is_no_port_says_what_is_expected() {
        for (text, message) in [
            ("0", "\"0\" is no port: expected 1 to 65535"),
            ("70000", "\"70000\" is no port: expected 1 to 65535"),
            ("http", "\"http\" is no port: expected 1 to 65535"),
            ("9-3", "\"9-3\" runs backwards: expected 3-9"),
        ] {
            assert_eq!(text.parse::<Ports>().unwrap_err(), message);
        }
    }

    #[test]
    fn names_in_a_list_may_have_blanks_around_them() {
        let probe = Command::new("probe");
        let arguments = ["probe", "--state", " ESTAB , listen ", "--role", "passive, active"];
        let matches = Filter::augment_args(probe.clone()).try_get_matches_from(arguments).unwrap();
        let filter = Filter::from_arg_matches(&matches).unwrap();
        assert_eq!(filter.states, [State(state::ESTABLISHED), State(state::LISTEN)]);
        assert_eq!(filter.roles, [Role::Passive, Role::Active]);
        let wrong = Filter::augment_args(probe).try_get_matches_from(["probe", "--state", "open"]);
        assert!(wrong.unwrap_err().to_string().contains("possible values: established, syn_sent"));
    }

    #[test]
    fn states_as_ss_and_the_kernel_write_them() {
        for (text, number) in [
            ("established", 1),
            ("ESTAB", 1),
            ("close-wait", 8),
            ("CLOSE_WAIT", 8),
            ("fin_wait2", 5),
            ("FIN-WAIT-1", 4),
        ] {
            assert_eq!(State::from_str(text, true).unwrap(), State(number), "{text}");
        }
        for (index, name) in state::STATE_NAMES[..11].iter().enumerate() {
            let number = State(index as u8 + 1);
            assert_eq!(State::from_str(name, true).unwrap(), number, "{name}");
            assert_eq!(State::from_str(&name.replace('_', "-"), true).unwrap(), number, "{name}");
        }
        let query = [("state".to_owned(), "open".to_owned())].into_iter().collect();
        let refused = Filter::from_query(&query, &[]).unwrap_err();
        assert!(refused.contains("expected one of established,"), "{refused}");
    }

    #[test]
    fn a_filter_travels_as_a_query() {
        let filter = Filter {
            containers: vec!["web".into(), "db".into()],
            ports: "3005,3002-3004".parse().unwrap(),
            roles: vec![Role::Passive, Role::Active],
            states: vec![State(1), State(8)],
        };
        let query = filter.to_query().into_iter().map(|(name, value)| (name.to_owned(), value));
        let read = Filter::from_query(&query.collect(), &[]).unwrap();
        assert_eq!(read.to_query(), filter.to_query());
        assert_eq!(read.containers, filter.containers);
        assert_eq!(Filter::default().to_query(), []);
    }

    #[test]
    fn every_part_of_a_filter_must_hold() {
        let web = Container { id: None, name: "web".into(), runtime: Runtime::Docker };
        let key = CountKey { port: 3005, role: state::role::PASSIVE, ..CountKey::default() };
        let filter = Filter {
            containers: vec!["web".into(), "db".into()],
            ports: "3005".parse().unwrap(),
            roles: vec![Role::Passive],
            states: vec![],
        };
        assert!(filter.keeps(&key, &web));
        assert!(!filter.keeps(&CountKey { port: 80, ..key }, &web));
        assert!(!filter.keeps(&CountKey { role: state::role::ACTIVE, ..key }, &web));
        assert!(!filter.keeps(&key, &Container::host()));
    }
}
