//! `probe count`: exact counts now.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use anyhow::Context;
use comfy_table::Cell;
use probe_common::{
    key::{CountKey, CountSlot},
    state,
};

use crate::{
    cli::Count,
    cmd::{nothing, print, print_json, table},
    exit::Exit,
    export::json::{CountRow, Counts},
    filter::Filter,
    identity::{Identity, cgroup::Runtime, netns::Inside},
    kernel::Options,
    remote::client::Client,
    truth::{
        agent,
        choose::{self, Need},
        polled::{dump_each, keyed},
        sock_diag::Detail,
        sockstat::left_over,
        source::{Backend, Source},
    },
};

/// States of which the kernel keeps most sockets as mini sockets, which fire no event: waiting SYNs
/// and what is left of a connection. Only a dump has them all.
const MINI_STATES: [u8; 3] = [state::SYN_RECV, state::FIN_WAIT_2, state::TIME_WAIT];

pub(crate) async fn run(socket: &Path, arguments: &Count) -> anyhow::Result<Exit> {
    let need = Need::of(arguments.require_exact);
    let counts = match Client::of(&arguments.remote, &arguments.trust)? {
        Some(agent) => agent.counts(&arguments.filter).await?,
        None => match agent::counts(socket, &arguments.filter).await? {
            Some(counts) => counts,
            None => own(need, &arguments.filter).await?,
        },
    };
    // Agents of before do not tell which of the reasons are those.
    let why = if counts.inexact.is_empty() { &counts.degraded } else { &counts.inexact };
    need.check(counts.exact, why)?;
    if arguments.json {
        print_json(&counts)?;
    } else {
        print(&text(&counts, &arguments.filter))?;
    }
    Ok(Exit::Done)
}

/// The counts of a host without an agent.
async fn own(need: Need, filter: &Filter) -> anyhow::Result<Counts> {
    let source = choose::own(need, &Options::default())?;
    let identity = Identity::new()?;
    let counts = now(source.as_ref(), &identity, filter).await?;
    filter.check_containers(&identity)?;
    Ok(counts)
}

/// The counts with all that only a look at every socket tells.
pub(crate) async fn now(
    source: &dyn Source,
    identity: &Identity,
    filter: &Filter,
) -> anyhow::Result<Counts> {
    source.settle()?;
    let mut slots = source.slots()?;
    let has_mini_states = MINI_STATES.into_iter().any(|state| filter.keeps_state(state));
    if source.backend() == Backend::Ebpf && has_mini_states {
        add_mini_sockets(&mut slots, identity, source.may_have_pending())?;
    }
    identity.refresh_soon(slots.iter().map(|slot| slot.key)).await;
    Ok(Counts::new(&slots, source.backend(), source.exactness()?, identity, filter))
}

/// A dump passes over every socket of the host, whichever namespace it is for, so it is made only where
/// there is something to be found: SYNs wait only where somebody listens.
fn add_mini_sockets(
    slots: &mut Vec<CountSlot>,
    identity: &Identity,
    may_have_pending: bool,
) -> anyhow::Result<()> {
    let listening: HashSet<u32> = slots
        .iter()
        .filter(|slot| slot.states[usize::from(state::LISTEN) - 1] > 0)
        .map(|slot| slot.key.netns)
        .collect();
    let has_mini = |inside: &Inside| {
        (may_have_pending && listening.contains(&inside.inode))
            || left_over(inside).map_or(true, |count| count > 0)
    };
    let namespaces = identity
        .namespaces(slots.iter().map(|slot| slot.key.netns).collect())
        .context("cannot list network namespaces")?;
    let dumped = dump_each(&namespaces, Detail::Mini, has_mini)?;
    for slot in slots.iter_mut().filter(|slot| dumped.namespaces.contains(&slot.key.netns)) {
        for state in MINI_STATES {
            slot.states[usize::from(state) - 1] = 0;
        }
    }
    let mut index: HashMap<CountKey, usize> = HashMap::new();
    for (position, slot) in slots.iter().enumerate() {
        index.entry(slot.key).or_insert(position);
        // A mini socket has lost its cgroup: it goes to the first population on its port.
        index.entry(CountKey { cgroup_id: 0, ..slot.key }).or_insert(position);
    }
    for (socket, key) in keyed(&dumped.sockets) {
        if !MINI_STATES.contains(&socket.state) {
            continue;
        }
        let position = *index.entry(key).or_insert_with(|| {
            slots.push(CountSlot { key, ..CountSlot::default() });
            slots.len() - 1
        });
        slots[position].states[usize::from(socket.state) - 1] += 1;
    }
    Ok(())
}

/// What is left of connections whose socket is gone, and with it the cgroup and the role.
fn is_left_over(row: &CountRow) -> bool {
    let left_over = ["time_wait", "fin_wait_2", "syn_recv"];
    row.states.keys().all(|name| left_over.contains(&name.as_ref()))
}

/// What rows of one container, port and role have to be told apart by.
struct Apart {
    netns: bool,
    cgroup: bool,
}

impl Apart {
    fn of(rows: &[&CountRow]) -> Self {
        let mut by_name = HashMap::new();
        let mut by_netns = HashMap::new();
        let mut told = Self { netns: false, cgroup: false };
        for row in rows {
            let name = (&row.container.name, row.port, &row.role);
            told.netns |= *by_name.entry(name).or_insert(row.netns) != row.netns;
            let cgroup = by_netns.entry((name, row.netns)).or_insert(row.cgroup_id);
            told.cgroup |= *cgroup != row.cgroup_id;
        }
        told
    }

    fn header(&self) -> impl Iterator<Item = &'static str> {
        let shown = [(self.netns, "NETNS"), (self.cgroup, "CGROUP")];
        shown.into_iter().filter(|(is_shown, _)| *is_shown).map(|(_, name)| name)
    }

    fn cells(&self, row: &CountRow) -> impl Iterator<Item = Cell> {
        let netns = self.netns.then(|| row.netns.into());
        netns.into_iter().chain(self.cgroup.then(|| row.cgroup_id.into()))
    }
}

fn text(counts: &Counts, filter: &Filter) -> String {
    let (left_over, shown): (Vec<&CountRow>, Vec<&CountRow>) = counts
        .counts
        .iter()
        .filter(|row| !row.states.is_empty())
        .partition(|row| row.container.runtime == Runtime::Unknown && is_left_over(row));
    let told_by = Apart::of(&shown);
    let mut header = vec!["CONTAINER", "PORT", "ROLE", "ESTABLISHED", "ACCEPTED", "OTHER STATES"];
    header.splice(1..1, told_by.header());
    let first_number = header.len() - 5;
    let numbers = [first_number, first_number + 2, first_number + 3];
    let mut table = table::new(header, &numbers);
    for row in &shown {
        let others: Vec<String> = row
            .states
            .iter()
            .filter(|(name, _)| **name != "established")
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let mut cells = vec![
            table::text(&row.container.name),
            row.port.into(),
            row.role.as_ref().into(),
            row.established.into(),
            row.accepted.map_or("-".into(), Into::into),
            others.join(", ").into(),
        ];
        cells.splice(1..1, told_by.cells(row));
        table.add_row(cells);
    }
    let mut text =
        if shown.is_empty() { nothing(filter).to_owned() } else { table::render(&table) };
    let left_over: i64 = left_over.iter().flat_map(|row| row.states.values()).sum();
    if left_over > 0 {
        text.push_str(&format!(
            "and {left_over} sockets in time_wait or fin_wait_2 whose service is not known (--json lists them)\n"
        ));
    }
    for reason in &counts.degraded {
        // Agents of before do not tell which is which.
        let is_why = counts.inexact.contains(reason) || counts.inexact.is_empty() && !counts.exact;
        let lead = if is_why { "not exact" } else { "note" };
        text.push_str(&format!("{lead}: {reason}\n"));
    }
    text
}
