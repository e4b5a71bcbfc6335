//! Nobody is waited for: not the disk that a recording goes to, nor those who ask the agent and do not read.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::day::{CHURNED, Day};
use e2e::disk::{Disk, Loop};
use e2e::machine::{Need, require};
use e2e::probe::Agent;
use e2e::process::{Running, Signal, resident_kib};
use e2e::recording;
use e2e::scrape;
use e2e::scratch::Scratch;
use e2e::truth::wait_equal_within;
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_disk_that_stalls_costs_no_count_and_no_row() {
    const STALLED: Duration = Duration::from_secs(10);
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let scratch = Scratch::new("stalled");
    let device = Loop::ext4(&scratch.join("image"));
    let disk = Disk::mount(&scratch.path().join("disk"), &[device.path()]);
    let capture = scratch.join("disk/capture");
    let mut day = Day::new(&[]);
    let mut record = day.agent.command("record");
    record.args(["-o", &capture, "--port", "8080", "--role", "passive"]);
    let record = Running::start(&mut record);
    record.wait_stderr("recording to");
    let pids = [day.agent.pid(), record.pid()];
    let before = pids.map(resident_kib);

    let (frozen, since) = (disk.freeze(), Instant::now());
    day.under_load(|_| {});
    day.assert_counted();
    std::thread::sleep(STALLED.saturating_sub(since.elapsed()));
    assert_eq!(recording::ended(&capture), 0, "the disk took rows");
    let after = pids.map(resident_kib);
    drop(frozen);

    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + 64 * 1024, "resident: {before} KiB, then {after} KiB");
    }
    let all = usize::try_from(CHURNED).unwrap();
    wait_equal_within(PATIENCE, "connections in the capture", &all, || recording::ended(&capture));
    let finished = record.stop(Signal::INT);
    assert_eq!(finished.code, Some(130), "{finished}");
    assert_eq!(recording::losses(&capture, &scratch), []);
}

/// A connection to the agent whose answers nobody reads.
fn slow_reader(request: &str, times: usize) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Little fits between the two.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&Agent::LISTEN.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let requests = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(times);
    match (&socket).write_all(requests.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{request}: {error}"),
        _ => socket,
    }
}

#[test]
fn who_does_not_read_keeps_nobody_waiting() {
    const UNREAD: Duration = Duration::from_secs(30);
    /// What the systemd unit grants the agent (`MemoryMax`), beyond which it would be killed.
    const GRANTED_KIB: u64 = 512 * 1024;
    let Some(_machine) = require(&[Need::Bpf]) else { return };
    let mut day = Day::new(&[]);
    let _ = scrape::time(&day.agent);
    let since = Instant::now();
    let mut readers = Vec::new();
    for (request, times, readers_of_it) in [
        ("GET /metrics", 200, 10),
        ("GET /v1/counts", 200, 10),
        ("GET /v1/live", 1, 10),
        ("GET /v1/top", 1, 10),
        ("POST /v1/recordings?port=8080", 1, 2),
    ] {
        readers.extend((0..readers_of_it).map(|_| slow_reader(request, times)));
    }
    day.under_load(|_| {});
    day.assert_counted();
    let mut times = Vec::new();
    while times.len() < 20 || since.elapsed() < UNREAD {
        times.push(scrape::time(&day.agent));
        std::thread::sleep(Duration::from_millis(100));
    }
    scrape::assert_quick(times);
    let resident = resident_kib(day.agent.pid());
    assert!(resident < GRANTED_KIB, "resident: {resident} KiB of {GRANTED_KIB}");
    drop(readers);
    day.agent.counts().assert_exact();
}
