//! Loads the object, attaches every hook that this kernel grants, and keeps the links.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::Stack,
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, Program,
        links::{FdLink, PinnedLink},
    },
};
use aya_obj::generated::bpf_prog_info;
use probe_common::key::SLOTS;

use super::{
    Unavailable, container, features,
    hooks::{HOOKS, Hook, Kind},
    offsets::{self, Resolved},
    pin::Pins,
    sys,
};
use crate::identity::cgroup::Mounted;

/// The kernel programs as `cargo xtask build-ebpf` built them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe-ebpf.o"));

/// Maps that outlive the agent where they are pinned.
const PINNED_MAPS: [&str; 9] = [
    "CONNECTIONS",
    "SLOT_OF",
    "FREE_SLOTS",
    "COUNTS",
    "STATISTICS",
    "RECORDS",
    "LISTENERS",
    "HANDSHAKES",
    "CLAIMS",
];

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sockets that can be followed at once.
    pub connections: u32,
    /// Size of the ring that ended connections and first packets come through, a power of two of
    /// whole pages.
    pub ring_bytes: u32,
    /// Directory on a BPF file system where maps and links are pinned; `None`: unloaded at exit.
    pub pin: Option<PathBuf>,
    /// No stages, first bytes or records of connections.
    pub counts_only: bool,
    /// Hooks to do without, as if this host did not grant them.
    pub without: Vec<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 262_144,
            ring_bytes: 4 << 20,
            pin: None,
            counts_only: false,
            without: vec![],
        }
    }
}

/// Programs in the kernel. Dropping it detaches what is not pinned.
pub struct Attached {
    pub ebpf: Ebpf,
    pub hooks: Vec<Arc<Running>>,
    /// Fields that this kernel's BTF lacks, and what that costs.
    pub missing: Vec<(&'static str, &'static str)>,
    /// Hooks that this host does not grant.
    pub absent: Vec<Absent>,
    /// The programs of an earlier agent were taken over: nothing needs to be seeded.
    pub taken_over: bool,
    /// What an earlier agent's flags decided, in words.
    pub inherited: Vec<String>,
}

/// A hook that could not be had.
pub struct Absent {
    pub hook: &'static Hook,
    /// The kernel's reason.
    pub why: String,
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

/// The kernel's types, which take a tenth of a second to read and some 10 MiB to keep.
///
/// # Errors
/// [`Unavailable`] where the kernel lacks BTF.
pub fn types() -> Result<Btf, Unavailable> {
    // On an older kernel its lack of BTF would be told, and no cure for that helps.
    features::release()?;
    File::open(offsets::BTF_PATH).map_err(|error| offsets::no_btf(&error))?;
    Btf::from_sys_fs().map_err(|error| Unavailable {
        what: "read the kernel's type information (BTF)".into(),
        why: error.to_string(),
        cure: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y".into(),
    })
}

/// # Errors
/// [`Unavailable`] where the kernel refuses the programs, or grants no state changes.
pub fn attach(options: &Options, btf: &Btf) -> Result<(Attached, Option<Pins>), Unavailable> {
    let Resolved { mut offsets, missing } = offsets::resolve()?;
    offsets.counts_only = u32::from(options.counts_only);
    let pins =
        options.pin.as_deref().map(|root| Pins::prepare(root, options.counts_only)).transpose()?;
    let taken_over = pins.as_ref().is_some_and(Pins::are_complete);
    let mut loader = EbpfLoader::new();
    loader.btf(Some(btf)).override_global("OFFSETS", &offsets, true);
    let mut inherited = Vec::new();
    for (name, flag, wanted) in [
        ("CONNECTIONS", "--max-connections", options.connections),
        ("RECORDS", "--ring-bytes", options.ring_bytes),
    ] {
        // The loader takes a pinned map as it is, and believes it to be of the size that it is told here.
        let size =
            pins.as_ref().filter(|_| taken_over).map_or(Ok(wanted), |pins| pins.size(name))?;
        loader.map_max_entries(name, size);
        if size != wanted {
            inherited.push(format!(
                "{flag} {wanted} asks for another size than the {size} of the map that an earlier agent \
                 has left, which stays (`probe stop --purge`, then start anew, seeds counts afresh)"
            ));
        }
    }
    for name in PINNED_MAPS {
        if let Some(pins) = &pins {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let mut ebpf =
        loader.load(OBJECT).map_err(|error| refused("load the kernel programs".into(), &error))?;
    if !taken_over {
        provide_counters(&mut ebpf)
            .map_err(|error| refused("provide the counters".into(), error.as_ref()))?;
    }
    let mut attached =
        Attached { ebpf, hooks: Vec::new(), missing, absent: Vec::new(), taken_over, inherited };
    for hook in HOOKS.iter().filter(|hook| !options.counts_only || hook.is_for_counts()) {
        if options.without.contains(&hook.program) {
            attached.absent.push(Absent { hook, why: "switched off".into() });
            continue;
        }
        let pin = pins.as_ref().map(|pins| pins.link(hook.program));
        match attached.add(hook, btf, pin.as_deref()) {
            Ok(running) => attached.hooks.push(Arc::new(running)),
            Err(error) if hook.without.is_some() => {
                attached.absent.push(Absent { hook, why: root_cause(error.as_ref()) });
            }
            Err(error) => {
                return Err(refused(format!("attach {}", hook.name()), error.as_ref()));
            }
        }
    }
    Ok((attached, pins))
}

impl Attached {
    /// What this host can't give, in words.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        let mut words: Vec<String> = self
            .missing
            .iter()
            .map(|(field, cost)| format!("this kernel has no {field}: {cost}"))
            .chain(self.absent.iter().map(|absent| {
                let cost = absent.hook.without.unwrap_or_default();
                format!("no {}: {cost}", absent.hook.name())
            }))
            .collect();
        words.dedup();
        words
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
            (Kind::CgroupEgress | Kind::CgroupIngress, Program::CgroupSkb(program)) => {
                program.load()?;
                let direction = match hook.kind {
                    Kind::CgroupIngress => CgroupSkbAttachType::Ingress,
                    _ => CgroupSkbAttachType::Egress,
                };
                let id = program.attach(&cgroup_root()?, direction, CgroupAttachMode::Single)?;
                program.take_link(id)?.try_into()?
            }
            (Kind::CgroupRelease, Program::CgroupSock(program)) => {
                program.load()?;
                let id = program.attach(&cgroup_root()?, CgroupAttachMode::Single)?;
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

/// Puts all counters where the programs take them from.
fn provide_counters(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let map = ebpf.map_mut("FREE_SLOTS").context("the object file has no map FREE_SLOTS")?;
    let mut free: Stack<_, u32> = Stack::try_from(map)?;
    // The lowest comes out first.
    for index in (0..SLOTS).rev() {
        free.push(index, 0)?;
    }
    Ok(())
}

/// Where cgroup programs are attached.
fn cgroup_root() -> anyhow::Result<File> {
    let mounted = Mounted::find()?;
    let path = mounted.path().context("no cgroup2 file system is mounted")?;
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Names the capabilities that are missing, where they are the reason.
fn refused(what: String, error: &(dyn std::error::Error + 'static)) -> Unavailable {
    let why = root_cause(error);
    let denied = why.contains("Operation not permitted") || why.contains("Permission denied");
    match container::rights().filter(|_| denied) {
        // Which map or program was the first to be refused says nothing then.
        Some(cure) => Unavailable { what, why: innermost(error).to_string(), cure },
        None => {
            Unavailable { what, why, cure: "run `probe doctor` for what this host lacks".into() }
        }
    }
}

fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a dyn std::error::Error {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// The innermost error: aya's outer ones say only which call failed.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let outer = error.to_string();
    let inner = innermost(error).to_string();
    // Where the verifier was not asked.
    let outer = outer.strip_suffix(". Verifier output: ").unwrap_or(&outer);
    if outer.contains(&inner) { outer.to_owned() } else { format!("{outer}: {inner}") }
}
