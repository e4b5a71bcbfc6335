//! What this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Maps, programs and links take some thirty; each who asks, and each namespace that is entered, one more.
const ENOUGH_FILES: u64 = 256;

/// Takes as many open files as may be had: the lower limit is there for programs that use `select`.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("probe: warning: cannot raise the limit of open files: {error}");
    }
    if let Some(most) = limit.maximum.filter(|most| *most < ENOUGH_FILES) {
        eprintln!(
            "probe: warning: no more than {most} files may be open here; raise it if something fails: ulimit -n 4096"
        );
    }
}
