//! What a balancer says of itself: `/health` with its shards, and `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::table::{Gauge, Total};
use super::worker::Worker;
use crate::process;
use crate::server::http::{percentage, round2};

/// `.shards[i].{connections,capacity,available}` and totals, beside what every server of the lab
/// reports. CPU, memory and tasks are summed over the balancer's processes.
pub(super) fn health(worker: &Worker) -> serde_json::Value {
    const MIB: f64 = 1024.0 * 1024.0;
    let table = &worker.table;
    let capacity = worker.options.slots;
    let shards: Vec<_> = worker
        .shards
        .iter()
        .enumerate()
        .map(|(i, address)| {
            let connections = table.slots_in_use(i);
            json!({
                "name": format!("shard-{}", i + 1),
                "address": address,
                "connections": connections,
                "capacity": capacity,
                "available": capacity - connections,
                "percentage": percentage(connections as f64, capacity as f64),
            })
        })
        .collect();
    let current: i64 = (0..worker.shards.len()).map(|shard| table.slots_in_use(shard)).sum();
    let max = capacity * i64::try_from(worker.shards.len()).unwrap_or(i64::MAX);
    let healthy = current < max;
    let used = table.gauge_sum(Gauge::ResidentBytes) as f64 / MIB;
    let limit = process::memory_limit_bytes() as f64 / MIB;
    json!({
        "status": if healthy { "healthy" } else { "degraded" },
        "healthy": healthy,
        "total_connections": current,
        "total_capacity": max,
        "total_available": max - current,
        "shards": shards,
        "checks": {
            "capacity": {
                "current": current,
                "max": max,
                "percentage": percentage(current as f64, max as f64),
            },
            "cpu": { "percentage": table.gauge_sum(Gauge::CpuCentiPercent) as f64 / 100.0 },
            "memory": {
                "used_mb": round2(used),
                "limit_mb": round2(limit),
                "percentage": percentage(used, limit),
            },
            "goroutines": {
                "current": table.gauge_sum(Gauge::Tasks),
                "limit": process::max_fds() * u64::from(worker.options.workers),
            },
        },
    })
}

/// Summed over the balancer's processes, as of their last second.
pub(super) fn metrics(worker: &Worker) -> String {
    let table = &worker.table;
    let total = |total| table.total(total).load(Ordering::Relaxed);
    let rows = [
        ("process_open_fds", "gauge", table.gauge_sum(Gauge::OpenFds)),
        ("process_max_fds", "gauge", process::max_fds() * u64::from(worker.options.workers)),
        ("process_resident_memory_bytes", "gauge", table.gauge_sum(Gauge::ResidentBytes)),
        ("lab_tasks", "gauge", table.gauge_sum(Gauge::Tasks)),
        ("lab_accepted_total", "counter", total(Total::Accepted)),
        ("lab_upgraded_total", "counter", total(Total::Upgraded)),
        ("lab_refused_total", "counter", total(Total::Refused)),
    ];
    let mut text = String::new();
    for (name, kind, value) in rows {
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    }
    text.push_str("# TYPE lab_shard_connections gauge\n");
    for shard in 0..worker.shards.len() {
        let _ = writeln!(
            text,
            "lab_shard_connections{{shard=\"{}\"}} {}",
            shard + 1,
            table.slots_in_use(shard)
        );
    }
    text
}
