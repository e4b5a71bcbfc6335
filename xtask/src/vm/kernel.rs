//! Debian's kernels, out of its packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::command::say;

/// A kernel that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    /// The Debian release that it comes from.
    suite: &'static str,
    /// Which control groups the guest mounts.
    pub(crate) cgroups: Cgroups,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    V2,
    /// Version 2 beside version 1, with the services in both.
    Hybrid,
    V1,
}

impl Cgroups {
    /// As the guest reads it from its command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
        }
    }
}

const fn kernel(name: &'static str, suite: &'static str, cgroups: Cgroups) -> Kernel {
    Kernel { name, suite, cgroups }
}

pub(crate) const KERNELS: [Kernel; 7] = [
    kernel("debian-5.10", "bullseye", Cgroups::V2),
    kernel("debian-5.10-hybrid", "bullseye", Cgroups::Hybrid),
    kernel("debian-5.10-v1", "bullseye", Cgroups::V1),
    kernel("debian-6.1", "bookworm", Cgroups::V2),
    kernel("debian-6.12", "trixie", Cgroups::V2),
    kernel("debian-6.12-v1", "trixie", Cgroups::V1),
    kernel("debian-newest", "sid", Cgroups::V2),
];

impl Kernel {
    /// The kernels of these names, `debian-` may be left out, in the order of their age.
    pub(crate) fn named(names: &[String]) -> Result<Vec<Kernel>> {
        let all = names.iter().any(|name| name == "all");
        let mut wanted = names.iter().filter(|name| *name != "all");
        if let Some(unknown) =
            wanted.find(|name| !KERNELS.iter().any(|kernel| kernel.is_called(name)))
        {
            let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
            bail!("no kernel {unknown:?}: expected {} or all", known.join(", "));
        }
        Ok(KERNELS
            .into_iter()
            .filter(|kernel| all || names.iter().any(|name| kernel.is_called(name)))
            .collect())
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.strip_prefix("debian-") == Some(name.strip_prefix("debian-").unwrap_or(name))
    }
}

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) release: String,
    /// What a boot loader loads.
    pub(crate) image: PathBuf,
    /// The directory of its modules.
    pub(crate) modules: PathBuf,
}

/// Downloads and unpacks the newest cloud kernel of the suite to a directory of its own below `vm`,
/// unless that was done before.
pub(crate) fn fetch(kernel: Kernel, vm: &Path) -> Result<Unpacked> {
    let dir = vm.join(kernel.suite);
    let root = dir.join("kernel");
    if let Some(unpacked) = find(&root) {
        return Ok(unpacked);
    }
    say(&format!("{}: fetching the kernel of Debian {}", kernel.name, kernel.suite));
    let apt = Apt::new(kernel.suite, &dir.join("apt"))?;
    let packages = newest(&apt)?;
    apt.unpack(&packages, &root)?;
    find(&root).with_context(|| format!("{} hold no kernel", packages.join(", ")))
}

fn find(root: &Path) -> Option<Unpacked> {
    // Merged /usr since trixie.
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|place| fs::read_dir(root.join(place)).ok()?.flatten().next())?
        .path();
    let release = modules.file_name()?.to_str()?.to_owned();
    let image = [root.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|path| path.is_file())?;
    Some(Unpacked { release, image, modules })
}

/// What the suite's metapackage stands for: one package, or since 7.x one each for image and modules.
fn newest(apt: &Apt) -> Result<Vec<String>> {
    let image = apt
        .dependencies("linux-image-cloud-amd64")
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .context("the suite has no linux-image-cloud-amd64")?;
    let parts = apt
        .dependencies(&image)
        .into_iter()
        .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-"));
    let parts: Vec<String> = parts.collect();
    Ok(std::iter::once(image).chain(parts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_in_the_order_of_their_age() {
        let names = |asked: &[&str]| -> Vec<&str> {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            Kernel::named(&asked).unwrap().iter().map(|kernel| kernel.name).collect()
        };
        assert_eq!(names(&["debian-6.12", "debian-5.10"]), ["debian-5.10", "debian-6.12"]);
        assert_eq!(names(&["all", "debian-6.1"]).len(), KERNELS.len());
        assert_eq!(names(&["newest", "6.1"]), ["debian-6.1", "debian-newest"]);
        let error = Kernel::named(&["debian-4.19".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no kernel \"debian-4.19\": expected debian-5.10, debian-5.10-hybrid, debian-5.10-v1, \
             debian-6.1, debian-6.12, debian-6.12-v1, debian-newest or all"
        );
    }
}
