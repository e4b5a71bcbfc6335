//! Packages of other Debian releases, by way of the machine's own apt and its mirror, without touching its
//! state.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// apt with lists, cache and sources of its own.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(crate) fn new(suite: &str, dir: &Path) -> Result<Self> {
        let site = command::output(
            "apt-get",
            &["indextargets", "--format", "$(SITE)", "Created-By: Packages", "Label: Debian"],
        )
        .and_then(|sites| sites.lines().next().map(str::to_owned))
        .context(
            "this machine's apt has no Debian archive among its sources, which is where packages of \
             other releases come from: add one, and run `apt-get update`",
        )?;
        for part in ["lists/partial", "cache/archives/partial", "parts", "preferences"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(dir.join("sources.list"), format!("deb {site} {suite} main\n"))?;
        fs::write(dir.join("status"), "")?;
        let at = |name: &str| dir.join(name).display().to_string();
        let settings = [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", at("parts")),
            ("Dir::Etc::PreferencesParts", at("preferences")),
            ("Dir::State::Lists", at("lists")),
            ("Dir::State::Status", at("status")),
            ("Dir::Cache", at("cache")),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "5".to_owned()),
            // Its own user could not write to our directories.
            ("APT::Sandbox::User", command::output("id", &["-un"]).unwrap_or_default()),
        ];
        let options = settings
            .iter()
            .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={}", value.trim())])
            .collect();
        let apt = Self { options };
        command::run(&mut apt.get(&["-qq", "update"]))?;
        Ok(apt)
    }

    fn get(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options).args(arguments);
        command
    }

    /// Downloads the packages beside `root`, and unpacks them to it, whole or not at all.
    pub(crate) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let download = root.with_extension("download");
        let _ = fs::remove_dir_all(&download);
        fs::create_dir_all(&download)?;
        let mut get = self.get(&["-qq", "download"]);
        command::run(get.args(packages).current_dir(&download))?;
        let part = root.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        for entry in fs::read_dir(&download)? {
            command::run(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(&part))?;
        }
        fs::remove_dir_all(&download)?;
        fs::rename(&part, root)?;
        Ok(())
    }

    pub(crate) fn dependencies(&self, package: &str) -> Vec<String> {
        let options = self.options.iter().map(String::as_str);
        let arguments: Vec<&str> = options.chain(["depends", "--important", package]).collect();
        let text = command::output("apt-cache", &arguments).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        names.map(str::to_owned).collect()
    }
}
