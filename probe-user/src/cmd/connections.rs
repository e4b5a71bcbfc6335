//! `probe connections`: the sockets behind the counts.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::Duration,
};

use probe_common::{connection::Connection, state};

use crate::{
    cli::Connections,
    clock::{self, Pair},
    cmd::{nothing, print, print_json, table},
    error::Error,
    exit::Exit,
    export::json::{ConnectionJson, key_of},
    filter::Filter,
    handshake::follow::Observed,
    identity::{Identity, process},
    remote::client::Client,
    truth::{
        choose::{self, Need},
        polled::{Polled, dump_all},
        sock_diag::{Detail, DiagSocket, Peer},
        source::{Backend, Source},
    },
};

/// What `connections` filters by beside the filters of all commands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) pid: Option<u32>,
    pub(crate) older_than: Option<Duration>,
}

pub(crate) async fn run(socket: &Path, arguments: &Connections) -> anyhow::Result<Exit> {
    let wanted = Wanted { pid: arguments.pid, older_than: arguments.older_than };
    let found = match Client::of(&arguments.remote, &arguments.trust)? {
        Some(agent) => agent.connections(&arguments.filter, wanted).await?,
        None => local(socket, &arguments.filter, wanted).await?,
    };
    if arguments.json {
        for connection in &found {
            print_json(connection)?;
        }
    } else {
        print(&text(&found, &arguments.filter))?;
    }
    Ok(Exit::Done)
}

async fn local(
    socket: &Path,
    filter: &Filter,
    wanted: Wanted,
) -> anyhow::Result<Vec<ConnectionJson>> {
    let source = choose::open(socket, Need::Any)?;
    if wanted.older_than.is_some() && source.backend() == Backend::SockDiag {
        return Err(Error::Unsupported {
            what: "tell how old connections are".into(),
            why: "sock_diag does not know when a connection began".into(),
            cure: "leave out --older-than, or make eBPF work: see `probe doctor`".into(),
        }
        .into());
    }
    let identity = Identity::new()?;
    let found = find(source.as_ref(), &identity, filter, wanted).await?;
    filter.check_containers(&identity)?;
    Ok(found)
}

/// The connections that match, with what only a dump of sock_diag knows of them.
pub(crate) async fn find(
    source: &dyn Source,
    identity: &Identity,
    filter: &Filter,
    wanted: Wanted,
) -> anyhow::Result<Vec<ConnectionJson>> {
    source.settle()?;
    let now = Pair::now();
    let mut connections = source.connections()?;
    let dumped = dump_all(Detail::TcpInfo)?;
    let by_cookie: HashMap<u64, &DiagSocket> =
        dumped.sockets.iter().map(|socket| (socket.cookie, socket)).collect();
    if source.backend() == Backend::Ebpf {
        add_mini_sockets(&mut connections)?;
    }
    identity.refresh(connections.iter().map(|connection| key_of(connection))).await;
    connections.retain(|connection| {
        filter.keeps_of(&key_of(connection), identity)
            && keeps_state(filter, connection.state)
            && wanted.older_than.is_none_or(|age| is_older(connection, now, age))
    });
    let inodes: HashSet<u32> = connections
        .iter()
        .filter_map(|connection| by_cookie.get(&connection.cookie))
        .map(|socket| socket.inode)
        .filter(|&inode| inode != 0)
        .collect();
    let owners = process::owners(&inodes);
    let mut found: Vec<ConnectionJson> = connections
        .iter()
        .map(|connection| {
            let diag = by_cookie.get(&connection.cookie).copied();
            let processes =
                diag.and_then(|diag| owners.get(&diag.inode)).cloned().unwrap_or_default();
            let container = identity.of(&key_of(connection));
            ConnectionJson::new(connection, diag, processes, container, now)
        })
        .filter(|connection| {
            wanted.pid.is_none_or(|pid| connection.processes.iter().any(|owner| owner.pid == pid))
        })
        .collect();
    found.sort_by_key(|connection| {
        (connection.port, connection.remote_address, connection.remote_port)
    });
    Ok(found)
}

/// As `ss` does: listeners only where they are asked for.
fn keeps_state(filter: &Filter, state: u8) -> bool {
    filter.keeps_state(state) && (state != state::LISTEN || !filter.states.is_empty())
}

/// What the kernel keeps as mini sockets fires no event: it comes from a dump.
fn add_mini_sockets(connections: &mut Vec<Observed>) -> anyhow::Result<()> {
    let known: HashSet<u64> = connections.iter().map(|connection| connection.cookie).collect();
    let mini = [state::SYN_RECV, state::FIN_WAIT_2, state::TIME_WAIT];
    let dumped = Polled::new(String::new()).connections()?;
    connections.extend(
        dumped
            .into_iter()
            .filter(|socket| mini.contains(&socket.state) && !known.contains(&socket.cookie)),
    );
    Ok(())
}

fn is_older(connection: &Connection, now: Pair, age: Duration) -> bool {
    let since = if connection.established_ns != 0 {
        connection.established_ns
    } else {
        connection.first_seen_ns
    };
    let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    i64::try_from(since).is_ok_and(|since| now.mono_ns - since >= age_ns)
}

fn text(found: &[ConnectionJson], filter: &Filter) -> String {
    if found.is_empty() {
        return nothing(filter).to_owned();
    }
    let header = ["STATE", "LOCAL", "REMOTE", "ROLE", "AGE", "CONTAINER", "PROCESS"];
    let mut table = table::new(header, &[4]);
    for connection in found {
        let processes: Vec<String> = connection
            .processes
            .iter()
            .map(|owner| format!("{}/{}", owner.comm, owner.pid))
            .collect();
        let end = |address: std::net::IpAddr, port| std::net::SocketAddr::new(address, port);
        table.add_row([
            match connection.peer {
                Some(Peer::Silent) => format!("{}, silent", connection.state).into(),
                _ => connection.state.as_ref().into(),
            },
            end(connection.local_address, connection.local_port).into(),
            end(connection.remote_address, connection.remote_port).into(),
            connection.role.as_ref().into(),
            connection
                .age_ms
                .map_or("-".into(), |age| clock::short(Duration::from_millis(age)).into()),
            table::text(&connection.container.name),
            table::text(&processes.join(" ")),
        ]);
    }
    table::render(&table)
}
