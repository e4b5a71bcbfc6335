//! `cargo xtask package`: one static binary with the kernel programs inside, its man pages and
//! completions, the unit and its settings; as a .deb for Debian and its kin, and as a tarball.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::{build_ebpf, paths, setup};

/// Static: runs on any distribution, and in a container without libraries.
const TARGET: &str = "x86_64-unknown-linux-musl";
const DEBIAN_ARCHITECTURE: &str = "amd64";

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Version of the packages [default: the workspace's]
    #[arg(long, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    version: String,

    /// Pack this host's own unoptimised build instead of a static one: seconds instead of minutes,
    /// for trying the package itself
    #[arg(long)]
    debug: bool,
}

/// Where the binary is from.
struct Build {
    binary: PathBuf,
    /// In the tarball's name.
    target: &'static str,
}

/// A file of the package: where it is in the checkout, where it goes, and its mode.
const FILES: [(&str, &str, u32); 11] = [
    ("packaging/systemd/groundtruth.service", "lib/systemd/system/groundtruth.service", 0o644),
    ("packaging/probe.toml", "etc/groundtruth/probe.toml", 0o644),
    (
        "packaging/prometheus/groundtruth.rules.yml",
        "usr/share/groundtruth/prometheus/groundtruth.rules.yml",
        0o644,
    ),
    ("packaging/grafana/groundtruth.json", "usr/share/groundtruth/grafana/groundtruth.json", 0o644),
    ("packaging/docker/Dockerfile", "usr/share/groundtruth/docker/Dockerfile", 0o644),
    ("packaging/docker/compose.yaml", "usr/share/groundtruth/docker/compose.yaml", 0o644),
    (
        "packaging/kubernetes/daemonset.yaml",
        "usr/share/groundtruth/kubernetes/daemonset.yaml",
        0o644,
    ),
    ("CHANGELOG.md", "usr/share/doc/groundtruth/changelog", 0o644),
    ("README.md", "usr/share/doc/groundtruth/README.md", 0o644),
    ("LICENSE-MIT", "usr/share/doc/groundtruth/copyright", 0o644),
    ("LICENSE-APACHE", "usr/share/doc/groundtruth/LICENSE-APACHE", 0o644),
];

/// Where each shell looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("probe.bash", "usr/share/bash-completion/completions/probe"),
    ("_probe", "usr/share/zsh/vendor-completions/_probe"),
    ("probe.fish", "usr/share/fish/vendor_completions.d/probe.fish"),
];

/// What runs when the package comes and goes; without systemd only the files do.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "postinst",
        "#!/bin/sh\nset -e\nif [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then\n    \
         systemctl daemon-reload\n    \
         if [ -n \"$2\" ]; then systemctl try-restart groundtruth.service; fi\nfi\n",
    ),
    (
        "prerm",
        "#!/bin/sh\nset -e\nif [ \"$1\" = remove ]; then\n    \
         if [ -d /run/systemd/system ]; then systemctl disable --now groundtruth.service || true; fi\n    \
         # Nothing stays loaded in the kernel.\n    probe stop --purge >/dev/null 2>&1 || true\nfi\n",
    ),
    (
        "postrm",
        "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n",
    ),
];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    build_ebpf::build()?;
    let build = if options.debug { unoptimised()? } else { release()? };

    let output = paths::target_dir()?.join("package");
    let root = output.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    fill(&root, &build.binary, &output)?;
    let deb = deb(&root, &output, options)?;
    let tarball = tarball(&root, &output, build.target, &options.version)?;
    for file in [deb, tarball] {
        let bytes = fs::metadata(&file)?.len();
        println!("{}  {:.1} MB", file.display(), bytes as f64 / 1e6);
    }
    Ok(ExitCode::SUCCESS)
}

fn release() -> Result<Build> {
    add_target()?;
    if command::output("musl-gcc", &["--version"]).is_none() {
        bail!("a static build takes musl-gcc, which is not here: apt-get install musl-tools");
    }
    command::run_timed(
        &format!("building probe for {TARGET}"),
        command::cargo()?.args(["build", "--package", "probe-user", "--bin", "probe"]).args([
            "--target",
            TARGET,
            "--release",
        ]),
    )?;
    let binary = paths::target_dir()?.join(TARGET).join("release").join("probe");
    Ok(Build { binary, target: TARGET })
}

fn unoptimised() -> Result<Build> {
    command::run_timed(
        "building probe",
        command::cargo()?.args(["build", "--package", "probe-user", "--bin", "probe"]),
    )?;
    let binary = paths::target_dir()?.join("package").join("probe");
    make_parent(&binary)?;
    command::run(Command::new("strip").arg("-o").arg(&binary).arg(paths::binary("probe")?))?;
    Ok(Build { binary, target: "unoptimised" })
}

fn add_target() -> Result<()> {
    let installed = command::output("rustup", &["target", "list", "--installed"]);
    if installed.is_some_and(|list| list.lines().any(|line| line == TARGET)) {
        return Ok(());
    }
    command::run_timed(
        &format!("installing the standard library for {TARGET}"),
        Command::new("rustup").args(["target", "add", TARGET]).current_dir(paths::root()),
    )
}

/// Everything but the package manager's own files.
fn fill(root: &Path, binary: &Path, output: &Path) -> Result<()> {
    install(binary, &root.join("usr/bin/probe"), 0o755)?;
    for (from, to, mode) in FILES {
        install(&paths::root().join(from), &root.join(to), mode)?;
    }
    let generated = output.join("generated");
    command::run(Command::new(binary).args(["generate", "-o"]).arg(&generated))?;
    for (from, to) in COMPLETIONS {
        install(&generated.join("completions").join(from), &root.join(to), 0o644)?;
    }
    for page in fs::read_dir(generated.join("man1"))? {
        let page = page?.path();
        let name = page.file_name().context("a man page has a name")?;
        let to = root.join("usr/share/man/man1").join(name);
        install(&page, &to, 0o644)?;
        command::run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(&to))?;
    }
    Ok(())
}

fn deb(root: &Path, output: &Path, options: &Options) -> Result<PathBuf> {
    let control = root.join("DEBIAN");
    let size = command::output("du", &["-sk", &root.to_string_lossy()])
        .and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .context("du does not say how large the package is")?;
    write(
        &control.join("control"),
        &format!(
            "Package: groundtruth\nVersion: {}\nArchitecture: {DEBIAN_ARCHITECTURE}\n\
             Maintainer: the groundtruth authors <groundtruth@localhost>\nInstalled-Size: {size}\n\
             Section: net\nPriority: optional\n\
             Description: exact connection counts from the kernel, per container\n \
             probe follows every TCP connection of every container with eBPF, and names the\n \
             connections that servers report and the kernel does not have.\n",
            options.version
        ),
        0o644,
    )?;
    write(&control.join("conffiles"), "/etc/groundtruth/probe.toml\n", 0o644)?;
    for (name, text) in SCRIPTS {
        write(&control.join(name), text, 0o755)?;
    }
    let deb = output.join(format!("groundtruth_{}_{DEBIAN_ARCHITECTURE}.deb", options.version));
    command::run(
        Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Zxz"])
            // Twice as large in a tenth of the time.
            .args(options.debug.then_some("-z0"))
            .arg(root)
            .arg(&deb)
            .stdout(std::process::Stdio::null()),
    )
    .context("dpkg-deb makes the package: it is part of Debian's dpkg")?;
    fs::remove_dir_all(control)?;
    Ok(deb)
}

fn tarball(root: &Path, output: &Path, target: &str, version: &str) -> Result<PathBuf> {
    let name = format!("groundtruth-{version}-{target}");
    let tarball = output.join(format!("{name}.tar.gz"));
    command::run(
        Command::new("tar")
            .args(["--create", "--gzip", "--owner=0", "--group=0", "--sort=name", "--file"])
            .arg(&tarball)
            .arg(format!("--transform=s,^\\.,{name},"))
            .arg("--directory")
            .arg(root)
            .arg("."),
    )?;
    Ok(tarball)
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}

fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    make_parent(to)?;
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}

/// Directories that others may enter, whatever the umask.
fn make_parent(file: &Path) -> Result<()> {
    let Some(parent) = file.parent() else { bail!("{} has no directory", file.display()) };
    if !parent.is_dir() {
        make_parent(parent)?;
        fs::create_dir(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::set_permissions(parent, Permissions::from_mode(0o755))?;
    }
    Ok(())
}
