//! Where a scenario's server and clients are: on loopback, or in two network namespaces with a
//! link between them that can go down.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use crate::error::LabError;

/// Two namespaces joined by a link; gone when dropped.
#[derive(Debug)]
pub(super) struct Link {
    server: String,
    client: String,
}

/// In 192.0.2.0/24, which is kept for examples: no real network is shadowed, and none is reached.
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

impl Link {
    pub(super) fn create() -> anyhow::Result<Self> {
        let id = std::process::id();
        let link = Link { server: format!("lab-s-{id}"), client: format!("lab-c-{id}") };
        let (server, client) = (&link.server, &link.client);
        ip(&["netns", "add", server])?;
        ip(&["netns", "add", client])?;
        ip(&[
            "-n", server, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns",
            client,
        ])?;
        for (namespace, address) in [(server, SERVER), (client, CLIENT)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "veth0"])?;
            ip(&["-n", namespace, "link", "set", "veth0", "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(link)
    }

    pub(super) fn server_namespace(&self) -> &str {
        &self.server
    }

    pub(super) fn client_namespace(&self) -> &str {
        &self.client
    }

    pub(super) fn server_address(&self) -> IpAddr {
        SERVER.into()
    }

    /// Addresses of the clients' end beside the first, so that some can fare differently.
    pub(super) fn add_client_addresses(&self, addresses: u8) -> anyhow::Result<()> {
        for address in self.client_addresses(addresses).skip(1) {
            let address = format!("{address}/24");
            ip(&["-n", &self.client, "address", "add", &address, "dev", "veth0"])?;
        }
        Ok(())
    }

    pub(super) fn client_addresses(&self, count: u8) -> impl Iterator<Item = Ipv4Addr> {
        let [a, b, c, first] = CLIENT.octets();
        (0..count).map(move |more| Ipv4Addr::new(a, b, c, first + more))
    }

    /// Whatever is sent to the first of the clients' addresses is lost before it arrives.
    pub(super) fn lose_packets_to_first_client(&self) -> anyhow::Result<()> {
        // A neighbour that is not there takes every packet.
        const NOBODY: &str = "02:00:00:00:00:99";
        let first = CLIENT.to_string();
        let nobody = ["lladdr", NOBODY, "dev", "veth0", "nud", "permanent"];
        ip(&[&["-n", &self.server, "neigh", "replace", &first], &nobody[..]].concat())
    }

    /// From here on packets arrive again.
    pub(super) fn heal(&self) -> anyhow::Result<()> {
        ip(&["-n", &self.server, "neigh", "delete", &CLIENT.to_string(), "dev", "veth0"])
    }

    /// Packets of the clients are lost from here on, without a word to either side.
    pub(super) fn cut(&self) -> anyhow::Result<()> {
        ip(&["-n", &self.client, "link", "set", "veth0", "down"])
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            // It may never have come about.
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let cure = "this scenario needs root and iproute2";
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| LabError::host(format!("cannot run `ip`: {error}; {cure}")))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(LabError::host(format!("`ip {}` failed: {}; {cure}", args.join(" "), why.trim())))
}
