//! `probe generate`: man pages and shell completions, from the command line's own definition.

use std::{fs, path::Path};

use clap_complete::{Shell, generate_to};

use crate::{cli::Generate, config, error::Error, exit::Exit};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

pub(crate) fn run(arguments: &Generate) -> anyhow::Result<Exit> {
    write(&arguments.output).map_err(|error| {
        Error::input(
            format!("cannot write to {}: {error}", arguments.output.display()),
            "choose a directory that can be written, with -o",
        )
    })?;
    Ok(Exit::Done)
}

fn write(output: &Path) -> std::io::Result<()> {
    let (man, completions) = (output.join("man1"), output.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(config::command(), man)?;
    for shell in SHELLS {
        generate_to(shell, &mut config::command(), "probe", &completions)?;
    }
    Ok(())
}
