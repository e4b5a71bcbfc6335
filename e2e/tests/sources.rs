//! What must hold of the source itself.

use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where `unsafe` may stand. `analyzer`, `capture`, `fuzz` and `xtask` forbid it in their first line,
/// and the kernel side is made of it.
const UNSAFE: [&str; 25] = [
    "e2e/src/torture/fired.rs",
    "e2e/src/torture/load/uring.rs",
    "e2e/tests/common/mod.rs",
    "lab/src/balancer/table.rs",
    "lab/src/net.rs",
    "probe-common/src/config.rs",
    "probe-common/src/connection.rs",
    "probe-common/src/handshake.rs",
    "probe-common/src/key.rs",
    "probe-common/src/payload.rs",
    "probe-ebpf/",
    "probe-user/src/clock.rs",
    "probe-user/src/cmd/stop.rs",
    "probe-user/src/health/request.rs",
    "probe-user/src/identity/netns.rs",
    "probe-user/src/identity/netns_handle.rs",
    "probe-user/src/kernel/sys.rs",
    "probe-user/src/memory.rs",
    "probe-user/src/process/facts.rs",
    "probe-user/src/truth/counters.rs",
    "probe-user/src/truth/pending.rs",
    "probe-user/src/truth/polled.rs",
    "probe-user/src/truth/raw.rs",
    "probe-user/src/truth/records.rs",
    "probe-user/src/tui/stderr.rs",
];

fn visit(directory: &Path, take: &mut impl FnMut(&str, &str)) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            visit(&path, take);
        } else if name.ends_with(".rs") {
            let from_root = path.strip_prefix(ROOT).unwrap().to_string_lossy();
            take(&from_root, &fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_known() {
    let (mut elsewhere, mut without) = (Vec::new(), UNSAFE.to_vec());
    visit(Path::new(ROOT), &mut |file, text| {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let found = code.enumerate().find(|(_, line)| {
            ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "]
                .iter()
                .any(|form| line.contains(form) && !line.contains(&format!("\"{form}")))
        });
        if let Some((line, _)) = found {
            without.retain(|known| !file.starts_with(known));
            if !UNSAFE.iter().any(|known| file.starts_with(known)) {
                elsewhere.push(format!("{file}:{}", line + 1));
            }
        }
    });
    assert!(without.is_empty(), "named here, and without unsafe code: {without:?}");
    assert!(elsewhere.is_empty(), "unsafe code in files that are not named here: {elsewhere:?}");
}
