//! Drives `e2e-peer`: one end of an exactly known number of connections.

use std::ops::RangeInclusive;
use std::process::Command;

use crate::net::Place;
use crate::process::{Running, binary};
use crate::truth;

/// A running `e2e-peer`. Each call returns when the peer has done it.
#[derive(Debug)]
pub struct Peer {
    process: Running,
}

/// How the other end ended connections that were reaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    pub fin: usize,
    pub rst: usize,
    pub timeout: usize,
}

impl Peer {
    /// Runs in the place's network, with the test's own cgroup.
    #[must_use]
    pub fn start(place: &Place) -> Self {
        Self::with(&mut place.command(binary("e2e-peer")))
    }

    /// Runs by any command that ends up as an `e2e-peer`, e.g. `docker run`.
    #[must_use]
    pub fn with(command: &mut Command) -> Self {
        Self { process: Running::start(command) }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    #[track_caller]
    fn tell(&mut self, command: &str) {
        let answer = self.process.ask(command);
        assert_eq!(answer, "ok", "to `{command}`");
    }

    #[track_caller]
    pub fn listen(&mut self, address: &str) {
        self.tell(&format!("listen {address}"));
    }

    #[track_caller]
    pub fn connect(&mut self, address: &str, count: usize) {
        self.tell(&format!("connect {address} {count}"));
    }

    /// Listens on each port, and accepts nothing.
    #[track_caller]
    pub fn listen_each(&mut self, address: &str, ports: RangeInclusive<u16>) {
        self.tell(&format!("listen-each {address} {} {}", ports.start(), ports.end()));
    }

    /// Opens a connection to each port; how many were not refused.
    #[track_caller]
    pub fn try_each(&mut self, address: &str, ports: RangeInclusive<u16>) -> usize {
        let answer =
            self.process.ask(&format!("try-each {address} {} {}", ports.start(), ports.end()));
        answer.parse().unwrap_or_else(|_| panic!("try-each: {answer}"))
    }

    #[track_caller]
    pub fn reconnect(&mut self, address: &str, count: usize) {
        self.tell(&format!("reconnect {address} {count}"));
    }

    #[track_caller]
    pub fn held(&mut self) -> usize {
        let answer = self.process.ask("held");
        answer.parse().unwrap_or_else(|_| panic!("held: {answer}"))
    }

    /// Waits until this end holds so many connections.
    #[track_caller]
    pub fn wait_held(&mut self, count: usize) {
        truth::wait_equal("connections held by the peer", &count, || self.held());
    }

    #[track_caller]
    pub fn fin(&mut self, count: usize) {
        self.tell(&format!("fin {count}"));
    }

    #[track_caller]
    pub fn rst(&mut self, count: usize) {
        self.tell(&format!("rst {count}"));
    }

    /// One byte on every connection, which ends those that stay unacknowledged for `milliseconds`.
    #[track_caller]
    pub fn send_with_timeout(&mut self, milliseconds: u32) {
        self.tell(&format!("user-timeout {milliseconds}"));
        self.tell("send");
    }

    #[track_caller]
    pub fn enter_cgroup(&mut self, path: &str) {
        self.tell(&format!("cgroup {path}"));
    }

    #[track_caller]
    pub fn reap(&mut self) -> Reaped {
        let answer = self.process.ask("reap");
        let numbers: Vec<usize> = answer.split(' ').flat_map(str::parse).collect();
        match numbers[..] {
            [fin, rst, timeout] => Reaped { fin, rst, timeout },
            _ => panic!("reap: {answer}"),
        }
    }

    /// Reaps until exactly so many have ended.
    #[track_caller]
    pub fn wait_reaped(&mut self, expected: Reaped) {
        let mut sum = Reaped::default();
        truth::wait_equal("connections reaped by the peer", &expected, || {
            let more = self.reap();
            sum.fin += more.fin;
            sum.rst += more.rst;
            sum.timeout += more.timeout;
            sum
        });
    }
}
