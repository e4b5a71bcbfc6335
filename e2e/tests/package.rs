//! The Debian package: installed, started, upgraded and removed in a container that has dpkg, what
//! that needs, and the capabilities that `docs/security.md` lists. And the image, as compose runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::machine::{Need, require, require_beside_others};
use e2e::process::{Running, binary, finish, finish_within};
use e2e::truth::wait_equal;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const IMAGE: &str = "groundtruth-e2e-dpkg:1";
const NAME: &str = "groundtruth-e2e-package";
const LISTEN: &str = "127.0.0.1:19466";

/// What installing takes, and what the package's scripts call.
const PROGRAMS: [&str; 13] = [
    "/usr/bin/dpkg",
    "/usr/bin/dpkg-deb",
    "/usr/bin/dpkg-split",
    "/usr/bin/dpkg-query",
    "/usr/bin/diff",
    "/usr/bin/xz",
    "/usr/sbin/start-stop-daemon",
    "/bin/tar",
    "/bin/sh",
    "/bin/rm",
    "/bin/cat",
    "/bin/busybox",
    "/sbin/ldconfig",
];

/// As in the compose file. dpkg, which the agent's own container does without, changes owners.
const OPTIONS: [&str; 28] = [
    "--network",
    "host",
    "--pid",
    "host",
    "--cgroupns",
    "host",
    "--cap-drop",
    "ALL",
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_PTRACE",
    "--cap-add",
    "DAC_READ_SEARCH",
    "--cap-add",
    "CHOWN",
    "--cap-add",
    "FOWNER",
    "--security-opt",
    "apparmor=unconfined",
    "--volume",
    "/sys/fs/bpf:/sys/fs/bpf",
    "--volume",
    "/sys/fs/cgroup:/sys/fs/cgroup:ro",
    "--env",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
];

/// A container without any package; removed on drop.
struct Bare;

impl Bare {
    fn start(packages: &Path) -> Self {
        image();
        let _ = finish(Command::new("docker").args(["rm", "--force", NAME]));
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--name", NAME]).args(OPTIONS);
        run.arg("--volume").arg(format!("{}:/packages:ro", packages.display()));
        let _ = finish(run.args([IMAGE, "/bin/busybox", "sleep", "100000"])).success("docker run");
        let this = Self;
        let _ = this.sh(
            "busybox mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers \
             /var/log /tmp; : >/var/lib/dpkg/status; : >/var/lib/dpkg/available",
        );
        this
    }

    fn exec(&self, script: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", NAME, "/bin/sh", "-c", script]);
        command
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        finish(&mut self.exec(script)).success(script)
    }

    /// What dpkg says of the package.
    fn status(&self) -> String {
        self.sh("dpkg-query -W -f '${Status} ${Version}' groundtruth 2>&1 || true")
            .trim()
            .to_owned()
    }

    /// As the unit starts it: no words but the file's.
    fn agent(&self) -> Running {
        let agent = Running::start(&mut self.exec("exec probe serve"));
        agent.wait_stderr(&format!("listening on http://{LISTEN}"));
        agent
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.exec("probe stop --purge").output();
        for args in [["rm", "--force", NAME], ["rmi", "--force", IMAGE]] {
            let _ = Command::new("docker").args(args).output();
        }
    }
}

fn image() {
    let probe = binary("probe");
    let mut files: Vec<PathBuf> =
        PROGRAMS.iter().map(PathBuf::from).filter(|file| file.exists()).collect();
    let mut libraries = Vec::new();
    for program in files.iter().chain([&probe]) {
        // A static program has no list.
        let linked = finish(Command::new("ldd").arg(program)).stdout;
        let paths = linked.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(|path| PathBuf::from(path.trim_end_matches(':'))));
    }
    files.extend(libraries.into_iter().filter(|file| *file != probe));
    files.sort();
    files.dedup();
    let names = files.iter().map(|file| file.to_string_lossy().trim_start_matches('/').to_owned());
    let mut tar = Command::new("tar")
        .args(["--create", "--dereference", "--directory", "/"])
        .args(names)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut import = Command::new("docker");
    import.args(["import", "-", IMAGE]).stdin(tar.stdout.take().unwrap()).stdout(Stdio::null());
    assert!(import.status().unwrap().success() && tar.wait().unwrap().success());
}

/// Builds the package under a version, without optimisation.
fn package(version: &str) -> PathBuf {
    let mut xtask = Command::new(env!("CARGO"));
    xtask.args(["xtask", "package", "--debug", "--version", version]).current_dir(ROOT);
    let printed =
        finish_within(&mut xtask, Duration::from_secs(900)).success("cargo xtask package");
    let deb = printed.lines().find_map(|line| Some(&line[..line.find(".deb")? + 4]));
    deb.unwrap_or_else(|| panic!("no .deb: {printed}")).into()
}

fn exact(counts: &str) -> bool {
    let counts: serde_json::Value = serde_json::from_str(counts).unwrap();
    assert_eq!(counts["backend"], "ebpf", "{counts}");
    counts["exact"] == true
}

#[test]
fn installed_started_upgraded_and_removed() {
    let needs = [Need::Bpf, Need::Docker, Need::Program("dpkg-deb"), Need::Program("strip")];
    let Some(_machine) = require(&needs) else { return };
    let old = package("0.1.0");
    let new = package("0.1.1");
    let inside = |deb: &Path| format!("/packages/{}", deb.file_name().unwrap().to_string_lossy());
    let bare = Bare::start(old.parent().unwrap());

    let _ = bare.sh(&format!("dpkg -i {}", inside(&old)));
    assert_eq!(bare.status(), "install ok installed 0.1.0");
    assert!(bare.sh("probe --version").starts_with("probe "));
    for file in [
        "/lib/systemd/system/groundtruth.service",
        "/usr/share/man/man1/probe.1.gz",
        "/usr/share/man/man1/probe-config-check.1.gz",
        "/usr/share/bash-completion/completions/probe",
        "/usr/share/zsh/vendor-completions/_probe",
        "/usr/share/fish/vendor_completions.d/probe.fish",
        "/usr/share/groundtruth/grafana/groundtruth.json",
        "/usr/share/groundtruth/prometheus/groundtruth.rules.yml",
        "/usr/share/groundtruth/docker/compose.yaml",
        "/usr/share/groundtruth/kubernetes/daemonset.yaml",
    ] {
        let _ = bare.sh(&format!("busybox test -s {file}"));
    }

    // The shipped settings are any use, and what an administrator writes there stays.
    assert!(bare.sh("probe config check").contains("probe.toml: 1 key, no fault"));
    let _ = bare.sh(&format!("echo 'serve.listen = \"{LISTEN}\"' >/etc/groundtruth/probe.toml"));
    let agent = bare.agent();
    wait_equal("exact", &true, || exact(&bare.sh("probe count --json")));

    let _ = bare.sh(&format!("dpkg -i --force-confold {}", inside(&new)));
    assert_eq!(bare.status(), "install ok installed 0.1.1");
    assert!(bare.sh("cat /etc/groundtruth/probe.toml").contains(LISTEN));
    // What systemd does on an upgrade: the new binary takes the pinned programs over.
    let _ = bare.sh("probe stop");
    assert_eq!(agent.wait(Duration::from_secs(60)).code, Some(143));
    let agent = bare.agent();
    assert!(exact(&bare.sh("probe count --json")));

    // Removing ends it, and takes what is pinned along; purging also the settings.
    let _ = bare.sh("dpkg -r groundtruth");
    assert_eq!(agent.wait(Duration::from_secs(60)).code, Some(143));
    let gone = "busybox test ! -e /usr/bin/probe && busybox test ! -e /sys/fs/bpf/groundtruth";
    let _ = bare.sh(&format!("{gone} && busybox test -s /etc/groundtruth/probe.toml"));
    let _ = bare.sh("dpkg -P groundtruth");
    let _ = bare.sh("busybox test ! -e /etc/groundtruth/probe.toml");
}

/// The capabilities that are granted to it, in the three ways to run it.
#[test]
fn every_way_to_run_it_grants_the_same() {
    let expected = "SYS_ADMIN, NET_ADMIN, SYS_PTRACE, DAC_READ_SEARCH";
    let read = |file: &str| std::fs::read_to_string(format!("{ROOT}/packaging/{file}")).unwrap();
    for file in ["docker/compose.yaml", "kubernetes/daemonset.yaml"] {
        assert!(read(file).contains(&format!("[{expected}]")), "{file}");
    }
    let unit = read("systemd/groundtruth.service");
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let bounding = bounding.unwrap().replace("CAP_", "").replace(' ', ", ");
    assert_eq!(bounding, expected);
}

/// The kubelet asks what answers also while counts are not exact, where the agent listens unless told otherwise.
#[test]
fn a_pod_is_ready_once_its_agent_answers() {
    let manifest =
        std::fs::read_to_string(format!("{ROOT}/packaging/kubernetes/daemonset.yaml")).unwrap();
    let asked: Vec<&str> =
        manifest.lines().filter_map(|line| line.trim().strip_prefix("httpGet: ")).collect();
    assert_eq!(asked, ["{host: 127.0.0.1, port: 9464, path: /healthz}"; 2]);
    let help = finish(Command::new(binary("probe")).args(["serve", "--help"])).success("probe");
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("[default: 127.0.0.1:9464]"), "{help}");
}

/// By systemd 252, whose checks and weights the score depends on.
#[test]
fn the_unit_has_the_score_that_the_documents_give_it() {
    let Some(_machine) = require_beside_others(&[Need::Program("systemd-analyze")]) else { return };
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager"]);
    analyze.arg(format!("{ROOT}/packaging/systemd/groundtruth.service"));
    let text = finish(&mut analyze).success("systemd-analyze");
    let (_, verdict) = text.rsplit_once("groundtruth.service: ").unwrap();
    let words: Vec<&str> = verdict.split_whitespace().collect();
    let documents = std::fs::read_to_string(format!("{ROOT}/docs/security.md")).unwrap();
    let score = format!("**{}, \"{}\"**", words[0], words[1]);
    assert!(documents.contains(&score), "{score} is not in docs/security.md");
}
