//! One health request, with the kernel's count over just that time.
//!
//! The request's own connection is in that count. It is known by its addresses, looked for in the
//! population once, and taken out of each level at which the kernel says it is established.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use probe_common::state;

use tokio::time::Instant;

use super::{
    bracket::{Bracket, Level},
    population::Population,
};
use crate::{
    clock,
    export::json::address,
    health::{
        poller::{Poller, Sample},
        request::{Link, unconnected},
    },
    truth::{
        polled::{dump_all, keyed},
        sock_diag::{Detail, DiagSocket},
        source::Backend,
    },
};

/// How often the counters are read while a request is under way.
const STEP: Duration = Duration::from_millis(10);
/// A dump of sock_diag costs milliseconds, so it is not made a hundred times a second.
const STEP_DUMPED: Duration = Duration::from_millis(200);

/// A request's connection counts as plain HTTP once the kernel has sent a packet on it: the answer,
/// or an acknowledgement, which it delays by up to 40 ms.
const SURELY_HTTP: Duration = Duration::from_millis(100);

/// Whether the request's connection is one of those that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Counted,
    NotCounted,
    /// Counted, and left out as plain HTTP as soon as it is used.
    PlainHttp,
    /// More than one connection could be it: it may be in the count or not.
    Uncertain,
}

/// Asks a server again and again.
pub(crate) struct Watcher<'a> {
    pub(crate) poller: &'a Poller,
    pub(crate) population: &'a Population,
    /// How long the server may take to notice what the kernel knows: the count of this long before
    /// the request is fair as well.
    pub(crate) lag: Duration,
    own: Option<Own>,
}

/// What came of one request.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) sample: Sample,
    /// The kernel's count from `lag` before the request's start to its end.
    pub(crate) bracket: Bracket,
    /// The last level, the request's own connection taken out.
    pub(crate) level: Level,
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(poller: &'a Poller, population: &'a Population, lag: Duration) -> Self {
        Self { poller, population, lag, own: None }
    }

    pub(crate) async fn poll(&mut self) -> anyhow::Result<Poll> {
        let poll = self.poll_once().await?;
        let Ok(answer) = &poll.sample.answer else { return Ok(poll) };
        // What was counted may be more than the server reports on: its body says so, or its processes do.
        let listed = answer.shards.iter().filter_map(|shard| shard.port);
        let is_new = self.population.leave_out(listed)
            || poll.bracket.reverse_phantoms(answer.reported) > 0
                && self.population.leave_out(self.population.passed_on()?.into_iter());
        if is_new { self.poll_once().await } else { Ok(poll) }
    }

    async fn poll_once(&mut self) -> anyhow::Result<Poll> {
        let step = match self.population.source.backend() {
            Backend::Ebpf => STEP,
            Backend::SockDiag => STEP_DUMPED,
        };
        let mut levels = vec![self.population.level()?];
        let began = Instant::now();
        while began.elapsed() < self.lag {
            tokio::time::sleep(step.min(self.lag)).await;
            levels.push(self.population.level()?);
        }
        let before = if self.own.is_none() { Some(self.cookies()?) } else { None };
        let start_mono_ns = clock::mono_ns();
        let (mut asker, link) = match self.poller.connect().await {
            Ok(connected) => connected,
            Err(failure) => {
                let level = self.population.level()?;
                levels.push(level);
                let sample = unconnected(start_mono_ns, failure);
                return Ok(Poll { sample, bracket: Bracket::of(&levels), level });
            }
        };
        if let Some(before) = before {
            let own = self.look_for(&link, &before).await?;
            // What could not be told apart under load is looked for again with the next request.
            self.own = match own {
                Own::Uncertain => None,
                own => Some(own),
            };
        }
        let mut during = During {
            population: self.population,
            link: &link,
            own: self.own.unwrap_or(Own::Uncertain),
            levels,
            lowest: i64::MAX,
        };
        let sample = {
            let mut asking = std::pin::pin!(self.poller.ask(&mut asker, link.local));
            let pause = if during.own == Own::PlainHttp { SURELY_HTTP } else { step };
            let mut steps = tokio::time::interval_at(Instant::now() + pause, step);
            loop {
                tokio::select! {
                    sample = &mut asking => break sample,
                    _ = steps.tick() => { during.take()?; }
                }
            }
        };
        let level = during.take()?;
        Ok(Poll { sample, bracket: during.bracket(), level })
    }

    fn cookies(&self) -> anyhow::Result<HashSet<u64>> {
        let dumped = dump_all(Detail::Basic)?;
        Ok(self.established(&dumped.sockets).map(|socket| socket.cookie).collect())
    }

    fn established<'d>(
        &self,
        sockets: &'d [DiagSocket],
    ) -> impl Iterator<Item = &'d DiagSocket> + use<'d, '_> {
        keyed(sockets)
            .into_iter()
            .filter(|(socket, key)| {
                socket.state == state::ESTABLISHED && self.population.contains(key)
            })
            .map(|(socket, _)| socket)
    }

    /// A request in plain HTTP that is counted.
    fn plain(&self) -> Own {
        if self.population.knows_classes() { Own::PlainHttp } else { Own::Counted }
    }

    /// Looks for the other end of our connection among those that are counted. `before`: those that
    /// were counted before we connected.
    async fn look_for(&self, link: &Link, before: &HashSet<u64>) -> anyhow::Result<Own> {
        let is = |octets, port, end: SocketAddr| {
            address(octets) == end.ip().to_canonical() && port == end.port()
        };
        // A proxy in between opens its leg a moment after it accepted ours.
        for _ in 0..5 {
            let sockets = dump_all(Detail::Basic)?.sockets;
            let peer =
                |socket: &&DiagSocket| is(socket.remote_address, socket.remote_port, link.local);
            if self.established(&sockets).any(|socket| peer(&socket)) {
                // What TLS hides is counted like everything else.
                let is_hidden = self.poller.target.url.tls;
                return Ok(if is_hidden { Own::Counted } else { self.plain() });
            }
            let elsewhere = sockets.iter().find(|socket| {
                peer(socket) && is(socket.local_address, socket.local_port, link.remote)
            });
            if elsewhere.is_some_and(|socket| !self.population.is_hop(socket)) {
                return Ok(Own::NotCounted);
            }
            let new: Vec<&DiagSocket> = self
                .established(&sockets)
                .filter(|socket| !before.contains(&socket.cookie))
                .collect();
            match new.len() {
                0 => {}
                // With our peer elsewhere on this host, it is that one's own next leg.
                1 => return Ok(self.plain()),
                _ => return Ok(Own::Uncertain),
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(Own::NotCounted)
    }
}

/// The levels while a request is under way.
struct During<'a> {
    population: &'a Population,
    link: &'a Link,
    own: Own,
    levels: Vec<Level>,
    /// Lowest count if our own connection was in it after all.
    lowest: i64,
}

impl During<'_> {
    fn take(&mut self) -> anyhow::Result<Level> {
        let established = self.link.is_established();
        let mut level = self.population.level()?;
        let surely = established && self.link.is_established();
        match self.own {
            Own::NotCounted => {}
            Own::PlainHttp => {
                level.opened = level.opened.saturating_sub(1);
                level.plain_http -= i64::from(surely);
            }
            Own::Counted => {
                level.opened = level.opened.saturating_sub(1);
                if surely {
                    level.established -= 1;
                } else if established {
                    self.lowest = self.lowest.min(level.established - 1);
                }
            }
            Own::Uncertain => self.lowest = self.lowest.min(level.established - 1),
        }
        self.levels.push(level);
        Ok(level)
    }

    fn bracket(&self) -> Bracket {
        let bracket = Bracket::of(&self.levels);
        Bracket { min: bracket.min.min(self.lowest).max(0), ..bracket }
    }
}
