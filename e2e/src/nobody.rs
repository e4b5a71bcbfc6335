//! Our binaries as a user without any right runs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::process::binary;
use crate::scratch::Scratch;

/// A command of user `nobody`, in the scratch directory, which becomes writable for all. The binaries
/// are copied there, since nobody may not be able to reach the target directory.
///
/// # Panics
/// If they cannot be copied.
#[must_use]
pub fn command(scratch: &Scratch, program: &str) -> Command {
    let dir = scratch.path();
    fs::set_permissions(dir, Permissions::from_mode(0o777)).expect("our own directory");
    for name in ["probe", "lab", "analyzer"] {
        let copy = dir.join(name);
        if !copy.exists() {
            fs::copy(binary(name), copy).expect("room for a copy");
        }
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(dir.join(program)).current_dir(dir);
    command
}
