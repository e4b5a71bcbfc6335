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
