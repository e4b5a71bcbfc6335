//! What a recording is written to fails: a full disk, a broken file system, a removed directory. It ends
//! with a clear error, or waits and goes on where it was told to; what was written stays readable.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::disk::{Disk, Loop};
use e2e::machine::{Need, require, tool};
use e2e::net::Cable;
use e2e::peer::{Peer, Reaped};
use e2e::process::{Running, Signal, binary};
use e2e::recording;
use e2e::scratch::Scratch;
use e2e::truth::wait_equal_within;

const SERVICE: &str = "10.77.0.1:8391";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, a client, and a recording of what ends between them.
struct Day {
    _cable: Cable,
    server: Peer,
    client: Peer,
    record: Running,
    capture: String,
}

impl Day {
    fn new(capture: String, arguments: &[&str]) -> Self {
        let cable = Cable::new();
        let mut server = Peer::start(&cable.server.place());
        let client = Peer::start(&cable.client.place());
        server.listen(SERVICE);
        let mut command = Command::new(binary("probe"));
        command.args(["record", "-o", &capture, "--port", "8391"]).args(arguments);
        let record = Running::start(&mut command);
        record.wait_stderr("recording to");
        Self { _cable: cable, server, client, record, capture }
    }

    /// So many connections come and go.
    #[track_caller]
    fn pass(&mut self, count: usize) {
        self.client.connect(SERVICE, count);
        self.server.wait_held(count);
        self.client.fin(count);
        self.server.wait_reaped(Reaped { fin: count, ..Reaped::default() });
    }

    /// Waits until the capture, which is being written, holds so many.
    #[track_caller]
    fn wait_written(&self, count: usize) {
        wait_equal_within(PATIENCE, "ended connections in the capture", &count, || {
            recording::ended(&self.capture)
        });
    }

    /// Ends by itself.
    #[track_caller]
    fn wait_refused(self) -> String {
        let finished = self.record.wait(PATIENCE);
        assert_eq!(finished.code, Some(2), "{finished}");
        finished.stderr
    }

    /// Ends as Ctrl-C ends it; the capture.
    #[track_caller]
    fn stop(self) -> String {
        let finished = self.record.stop(Signal::INT);
        assert_eq!(finished.code, Some(130), "{finished}");
        self.capture
    }
}

fn small_tmpfs(scratch: &Scratch) -> Disk {
    Disk::mount(&scratch.path().join("disk"), &["-t", "tmpfs", "-o", "size=1m", "none"])
}

#[test]
fn a_full_disk_ends_it_and_what_was_written_is_readable() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("full");
    let disk = small_tmpfs(&scratch);
    let mut day = Day::new(scratch.join("disk/capture"), &[]);
    day.pass(23);
    day.wait_written(23);
    disk.fill();
    let capture = day.capture.clone();
    let stderr = day.wait_refused();
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(stderr.contains("make room"), "{stderr}");
    assert_eq!(recording::ended(&capture), 23);
}

#[test]
fn a_full_disk_is_waited_out_with_resume() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("full-resume");
    let disk = small_tmpfs(&scratch);
    let mut day = Day::new(scratch.join("disk/capture"), &["--resume"]);
    day.pass(23);
    day.wait_written(23);
    let ballast = disk.fill();
    day.record.wait_stderr("No space left on device");
    std::fs::remove_file(ballast).unwrap();
    day.record.wait_stderr("again; ");
    day.pass(41);
    day.wait_written(23 + 41);
    let capture = day.stop();
    assert_eq!(recording::ended(&capture), 23 + 41);
    let losses = recording::losses(&capture, &scratch);
    assert_eq!(losses.len(), 1, "{losses:?}");
    let (reason, count) = &losses[0];
    assert!(reason.starts_with("not written: cannot write "), "{reason}");
    assert!(reason.contains("No space left on device"), "{reason}");
    assert!(*count > 0);
}

#[test]
fn a_removed_directory_ends_it() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("removed");
    let mut day = Day::new(scratch.join("capture"), &[]);
    day.pass(5);
    std::fs::remove_dir_all(&day.capture).unwrap();
    let stderr = day.wait_refused();
    assert!(stderr.contains("was removed while it was being written"), "{stderr}");
    assert!(stderr.contains("--resume"), "{stderr}");
}

#[test]
fn a_removed_directory_is_made_anew_with_resume() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("removed-resume");
    let mut day = Day::new(scratch.join("capture"), &["--resume"]);
    day.pass(5);
    day.wait_written(5);
    std::fs::remove_dir_all(&day.capture).unwrap();
    day.record.wait_stderr("was removed while it was being written");
    day.record.wait_stderr("again; ");
    day.pass(7);
    day.wait_written(7);
    let capture = day.stop();
    assert_eq!(recording::ended(&capture), 7);
}

/// An ext4 that found an error lets nobody write any more, until it was unmounted and checked. The
/// recorder must not be in the way of that.
#[test]
fn a_file_system_that_turns_read_only_is_waited_out_with_resume() {
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("read-only");
    let device = Loop::ext4(&scratch.join("image"));
    let directory = scratch.path().join("disk");
    let disk = Disk::mount(&directory, &[device.path()]);
    let mut day = Day::new(scratch.join("disk/capture"), &["--resume"]);
    day.pass(23);
    day.wait_written(23);
    tool("sync", &["--file-system", &day.capture]);
    tool("mount", &["-o", "remount,abort", &directory.to_string_lossy()]);
    day.record.wait_stderr("goes on as soon as it can be written");
    assert_eq!(recording::ended(&day.capture), 23);
    tool("umount", &[&*directory.to_string_lossy()]);
    std::mem::forget(disk);
    // It tries once a second, and must not begin anew on the disk below.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!Path::new(&day.capture).exists());
    // Its exit code says that it has mended something.
    let _ = Command::new("fsck.ext4").args(["-f", "-y", device.path()]).output().unwrap();
    let _disk = Disk::mount(&directory, &[device.path()]);
    day.record.wait_stderr("again; ");
    day.pass(41);
    day.wait_written(23 + 41);
    let capture = day.stop();
    assert_eq!(recording::ended(&capture), 23 + 41);
}
