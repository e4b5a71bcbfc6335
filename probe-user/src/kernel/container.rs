//! What to start a container with that is to count the host's connections.

use std::{fs, os::unix::fs::MetadataExt};

use super::capabilities;
use crate::identity::cgroup::Container;

/// As `docs/install.md` has it; for `docker run`, and by the same names for most others.
const GRANTS: &str = "--network host --pid host --cap-add SYS_ADMIN --cap-add NET_ADMIN \
                      --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH \
                      --security-opt apparmor=unconfined -v /sys/fs/bpf:/sys/fs/bpf \
                      -v /sys/fs/cgroup:/sys/fs/cgroup:ro";

/// The host's own namespaces have these numbers on every kernel (`include/linux/proc_ns.h`); its network
/// and mounts have none that is fixed.
const OF_HOST: [(&str, u64); 2] = [("cgroup", 0xEFFF_FFFB), ("pid", 0xEFFF_FFFC)];

/// `next`; for root in a container, who cannot be given more from inside, what to start it with.
pub fn cure(next: String) -> String {
    if rustix::process::geteuid().is_root() && is_contained() {
        return format!(
            "this is a container: start it with {GRANTS}, or run `probe` on the host itself"
        );
    }
    next
}

/// What to do where programs and maps of the kernel are refused; `None` where no right is missing.
pub fn rights() -> Option<String> {
    let lacking = capabilities::lacking_to_load();
    let next = || format!("run as root, or give it what it lacks: {}", lacking.join(", "));
    (!lacking.is_empty()).then(|| cure(next()))
}

/// By namespaces of its own, or, where it has those of the host, by its cgroup.
fn is_contained() -> bool {
    let is_apart = OF_HOST.into_iter().any(|(name, number)| {
        fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|found| found.ino() != number)
    });
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    is_apart || paths.any(|path| Container::of_path(path).id.is_some())
}
