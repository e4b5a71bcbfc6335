//! Walks every socket of the host, one network namespace after the other: at the start to follow
//! what was there before, later to note accepts and to make good what events missed.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::Context;
use aya::{
    Btf, Ebpf,
    programs::{CgroupSkb, Iter, Program},
};
use probe_common::connection::Connection;

use super::{
    attach::Attached,
    hooks::{FORGET, GIVE_BACK, Kind, WALK},
    sys,
};
use crate::identity::netns::Netns;

/// Loads the programs that are attached nowhere.
///
/// # Errors
/// Where the kernel refuses `iter/tcp`.
pub fn load(ebpf: &mut Ebpf, btf: &Btf) -> anyhow::Result<()> {
    iterator(ebpf)?.load("tcp", btf).context("cannot load iter/tcp")?;
    for (name, what) in [(FORGET, "takes out stale entries"), (GIVE_BACK, "gives counters back")] {
        on_call(ebpf, name)?
            .load()
            .with_context(|| format!("cannot load the program that {what}"))?;
    }
    Ok(())
}

/// The program that gives counters back.
///
/// # Errors
/// Before it is loaded.
pub fn give_back(ebpf: &mut Ebpf) -> anyhow::Result<OwnedFd> {
    Ok(on_call(ebpf, GIVE_BACK)?.fd()?.as_fd().try_clone_to_owned()?)
}

/// Walks every socket of `namespace` once.
///
/// # Errors
/// Where the namespace can't be entered, or the kernel stops the walk.
pub fn walk(ebpf: &mut Ebpf, namespace: &Netns) -> anyhow::Result<()> {
    let program = iterator(ebpf)?;
    let link = program.attach()?;
    let link = program.take_link(link)?;
    // The iterator walks the namespace of the task that opens it.
    namespace
        .run(move || -> anyhow::Result<()> {
            let mut file: File = link.into_file()?;
            let mut nothing = [0_u8; 4096];
            while file.read(&mut nothing)? > 0 {}
            Ok(())
        })
        .map_err(anyhow::Error::from)
        .flatten()
        .with_context(|| {
            format!("cannot walk the sockets of network namespace {}", namespace.inode)
        })
}

/// Ends the entry of a connection whose socket walk `number` no longer met.
///
/// # Errors
/// As bpf(2).
pub fn forget(attached: &mut Attached, connection: &Connection, number: u32) -> anyhow::Result<()> {
    let releases_are_seen =
        attached.hooks.iter().any(|running| running.hook.kind == Kind::CgroupRelease);
    let arguments =
        [connection.sk, connection.cookie, u64::from(number), u64::from(releases_are_seen)];
    let program = on_call(&mut attached.ebpf, FORGET)?;
    sys::run_program(program.fd()?.as_fd(), &arguments)
        .context("cannot take out the entry of a socket that is gone")
}

fn iterator(ebpf: &mut Ebpf) -> anyhow::Result<&mut Iter> {
    match ebpf.program_mut(WALK) {
        Some(Program::Iter(program)) => Ok(program),
        _ => anyhow::bail!("the object file has no iterator {WALK}"),
    }
}

/// A program that runs when userspace says so.
fn on_call<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut CgroupSkb> {
    match ebpf.program_mut(name) {
        Some(Program::CgroupSkb(program)) => Ok(program),
        _ => anyhow::bail!("the object file has no program {name}"),
    }
}
