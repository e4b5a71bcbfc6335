//! Everything that `probe`, `analyzer` and `lab` are built from, up to the three programs.

use anyhow::Result;

use crate::{build_ebpf, command, setup};

/// As `cargo xtask test` builds them, so that nothing is built twice.
pub(crate) fn build() -> Result<()> {
    setup::run()?;
    build_ebpf::build()?;
    command::run_timed(
        "building probe, analyzer and lab (the first time takes minutes)",
        // No --package: the features of shared dependencies stay those of `cargo xtask test`.
        command::cargo()?.args(["build", "--bin", "probe", "--bin", "analyzer", "--bin", "lab"]),
    )
}
