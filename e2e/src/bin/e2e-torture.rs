//! The torture run (`cargo xtask torture`), and the processes of its load.
//!
//! ```text
//! e2e-torture run SEED SECONDS STEERING [json]    STEERING: on or off; exits with 1 if a check failed
//! e2e-torture attach CONNECTIONS TIMES       likewise
//! e2e-torture load SEED WORKERS PORT NETNS V4 V6 NETNS V4 V6 [CGROUP]    driven by standard input
//! e2e-torture hold                           reads standard input to its end
//! e2e-torture orphan CGROUP PORT             hands over sockets through standard input, and ends
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use e2e::torture::{self, attach, load};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["run", seed, seconds, steering, ref json @ ..] => {
            let options = torture::Options {
                seed: seed.parse()?,
                duration: Duration::from_secs(seconds.parse()?),
                churn: Duration::from_secs(5),
                steering: steering == "on",
            };
            return Ok(run(&options, json == ["json"]));
        }
        ["attach", connections, times] => {
            let options =
                attach::Options { connections: connections.parse()?, times: times.parse()? };
            return Ok(attach(&options));
        }
        ["hold"] => load::hold()?,
        ["orphan", cgroup, port] => load::orphan(cgroup, port.parse()?)?,
        ["load", seed, workers, port, n1, a1, b1, n2, a2, b2, ref cgroup @ ..] => {
            if let [cgroup] = cgroup {
                std::fs::write(format!("{cgroup}/cgroup.procs"), std::process::id().to_string())?;
            }
            load::run(&load::Options {
                seed: seed.parse()?,
                workers: workers.parse()?,
                first_port: port.parse()?,
                server: (n1.to_owned(), a1.parse()?, b1.parse()?),
                client: (n2.to_owned(), a2.parse()?, b2.parse()?),
            })?;
        }
        _ => return Err("expected: run | attach | load | hold | orphan, see the source".into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(options: &torture::Options, json: bool) -> ExitCode {
    let mut at = String::new();
    let report = torture::run(options, |check| {
        if check.at != at {
            at.clone_from(&check.at);
            eprintln!("{at}");
        }
        eprintln!("  {check}");
    });
    if json {
        println!("{}", report.json());
    }
    eprintln!("{} state changes, {} checks", report.transitions, report.checks.len());
    match report.first_failure() {
        None => ExitCode::SUCCESS,
        Some(check) => {
            eprintln!("failed first, {}:\n  {check}", check.at);
            ExitCode::FAILURE
        }
    }
}

fn attach(options: &attach::Options) -> ExitCode {
    let rounds = attach::run(options, |round| {
        let checks: Vec<String> = round.checks.iter().map(ToString::to_string).collect();
        let (at, took) = (&round.checks[0].at, round.took.as_secs_f64());
        eprintln!("{at}, complete after {took:.1} s\n  {}", checks.join("\n  "));
    });
    let holds = rounds.iter().flat_map(|round| &round.checks).all(|check| check.holds);
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
