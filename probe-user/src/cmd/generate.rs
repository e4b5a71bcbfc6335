//! `probe generate`: man pages and shell completions, from the command line's own definition.

use std::{fs, path::Path};

use clap::Command;
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
        generate_to(shell, &mut visible(), "probe", &completions)?;
    }
    Ok(())
}

/// The command line without what is hidden in its help, which clap_complete would offer all the same.
fn visible() -> Command {
    let root = config::command();
    let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("probe")
        .version(env!("CARGO_PKG_VERSION"))
        .args(root.get_arguments())
        .subcommands(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_offer_what_the_help_shows() {
        let help = config::command().render_help().to_string();
        let commands: Vec<&str> = help
            .split("Commands:\n")
            .nth(1)
            .unwrap()
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(commands.contains(&"count") && !commands.contains(&"generate"), "{commands:?}");
        for shell in SHELLS {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut visible(), "probe", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in &commands {
                assert!(script.contains(command), "{shell}: {command}");
            }
            assert!(!script.contains("generate"), "{shell}: {script}");
        }
    }
}
