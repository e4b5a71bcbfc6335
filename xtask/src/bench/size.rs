//! What is shipped: the size of the agent's binary, stripped and with the kernel programs inside.

use std::fs;

use anyhow::{Context as _, Result};

use super::Context;
use super::row::{Goal, Row};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    let path = context.binary("probe");
    let bytes =
        fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?.len();
    Ok(vec![Row::new(
        "agent binary, release, stripped",
        Goal::AtMost(15.0),
        "MiB",
        bytes as f64 / MIB,
    )])
}
