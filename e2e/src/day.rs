//! An agent beside a server, whose connections come and go while something happens to the one or the other.

use std::time::Duration;

use crate::lab;
use crate::net::{Cable, Place};
use crate::peer::Peer;
use crate::probe::{Agent, Of};
use crate::truth::{curr_estab, wait_equal, wait_equal_within};

pub const PORT: u16 = 8080;
pub const SERVICE: &str = "10.77.0.1:8080";

/// Opens and ends so many connections, 20 ms each, at no more than 2,000 a second.
fn churn(client: &Place, count: u64) {
    let count = count.to_string();
    let args = ["churn", "--count", &count, "--hold", "20ms", "--to", SERVICE];
    let done = lab::run(client, &args, Duration::from_secs(120));
    assert_eq!(done["established"].to_string(), count);
}

/// Server, agent, and connections that the server holds throughout.
#[derive(Debug)]
pub struct Day {
    pub agent: Agent,
    pub cable: Cable,
    _sink: lab::Server,
    _held: Peer,
}

pub const HELD: usize = 23;
pub const CHURNED: u64 = 10_000;

impl Day {
    /// With more arguments for the agent than the usual.
    ///
    /// # Panics
    /// If a part of it does not come up.
    #[must_use]
    pub fn new(agent_arguments: &[&str]) -> Self {
        let cable = Cable::new();
        // Plain packets: what steering does is the torture run's matter.
        cable.server.steer_packets(Cable::DEVICE, "0");
        cable.client.steer_packets(Cable::DEVICE, "0");
        cable.client.sysctl("net/ipv4/ip_local_port_range", "1024 65000");
        let sink = lab::Server::start(&cable.server.place(), &["sink", "--listen", SERVICE]);
        let agent = Agent::start_with(agent_arguments);
        let mut held = Peer::start(&cable.client.place());
        held.connect(SERVICE, HELD);
        Self { agent, cable, _sink: sink, _held: held }
    }

    /// Churn, and what is done meanwhile.
    ///
    /// # Panics
    /// If a connection of the churn fails.
    pub fn under_load(&mut self, meanwhile: impl FnOnce(&mut Agent)) {
        let (agent, client) = (&mut self.agent, self.cable.client.place());
        std::thread::scope(|scope| {
            let load = scope.spawn(move || churn(&client, CHURNED));
            meanwhile(agent);
            load.join().expect("the churn ends");
        });
    }

    /// Everything that was opened is counted, and nothing else is left.
    ///
    /// # Panics
    /// If that has not become true after a minute.
    #[track_caller]
    pub fn assert_counted(&self) {
        let place = self.cable.server.place();
        wait_equal("CurrEstab", &HELD, || curr_estab(&place));
        let of = Of::port(PORT).netns(place.inode());
        let all = CHURNED.cast_signed() + HELD as i64;
        wait_equal_within(
            Duration::from_secs(60),
            "established now, accepted in all, and why not exact",
            &(HELD as i64, all, None),
            || {
                let counts = self.agent.counts();
                let doubt = (counts.0["exact"] != true).then(|| counts.0["degraded"].to_string());
                (counts.established(&of), counts.accepted(&of), doubt)
            },
        );
    }
}
