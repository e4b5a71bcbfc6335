//! A capture comes from another machine: what stands in it does not decide where files are written.

use std::fs;
use std::path::Path;

use capture::CaptureWriter;
use capture::schema::ContainerRow;

use crate::common::{CGROUP, START, analyzer, meta};

const REPORTS: [&str; 3] = ["report.json", "report.md", "report.html"];

/// A capture that would like to be elsewhere.
fn write_hostile(dir: &Path) {
    let mut meta = meta();
    meta.host = "../../../elsewhere".into();
    meta.boot_id = "../../../elsewhere".into();
    meta.kernel = "/elsewhere".into();
    meta.ended_mono_ns = Some(START + 1);
    let mut writer = CaptureWriter::create(dir, &meta).unwrap();
    writer
        .containers(&[ContainerRow {
            cgroup_id: CGROUP,
            first_seen_mono_ns: START,
            path: Some("/../../elsewhere".into()),
            runtime: "docker".into(),
            container_id: Some("../../elsewhere".into()),
            name: "../../elsewhere".into(),
        }])
        .unwrap();
    writer.finish(&meta).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_made_of_a_capture_stays_in_the_directory_for_it() {
    let temp = tempfile::tempdir().unwrap();
    // Deep enough that `../..` would stay within what is looked at.
    let root = temp.path().join("a/b/c");
    write_hostile(&root.join("run"));
    for arguments in [&["report", "run", "-o", "out"][..], &["export", "run", "--parquet", "fleet"]]
    {
        let output = analyzer(arguments, &root);
        assert!(matches!(output.status.code(), Some(0 | 4)), "{arguments:?}: {output:?}");
    }
    for (dir, expected) in [("", &["a"][..]), ("a", &["b"]), ("a/b", &["c"])] {
        assert_eq!(names(&temp.path().join(dir)), expected);
    }
    assert_eq!(names(&root), ["fleet", "out", "run"]);
    assert_eq!(names(&root.join("out")), ["report.html", "report.json", "report.md"]);
    assert_eq!(names(&root.join("fleet/containers")), ["host=..%2F..%2F..%2Felsewhere"]);
}

#[test]
fn a_link_in_a_capture_is_not_written_through() {
    let temp = tempfile::tempdir().unwrap();
    let run = temp.path().join("run");
    write_hostile(&run);
    let victim = temp.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    for name in REPORTS {
        std::os::unix::fs::symlink(&victim, run.join(name)).unwrap();
    }
    let output = analyzer(&["report", "run"], temp.path());
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    for name in REPORTS {
        assert!(fs::symlink_metadata(run.join(name)).unwrap().is_file(), "{name}");
    }
}

#[test]
#[cfg(not(feature = "cloud"))]
fn a_bucket_takes_a_build_that_reads_them() {
    let temp = tempfile::tempdir().unwrap();
    let output = analyzer(&["phantoms", "s3://runs/fleet"], temp.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("s3://runs/fleet is in an object store"), "{said}");
    assert!(said.contains("--features cloud"), "{said}");
}
