//! Numbers of a server's status page, in any of the formats that `status_page` knows.

use status_page::{Number, numbers};

use super::request::{Asked, Failure, Target};
use crate::printable::word;

/// What tells a leak of descriptors, tasks or memory, and a restart; the names are those of the common
/// client libraries.
const USUAL: [&str; 9] = [
    "go_goroutines",
    "lab_tasks",
    "nodejs_active_handles_total",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "tokio_alive_tasks",
];

/// What tells of a proxy's connections, by the ends of names: all of nginx's `stub_status`, a few of
/// haproxy's columns and of Envoy's statistics.
const USUAL_OF_PROXIES: [(&str, &[&str]); 6] = [
    ("nginx_", &[""]),
    ("haproxy_", &["_qcur", "_scur", "_slim", "_stot", "_econ", "_eresp", "_wretr", "_wredis"]),
    ("cluster.", &ENVOY_CLUSTER),
    ("envoy_cluster_", &ENVOY_CLUSTER),
    ("http.", &ENVOY_LISTENER),
    ("envoy_http_", &ENVOY_LISTENER),
];

const ENVOY_CLUSTER: [&str; 8] = [
    "upstream_cx_active",
    "upstream_cx_total",
    "upstream_cx_connect_fail",
    "upstream_cx_overflow",
    "upstream_rq_pending_overflow",
    "upstream_rq_timeout",
    "membership_healthy",
    "membership_total",
];

const ENVOY_LISTENER: [&str; 5] = [
    "downstream_cx_active",
    "downstream_cx_total",
    "downstream_cx_upgrades_active",
    "downstream_cx_upgrades_total",
    "downstream_rq_5xx",
];

fn is_usual(name: &str) -> bool {
    USUAL.contains(&name)
        || USUAL_OF_PROXIES.iter().any(|(start, ends)| {
            name.starts_with(start) && ends.iter().any(|end| name.ends_with(end))
        })
}

/// Which page, and which of its numbers.
#[derive(Clone, Debug)]
pub(crate) struct MetricsPoller {
    pub(crate) target: Target,
    /// Beside the usual ones.
    pub(crate) names: Vec<String>,
    /// Among several pages, one may have none of what is looked for.
    pub(crate) alone: bool,
}

impl MetricsPoller {
    pub(crate) async fn ask(&self) -> Asked<Vec<Number>> {
        self.target.get("text/plain;version=0.0.4", |body| self.pick(body)).await
    }

    fn pick(&self, body: &[u8]) -> Result<Vec<Number>, Failure> {
        let page = String::from_utf8_lossy(body);
        let all = numbers(&page);
        let is_wanted = |one: &&Number| is_usual(&one.name) || self.names.contains(&one.name);
        let missing = self.names.iter().find(|name| !all.iter().any(|one| one.name == **name));
        let picked: Vec<Number> = all.iter().filter(is_wanted).cloned().collect();
        if (missing.is_none() || !self.alone) && !picked.is_empty() {
            return Ok(picked);
        }
        Err(Failure::NoMetric {
            wanted: missing.cloned().unwrap_or_else(|| USUAL.join(", ")),
            near: near(&all),
        })
    }
}

/// Names that the page does have.
fn near(all: &[Number]) -> String {
    let mut names: Vec<String> = all.iter().map(|one| word(&one.name)).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "it has no numbers at all".into();
    }
    let more = if names.len() > 6 { ", …" } else { "" };
    names.truncate(6);
    format!("it has {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], page: &str) -> Result<Vec<Number>, String> {
        let target = Target {
            url: "http://localhost/metrics".parse().unwrap(),
            timeout: std::time::Duration::from_secs(1),
            ca: None,
        };
        let names = names.iter().map(|&name| name.to_owned()).collect();
        MetricsPoller { target, names, alone: true }
            .pick(page.as_bytes())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn proxies_say_what_they_hold() {
        let names = |page: &str| -> Vec<String> {
            pick(&[], page).unwrap().into_iter().map(|one| one.name).collect()
        };
        assert_eq!(names("Active connections: 7\n"), ["nginx_connections_active"]);
        assert_eq!(
            names("# pxname,svname,scur,smax,hrsp_5xx\nws,FRONTEND,3,9,1\n"),
            ["haproxy_frontend_scur"]
        );
        assert_eq!(
            names("cluster.web.upstream_cx_active: 3\ncluster.web.version: 9\n"),
            ["cluster.web.upstream_cx_active"]
        );
        let labels = "{envoy_http_conn_manager_prefix=\"ws\"}";
        assert_eq!(
            names(&format!(
                "envoy_http_downstream_cx_active{labels} 3\nenvoy_http_downstream_cx_ssl_active{labels} 3\n"
            )),
            ["envoy_http_downstream_cx_active"]
        );
    }

    #[test]
    fn the_usual_ones_and_those_asked_for_are_picked() {
        let page = "process_open_fds 42\nws_open{pool=\"a\"} 1\nws_open{pool=\"b\"} 2\nother 9\n";
        let picked = pick(&["ws_open"], page).unwrap();
        let found: Vec<_> = picked.iter().map(|one| (one.name.as_str(), one.value)).collect();
        assert_eq!(found, [("process_open_fds", 42.0), ("ws_open", 1.0), ("ws_open", 2.0)]);
        assert_eq!(
            pick(&["ws_opne"], page).unwrap_err(),
            "the page has none of ws_opne; it has other, process_open_fds, ws_open (choose with --metric)"
        );
        assert!(
            pick(&[], "<html>\n")
                .unwrap_err()
                .ends_with("it has no numbers at all (choose with --metric)")
        );
    }
}
