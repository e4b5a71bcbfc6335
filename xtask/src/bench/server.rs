//! What a busy server notices: nginx under wrk, and a bulk transfer, with the probe and without.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Context;
use super::cpu;
use super::probe::{Agent, Recording};
use super::process::{Running, find, free_port, output, wait_until_open};
use super::row::{Goal, Row};
use super::statistics::Median;

const CHURN: &str = "connections/s, probe recording with all stages / off";
const COUNTS: &str = "connections/s, counts only / off";
const KEPT: &str = "requests/s on kept-alive connections, all stages / off";
const BULK: &str = "throughput of a bulk transfer, all stages / off";
const PEER: &str = "connections/s, libbpf-tools `tcpstates` into a file / off";

const RECORDING_LIMIT: &str = "Of the processors' time in such a run, sampled (`perf record -a -g -e cpu-clock` beside \
    it), 9 % are the programs, next heading, 3 % the kernel's calls of them, and 3 % the recorder, which takes records \
    out of the ring and writes them.";
const COUNTING_LIMIT: &str = "What a connection takes more are the programs for its whole life, next heading, and a third \
    as much for the kernel's calls of them.";
const PACKET_LIMIT: &str = "Each packet runs `egress` once and `ingress` once; what a run takes stands under the next \
    heading. Of the processors' time in such a run, sampled, 3 % are the programs and 2 % the kernel's calls of them. \
    Half of the former are their own instructions, a quarter is the look-up of the packet's connection, 5 to 7 % each \
    the clock and reads of the socket.";

/// Rounds for the peer, which is there to compare with.
const PEER_ROUNDS: usize = 5;

/// What is measured beside the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Off,
    AllStages,
    CountsOnly,
    Tcpstates,
}

/// One mode in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    connections_per_s: f64,
    /// Both ends, everything that the machine did.
    cpu_us_per_connection: f64,
    requests_per_s: f64,
    bulk_bits_per_s: f64,
}

pub(crate) fn measure(context: &Context) -> Result<Vec<Row>> {
    if find("nginx").is_none() || find("wrk").is_none() {
        let goals = [(CHURN, 0.94), (COUNTS, 0.97), (KEPT, 0.98)];
        let why = "needs nginx and wrk";
        return Ok(goals.map(|(what, goal)| Row::absent(what, Goal::AtLeast(goal), why)).into());
    }
    let load = Load::start(context)?;
    load.sample(context, Mode::Off)?; // warms up, not counted
    let mut rounds = Vec::new();
    for round in 0..context.rounds() {
        let mut modes = [Mode::Off, Mode::AllStages, Mode::CountsOnly];
        if round % 2 == 1 {
            modes.reverse();
        }
        rounds.push(load.round(context, &modes)?);
    }
    let mut rows = vec![
        ratio(CHURN, 0.94, &rounds, Mode::AllStages, |sample| sample.connections_per_s)?
            .detail(pair_detail(&rounds, Mode::AllStages))
            .limit(RECORDING_LIMIT)
            .guarded(),
        ratio(COUNTS, 0.97, &rounds, Mode::CountsOnly, |sample| sample.connections_per_s)?
            .detail(pair_detail(&rounds, Mode::CountsOnly))
            .limit(COUNTING_LIMIT)
            .guarded(),
        ratio(KEPT, 0.98, &rounds, Mode::AllStages, |sample| sample.requests_per_s)?
            .detail(format!(
                "{:.0} requests/s without",
                median(&rounds, Mode::Off, |s| s.requests_per_s)
            ))
            .limit(PACKET_LIMIT)
            .guarded(),
    ];
    rows.push(if load.bulk.is_some() {
        ratio(BULK, 0.98, &rounds, Mode::AllStages, |sample| sample.bulk_bits_per_s)?
            .detail(format!(
                "{:.1} Gbit/s without",
                median(&rounds, Mode::Off, |sample| sample.bulk_bits_per_s) / 1e9
            ))
            .limit(PACKET_LIMIT)
            .guarded()
    } else {
        Row::absent(BULK, Goal::AtLeast(0.98), "needs iperf3")
    });
    if !context.quick {
        rows.push(peer(context, &load)?);
    }
    Ok(rows)
}

/// What people use today, on the same server.
fn peer(context: &Context, load: &Load) -> Result<Row> {
    if find("tcpstates").is_none() {
        return Ok(Row::absent(PEER, Goal::None, "needs libbpf-tools"));
    }
    let rounds = (0..PEER_ROUNDS)
        .map(|_| load.round(context, &[Mode::Off, Mode::Tcpstates]))
        .collect::<Result<Vec<_>>>()?;
    let row = ratio(PEER, 0.0, &rounds, Mode::Tcpstates, |sample| sample.connections_per_s)?;
    Ok(Row { goal: Goal::None, ..row }.detail(pair_detail(&rounds, Mode::Tcpstates)))
}

type Round = Vec<(Mode, Sample)>;

fn of(round: &Round, mode: Mode) -> Option<Sample> {
    round.iter().find(|(other, _)| *other == mode).map(|(_, sample)| *sample)
}

fn ratio(
    what: &str,
    goal: f64,
    rounds: &[Round],
    mode: Mode,
    figure: impl Fn(Sample) -> f64,
) -> Result<Row> {
    let ratios: Vec<f64> = rounds
        .iter()
        .filter_map(|round| Some(figure(of(round, mode)?) / figure(of(round, Mode::Off)?)))
        .collect();
    let median = Median::of(&ratios).context("no rounds")?;
    Ok(Row::new(what, Goal::AtLeast(goal), "", median.value).interval(median.interval))
}

fn median(rounds: &[Round], mode: Mode, figure: impl Fn(Sample) -> f64) -> f64 {
    let values: Vec<f64> = rounds.iter().filter_map(|round| of(round, mode)).map(figure).collect();
    Median::of(&values).map_or(0.0, |median| median.value)
}

fn pair_detail(rounds: &[Round], mode: Mode) -> String {
    let rate = |mode| median(rounds, mode, |sample| sample.connections_per_s);
    let cpu = |mode| median(rounds, mode, |sample| sample.cpu_us_per_connection);
    format!(
        "{:.0} / {:.0} connections/s; {:.1} / {:.1} µs of processor per connection, both ends, client and server",
        rate(mode),
        rate(Mode::Off),
        cpu(mode),
        cpu(Mode::Off)
    )
}

/// The servers that are asked.
struct Load {
    _nginx: Running,
    web: SocketAddr,
    /// iperf3, where it is installed.
    bulk: Option<(Running, u16)>,
}

impl Load {
    fn start(context: &Context) -> Result<Self> {
        let web = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let configuration = context.file("nginx.conf");
        let directory = context.scratch.display();
        // nginx gives its places to its own user, which an agent may not write to any more.
        let own = context.file("nginx");
        let own = own.display();
        let text = format!(
            "daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr error;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
             access_log off; keepalive_requests 1000000000;\n\
             client_body_temp_path {own}; proxy_temp_path {own};\n\
             fastcgi_temp_path {own}; uwsgi_temp_path {own}; scgi_temp_path {own};\n\
             server {{ listen {web} backlog=4096; location / {{ return 200 \"ok\\n\"; }} }}\n}}\n"
        );
        fs::write(&configuration, text)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let mut command = Command::new(find("nginx").context("nginx is gone")?);
        command.arg("-p").arg(&context.scratch).arg("-c").arg(&configuration);
        let nginx = Running::start(&mut command, context.file("nginx.log"))?;
        wait_until_open(web)?;
        let bulk = match find("iperf3") {
            None => None,
            Some(program) => {
                let port = free_port()?;
                let mut command = Command::new(program);
                command
                    .args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()])
                    .stdout(Stdio::null());
                let server = Running::start(&mut command, context.file("iperf3.log"))?;
                wait_until_open((Ipv4Addr::LOCALHOST, port).into())?;
                Some((server, port))
            }
        };
        Ok(Self { _nginx: nginx, web, bulk })
    }

    fn round(&self, context: &Context, modes: &[Mode]) -> Result<Round> {
        modes.iter().map(|&mode| Ok((mode, self.sample(context, mode)?))).collect()
    }

    fn sample(&self, context: &Context, mode: Mode) -> Result<Sample> {
        let capture = context.file("capture");
        let mut sample = Sample::default();
        match mode {
            Mode::Off => self.fill(context, mode, &mut sample)?,
            Mode::AllStages => {
                let recording = Recording::start(context, "capture", &[])?;
                self.fill(context, mode, &mut sample)?;
                recording.stop()?;
                fs::remove_dir_all(&capture)?;
            }
            Mode::CountsOnly => {
                let _agent = Agent::start(context, &["--counts-only"])?;
                self.fill(context, mode, &mut sample)?;
            }
            Mode::Tcpstates => {
                let mut command = Command::new(find("tcpstates").context("tcpstates is gone")?);
                command.stdout(File::create(context.file("tcpstates.txt"))?);
                let _tracer = Running::start(&mut command, context.file("tcpstates.log"))?;
                // Its output is buffered, so nothing tells when it has attached.
                thread::sleep(Duration::from_secs(2));
                self.fill(context, mode, &mut sample)?;
            }
        }
        Ok(sample)
    }

    /// Kept-alive requests and bulk are not asked of modes that have no row for them.
    fn fill(&self, context: &Context, mode: Mode, sample: &mut Sample) -> Result<()> {
        let before = cpu::busy()?;
        let churn = self.wrk(if context.quick { 1 } else { 2 }, &["-H", "Connection: close"])?;
        let worked = cpu::busy()?.saturating_sub(before);
        sample.connections_per_s = churn.per_s;
        sample.cpu_us_per_connection = worked.as_secs_f64() * 1e6 / churn.requests;
        if matches!(mode, Mode::Off | Mode::AllStages) {
            sample.requests_per_s = self.wrk(1, &[])?.per_s;
            sample.bulk_bits_per_s = self.bulk()?;
        }
        Ok(())
    }

    fn wrk(&self, seconds: u32, arguments: &[&str]) -> Result<Wrk> {
        let mut command = Command::new(find("wrk").context("wrk is gone")?);
        command.args(["--threads", "1", "--connections", "64", "--duration"]);
        command.arg(format!("{seconds}s")).args(arguments).arg(format!("http://{}/", self.web));
        let text = output(&mut command)?;
        Wrk::parse(&text).with_context(|| format!("wrk's output was not expected: {text}"))
    }

    fn bulk(&self) -> Result<f64> {
        let Some((_, port)) = &self.bulk else { return Ok(0.0) };
        let mut command = Command::new(find("iperf3").context("iperf3 is gone")?);
        command.args(["-c", "127.0.0.1", "-t", "1", "--json", "-p", &port.to_string()]);
        let answer: Value = serde_json::from_str(&output(&mut command)?)?;
        answer["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .context("iperf3 did not say what it received")
    }
}

struct Wrk {
    requests: f64,
    per_s: f64,
}

impl Wrk {
    /// `48213 requests in 2.00s, 7.63MB read` and `Requests/sec:  24092.20`.
    fn parse(text: &str) -> Option<Self> {
        let line = |words: &str| text.lines().map(str::trim).find(|line| line.contains(words));
        let requests = line(" requests in ")?.split(' ').next()?.parse().ok()?;
        let per_s = line("Requests/sec:")?.rsplit(' ').next()?.parse().ok()?;
        Some(Self { requests, per_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_read() {
        let text = "\
Running 2s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.55ms    1.07ms  21.92ms   92.66%
    Req/Sec    24.31k     1.02k   25.94k    75.00%
  48213 requests in 2.00s, 7.63MB read
Requests/sec:  24092.20
Transfer/sec:      3.81MB
";
        let wrk = Wrk::parse(text).unwrap();
        assert_eq!((wrk.requests, wrk.per_s), (48_213.0, 24_092.2));
        assert!(Wrk::parse("unable to connect").is_none());
    }
}
