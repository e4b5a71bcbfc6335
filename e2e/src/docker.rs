//! Containers from an image that is made here: busybox, and the libraries our binaries load.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::tool;
use crate::net::Place;
use crate::peer::Peer;
use crate::process::{binary, finish};

const IMAGE: &str = "groundtruth-e2e:2";
/// Where the built binaries are in a container.
const BINARIES: &str = "/groundtruth";

/// Uses the running daemon, else starts `dockerd`, which then stays for the tests that follow.
///
/// # Errors
/// Why there is no Docker here.
pub fn start_daemon() -> Result<(), String> {
    if answers() {
        return Ok(());
    }
    let log_path = std::env::temp_dir().join("groundtruth-e2e-dockerd.log");
    let log = File::create(&log_path).map_err(|e| format!("{}: {e}", log_path.display()))?;
    let again = log.try_clone().map_err(|e| format!("{}: {e}", log_path.display()))?;
    // In its own session, so that a Ctrl-C at the tests does not stop it halfway.
    Command::new("setsid")
        .arg("dockerd")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .spawn()
        .map_err(|e| format!("needs Docker, and dockerd does not start: {e}"))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !answers() {
        if Instant::now() > deadline {
            return Err(format!("dockerd does not answer, see {}", log_path.display()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn answers() -> bool {
    let mut info = Command::new("docker");
    info.arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    info.status().is_ok_and(|status| status.success())
}

/// The address of Docker's default bridge on the host, e.g. `172.17.0.1/16`.
///
/// # Panics
/// Without a daemon.
#[must_use]
pub fn bridge_address() -> String {
    let format = "{{range .IPAM.Config}}{{.Gateway}} {{.Subnet}}{{end}}";
    let text = tool("docker", &["network", "inspect", "bridge", "-f", format]);
    let mut words = text.split_whitespace();
    let (gateway, subnet) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !gateway.is_empty() && !subnet.is_empty() {
        return format!("{gateway}/{}", subnet.rsplit('/').next().unwrap_or("16"));
    }
    // Daemons that chose the network themselves show it on the interface only.
    let text = tool("ip", &["-4", "-o", "addr", "show", "docker0"]);
    let address = text.split_whitespace().skip_while(|&word| word != "inet").nth(1);
    address.expect("docker0 has an address").to_owned()
}

/// Makes the image, unless it is there.
fn image() {
    let known = finish(Command::new("docker").args(["image", "inspect", IMAGE]));
    if known.code == Some(0) {
        return;
    }
    let mut files: Vec<PathBuf> = vec!["/bin/busybox".into()];
    for name in ["e2e-peer", "lab", "probe"] {
        let text = finish(Command::new("ldd").arg(binary(name))).success("ldd");
        // `libc.so.6 => /lib/… (0x…)`, and the loader's line without an arrow.
        files.extend(text.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from));
    }
    files.sort();
    files.dedup();
    let list: Vec<String> = files
        .iter()
        .map(|path| path.to_string_lossy().trim_start_matches('/').to_owned())
        .collect();
    let mut tar = Command::new("tar")
        .args(["--create", "--dereference", "--directory", "/"])
        .args(&list)
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar starts");
    let import = Command::new("docker")
        .args(["import", "-", IMAGE])
        .stdin(tar.stdout.take().expect("piped"))
        .stdout(Stdio::null())
        .status()
        .expect("docker starts");
    assert!(tar.wait().expect("tar ends").success() && import.success(), "no image was made");
}

/// A running container; removed on drop.
#[derive(Debug)]
pub struct Container {
    pub name: String,
}

impl Container {
    /// Starts one that does nothing yet, with options of `docker run` such as `--network host`.
    ///
    /// # Panics
    /// If Docker refuses.
    #[must_use]
    pub fn start(name: &str, options: &[&str]) -> Self {
        image();
        let name = format!("groundtruth-{name}");
        let _ = finish(Command::new("docker").args(["rm", "--force", &name]));
        let binaries = binary("e2e-peer");
        let binaries = binaries.parent().unwrap_or(Path::new("/"));
        let mut command = Command::new("docker");
        command.args(["run", "--detach", "--init=false", "--name", &name]);
        command.args(["--ulimit", "nofile=20000:20000", "--stop-timeout", "1"]);
        command.arg("--volume").arg(format!("{}:{BINARIES}:ro", binaries.display()));
        command.args(options).args([IMAGE, "/bin/busybox", "sleep", "1000000"]);
        let _ = finish(&mut command).success("docker run");
        let container = Self { name };
        container.wait_reachable();
        container
    }

    /// A neighbour search for the same address that began before the container was there (an earlier
    /// test's client still sends to it) fails the connections that wait on it: "No route to host".
    fn wait_reachable(&self) {
        let address = self.address();
        if address.is_empty() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while finish(Command::new("busybox").args(["ping", "-c1", "-W1", &address])).code != Some(0)
        {
            assert!(Instant::now() < deadline, "{} does not answer at {address}", self.name);
        }
    }

    /// A peer inside, in the container's own cgroup.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::with(&mut self.exec(&format!("{BINARIES}/e2e-peer")))
    }

    /// A command that runs inside, with the built binaries at `/groundtruth`.
    #[must_use]
    pub fn exec(&self, program: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--interactive", &self.name, program]);
        command
    }

    fn inspect(&self, format: &str) -> String {
        tool("docker", &["inspect", "--format", format, &self.name]).trim().to_owned()
    }

    /// The full 64 digits.
    #[must_use]
    pub fn id(&self) -> String {
        self.inspect("{{.Id}}")
    }

    /// Its address on the default bridge.
    #[must_use]
    pub fn address(&self) -> String {
        self.inspect("{{.NetworkSettings.IPAddress}}")
    }

    /// Its network.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::of_process(self.inspect("{{.State.Pid}}").parse().expect("a running container"))
    }

    pub fn kill(&self) {
        tool("docker", &["kill", &self.name]);
    }

    pub fn restart(&self) {
        tool("docker", &["restart", &self.name]);
    }

    pub fn rename(&mut self, name: &str) {
        let name = format!("groundtruth-{name}");
        let _ = finish(Command::new("docker").args(["rm", "--force", &name]));
        tool("docker", &["rename", &self.name, &name]);
        self.name = name;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["rm", "--force", &self.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
