//! Starting other programs, and saying so.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::paths;

/// A step of the work, on stderr, so that stdout stays free for what the step prints.
pub(crate) fn say(message: &str) {
    eprintln!("==> {message}");
}

/// The cargo that runs this xtask, in the root of the checkout, with the target directory pinned.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).env("CARGO_TARGET_DIR", paths::target_dir()?);
    // Set by `cargo run` for this package; a nested cargo's build scripts would see them as changed.
    for (name, _) in std::env::vars_os() {
        let inherited = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if inherited || name == "CARGO_CRATE_NAME" || name == "CARGO_BIN_NAME" {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs to the end with its output passed on; an error names the command and its exit status.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end with its output passed on.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start `{}`", shown(command)))
}

/// Like [`run`], with the time it took.
pub(crate) fn run_timed(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let start = Instant::now();
    run(command)?;
    let seconds = start.elapsed().as_secs_f64();
    if seconds >= 2.0 {
        say(&format!("{what}: done in {seconds:.0} s"));
    }
    Ok(())
}

/// The standard output of a command that succeeds, `None` if it can't be started or fails.
pub(crate) fn output(program: impl AsRef<OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Effective user id 0.
pub(crate) fn is_root() -> bool {
    output("id", &["-u"]).is_some_and(|id| id.trim() == "0")
}

/// How to become root without ending this process: nothing if already root, else `sudo` if it works
/// (asking for a password only when somebody can answer).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Already,
    Sudo,
    /// Why not.
    No(String),
}

pub(crate) fn root_access() -> Root {
    use std::io::IsTerminal as _;

    if is_root() {
        return Root::Already;
    }
    if output("sudo", &["-n", "true"]).is_some() {
        return Root::Sudo;
    }
    if output("sudo", &["-V"]).is_none() {
        return Root::No("not root, and there is no sudo".to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Root::No("not root, and sudo wants a password that nobody can type".to_owned());
    }
    say("the kernel side needs root: sudo asks for your password");
    match Command::new("sudo").arg("-v").status() {
        Ok(status) if status.success() => Root::Sudo,
        _ => Root::No("not root, and sudo was refused".to_owned()),
    }
}

fn shown(command: &Command) -> String {
    let mut words: Vec<OsString> = vec![command.get_program().to_owned()];
    words.extend(command.get_args().map(OsStr::to_owned));
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
