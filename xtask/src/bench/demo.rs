//! What a newcomer waits for: the demo with nothing compiled.

use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::row::{Goal, Row};
use crate::command;

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    let target = context.file("cold");
    let path = context.file("demo.log");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let start = Instant::now();
    let mut demo = command::cargo()?;
    demo.args(["xtask", "demo"]).env("CARGO_TARGET_DIR", &target);
    demo.stdout(log.try_clone().context("cannot share the log")?).stderr(log);
    let status = command::status(&mut demo)?;
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    if !status.success() {
        bail!("`cargo xtask demo` ended with {status}: see {}", path.display());
    }
    // Gigabytes.
    fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
    Ok(vec![
        Row::new("`cargo xtask demo`, nothing compiled", Goal::AtMost(12.0), "min", minutes)
            .detail("with the sources of the dependencies on disk, on as many processors as are named below"),
    ])
}
