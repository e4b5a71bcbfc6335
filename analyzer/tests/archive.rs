//! Captures in tar archives, as the agent's page saves them: read as the directory is, whatever else an
//! archive holds.

mod common;
mod scene;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use common::{MS, S, analyzer};
use flate2::Compression;
use flate2::write::GzEncoder;
use scene::{Conn, Scene};
use tar::{Builder, EntryType, Header};

/// 23 of 50 are leaked.
fn write_run(dir: &Path) {
    let mut scene = Scene::new(20 * S);
    scene.conns.extend((0..50).map(|n| match Conn::open(n * 10 * MS) {
        conn if n < 23 => conn.ended(10 * S + n * MS, "remote", "rst").leaked(),
        conn => conn,
    }));
    scene.write(dir);
}

fn stdout(args: &[&str], dir: &Path) -> String {
    let output = analyzer(args, dir);
    assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Message of bad input.
fn refused(args: &[&str], dir: &Path) -> String {
    let output = analyzer(args, dir);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    message
}

/// By a path as it stands, also one that a well-meaning program would not write.
fn add(archive: &mut Builder<impl Write>, path: &str, kind: EntryType, bytes: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    if kind.is_symlink() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append(&header, bytes).unwrap();
}

fn add_run(archive: &mut Builder<impl Write>, below: &str, run: &Path) {
    for file in fs::read_dir(run).unwrap().map(Result::unwrap) {
        let path = format!("{below}{}", file.file_name().to_str().unwrap());
        add(archive, &path, EntryType::Regular, &fs::read(file.path()).unwrap());
    }
}

#[test]
fn an_archive_is_read_as_its_directory_is() {
    let temp = tempfile::tempdir().unwrap();
    let run = temp.path().join("run");
    write_run(&run);
    let mut archive = Builder::new(Vec::new());
    archive.append_dir_all("run", &run).unwrap();
    let plain = archive.into_inner().unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 0).unwrap();
    let expected = stdout(&["connections", "run", "--json"], temp.path());
    // Of clients, and of the recorder's own 20 requests.
    assert_eq!(expected.lines().count(), 70);
    let archives = [("a.tar", plain), ("a.tar.gz", packed.finish().unwrap()), ("a.tar.zst", zstd)];
    for (name, bytes) in archives {
        fs::write(temp.path().join(name), bytes).unwrap();
        assert_eq!(stdout(&["connections", name, "--json"], temp.path()), expected, "{name}");
        assert_eq!(
            stdout(&["phantoms", name, "--json"], temp.path()).replace(name, "run"),
            stdout(&["phantoms", "run", "--json"], temp.path())
        );
    }
    let message = refused(&["report", "a.tar"], temp.path());
    assert_eq!(
        message,
        "analyzer: a.tar is only read from: say where the report goes with -o DIR\n"
    );
    let report = analyzer(&["report", "a.tar", "-o", "out", "--json"], temp.path());
    assert_eq!(report.status.code(), Some(99));
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["verdict"]["headline"], "23 phantoms: application leak");
    assert_eq!(report["captures"][0]["name"], "a.tar");
    assert!(temp.path().join("out/report.html").exists());
}

/// Nothing is written by a name from an archive, and no link is followed.
#[test]
fn paths_and_links_of_an_archive_lead_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let inner = temp.path().join("a/b");
    let run = inner.join("run");
    fs::create_dir_all(&inner).unwrap();
    write_run(&run);
    let expected = stdout(&["connections", "run", "--json"], &inner);
    for below in ["../../", "/tmp/../", "run/../../"] {
        let mut archive = Builder::new(File::create(inner.join("evil.tar")).unwrap());
        add(&mut archive, &format!("{below}meta.json"), EntryType::Symlink, b"");
        add(&mut archive, "connections.arrows", EntryType::Symlink, b"");
        add(&mut archive, "../evil", EntryType::Regular, b"evil");
        add_run(&mut archive, below, &run);
        archive.finish().unwrap();
        assert_eq!(stdout(&["connections", "evil.tar", "--json"], &inner), expected, "{below}");
        let around: Vec<_> = fs::read_dir(temp.path().join("a")).unwrap().collect();
        assert_eq!(around.len(), 1, "{around:?}");
    }
}

#[test]
fn what_is_no_archive_of_one_capture_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let run = temp.path().join("run");
    write_run(&run);
    let write = |name: &str, bytes: &[u8]| fs::write(temp.path().join(name), bytes).unwrap();
    let message = |name: &str| refused(&["phantoms", name], temp.path());

    let none =
        "is no capture: expected the directory that `probe record -o` wrote, or a tar archive";
    write("text", "no archive\n".repeat(100).as_bytes());
    write("empty", b"");
    let mut link = Builder::new(Vec::new());
    add(&mut link, "run/meta.json", EntryType::Symlink, b"");
    write("link.tar", &link.into_inner().unwrap());
    for name in ["text", "empty", "link.tar"] {
        let message = message(name);
        assert!(message.contains(&format!("{name} {none}")), "{message}");
    }

    let mut two = Builder::new(Vec::new());
    add_run(&mut two, "one/", &run);
    let whole = two.get_ref().clone();
    add_run(&mut two, "two/", &run);
    write("two.tar", &two.into_inner().unwrap());
    let two = message("two.tar");
    assert!(two.contains("two.tar holds more than one capture: unpack it"), "{two}");

    write("cut.tar", &whole[..whole.len() / 2 + 100]);
    let cut = message("cut.tar");
    assert!(cut.contains("cannot read cut.tar: ") && cut.contains("EOF"), "{cut}");

    let mut bomb = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    add(&mut bomb, "counts.arrows", EntryType::Regular, &vec![0; 80 << 20]);
    write("bomb.tar.gz", &bomb.into_inner().unwrap().finish().unwrap());
    let bomb = message("bomb.tar.gz");
    assert!(bomb.contains("it unpacks to more than 200 times its size"), "{bomb}");
}
