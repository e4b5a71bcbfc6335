//! Finds the connections that were there before the programs: one walk per network namespace.

use std::{fs::File, io::Read};

use anyhow::Context;
use aya::{
    Btf, Ebpf,
    programs::{Iter, Program},
};

use super::hooks::SEED;
use crate::identity::netns::Netns;

/// The loaded iterator. Kept, since later walks note accepts that no event has shown yet.
pub struct Seeder<'a> {
    program: &'a mut Iter,
}

/// Loads the iterator into the kernel, once.
///
/// # Errors
/// Where the kernel refuses `iter/tcp`.
pub fn load(ebpf: &mut Ebpf, btf: &Btf) -> anyhow::Result<()> {
    Seeder::loaded(ebpf)?.program.load("tcp", btf).context("cannot load iter/tcp")
}

impl<'a> Seeder<'a> {
    /// # Errors
    /// Where the object file lacks the iterator: a defect of the build.
    pub fn loaded(ebpf: &'a mut Ebpf) -> anyhow::Result<Self> {
        match ebpf.program_mut(SEED) {
            Some(Program::Iter(program)) => Ok(Self { program }),
            _ => anyhow::bail!("the object file has no iterator {SEED}"),
        }
    }

    /// Walks every socket of `namespace` once: follows those that are not followed yet, and notes
    /// accepts of those that are.
    ///
    /// # Errors
    /// Where the namespace can't be entered, or the kernel stops the walk.
    pub fn walk(&mut self, namespace: &Netns) -> anyhow::Result<()> {
        let link = self.program.attach()?;
        let link = self.program.take_link(link)?;
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
}
