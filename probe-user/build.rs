//! Embeds the kernel programs that `cargo xtask build-ebpf` wrote to `<target dir>/bpf/`, and `PROBE_BPF_BUILD`, by
//! which builds of them are told apart.

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
    let embedded = out.join("probe-ebpf.o");
    match fs::copy(&object, &embedded).and_then(|_| fs::read(&embedded)) {
        Ok(bytes) => println!("cargo::rustc-env=PROBE_BPF_BUILD={:016x}", fnv1a(&bytes)),
        Err(error) => println!(
            "cargo::error=the kernel programs are not built: {}: {error}; run `cargo xtask build-ebpf` first",
            object.display()
        ),
    }
}

/// FNV-1a: it only has to tell builds apart.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
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
