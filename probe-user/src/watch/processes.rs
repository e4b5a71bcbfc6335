//! What the kernel says of the processes behind the watched ports, block by block.

use std::{collections::BTreeMap, iter};

use serde::Serialize;

use super::lines::fit;
use crate::{
    clock,
    process::service::{ServiceFacts, Services},
};

/// The processes of one service at a block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProcessesNow {
    #[serde(flatten)]
    pub(crate) of: ServiceFacts,
    /// Of one CPU, since the last block; null at the first, and after a restart.
    pub(crate) cpu_percent: Option<f64>,
}

/// Every service, and what each had used at the last block.
#[derive(Debug)]
pub(crate) struct ProcessWatch {
    services: Services,
    /// By name and port: monotonic nanoseconds, and seconds of CPU time.
    before: BTreeMap<(String, u16), (i64, f64)>,
}

impl ProcessWatch {
    pub(crate) fn new(services: Services) -> Self {
        Self { services, before: BTreeMap::new() }
    }

    /// Blocks for milliseconds.
    pub(crate) fn now(&mut self) -> anyhow::Result<Vec<ProcessesNow>> {
        let all = self.services.read()?;
        let now_ns = clock::mono_ns();
        let with_share = |of: ServiceFacts| {
            let used = of.facts.cpu_seconds;
            let before = self.before.insert((of.name.clone(), of.port), (now_ns, used));
            ProcessesNow { cpu_percent: before.and_then(|then| share(then, (now_ns, used))), of }
        };
        Ok(all.into_iter().map(with_share).collect())
    }
}

/// In percent of one CPU.
fn share((then_ns, then): (i64, f64), (now_ns, now): (i64, f64)) -> Option<f64> {
    let seconds = (now_ns - then_ns) as f64 / 1e9;
    (seconds > 0.0 && now >= then).then(|| 100.0 * (now - then) / seconds)
}

impl ProcessesNow {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let ProcessesNow { of, cpu_percent } = self;
        let ServiceFacts { name, port, facts, container_healthy } = of;
        let kills = facts.oom_kills.filter(|kills| *kills > 0);
        let kills = kills.map(|kills| format!("{kills} killed for lack of memory"));
        if facts.processes == 0 {
            let gone = format!("{name}, port {port}: no process any more");
            return fit("", iter::once(gone).chain(kills), "   ", "  ");
        }
        let memory = facts.resident_bytes as f64 / 1_048_576.0;
        let mut parts = vec![
            format!("{name}, port {port}: {} fds ({} sockets)", facts.open_fds, facts.sockets),
            format!("{memory:.1} MB"),
            format!("{} threads", facts.threads),
        ];
        parts.extend(cpu_percent.map(|percent| format!("cpu {percent:.1} %")));
        parts.extend(kills);
        parts.extend(
            (*container_healthy == Some(false)).then(|| "unhealthy by Docker's check".to_owned()),
        );
        fit("", parts, "   ", "  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::facts::Facts;

    #[test]
    fn a_service_in_a_line() {
        let facts = Facts {
            processes: 1,
            open_fds: 214,
            sockets: 203,
            resident_bytes: 12_792_627,
            threads: 3,
            ..Facts::default()
        };
        let name = "lab".to_owned();
        let of = ServiceFacts { name, port: 3005, facts, container_healthy: Some(true) };
        let mut now = ProcessesNow { of, cpu_percent: share((0, 1.0), (2_000_000_000, 1.5)) };
        assert_eq!(
            now.line(),
            "lab, port 3005: 214 fds (203 sockets)   12.2 MB   3 threads   cpu 25.0 %"
        );
        now.of.container_healthy = Some(false);
        assert!(now.line().contains("cpu 25.0 %\n  unhealthy by Docker's check"), "{}", now.line());
        now.of.facts = Facts::default();
        assert_eq!(now.line(), "lab, port 3005: no process any more");
        now.of.facts.oom_kills = Some(1);
        assert_eq!(now.line(), "lab, port 3005: no process any more   1 killed for lack of memory");
        assert_eq!(share((0, 1.0), (2_000_000_000, 0.5)), None);
    }
}
