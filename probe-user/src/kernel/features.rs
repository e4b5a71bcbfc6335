//! What this host can do, found out by trying: `probe doctor`.

use std::{fs, path::Path};

use super::{
    Unavailable,
    attach::{self, Options},
    capabilities::{self, NEEDED},
    container,
    hooks::{HOOKS, Hook},
    offsets, walk,
};
use crate::identity::{cgroup::Mounted, netns_handle};

/// The oldest kernel that has ring buffers, `iter/tcp` and test runs of raw tracepoints.
const OLDEST: (u32, u32) = (5, 10);

/// How much of a feature there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    /// Something is measured less well, or not at all; counts stay exact.
    Degraded,
    /// Nothing can be counted without it.
    Missing,
}

/// One line of `probe doctor`.
#[derive(Clone, Debug)]
pub struct Feature {
    pub name: String,
    pub state: State,
    /// What was found.
    pub why: String,
    /// What to do about it; empty if nothing needs to be done.
    pub cure: String,
    /// Columns of a capture's connections that are empty or say less for it.
    pub columns: &'static [&'static str],
}

impl Feature {
    fn ok(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Ok,
            why: why.into(),
            cure: String::new(),
            columns: &[],
        }
    }

    fn missing(name: impl Into<String>, unavailable: Unavailable) -> Self {
        let Unavailable { what, why, cure } = unavailable;
        Self {
            name: name.into(),
            state: State::Missing,
            why: format!("cannot {what}: {why}"),
            cure,
            columns: &[],
        }
    }

    fn degraded(name: impl Into<String>, why: String, cure: &str) -> Self {
        Self { name: name.into(), state: State::Degraded, why, cure: cure.into(), columns: &[] }
    }
}

/// Tries everything that counting and recording need; loads the programs and unloads them again.
#[must_use]
pub fn probe(options: &Options) -> Vec<Feature> {
    let mut features = vec![kernel(), btf(), cgroups(), namespaces(), capabilities()];
    features.extend(hooks(options));
    features.push(docker());
    features
}

/// Whether exact counts can be had.
#[must_use]
pub fn can_count(features: &[Feature]) -> bool {
    features.iter().all(|feature| feature.state != State::Missing)
}

fn kernel() -> Feature {
    match release() {
        Ok(release) => Feature::ok("kernel", release),
        Err(unavailable) => Feature::missing("kernel", unavailable),
    }
}

/// The kernel's release.
///
/// # Errors
/// It is older than any that the programs are for.
pub(super) fn release() -> Result<String, Unavailable> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Ok(release.to_owned());
    }
    Err(Unavailable {
        what: "run the kernel programs".into(),
        why: format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1),
        cure: "use Linux 5.10 or later (Debian 11, Ubuntu 22.04, RHEL 9)".into(),
    })
}

fn btf() -> Feature {
    match offsets::resolve() {
        Err(unavailable) => Feature::missing("BTF", unavailable),
        Ok(resolved) if resolved.missing.is_empty() => Feature::ok("BTF", offsets::BTF_PATH),
        Ok(resolved) => {
            let lacking: Vec<String> = resolved
                .missing
                .iter()
                .map(|(field, cost)| format!("no {field}: {cost}"))
                .collect();
            Feature::degraded("BTF", lacking.join("; "), "")
        }
    }
}

fn cgroups() -> Feature {
    match Mounted::find() {
        Ok(Mounted::V2(path)) => Feature::ok("cgroup", format!("v2 at {}", path.display())),
        Ok(Mounted::Hybrid(path)) => {
            Feature::ok("cgroup", format!("hybrid, v2 at {}", path.display()))
        }
        Ok(Mounted::V1Only) => Feature::degraded(
            "cgroup",
            "version 1 only: sockets carry no container, it is told by their network namespace and by the \
             processes that hold them; no packets are seen"
                .into(),
            &container::cure(
                "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2: \
                 mount -t cgroup2 none DIRECTORY"
                    .into(),
            ),
        ),
        Ok(Mounted::None) => Feature::degraded(
            "cgroup",
            "no cgroup file system is mounted: connections carry no container".into(),
            &container::cure("mount -t cgroup2 none /sys/fs/cgroup".into()),
        ),
        Err(error) => Feature::degraded("cgroup", format!("/proc/self/mountinfo: {error}"), ""),
    }
}

fn namespaces() -> Feature {
    const NAME: &str = "network namespaces";
    match netns_handle::can_be_had() {
        Ok(()) => Feature::ok(NAME, "also those that no process lives in any more"),
        Err(error) => Feature::degraded(
            NAME,
            format!(
                "sockets in one that no process lives in any more, and that is mounted nowhere, are \
                 counted by their own events alone: no walk and no audit can look ({error})"
            ),
            "nothing needs to be done; Linux 6.18 can look there too",
        ),
    }
}

fn capabilities() -> Feature {
    let lacking = capabilities::lacking();
    if lacking.is_empty() {
        let names: Vec<&str> = NEEDED.iter().map(|capability| capability.name).collect();
        return Feature::ok("capabilities", names.join(", "));
    }
    let without: Vec<String> = lacking
        .iter()
        .map(|capability| format!("no {}: {}", capability.name, capability.without))
        .collect();
    let names: Vec<&str> = lacking.iter().map(|capability| capability.name).collect();
    let cure = container::cure(format!("run as root, or add {}", names.join(", ")));
    Feature::degraded("capabilities", without.join("; "), &cure)
}

/// Attaches as a recording would, and says of each hook what came of it.
fn hooks(options: &Options) -> Vec<Feature> {
    let attached = attach::types().and_then(|btf| Ok((attach::attach(options, &btf)?, btf)));
    let ((mut attached, _), btf) = match attached {
        Ok(attached) => attached,
        Err(unavailable) => return vec![Feature::missing("kernel programs", unavailable)],
    };
    let mut features: Vec<Feature> = Vec::new();
    for hook in &HOOKS {
        if features.last().is_some_and(|last| last.name == hook.name()) {
            continue; // the second copy
        }
        let absent = attached.absent.iter().find(|absent| absent.hook.program == hook.program);
        features.push(absent.map_or_else(
            || Feature::ok(hook.name(), "attached"),
            |absent| absent_hook(hook, &absent.why),
        ));
    }
    features.push(match walk::load(&mut attached.ebpf, &btf) {
        Ok(()) => Feature::ok("iter/tcp", "loaded"),
        Err(error) => Feature::missing(
            "iter/tcp",
            Unavailable {
                what: "count the connections from before the start".into(),
                why: format!("{error:#}"),
                cure: "use Linux 5.10 or later".into(),
            },
        ),
    });
    features
}

fn absent_hook(hook: &Hook, why: &str) -> Feature {
    let cost = hook.without.unwrap_or_default();
    let cure = if hook.name().starts_with("fexit/") {
        "nothing needs to be done; a kernel that allows function tracing sharpens it"
    } else {
        ""
    };
    let feature = Feature::degraded(hook.name(), format!("{cost} ({why})"), cure);
    Feature { columns: hook.columns, ..feature }
}

fn docker() -> Feature {
    let socket = Path::new("/var/run/docker.sock");
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => Feature::ok("Docker API", socket.display().to_string()),
        Err(error) => Feature::degraded(
            "Docker API",
            format!(
                "{}: {error}: Docker containers are shown by id, not by name",
                socket.display()
            ),
            "start Docker, or run as a user of the group docker; nothing to do without Docker",
        ),
    }
}
