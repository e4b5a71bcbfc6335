//! Recordings of a server whose truth is known: its connections, and what it reports of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use capture::CaptureWriter;
use capture::meta::{Meta, Selection};
use capture::schema::{
    ClockRow, ConnectionRow, ContainerRow, CountRow, HealthRow, ListedRow, LossRow, MetricRow,
};

use crate::common::{CGROUP, MS, PORT, S, START, START_UNIX, URL, blank_row, meta};

/// One connection to the server, times in nanoseconds from the start of the recording.
#[derive(Clone, Debug)]
pub struct Conn {
    pub from: i64,
    pub to: Option<i64>,
    pub by: &'static str,
    pub how: &'static str,
    /// When the server takes it off its count; `None` for never.
    pub reported_until: Option<i64>,
    /// When the server puts it on its count; `None` for never.
    pub reported_from: Option<i64>,
    /// After the end the process holds the descriptor until then; `None` closes at once.
    pub held_until: Option<i64>,
    pub seeded: bool,
    pub class: &'static str,
    pub unanswered_probes: u32,
    /// The client's, where it is another's as well.
    pub remote_port: Option<u32>,
}

impl Conn {
    pub fn open(from: i64) -> Self {
        Conn {
            from,
            to: None,
            by: "remote",
            how: "fin",
            reported_from: Some(from + MS),
            reported_until: Some(i64::MAX),
            held_until: None,
            seeded: false,
            class: "unknown",
            unanswered_probes: 0,
            remote_port: None,
        }
    }

    /// Ended, and noticed by the server a millisecond later.
    pub fn ended(mut self, to: i64, by: &'static str, how: &'static str) -> Self {
        (self.to, self.by, self.how) = (Some(to), by, how);
        self.reported_until = Some(to + MS);
        self
    }

    /// The server never takes it off its count.
    pub fn leaked(mut self) -> Self {
        self.reported_until = None;
        self
    }

    /// The process never closes it.
    #[allow(dead_code, reason = "not every test binary leaks descriptors")]
    pub fn held(mut self) -> Self {
        self.held_until = Some(i64::MAX);
        self
    }
}

/// A recording of one server.
#[derive(Clone, Debug)]
pub struct Scene {
    pub host: &'static str,
    pub conns: Vec<Conn>,
    pub length: i64,
    pub health_every: i64,
    /// Added to what the server reports from a time on.
    pub adjust: Vec<(i64, i64)>,
    pub loss: Vec<(i64, i64)>,
    /// In each of them; 0 where that is not known.
    pub lost: u64,
    pub loss_reason: &'static str,
    /// Rows of connections that are left out, as if the ring had been full.
    pub lost_rows: usize,
    pub finished: bool,
    /// The numbers of the health body at a time, as a JSON object.
    pub fields: Option<fn(i64) -> String>,
    pub metrics: Vec<MetricRow>,
    /// The server's own list of its connections.
    pub listed: Vec<ListedRow>,
    /// It is a balancer: each connection has another to this port, which was recorded as well.
    pub shard_port: Option<u16>,
}

impl Scene {
    pub fn new(length: i64) -> Self {
        Scene {
            host: "testhost",
            conns: Vec::new(),
            length,
            health_every: S,
            adjust: Vec::new(),
            loss: Vec::new(),
            lost: 7,
            loss_reason: "ring full",
            lost_rows: 0,
            finished: true,
            fields: None,
            metrics: Vec::new(),
            listed: Vec::new(),
            shard_port: None,
        }
    }

    pub fn established_at(&self, t: i64) -> i64 {
        self.count(|c| c.from <= t && c.to.is_none_or(|to| t < to))
    }

    fn held_at(&self, t: i64) -> i64 {
        self.count(|c| c.to.is_some_and(|to| to <= t) && c.held_until.is_some_and(|h| t < h))
    }

    fn reported_at(&self, t: i64) -> i64 {
        let adjusted: i64 = self.adjust.iter().filter(|(at, _)| *at <= t).map(|(_, by)| by).sum();
        adjusted
            + self.count(|c| {
                c.reported_from.is_some_and(|from| from <= t)
                    && c.reported_until.is_none_or(|until| t < until)
            })
    }

    fn count(&self, which: impl Fn(&Conn) -> bool) -> i64 {
        self.conns.iter().filter(|c| which(c)).count() as i64
    }

    pub fn write(&self, dir: &Path) {
        let mut writer = CaptureWriter::create(dir, &self.meta(false)).unwrap();
        writer
            .clock(&[
                ClockRow { mono_ns: START, unix_ns: START_UNIX },
                ClockRow { mono_ns: START + self.length, unix_ns: START_UNIX + self.length },
            ])
            .unwrap();
        writer
            .containers(&[ContainerRow {
                cgroup_id: CGROUP,
                first_seen_mono_ns: START,
                path: None,
                runtime: "docker".into(),
                container_id: Some("0123456789abcdef".into()),
                name: "web".into(),
            }])
            .unwrap();
        let loss: Vec<_> = self
            .loss
            .iter()
            .map(|(from, to)| LossRow {
                from_mono_ns: START + from,
                to_mono_ns: START + to,
                reason: self.loss_reason.into(),
                count: self.lost,
            })
            .collect();
        writer.loss(&loss).unwrap();
        writer.metrics(&self.metrics).unwrap();
        writer.listed(&self.listed).unwrap();
        for second in 0..=self.length / S {
            writer.counts(&[self.counts(second * S)]).unwrap();
        }
        writer.counts(&[self.counts(self.length)]).unwrap();
        let mut at = self.health_every / 2;
        let mut n = 0;
        while at < self.length {
            writer.health(&[self.health(at, n)]).unwrap();
            // The poll is a connection too, and must not count.
            writer.connections(&[self.poll_row(at, n)]).unwrap();
            at += self.health_every;
            n += 1;
        }
        let ended = |c: &&Conn| !self.open_at_end(c);
        let rows: Vec<_> = self
            .conns
            .iter()
            .enumerate()
            .filter(|(_, c)| ended(c) || self.finished)
            .skip(self.lost_rows)
            .map(|(n, c)| self.row(n, c))
            .collect();
        writer.connections(&rows).unwrap();
        if let Some(port) = self.shard_port {
            let of_shard = |mut row: ConnectionRow| {
                (row.port, row.local_port) = (port.into(), port.into());
                row.cookie += 2_000_000;
                row
            };
            writer.connections(&rows.into_iter().map(of_shard).collect::<Vec<_>>()).unwrap();
            for second in 0..=self.length / S {
                let count = CountRow { port: port.into(), ..self.counts(second * S) };
                writer.counts(&[count]).unwrap();
            }
        }
        if self.finished {
            writer.finish(&self.meta(true)).unwrap();
        } else {
            writer.flush().unwrap();
            std::mem::forget(writer);
        }
    }

    fn open_at_end(&self, c: &Conn) -> bool {
        c.to.is_none_or(|to| to > self.length) || c.held_until.is_some_and(|h| h > self.length)
    }

    fn meta(&self, ended: bool) -> Meta {
        Meta {
            host: self.host.into(),
            ended_mono_ns: ended.then_some(START + self.length),
            selection: Selection {
                ports: self.shard_port.map_or(Vec::new(), |port| vec![PORT, port]),
                ..meta().selection
            },
            ..meta()
        }
    }

    pub fn counts(&self, t: i64) -> CountRow {
        CountRow {
            at_mono_ns: START + t,
            cgroup_id: CGROUP,
            netns: 1,
            port: PORT.into(),
            role: "passive",
            established: self.established_at(t),
            syn_sent: 0,
            fin_wait_1: 0,
            fin_wait_2: 0,
            close: 0,
            close_wait: self.held_at(t),
            last_ack: 0,
            listen: 1,
            closing: 0,
            class_unknown: self.established_at(t),
            class_silent: 0,
            class_http: 0,
            class_upgraded: 0,
            class_tls: 0,
            class_other: 0,
            established_total: 0,
            accepted_total: 0,
            closed_total: 0,
        }
    }

    fn health(&self, at: i64, n: u32) -> HealthRow {
        let (start, end) = (START + at, START + at + 2 * MS);
        let of_all_ports = self.shard_port.map(|_| 2 * self.established_at(at));
        HealthRow {
            url: URL.into(),
            start_mono_ns: start,
            end_mono_ns: end,
            local_address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            local_port: Some(60_000 + n % 5_000),
            http_status: Some(200),
            error: None,
            reported: Some(self.reported_at(at + MS)),
            fields: self.fields.map(|of| of(at).into()),
            kernel_min: of_all_ports,
            kernel_max: of_all_ports,
        }
    }

    fn poll_row(&self, at: i64, n: u32) -> ConnectionRow {
        let from = at - MS / 2;
        let mut row = self.row(0, &Conn::open(from).ended(at + 3 * MS, "remote", "fin"));
        row.cookie = 1_000_000 + u64::from(n);
        row.remote_address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        row.remote_port = 60_000 + n % 5_000;
        row
    }

    fn row(&self, n: usize, c: &Conn) -> ConnectionRow {
        let over = c.to.filter(|to| *to <= self.length);
        let open = self.open_at_end(c);
        let state = match (over, open) {
            (None, _) => "established",
            (Some(_), true) => "close_wait",
            (Some(_), false) => "close",
        };
        ConnectionRow {
            seeded: c.seeded,
            state,
            first_seen_ns: if c.seeded { START } else { START + c.from },
            established_ns: (!c.seeded).then_some(START + c.from),
            left_established_ns: over.map(|to| START + to),
            closed_ns: if open { None } else { over.map(|to| START + to) },
            class: c.class,
            closed_by: if open { None } else { Some(c.by) },
            closed_how: if open { None } else { Some(c.how) },
            unanswered_probes: open.then_some(c.unanswered_probes),
            last_heard_ms: open.then_some(3_500),
            remote_port: c.remote_port.unwrap_or(blank_row(n).remote_port),
            ..blank_row(n)
        }
    }
}
