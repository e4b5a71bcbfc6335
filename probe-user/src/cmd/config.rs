//! `probe config check`: whether `probe serve` would take a file.

use crate::{
    cli::{Config, ConfigTask},
    cmd::print,
    config,
    exit::Exit,
};

pub(crate) fn run(arguments: &Config) -> anyhow::Result<Exit> {
    let ConfigTask::Check { file } = &arguments.task;
    let file = file.clone().unwrap_or_else(config::default_file);
    let settings = config::check(&file)?;
    print(&format!("{}: {settings} settings, nothing wrong\n", file.display()))?;
    Ok(Exit::Done)
}
