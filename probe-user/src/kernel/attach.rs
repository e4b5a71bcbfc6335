//! Loads the object, attaches every hook that this kernel grants, and keeps the links.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, Program,
        links::{FdLink, PinnedLink},
    },
};
use aya_obj::generated::bpf_prog_info;
use probe_common::ABI_VERSION;

use super::{
    Unavailable,
    hooks::{HOOKS, Hook, Kind},
    offsets::{self, Resolved},
    sys,
};
use crate::identity::cgroup::Mounted;

/// The kernel programs as `cargo xtask build-ebpf` built them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe-ebpf.o"));

/// Maps that outlive the agent where they are pinned.
const PINNED_MAPS: [&str; 7] =
    ["CONNECTIONS", "SLOT_OF", "SLOT_OWNER", "COUNTS", "STATISTICS", "RECORDS", "LISTENERS"];

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sockets that can be followed at once.
    pub connections: u32,
    /// Directory on a BPF file system where maps and links are pinned; `None`: unloaded at exit.
    pub pin: Option<PathBuf>,
    /// Hooks to leave out, by [`Hook::name`].
    pub skip: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 262_144, pin: None, skip: Vec::new() }
    }
}

/// Programs in the kernel. Dropping it detaches what is not pinned.
pub struct Attached {
    pub ebpf: Ebpf,
    pub hooks: Vec<Running>,
    /// What this host can't give, in words.
    pub degraded: Vec<String>,
    /// The programs of an earlier agent were taken over: nothing needs to be seeded.
    pub taken_over: bool,
    /// Root of the cgroup2 hierarchy, where packet hooks are attached.
    cgroup_root: Option<File>,
}

/// One attached program. The link lives as long as this, or as long as its pin.
pub struct Running {
    pub hook: &'static Hook,
    link: FdLink,
}

impl Running {
    /// Runs, run time and skipped runs, as the kernel counts them.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn info(&self) -> io::Result<bpf_prog_info> {
        let program = self.link.info().map_err(io::Error::other)?.program_id();
        sys::program_info(sys::program_by_id(program)?.as_fd())
    }
}

/// # Errors
/// [`Unavailable`] where the kernel lacks BTF, refuses the programs, or grants no state changes.
pub fn attach(options: &Options) -> Result<Attached, Unavailable> {
    let Resolved { offsets, missing } = offsets::resolve()?;
    let btf = Btf::from_sys_fs().map_err(|error| Unavailable {
        what: "read the kernel's type information (BTF)".into(),
        why: error.to_string(),
        cure: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y".into(),
    })?;
    let pin = options.pin.as_deref().map(|directory| directory.join(generation()));
    let taken_over = pin.as_deref().is_some_and(|directory| directory.join("ready").is_dir());
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global("OFFSETS", &offsets, true);
    loader.map_max_entries("CONNECTIONS", options.connections);
    if let Some(directory) = &pin {
        if !taken_over {
            // A start that was cut off left this half done.
            remove_generation(directory);
        }
        std::fs::create_dir_all(directory.join("links")).map_err(|error| Unavailable {
            what: format!("make the pin directory {}", directory.display()),
            why: error.to_string(),
            cure: "run as root, with a BPF file system mounted".into(),
        })?;
        for name in PINNED_MAPS {
            loader.map_pin_path(name, directory.join(name));
        }
    }
    let ebpf = loader.load(OBJECT).map_err(|error| load_error(&error))?;
    let mut attached = Attached {
        ebpf,
        hooks: Vec::new(),
        degraded: missing.iter().map(|(field, cost)| format!("no {field} in BTF: {cost}")).collect(),
        taken_over,
        cgroup_root: open_cgroup_root(),
    };
    for hook in &HOOKS {
        if options.skip.contains(&hook.name()) {
            attached.degrade(hook, "switched off", hook.without.unwrap_or("nothing is counted"));
            continue;
        }
        let link = pin.as_deref().map(|directory| directory.join("links").join(hook.program));
        match attached.add(hook, &btf, link.as_deref()) {
            Ok(running) => attached.hooks.push(running),
            Err(error) => match hook.without {
                Some(cost) => attached.degrade(hook, &root_cause(error.as_ref()), cost),
                None => {
                    return Err(Unavailable {
                        what: format!("attach {}", hook.name()),
                        why: root_cause(error.as_ref()),
                        cure: "run `probe doctor` for what this host lacks".into(),
                    });
                }
            },
        }
    }
    attached.degraded.dedup();
    if let Some(directory) = &pin {
        // The marker of a complete start: bpffs has directories, but no plain files.
        let _ = std::fs::create_dir(directory.join("ready"));
    }
    Ok(attached)
}

impl Attached {
    fn degrade(&mut self, hook: &Hook, why: &str, cost: &str) {
        self.degraded.push(format!("no {}: {cost} ({why})", hook.name()));
    }

    fn add(
        &mut self,
        hook: &'static Hook,
        btf: &Btf,
        pin: Option<&Path>,
    ) -> Result<Running, anyhow::Error> {
        if let Some(path) = pin.filter(|path| path.exists()) {
            return Ok(Running { hook, link: PinnedLink::from_pin(path)?.into() });
        }
        let Some(program) = self.ebpf.program_mut(hook.program) else {
            anyhow::bail!("the object file has no program {}", hook.program);
        };
        let link: FdLink = match (hook.kind, program) {
            (Kind::TpBtf(tracepoint), Program::BtfTracePoint(program)) => {
                program.load(tracepoint, btf)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            (Kind::CgroupEgress, Program::CgroupSkb(program)) => {
                let Some(root) = &self.cgroup_root else {
                    anyhow::bail!("no cgroup2 file system is mounted");
                };
                program.load()?;
                let id =
                    program.attach(root, CgroupSkbAttachType::Egress, CgroupAttachMode::Single)?;
                program.take_link(id)?.try_into()?
            }
            (Kind::Fexit(function), Program::FExit(program)) => {
                program.load(function, btf)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            _ => anyhow::bail!("{} is not a program for {}", hook.program, hook.name()),
        };
        let link = match pin {
            Some(path) => link.pin(path)?.into(),
            None => link,
        };
        Ok(Running { hook, link })
    }
}

fn open_cgroup_root() -> Option<File> {
    File::open(Mounted::find().ok()?.path()?).ok()
}

/// Names the programs and layouts of this build: pins of another build are not taken over.
fn generation() -> String {
    let hash = OBJECT.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{ABI_VERSION}-{hash:016x}")
}

/// Removes the pins of other builds: called once the new programs are attached and seeded.
pub fn remove_other_generations(root: &Path) -> Vec<String> {
    let current = generation();
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != current {
            remove_generation(&entry.path());
            removed.push(name);
        }
    }
    removed
}

/// Removes everything pinned under `root`, and with it the programs from the kernel.
pub fn remove_all(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        remove_generation(&entry.path());
    }
    let _ = std::fs::remove_dir(root);
}

/// bpffs has no recursive removal of its own, and pins can only be unlinked.
fn remove_generation(directory: &Path) {
    // Links first: a program must not run on while its maps vanish from sight.
    for inner in [directory.join("ready"), directory.join("links"), directory.to_path_buf()] {
        for entry in std::fs::read_dir(&inner).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = std::fs::remove_dir(&inner);
    }
}

fn load_error(error: &aya::EbpfError) -> Unavailable {
    let why = root_cause(error);
    let cure = if why.contains("Operation not permitted") || why.contains("Permission denied") {
        "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    } else {
        "run `probe doctor` for what this host lacks"
    };
    Unavailable { what: "load the kernel programs".into(), why, cure: cure.into() }
}

/// The innermost error: aya's outer ones say only which call failed.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let outer = error.to_string();
    let inner = innermost.to_string();
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}
