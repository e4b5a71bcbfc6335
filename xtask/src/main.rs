//! `cargo xtask`: what cargo alone cannot do — the kernel side's build, the demo, and every test
//! with one summary.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod build_ebpf;
mod command;
mod demo;
mod docs;
mod fuzz;
mod package;
mod paths;
mod programs;
mod setup;
mod summary;
mod test;
mod torture;
mod unpack;
mod vm;

/// Builds, shows and tests groundtruth.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Examples:\n  \
        cargo xtask demo          1,000 clients, 45 of them leaked by the server, found again\n  \
        cargo xtask test          every test; a summary of what was skipped and why\n  \
        cargo xtask bench         what the probe costs, to docs/performance.md\n  \
        cargo xtask torture       counts against the kernel under fire; --minutes, --seed\n  \
        cargo xtask fuzz          the parsers of outside input under libFuzzer; --seconds\n  \
        cargo xtask vm            the probe on Debian's kernels; --kernel\n  \
        cargo xtask unpack        a package of another Debian release or of PyPI, for the tests\n  \
        cargo xtask package       a .deb and a tarball of one static binary, in <target dir>/package\n  \
        cargo xtask docs          docs/reference/ from the source; --check says whether it is stale\n  \
        cargo xtask build-ebpf    the kernel programs alone"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the kernel side's build needs, if it is missing: rust-src and bpf-linker
    Setup,
    /// Build the kernel programs to <target dir>/bpf/probe-ebpf.o, which `probe` embeds
    BuildEbpf,
    /// Set up, build, and run the main job on real sockets, compared with what was really done
    Demo(demo::Options),
    /// Set up, build, and run all unit, integration and end-to-end tests
    Test(test::Options),
    /// Measure what the probe costs, and write docs/performance.md
    Bench(bench::Options),
    /// A server process of a benchmark
    #[command(hide = true)]
    BenchServe(bench::Serve),
    /// Churn in every way there is, and hold counts, captures and the kernel against each other
    Torture(torture::Options),
    /// Run every parser of outside input under libFuzzer (cargo-fuzz), for some time each
    Fuzz(fuzz::Options),
    /// Build probe as one static binary, and pack it as a .deb and a tarball
    Package(package::Options),
    /// Write docs/reference/ from the help texts, the flags and the capture's schema
    Docs(docs::Options),
    /// Unpack a package of another Debian release, or of PyPI, below the target directory, and say where
    Unpack(unpack::Options),
    /// Run probe on Debian's kernels, in virtual machines, and write docs/compatibility.md
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::BuildEbpf => build_ebpf::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::BenchServe(options) => bench::serve(&options),
        Task::Torture(options) => torture::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Docs(options) => docs::run(&options),
        Task::Unpack(options) => unpack::run(&options),
        Task::Vm(options) => vm::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
