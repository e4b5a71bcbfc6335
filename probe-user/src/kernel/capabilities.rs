//! What each capability is for, which of them this process has, and an agent with no others.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// One capability.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    set: CapabilitySet,
    /// As in capabilities(7).
    pub name: &'static str,
    /// What is not to be had without it.
    pub without: &'static str,
}

/// All that the agent uses. `CAP_SYS_ADMIN` includes `CAP_BPF` and `CAP_PERFMON`.
pub const NEEDED: [Capability; 4] = [
    Capability {
        set: CapabilitySet::SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        without: "other network namespaces, such as containers', cannot be entered: their \
                  connections from before the start are missing and none of theirs is audited",
    },
    Capability {
        set: CapabilitySet::NET_ADMIN,
        name: "CAP_NET_ADMIN",
        without: "older kernels attach no cgroup programs",
    },
    Capability {
        set: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        without: "network namespaces and sockets of other users' processes are not found",
    },
    Capability {
        set: CapabilitySet::DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        without: "connections of other users' processes are shown without their process",
    },
];

/// What loading takes where there is no `CAP_SYS_ADMIN`.
const LOADING: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
];

fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Those of [`NEEDED`] that this process lacks.
#[must_use]
pub fn lacking() -> Vec<&'static Capability> {
    let effective = effective();
    NEEDED.iter().filter(|capability| !effective.contains(capability.set)).collect()
}

/// Names of what loading the programs lacks; empty where that is not the reason.
#[must_use]
pub fn lacking_to_load() -> Vec<&'static str> {
    let effective = effective();
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    LOADING.iter().filter(|(set, _)| !effective.contains(*set)).map(|(_, name)| *name).collect()
}

/// Gives up, for good, everything that the agent does not use. For the threads that are started from
/// now on, so to be called before any is. `listen_port`: below 1024 it takes a capability to listen.
///
/// # Errors
/// As capset(2) and prctl(2).
pub fn keep_needed(listen_port: u16) -> io::Result<()> {
    // Before 5.11 maps count as locked memory, and the right to have more of that is given up below.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    let mut kept = NEEDED.iter().fold(CapabilitySet::empty(), |kept, one| kept | one.set);
    kept |= CapabilitySet::BPF | CapabilitySet::PERFMON;
    if listen_port < 1024 {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    set_no_new_privs(true)?;
    let mut sets = capabilities(None)?;
    if sets.permitted.contains(CapabilitySet::SETPCAP) {
        for one in CapabilitySet::all() - kept {
            // A kernel that does not know it does not grant it.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    sets.permitted &= kept;
    sets.effective &= kept;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}
