//! Envoy with listeners and clusters of the test's own.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::net::Place;
use crate::process::Running;
use crate::scratch::Scratch;
use crate::truth::{ss, wait_equal_within};

/// Its start takes seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Envoy; killed on drop.
#[derive(Debug)]
pub struct Envoy {
    _process: Running,
    admin: u16,
}

impl Envoy {
    /// Starts it on the host, and waits until the admin interface and every listener are there.
    ///
    /// # Panics
    /// If Envoy does not like what it was given.
    #[track_caller]
    #[must_use]
    pub fn start(scratch: &Scratch, admin: u16, listeners: &[Value], clusters: &[Value]) -> Self {
        let configuration = json!({
            "admin": { "address": address(admin) },
            "static_resources": { "listeners": listeners, "clusters": clusters },
        });
        let path = scratch.join("envoy.json");
        fs::write(&path, configuration.to_string()).expect("a temporary file");
        let mut command = Command::new("envoy");
        command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
        let process = Running::start(command.args(["-c", &path]));
        let ports = listeners.iter().map(|one| &one["address"]["socket_address"]["port_value"]);
        for port in ports.chain([&json!(admin)]) {
            wait_equal_within(PATIENCE, "Envoy listens", &true, || {
                ss(&Place::host(), "listening", &format!("sport = :{port}")) > 0
            });
        }
        Self { _process: process, admin }
    }

    /// A page of the admin interface.
    #[must_use]
    pub fn admin(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// A listener with the `stat_prefix` that its numbers are named after, which lets WebSockets through.
#[must_use]
pub fn listener(port: u16, stat_prefix: &str, routes: &[Value]) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network\
                  .http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "route_config": { "virtual_hosts": [{
            "name": stat_prefix, "domains": ["*"], "routes": routes,
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            },
        }],
    });
    json!({
        "address": address(port),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
        }] }],
    })
}

/// Requests whose path begins so go to a cluster; `more` is about the route.
#[must_use]
pub fn route(prefix: &str, cluster: &str, more: Value) -> Value {
    let mut action = json!({ "cluster": cluster });
    extend(&mut action, more);
    json!({ "match": { "prefix": prefix }, "route": action })
}

/// Servers on these ports of the host, in turn; `more` is about the cluster.
#[must_use]
pub fn cluster(name: &str, ports: &[u16], more: Value) -> Value {
    let endpoints = ports.iter().map(|port| json!({ "endpoint": { "address": address(*port) } }));
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": endpoints.collect::<Vec<_>>() }],
        },
    });
    extend(&mut cluster, more);
    cluster
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
