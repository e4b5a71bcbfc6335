//! Network namespaces of a test's own, so that its counts are nobody else's and loads stay inside.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::tool;

/// A port of loopback that nobody has now.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Where a process runs and where the truth is read: the host's network, or another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    namespace: Option<PathBuf>,
}

impl Place {
    /// The namespace of the test itself.
    #[must_use]
    pub fn host() -> Self {
        Self::default()
    }

    /// The namespace of a process.
    #[must_use]
    pub fn of_process(pid: u32) -> Self {
        Self { namespace: Some(format!("/proc/{pid}/ns/net").into()) }
    }

    /// A command that will run there (only the network differs).
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.namespace {
            None => Command::new(program),
            Some(path) => {
                let mut option = std::ffi::OsString::from("--net=");
                option.push(path);
                let mut command = Command::new("nsenter");
                command.arg(option).arg("--").arg(program);
                command
            }
        }
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.namespace.as_deref().unwrap_or(Path::new("/proc/self/ns/net"))
    }

    /// The inode by which the kernel and the probe know the namespace.
    ///
    /// # Panics
    /// If it is gone.
    #[must_use]
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.path();
        std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
    }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

fn unique(kind: &str) -> String {
    format!("gt{kind}{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A named network namespace with `lo` up; deleted on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// # Panics
    /// Without the right to make one.
    #[must_use]
    pub fn new() -> Self {
        let this = Self { name: unique("n") };
        tool("ip", &["netns", "add", &this.name]);
        this.ip(&["link", "set", "lo", "up"]);
        this
    }

    #[must_use]
    pub fn place(&self) -> Place {
        Place { namespace: Some(Path::new("/run/netns").join(&self.name)) }
    }

    /// Runs `ip` inside.
    pub fn ip(&self, args: &[&str]) {
        tool("ip", &[&["-n", &self.name], args].concat());
    }

    /// Writes a kernel setting of this namespace, e.g. `net/ipv4/tcp_tw_reuse`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let setting = format!("/proc/sys/{name}");
        tool(
            "ip",
            &["netns", "exec", &self.name, "sh", "-c", &format!("echo {value} > {setting}")],
        );
    }

    /// Loses so many of the TCP packets that arrive, at random; 0 ends it.
    pub fn lose(&self, share: f64) {
        let iptables = [&["netns", "exec", &self.name, "iptables"][..]].concat();
        tool("ip", &[&iptables[..], &["--flush", "INPUT"]].concat());
        if share > 0.0 {
            let share = share.to_string();
            let rule = ["--append", "INPUT", "--protocol", "tcp", "--match", "statistic"];
            let random = ["--mode", "random", "--probability", &share, "--jump", "DROP"];
            tool("ip", &[&iptables[..], &rule, &random].concat());
        }
    }

    /// Spreads the packets that arrive on `device` over the CPUs of the mask, so that both ends of a
    /// connection run at the same time and interrupt each other's programs.
    pub fn steer_packets(&self, device: &str, cpu_mask: &str) {
        let queue = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
        tool(
            "ip",
            &["netns", "exec", &self.name, "sh", "-c", &format!("echo {cpu_mask} > {queue}")],
        );
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Two namespaces with a cable between them, and packet steering on at both ends.
#[derive(Debug)]
pub struct Cable {
    pub server: Netns,
    pub client: Netns,
}

impl Cable {
    pub const SERVER: &str = "10.77.0.1";
    pub const CLIENT: &str = "10.77.0.2";
    pub const SERVER_V6: &str = "fd77::1";
    pub const CLIENT_V6: &str = "fd77::2";

    pub const DEVICE: &str = "cable";

    #[must_use]
    pub fn new() -> Self {
        let this = Self { server: Netns::new(), client: Netns::new() };
        this.server.ip(&[
            "link",
            "add",
            Self::DEVICE,
            "type",
            "veth",
            "peer",
            "name",
            Self::DEVICE,
            "netns",
            &this.client.name,
        ]);
        for (end, v4, v6) in [
            (&this.server, "10.77.0.1/24", "fd77::1/64"),
            (&this.client, "10.77.0.2/24", "fd77::2/64"),
        ] {
            end.ip(&["addr", "add", v4, "dev", Self::DEVICE]);
            // Without duplicate address detection, which takes a second.
            end.ip(&["addr", "add", v6, "dev", Self::DEVICE, "nodad"]);
            end.ip(&["link", "set", Self::DEVICE, "up"]);
            end.steer_packets(Self::DEVICE, "3");
        }
        this
    }

    /// Pulls the client's plug: from now on its peers hear nothing.
    pub fn cut(&self) {
        self.client.ip(&["link", "set", Self::DEVICE, "down"]);
    }
}

impl Default for Cable {
    fn default() -> Self {
        Self::new()
    }
}

/// A namespace plugged into a bridge of the host (Docker's), so that containers can be reached from
/// clients that can be cut off.
#[derive(Debug)]
pub struct Plugged {
    pub netns: Netns,
}

impl Plugged {
    /// `address` with its prefix length, within the bridge's network.
    #[must_use]
    pub fn new(bridge: &str, address: &str) -> Self {
        let netns = Netns::new();
        let host_end = unique("v");
        tool(
            "ip",
            &[
                "link",
                "add",
                &host_end,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &netns.name,
            ],
        );
        tool("ip", &["link", "set", &host_end, "master", bridge, "up"]);
        netns.ip(&["addr", "add", address, "dev", "eth0"]);
        netns.ip(&["link", "set", "eth0", "up"]);
        Self { netns }
    }

    /// From now on its peers hear nothing.
    pub fn cut(&self) {
        self.netns.ip(&["link", "set", "eth0", "down"]);
    }
}
