//! Embeds the kernel programs that `cargo xtask build-ebpf` wrote to `<target dir>/bpf/`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-env-changed=PROBE_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object =
        env::var_os("PROBE_EBPF_OBJECT").map_or_else(|| default_object(&out), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(&object, out.join("probe-ebpf.o")) {
        println!(
            "cargo::error=the kernel programs are not built: {}: {error}; run `cargo xtask build-ebpf` first",
            object.display()
        );
    }
}

/// `OUT_DIR` is `<target dir>[/<triple>]/<profile>/build/<crate>/out`.
fn default_object(out: &Path) -> PathBuf {
    let file = Path::new("bpf").join("probe-ebpf.o");
    out.ancestors()
        .skip(4)
        .take(2)
        .map(|directory| directory.join(&file))
        .find(|path| path.exists())
        .unwrap_or_else(|| out.ancestors().nth(4).unwrap_or(out).join(&file))
}
