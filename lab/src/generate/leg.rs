//! One connection: what becomes of it is drawn when it starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use capture::cell::Comm;
use capture::schema::ConnectionRow;
use fastrand::Rng;

use super::{CGROUP, MS, NETNS, Options, PORT, SECOND, START_NS, START_UNIX_NS, takes};
use crate::client::record::{End, EndedBy, Record};

const US: i64 = 1_000;
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// So much the clients' clock is ahead of the server's.
pub(super) const CLIENT_CLOCK_AHEAD_NS: i64 = 12_345_678;
/// Clients come from so many addresses at most, each with a port of its own for every connection.
const ADDRESSES: u64 = 250_000;
const PORTS: u64 = 60_000;
/// Of a thousand client rows one never reached the server, and one never had a local port.
const STRANGER: u64 = 998;
const PORTLESS: u64 = 999;

/// One leg. Times are monotonic nanoseconds; a whole number of microseconds lies between any two.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) number: u64,
    pub(super) syn_ns: i64,
    pub(super) established_ns: Option<i64>,
    pub(super) accepted_ns: Option<i64>,
    pub(super) request_ns: Option<i64>,
    pub(super) response_ns: Option<i64>,
    pub(super) first_frame_ns: Option<i64>,
    /// `None` stays open to the end of the recording.
    pub(super) closed_ns: Option<i64>,
    pub(super) outcome: &'static str,
    status: Option<u32>,
    closed_by: &'static str,
    closed_how: &'static str,
    /// The server keeps it on its books.
    pub(super) leaks: bool,
    remote: (Ipv4Addr, u16),
    retransmits: u32,
}

/// Draws one leg after the other, in order of their SYNs.
#[derive(Debug)]
pub(super) struct Traffic {
    rng: Rng,
    number: u64,
    clients_made: u64,
    total: u64,
    clients: u64,
    phantoms: u64,
    open: u64,
    first_ns: i64,
    /// All start within this time.
    span_ns: i64,
    longest_life_ns: i64,
    pending: Option<Leg>,
}

impl Traffic {
    pub(super) fn new(options: &Options) -> Self {
        let length_ns = i64::from(options.health) * SECOND;
        Self {
            rng: Rng::with_seed(options.seed),
            number: 0,
            clients_made: 0,
            total: options.connections,
            clients: options.clients,
            phantoms: options.phantoms,
            open: options.open,
            first_ns: START_NS + length_ns / 50,
            // The last tenth is quiet, so that what is left over can be told to the last one.
            span_ns: length_ns * 3 / 4,
            longest_life_ns: (length_ns / 10).min(40 * SECOND),
            pending: None,
        }
    }

    /// The next one, if it starts by then.
    pub(super) fn next_until(&mut self, until_ns: i64) -> Option<Leg> {
        if self.pending.is_none() && self.number < self.total {
            self.pending = Some(self.draw());
        }
        self.pending.take_if(|leg| leg.syn_ns <= until_ns)
    }

    fn draw(&mut self) -> Leg {
        let number = self.number;
        self.number += 1;
        let slot = |number: u64| {
            (i128::from(self.span_ns) * i128::from(number) / i128::from(self.total)) as i64
        };
        let width = (slot(number + 1) - slot(number)).max(1);
        let syn_ns = self.first_ns + slot(number) + self.rng.i64(0..width);
        let leaks = takes(self.phantoms, self.total, number);
        // Half a step further on, so that the two fall apart.
        let shifted = (number + self.total / (2 * self.open.max(1))) % self.total;
        let stays = !leaks && takes(self.open, self.total, shifted);
        let mut leg = Leg {
            number,
            syn_ns,
            established_ns: None,
            accepted_ns: None,
            request_ns: None,
            response_ns: None,
            first_frame_ns: None,
            closed_ns: None,
            outcome: if leaks || stays { "upgraded" } else { outcome(self.rng.u32(0..1000)) },
            status: None,
            closed_by: "local",
            closed_how: "fin",
            leaks,
            remote: remote(number, self.total),
            retransmits: 0,
        };
        match leg.outcome {
            "syn_ack_timeout" => {
                (leg.closed_by, leg.closed_how) = ("timeout", "timeout");
                leg.retransmits = 2;
                leg.closed_ns = Some(syn_ns + 3 * SECOND);
            }
            "reset_before_established" => {
                (leg.closed_by, leg.closed_how) = ("remote", "rst");
                leg.closed_ns = Some(syn_ns + self.us(100, 5_000));
            }
            _ => self.establish(&mut leg, stays),
        }
        leg
    }

    fn establish(&mut self, leg: &mut Leg, stays: bool) {
        let established = leg.syn_ns + self.us(40, 20_000);
        let accepted = established + self.us(10, 5_000);
        let request = accepted + self.us(20, 10_000);
        leg.established_ns = Some(established);
        leg.accepted_ns = Some(accepted);
        leg.request_ns = Some(request);
        if leg.outcome == "no_response_client_left" {
            leg.closed_by = "remote";
            leg.closed_ns = Some(request + SECOND + self.us(0, 1_000_000));
            return;
        }
        let response = request + self.us(150, 60_000);
        leg.response_ns = Some(response);
        leg.status = Some(match leg.outcome {
            "http_503" => 503,
            "http_401" => 401,
            "http_429" => 429,
            _ => 101,
        });
        if !leg.is_upgraded() {
            leg.closed_ns = Some(response + self.us(30, 2_000));
            return;
        }
        leg.first_frame_ns = Some(response + self.us(50, 40_000));
        if stays {
            return;
        }
        let life_ns = 200 * MS + self.rng.i64(0..self.longest_life_ns / US) * US;
        leg.closed_ns = Some(response + life_ns);
        if leg.leaks {
            (leg.closed_by, leg.closed_how) = ("remote", "rst");
        } else if self.rng.u32(0..10) < 7 {
            leg.closed_by = "remote";
        }
    }

    /// Whole microseconds with a long tail, in nanoseconds.
    fn us(&mut self, least: i64, spread: i64) -> i64 {
        let u = self.rng.f64();
        (least + (spread as f64 * (u * u * u * u)) as i64) * US
    }

    /// What the client of this leg wrote down, if it is one of those that did.
    pub(super) fn client(&mut self, leg: &Leg) -> Option<Record> {
        if !takes(self.clients, self.total, leg.number) {
            return None;
        }
        let number = self.clients_made;
        self.clients_made += 1;
        let on_client = |mono_ns: i64| mono_ns - START_NS + START_UNIX_NS + CLIENT_CLOCK_AHEAD_NS;
        let mut record = Record::start(number, SocketAddr::new(SERVER, PORT));
        record.started_unix_ns = on_client(leg.syn_ns - self.us(30, 2_000));
        match number % 1000 {
            STRANGER => record.set_local(SocketAddr::from(([10, 250, 0, 9], 4_000))),
            PORTLESS => {}
            _ => record.set_local(SocketAddr::from(leg.remote)),
        }
        if matches!(number % 1000, STRANGER | PORTLESS) {
            record.failed("unknown", "never connected");
            return Some(record);
        }
        record.connected_unix_ns = leg.established_ns.map(|at| on_client(at + self.us(10, 500)));
        leg.outcome.clone_into(&mut record.outcome);
        record.http_status = leg.status.map(|status| status as u16);
        if leg.is_upgraded() {
            record.upgraded_unix_ns = leg.response_ns.map(|at| on_client(at + self.us(30, 2_000)));
            record.messages_sent = 10;
            record.messages_received = 10;
            for _ in 0..3 {
                let rtt_us = self.us(200, 30_000) / US;
                record.add_rtt(rtt_us as f64);
            }
        }
        if let Some(closed) = leg.closed_ns {
            let (by, end) = match (leg.closed_by, leg.closed_how) {
                ("remote", "rst") => (EndedBy::Client, End::Rst),
                ("remote", _) => (EndedBy::Client, End::CloseFrame),
                ("local", _) => (EndedBy::Server, End::CloseFrame),
                _ => (EndedBy::Network, End::Error),
            };
            record.ended(by, end);
            record.closed_unix_ns = Some(on_client(closed));
        }
        Some(record)
    }
}

fn outcome(per_mille: u32) -> &'static str {
    match per_mille {
        0..20 => "http_503",
        20..30 => "http_401",
        30..35 => "http_429",
        35..45 => "no_response_client_left",
        45..48 => "syn_ack_timeout",
        48..50 => "reset_before_established",
        _ => "upgraded",
    }
}

/// No two connections have the same.
fn remote(number: u64, total: u64) -> (Ipv4Addr, u16) {
    let addresses = ADDRESSES.max(total.div_ceil(PORTS));
    let (address, port) = (number % addresses, number / addresses);
    // 10.1.0.0 and up.
    let address = 0x0a01_0000 + address as u32;
    (Ipv4Addr::from_bits(address), 1_024 + (port * 7_919 % PORTS) as u16)
}

/// A health poll's connection.
pub(super) fn poll(start_ns: i64, end_ns: i64, port: u16, number: u64) -> Leg {
    Leg {
        // Cookies of their own, above those of the clients.
        number: (1 << 40) + number,
        syn_ns: start_ns,
        established_ns: Some(start_ns + 20 * US),
        accepted_ns: Some(start_ns + 30 * US),
        request_ns: Some(start_ns + 60 * US),
        response_ns: Some(end_ns - 200 * US),
        first_frame_ns: None,
        closed_ns: Some(end_ns - 100 * US),
        outcome: "plain_http",
        status: Some(200),
        closed_by: "local",
        closed_how: "fin",
        leaks: false,
        remote: (Ipv4Addr::LOCALHOST, port),
        retransmits: 0,
    }
}

impl Leg {
    pub(super) fn is_upgraded(&self) -> bool {
        self.outcome == "upgraded"
    }

    pub(super) fn upgraded_ns(&self) -> Option<i64> {
        self.response_ns.filter(|_| self.is_upgraded())
    }

    pub(super) fn row(&self) -> ConnectionRow {
        let closed = self.closed_ns.is_some();
        let local = if self.remote.0.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { SERVER };
        ConnectionRow {
            cookie: self.number + 1,
            generation: 0,
            netns: NETNS,
            cgroup_id: CGROUP,
            task_cgroup_id: self.accepted_ns.map(|_| CGROUP),
            pid: self.accepted_ns.map(|_| 4_242),
            comm: self.accepted_ns.map(|_| Comm(*b"node\0\0\0\0\0\0\0\0\0\0\0\0")),
            role: "passive",
            family: 4,
            local_address: local,
            local_port: PORT.into(),
            remote_address: self.remote.0.into(),
            remote_port: self.remote.1.into(),
            port: PORT.into(),
            seeded: false,
            state: if closed { "close" } else { "established" },
            first_seen_ns: self.syn_ns,
            syn_received_ns: Some(self.syn_ns),
            syn_ack_sent_ns: Some(self.syn_ns + 5 * US),
            established_ns: self.established_ns,
            accepted_ns: self.accepted_ns,
            established_is_upper_bound: false,
            accepted_is_upper_bound: false,
            request_ns: self.request_ns,
            response_ns: self.response_ns,
            upgraded_ns: self.upgraded_ns(),
            first_frame_in_ns: self.first_frame_ns,
            first_frame_out_ns: self.first_frame_ns.map(|at| at + 50 * US),
            left_established_ns: self.established_ns.and(self.closed_ns),
            closed_ns: self.closed_ns,
            released_ns: None,
            class: match (self.is_upgraded(), self.request_ns) {
                (true, _) => "upgraded",
                (false, Some(_)) => "http",
                (false, None) => "unknown",
            },
            outcome: Some(self.outcome.into()),
            http_status: self.status,
            http_reason: None,
            close_code: (closed && self.is_upgraded() && self.closed_how == "fin").then_some(1_000),
            closed_by: closed.then_some(self.closed_by),
            closed_how: closed.then_some(self.closed_how),
            error: (self.closed_how == "rst").then_some("ECONNRESET".into()),
            fd_held_at_close: false,
            bytes_sent: self.response_ns.map(|_| 129 + 10 * 34),
            bytes_received: self.request_ns.map(|_| 210 + 10 * 38),
            srtt_us: self.established_ns.map(|at| ((at - self.syn_ns) / US) as u32),
            retransmits: Some(self.retransmits),
            unacked_segments: (!closed).then_some(0),
            unanswered_probes: (!closed).then_some(0),
            last_heard_ms: (!closed).then_some(100),
            leg_id: None,
        }
    }
}
