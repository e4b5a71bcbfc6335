//! From a cgroup id to what it belongs to.
//!
//! The id of a cgroup2 cgroup is the inode number of its directory; what the directory's path says
//! depends on who made it: Docker, containerd, CRI-O, Podman, Kubernetes with either cgroup driver,
//! or systemd.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::netns::unescape;

/// Who made the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    Docker,
    Containerd,
    Crio,
    Podman,
    /// Any runtime under a `kubepods` cgroup.
    Kubernetes,
    /// A unit of systemd.
    Systemd,
    /// None of these.
    Host,
    /// The cgroup was gone before its path could be read, there is no cgroup2, or a newer agent knows
    /// one more than these.
    #[serde(other)]
    Unknown,
}

impl Runtime {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
            Self::Kubernetes => "kubernetes",
            Self::Systemd => "systemd",
            Self::Host => "host",
            Self::Unknown => "unknown",
        }
    }
}

/// What a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// The runtime's full id; none for units and the host.
    pub id: Option<String>,
    /// The runtime's name where it is known, else made from the path.
    pub name: String,
    pub runtime: Runtime,
}

impl Container {
    pub(crate) fn host() -> Self {
        Self { id: None, name: "host".into(), runtime: Runtime::Host }
    }

    pub(crate) fn unknown(cgroup_id: u64) -> Self {
        let name = if cgroup_id == 0 { "unknown".into() } else { format!("cgroup-{cgroup_id}") };
        Self { id: None, name, runtime: Runtime::Unknown }
    }

    fn of_runtime(runtime: Runtime, id: &str) -> Self {
        Self { id: Some(id.into()), name: id[..12].into(), runtime }
    }

    /// True if the user means this one: by name, or by at least 6 digits of its id.
    pub(crate) fn matches(&self, wanted: &str) -> bool {
        self.name == wanted
            || wanted.len() >= 6 && self.id.as_ref().is_some_and(|id| id.starts_with(wanted))
    }

    /// Reads a cgroup path, as below the cgroup2 mount or in `/proc/PID/cgroup`. The innermost
    /// container wins (Docker in Docker), then the innermost unit.
    pub(crate) fn of_path(path: &str) -> Self {
        let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for (index, component) in components.iter().enumerate().rev() {
            if let Some((runtime, id)) = container_id(component, &components[..index]) {
                let mut container = Self::of_runtime(runtime, id);
                if let Some(pod) = pod_uid(&components[..index]) {
                    container.runtime = Runtime::Kubernetes;
                    container.name = format!("pod-{pod}/{}", &id[..12]);
                }
                return container;
            }
        }
        let unit = components
            .iter()
            .rev()
            .find(|component| component.ends_with(".service") || component.ends_with(".scope"));
        match unit {
            Some(unit) => Self { id: None, name: (*unit).to_owned(), runtime: Runtime::Systemd },
            None => Self::host(),
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The container id in one path component, and who names components so.
fn container_id<'a>(component: &'a str, parents: &[&str]) -> Option<(Runtime, &'a str)> {
    const PREFIXES: [(&str, Runtime); 7] = [
        ("docker-", Runtime::Docker),
        ("cri-containerd-", Runtime::Containerd),
        ("nerdctl-", Runtime::Containerd),
        ("crio-", Runtime::Crio),
        ("libpod-payload-", Runtime::Podman),
        ("libpod-", Runtime::Podman),
        ("containerd-", Runtime::Containerd),
    ];
    let stem = component.strip_suffix(".scope").unwrap_or(component);
    for (prefix, runtime) in PREFIXES {
        // Monitors (`crio-conmon-…`, `libpod-conmon-…`) fail the test for an id, as they should.
        if let Some(id) = stem.strip_prefix(prefix)
            && is_id(id)
        {
            return Some((runtime, id));
        }
    }
    // containerd with a systemd path but the cgroupfs driver: `SLICE:cri-containerd:ID`.
    if let Some((_, id)) = stem.rsplit_once(":cri-containerd:")
        && is_id(id)
    {
        return Some((Runtime::Containerd, id));
    }
    if !is_id(stem) {
        return None;
    }
    match parents.last() {
        Some(&"docker") => Some((Runtime::Docker, stem)),
        Some(&"libpod_parent") => Some((Runtime::Podman, stem)),
        // `/kubepods/besteffort/podUID/ID`, and `/NAMESPACE/ID` of containerd's own clients.
        Some(_) => Some((Runtime::Containerd, stem)),
        None => None,
    }
}

/// The uid of the pod among a container's parents: `pod<uid>` (cgroupfs) or
/// `kubepods-burstable-pod<uid with underscores>.slice` (systemd).
fn pod_uid(parents: &[&str]) -> Option<String> {
    if !parents.iter().any(|parent| parent.starts_with("kubepods")) {
        return None;
    }
    parents.iter().rev().find_map(|parent| {
        let stem = parent.split(".slice").next().unwrap_or(parent);
        let (before, uid) = stem.rsplit_once("pod")?;
        let named = before.is_empty() || before.starts_with("kubepods") && before.ends_with('-');
        (named && !uid.is_empty()).then(|| uid.replace('_', "-"))
    })
}

/// Which cgroup versions this host has mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    V2(PathBuf),
    /// cgroup2 beside version 1 controllers.
    Hybrid(PathBuf),
    /// Every socket then belongs to the root of an unmounted cgroup2.
    V1Only,
    None,
}

impl Mounted {
    /// # Errors
    /// When `/proc/self/mountinfo` cannot be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self::of_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    pub(crate) fn of_mountinfo(mountinfo: &str) -> Self {
        let mut v1 = false;
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            match right.split(' ').next() {
                Some("cgroup") => v1 = true,
                Some("cgroup2") if v2.is_none() => {
                    v2 = left.split(' ').nth(4).map(|point| PathBuf::from(unescape(point)));
                }
                _ => {}
            }
        }
        match (v2, v1) {
            (Some(path), false) => Self::V2(path),
            (Some(path), true) => Self::Hybrid(path),
            (None, true) => Self::V1Only,
            (None, false) => Self::None,
        }
    }

    /// Where cgroup2 is mounted.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::V2(path) | Self::Hybrid(path) => Some(path),
            Self::V1Only | Self::None => None,
        }
    }
}

/// Every cgroup below a cgroup2 mount: id → path from the mount, `/` for its root.
pub(crate) fn walk(mount: &Path) -> HashMap<u64, String> {
    let mut paths = HashMap::new();
    if let Ok(root) = fs::metadata(mount) {
        paths.insert(std::os::unix::fs::MetadataExt::ino(&root), "/".to_owned());
    }
    let mut open = vec![(mount.to_owned(), String::new())];
    while let Some((directory, path)) = open.pop() {
        // A cgroup that is removed while we walk is no error.
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                paths.insert(entry.ino(), path.clone());
                open.push((entry.path(), path));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "8f4a1c0d5e6b7a8990a1b2c3d4e5f60718293a4b5c6d7e8f9012a3b4c5d6e7f8";

    #[track_caller]
    fn check(path: &str, runtime: Runtime, name: &str) {
        let container = Container::of_path(&path.replace("ID", ID));
        assert_eq!((container.runtime, container.name.as_str()), (runtime, name), "{path}");
        let has_id = !matches!(runtime, Runtime::Systemd | Runtime::Host);
        assert_eq!(container.id, has_id.then(|| ID.to_owned()), "{path}");
    }

    /// As a newer agent may say.
    #[test]
    fn a_runtime_that_is_not_known_here_is_unknown() {
        let container: Container =
            serde_json::from_str(r#"{"id":"a1","name":"web","runtime":"incus","pod":"x"}"#)
                .unwrap();
        assert_eq!((container.name.as_str(), container.runtime), ("web", Runtime::Unknown));
    }

    #[test]
    fn paths_of_runtimes() {
        check("/docker/ID", Runtime::Docker, "8f4a1c0d5e6b");
        check("/docker/ID/init.scope", Runtime::Docker, "8f4a1c0d5e6b");
        check("/system.slice/docker-ID.scope", Runtime::Docker, "8f4a1c0d5e6b");
        check(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            Runtime::Docker,
            "8f4a1c0d5e6b",
        );
        check("/machine.slice/libpod-ID.scope/container", Runtime::Podman, "8f4a1c0d5e6b");
        check("/libpod_parent/libpod-ID", Runtime::Podman, "8f4a1c0d5e6b");
        check("/system.slice/nerdctl-ID.scope", Runtime::Containerd, "8f4a1c0d5e6b");
        check("/default/ID", Runtime::Containerd, "8f4a1c0d5e6b");
        check("/system.slice/crio-ID.scope", Runtime::Crio, "8f4a1c0d5e6b");
    }

    #[test]
    fn paths_of_kubernetes() {
        let name = "pod-2b0f7a3e-91d4-4c55-8a11-6d0f9b1c2e33/8f4a1c0d5e6b";
        for path in [
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod2b0f7a3e_91d4_4c55_8a11_6d0f9b1c2e33.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod2b0f7a3e_91d4_4c55_8a11_6d0f9b1c2e33.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2b0f7a3e_91d4_4c55_8a11_6d0f9b1c2e33.slice/docker-ID.scope",
            "/kubepods/besteffort/pod2b0f7a3e-91d4-4c55-8a11-6d0f9b1c2e33/ID",
            "/kubepods/pod2b0f7a3e-91d4-4c55-8a11-6d0f9b1c2e33/crio-ID",
            "/docker/aaaa/kubelet/kubepods/burstable/pod2b0f7a3e-91d4-4c55-8a11-6d0f9b1c2e33/ID",
        ] {
            check(path, Runtime::Kubernetes, name);
        }
    }

    #[test]
    fn a_colon_path_of_containerd_names_the_container() {
        let container = Container::of_path(&format!(
            "/system.slice/containerd.service/kubepods-burstable-pod2b0f.slice:cri-containerd:{ID}"
        ));
        assert_eq!(container.id.as_deref(), Some(ID));
        assert_eq!(container.runtime, Runtime::Containerd);
    }

    #[test]
    fn units_and_the_host() {
        check("/system.slice/nginx.service", Runtime::Systemd, "nginx.service");
        check(
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            Runtime::Systemd,
            "postgresql@15-main.service",
        );
        check("/user.slice/user-1000.slice/session-3.scope", Runtime::Systemd, "session-3.scope");
        check(
            "/machine.slice/libpod-conmon-ID.scope",
            Runtime::Systemd,
            &format!("libpod-conmon-{ID}.scope"),
        );
        check("/", Runtime::Host, "host");
        check("/build/7", Runtime::Host, "host");
        check("/user.slice", Runtime::Host, "host");
    }

    #[test]
    fn docker_in_docker_is_the_inner_one() {
        let inner = ID.replace('8', "1");
        let container = Container::of_path(&format!("/docker/{ID}/docker/{inner}"));
        assert_eq!(container.id, Some(inner));
    }

    #[test]
    fn users_name_containers_by_name_or_id() {
        let mut container = Container::of_path(&format!("/docker/{ID}"));
        container.name = "web".into();
        assert!(container.matches("web"));
        assert!(container.matches("8f4a1c"));
        assert!(!container.matches("8f4a"));
        assert!(!container.matches("we"));
    }

    #[test]
    fn mounts_of_every_kind_of_host() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        let v1 = "31 30 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory";
        let hybrid = "32 30 0:28 / /sys/fs/cgroup/unified rw shared:6 - cgroup2 none rw";
        assert_eq!(Mounted::of_mountinfo(v2), Mounted::V2("/sys/fs/cgroup".into()));
        assert_eq!(
            Mounted::of_mountinfo(&format!("{v1}\n{hybrid}")),
            Mounted::Hybrid("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(Mounted::of_mountinfo(v1), Mounted::V1Only);
        assert_eq!(Mounted::of_mountinfo(""), Mounted::None);
    }

    #[test]
    fn the_root_of_this_host_is_found() {
        if let Some(mount) = Mounted::find().unwrap().path() {
            assert!(walk(mount).values().any(|path| path == "/"));
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// Whoever may make a cgroup chooses its name.
        #[test]
        fn hostile_paths(bytes in fuzz::damaged(fuzz::corpus("cgroup"))) {
            let text = String::from_utf8_lossy(&bytes);
            let container = Container::of_path(&text);
            prop_assert!(!container.name.is_empty());
            prop_assert!(container.id.is_none_or(|id| is_id(&id)));
            let _ = Mounted::of_mountinfo(&text);
        }
    }
}
