//! Balancers that are not ours in front of servers that are not ours: nginx, haproxy, Envoy, Go's
//! `httputil.ReverseProxy` and Docker's proxy, each with Node's `ws` behind. Every client's outcome is
//! known on each leg, and the right cause comes first.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use e2e::docker::Container;
use e2e::envoy::{self, Envoy, route};
use e2e::lab;
use e2e::machine::{Need, require};
use e2e::net::{Place, free_port};
use e2e::nginx::Nginx;
use e2e::node::Node;
use e2e::process::{Running, finish_within};
use e2e::recording::{Recorded, Recording};
use e2e::scratch::Scratch;
use e2e::truth::{ss, wait_equal};
use serde_json::{Value, json};

/// Clients whose handshake goes well, and clients that a fault hits.
const HEALTHY: usize = 33;
const HIT: usize = 7;

/// The fault that hits the last clients, not those of a path.
const LIMIT: &str = "limit";

/// What a proxy does with one fault, at a port of its own, with shards of its own.
struct Fault {
    name: &'static str,
    /// Where clients connect.
    proxy: u16,
    /// Takes those whose path begins with `/fail`, and the shard that takes the others.
    failing: u16,
    healthy: u16,
    /// The client's leg, and the shard's: what its ends are recorded as. `None`: there is none.
    client: &'static str,
    shard: Option<[&'static str; 2]>,
    cause: &'static str,
    /// Connects to the shard before it looks whether it may, and then sends nothing.
    connects_first: bool,
}

/// The servers behind a proxy: one that upgrades for each fault, and one that refuses, hangs or is dead.
struct Shards {
    node: Node,
    dead: u16,
}

impl Shards {
    fn start() -> Self {
        let node = Node::start(
            Command::new("env"),
            "127.0.0.1",
            &["ok", "ok", "ok", "ok", "ok", "ok", "hang", "forbid"],
        );
        Self { node, dead: e2e::answer::nobody().port() }
    }

    /// `answers`: what the proxy says to its client where it is full, where a shard hangs, and where
    /// it is dead. A shard's 403 is passed on.
    fn faults(&self, answers: [&'static str; 3], full: &'static str) -> [Fault; 4] {
        let fault = |number, name, failing, client, shard, cause| Fault {
            name,
            proxy: free_port(),
            failing,
            healthy: self.node.port(number),
            client,
            shard,
            cause,
            connects_first: false,
        };
        let [limit, timeout, dead] = answers;
        let gone = "no_response_client_left";
        [
            fault(0, LIMIT, self.node.port(0), limit, None, full),
            fault(1, "timeout", self.node.port(6), timeout, Some([gone; 2]), "upstream_timeout"),
            fault(2, "dead", self.dead, dead, Some(["no_listener"; 2]), "upstream_refused"),
            fault(3, "forbid", self.node.port(7), "http_403", Some(["http_403"; 2]), "forbidden"),
        ]
    }
}

/// Runs the clients, and returns the ports of the healthy and of the failed ones.
fn load(scratch: &Scratch, fault: &Fault) -> [Vec<u16>; 2] {
    let start = |path: &str, count: usize| {
        let results = scratch.join(&format!("{}{}", fault.name, path.replace('/', "-")));
        let url = format!("ws://127.0.0.1:{}{path}", fault.proxy);
        let mut command = lab::command(&Place::host());
        command.args(["load", "--json", "--url", &url, "--connections", &count.to_string()]);
        command.args(["--ramp", "50/s", "--hold", "2s", "--min-success", "0", "-o", &results]);
        (Running::start(&mut command), results)
    };
    // Where the limit hits, it is those who come when all places are taken.
    let runs = if fault.name == LIMIT {
        vec![start("/", HEALTHY + HIT)]
    } else {
        vec![start("/", HEALTHY), start("/fail", HIT)]
    };
    let mut ports = [Vec::new(), Vec::new()];
    for (run, results) in runs {
        let finished = run.wait(Duration::from_secs(60));
        assert_eq!(finished.code, Some(0), "{}: {finished}", fault.name);
        for (all, more) in ports.iter_mut().zip(sort_clients(&results)) {
            all.extend(more);
        }
    }
    assert_eq!(ports.each_ref().map(Vec::len), [HEALTHY, HIT], "{}", fault.name);
    ports
}

/// The ports of the clients that were upgraded, and of those that were not.
fn sort_clients(results: &str) -> [Vec<u16>; 2] {
    let mut ports = [Vec::new(), Vec::new()];
    let text = std::fs::read_to_string(results).expect("the clients' results");
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON lines");
        let port = line["local_port"].as_u64().and_then(|port| port.try_into().ok());
        let failed = usize::from(line["outcome"] != "upgraded");
        ports[failed].push(port.unwrap_or_else(|| panic!("no port: {line}")));
    }
    ports
}

/// What the ends of the legs to a port are recorded as, and how often.
fn legs(recorded: &Recorded, port: u16) -> BTreeMap<(String, String), usize> {
    let word = |row: &Value, field: &str| row[field].as_str().unwrap_or("none").to_owned();
    let mut found = BTreeMap::new();
    for row in recorded.rows.iter().filter(|row| row["port"] == port) {
        *found.entry((word(row, "role"), word(row, "outcome"))).or_default() += 1;
    }
    found
}

fn expected<const N: usize>(of: [(&str, &str, usize); N]) -> BTreeMap<(String, String), usize> {
    of.into_iter().map(|(role, outcome, n)| ((role.into(), outcome.into()), n)).collect()
}

fn assert_told(recorded: &Recorded, fault: &Fault, [healthy, failed]: &[Vec<u16>; 2]) {
    let name = fault.name;
    for (clients, outcome) in [(healthy, "upgraded"), (failed, fault.client)] {
        for &client in clients {
            let row = recorded.passive(client, fault.proxy);
            assert_eq!(row["outcome"], outcome, "{name}: {row}");
            let row = recorded.active(client, fault.proxy);
            assert_eq!(row["outcome"], outcome, "{name}: {row}");
        }
    }
    let upgraded = expected([("active", "upgraded", HEALTHY), ("passive", "upgraded", HEALTHY)]);
    let mut found = legs(recorded, fault.healthy);
    if fault.connects_first {
        found.retain(|(_, outcome), _| outcome != "none");
    }
    assert_eq!(found, upgraded, "{name}: the healthy shard");
    if name != LIMIT {
        let failing = match fault.shard {
            Some([active, passive]) => {
                expected([("active", active, HIT), ("passive", passive, HIT)])
            }
            None => BTreeMap::new(),
        };
        assert_eq!(legs(recorded, fault.failing), failing, "{name}: the failing shard");
    }
    let report = recorded.handshakes(&[fault.proxy, fault.healthy, fault.failing]);
    assert_eq!(report["failed"], HIT, "{name}: {report}");
    assert_eq!(report["causes"][0]["name"], fault.cause, "{name}: {:#}", report["causes"]);
    assert_eq!(report["causes"][0]["count"], HIT, "{name}: {:#}", report["causes"]);
}

/// Records while the clients of every fault come and go.
fn assert_all_told(scratch: &Scratch, faults: &[Fault]) {
    for fault in faults {
        wait_equal("the proxy listens", &1, || {
            ss(&Place::host(), "listening", &format!("sport = :{}", fault.proxy)).min(1)
        });
    }
    let recording = Recording::start(&scratch.join("capture"), &[]);
    let clients: Vec<_> = faults.iter().map(|fault| load(scratch, fault)).collect();
    let recorded = recording.stop();
    for (fault, clients) in faults.iter().zip(&clients) {
        assert_told(&recorded, fault, clients);
    }
}

#[test]
fn nginx() {
    let needs = [Need::Bpf, Need::Program("nginx"), Need::NodePackage("ws")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proxies-nginx");
    let shards = Shards::start();
    let faults = shards.faults(["http_503", "http_504", "http_502"], "slots_exhausted");
    let mut text = "limit_conn_zone $server_port zone=places:1m;\n\
                    proxy_http_version 1.1; proxy_set_header Connection upgrade;\n\
                    proxy_set_header Upgrade $http_upgrade; proxy_next_upstream off;\n"
        .to_owned();
    for Fault { name, proxy, failing, healthy, .. } in &faults {
        let limit =
            if *name == LIMIT { format!("limit_conn places {HEALTHY};") } else { String::new() };
        text += &format!(
            "server {{ listen 127.0.0.1:{proxy}; {limit}\n\
             location / {{ proxy_pass http://127.0.0.1:{healthy}; }}\n\
             location /fail {{ proxy_pass http://127.0.0.1:{failing}; proxy_read_timeout 300ms; }} }}\n"
        );
    }
    let _nginx = Nginx::start(&Place::host(), faults[0].proxy, &text);
    assert_all_told(&scratch, &faults);
}

#[test]
fn haproxy() {
    let needs = [Need::Bpf, Need::Program("haproxy"), Need::NodePackage("ws")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proxies-haproxy");
    let shards = Shards::start();
    let faults = shards.faults(["http_503", "http_504", "http_503"], "slots_exhausted");
    let mut text =
        "defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout tunnel 1h\n \
                    timeout queue 300ms\n retries 0\n"
            .to_owned();
    for Fault { name, proxy, failing, healthy, .. } in &faults {
        let limit = if *name == LIMIT { format!("maxconn {HEALTHY}") } else { String::new() };
        text += &format!(
            "frontend {name}\n bind 127.0.0.1:{proxy}\n use_backend {name}-fail if {{ path_beg /fail }}\n \
             default_backend {name}-ok\n\
             backend {name}-ok\n timeout server 5s\n server s 127.0.0.1:{healthy} {limit}\n\
             backend {name}-fail\n timeout server 300ms\n server s 127.0.0.1:{failing}\n"
        );
    }
    let configuration = scratch.join("haproxy.cfg");
    std::fs::write(&configuration, text).expect("a temporary file");
    let mut command = Command::new("haproxy");
    let _haproxy = Running::start(command.args(["-db", "-f", &configuration]));
    assert_all_told(&scratch, &faults);
}

/// Beside what the others do, it refuses upgrades where no `upgrade_configs` lets them through.
#[test]
fn envoy() {
    let needs = [Need::Bpf, Need::Program("envoy"), Need::NodePackage("ws")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proxies-envoy");
    let shards = Shards::start();
    let no_upgrade = Fault {
        name: "no-upgrade",
        proxy: free_port(),
        failing: e2e::answer::nobody().port(),
        healthy: shards.node.port(4),
        client: "http_403",
        shard: None,
        cause: "forbidden",
        connects_first: false,
    };
    let answers = ["http_503", "http_504", "http_503"];
    let faults: Vec<Fault> = shards
        .faults(answers, "slots_exhausted")
        .into_iter()
        .map(|fault| Fault { connects_first: fault.name == LIMIT, ..fault })
        .chain([no_upgrade])
        .collect();
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for Fault { name, proxy, failing, healthy, .. } in &faults {
        let (ok, fail) = (format!("{name}-ok"), format!("{name}-fail"));
        let upgrades = json!([{ "upgrade_type": "websocket", "enabled": *name != "no-upgrade" }]);
        let fails = json!({ "timeout": "0.3s", "upgrade_configs": upgrades });
        let routes = [route("/fail", &fail, fails), route("/", &ok, json!({ "timeout": "0s" }))];
        listeners.push(envoy::listener(*proxy, name, &routes));
        let most = if *name == LIMIT { HEALTHY } else { 1000 };
        let limits = json!({ "circuit_breakers": { "thresholds": [{ "max_requests": most }] } });
        clusters.push(envoy::cluster(&ok, &[*healthy], limits));
        clusters.push(envoy::cluster(&fail, &[*failing], json!({})));
    }
    let _envoy = Envoy::start(&scratch, free_port(), &listeners, &clusters);
    assert_all_told(&scratch, &faults);
}

/// Every shard is dead, and Envoy's own health checks, which are connections as well, have found out.
#[test]
fn envoy_without_a_healthy_shard() {
    let needs = [Need::Bpf, Need::Program("envoy")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proxies-envoy-unhealthy");
    let (proxy, dead) = (free_port(), e2e::answer::nobody().port());
    let checked = json!({
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
        "health_checks": [{
            "timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
            "tcp_health_check": {},
        }],
    });
    let routes = [route("/", "shards", json!({}))];
    let envoy = Envoy::start(
        &scratch,
        free_port(),
        &[envoy::listener(proxy, "ws", &routes)],
        &[envoy::cluster("shards", &[dead], checked)],
    );
    let port = format!("{proxy},{dead}");
    let args = ["--port", &port, "--metrics", &envoy.admin("/stats")];
    let recording = Recording::start(&scratch.join("capture"), &args);
    let results = scratch.join("results.jsonl");
    let url = format!("ws://127.0.0.1:{proxy}/");
    let shape = ["load", "--url", &url, "--connections", "40", "--ramp", "50/s"];
    let args = [&shape[..], &["--min-success", "0", "-o", &results]].concat();
    let _ = lab::run(&Place::host(), &args, Duration::from_secs(60));
    let [healthy, failed] = sort_clients(&results);
    assert_eq!((healthy.len(), failed.len()), (0, 40));
    let recorded = recording.stop();
    for &client in &failed {
        assert_eq!(recorded.passive(client, proxy)["outcome"], "http_503");
    }
    let report = recorded.handshakes(&[proxy, dead]);
    // A check's SYN says as little of who sent it as a client's.
    let checks = legs(&recorded, dead)[&("passive".to_owned(), "no_listener".to_owned())];
    assert_eq!(report["failed"], 40 + checks, "{report}");
    assert_eq!(report["links"]["linked"], 0, "a check is nobody's leg: {report}");
    let named = |name: &str| {
        let mut causes = report["causes"].as_array().into_iter().flatten();
        causes.find(|cause| cause["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
    };
    assert_eq!(named("no_listener")["count"], checks);
    let cause = named("no_healthy_upstream");
    assert_eq!((&cause["count"], &cause["certainty"]), (&40.into(), &"certain".into()));
}

/// The standard library's reverse proxy. It answers 502 to whatever goes wrong upstream, so the
/// number of places is the program's own.
const GO_PROXY: &str = r#"package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

func proxy(port string) http.Handler {
	target, _ := url.Parse("http://127.0.0.1:" + port)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{ResponseHeaderTimeout: 300 * time.Millisecond}
	return proxy
}

// Each argument: listening port, healthy shard, failing shard, places.
func main() {
	for _, argument := range os.Args[1:] {
		parts := strings.Split(argument, ",")
		healthy, failing := proxy(parts[1]), proxy(parts[2])
		count, _ := strconv.Atoi(parts[3])
		places := make(chan struct{}, count)
		handler := func(w http.ResponseWriter, r *http.Request) {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
			default:
				http.Error(w, "no place", http.StatusServiceUnavailable)
				return
			}
			if strings.HasPrefix(r.URL.Path, "/fail") {
				failing.ServeHTTP(w, r)
			} else {
				healthy.ServeHTTP(w, r)
			}
		}
		go http.ListenAndServe("127.0.0.1:"+parts[0], http.HandlerFunc(handler))
	}
	select {}
}
"#;

#[test]
fn go_reverse_proxy() {
    let needs = [Need::Bpf, Need::Program("go"), Need::NodePackage("ws")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proxies-go");
    let (source, program) = (scratch.join("proxy.go"), scratch.join("proxy"));
    std::fs::write(&source, GO_PROXY).expect("a temporary file");
    let mut build = Command::new("go");
    build
        .args(["build", "-o", &program, &source])
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "off");
    build.env("GOCACHE", std::env::temp_dir().join("groundtruth-go-cache"));
    let _ = finish_within(&mut build, Duration::from_secs(300)).success("go build");

    let shards = Shards::start();
    let faults = shards.faults(["http_503", "http_502", "http_502"], "slots_exhausted");
    let mut command = Command::new(&program);
    for Fault { name, proxy, failing, healthy, .. } in &faults {
        let places = if *name == LIMIT { HEALTHY } else { 1000 };
        command.arg(format!("{proxy},{healthy},{failing},{places}"));
    }
    let _proxy = Running::start(&mut command);
    assert_all_told(&scratch, &faults);
}

/// A published port: Docker's proxy accepts, and dials into the container.
#[test]
fn docker_proxy() {
    let needs = [Need::Bpf, Need::Docker, Need::NodePackage("ws")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("proxies-docker");
    let gone = "no_response_client_left";
    // What the server does, how many clients it refuses, what the legs are recorded as, and why.
    let cases = [
        ("ok", 0, "upgraded", "upgraded", None),
        ("limit", HIT, "http_503", "http_503", Some("capacity_limit")),
        ("forbid", HEALTHY + HIT, "http_403", "http_403", Some("forbidden")),
        ("hang", HEALTHY + HIT, gone, gone, Some("server_hangs")),
        ("dead", HEALTHY + HIT, "no_response_server_", "no_listener", Some("upstream_refused")),
    ];
    let ports = cases.map(|_| [free_port(), free_port()]);
    let mut options: Vec<String> =
        ["/usr", "/lib", "/lib64"].map(|dir| format!("--volume={dir}:{dir}:ro")).into();
    options.extend(ports.iter().map(|[out, inside]| format!("--publish=127.0.0.1:{out}:{inside}")));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let container = Container::start("published", &options);
    let modes: Vec<String> = cases
        .iter()
        .zip(&ports)
        .filter(|(case, _)| case.0 != "dead")
        .map(|(case, [_, inside])| format!("{}:{inside}", case.0))
        .collect();
    let modes: Vec<&str> = modes.iter().map(String::as_str).collect();
    let _node = Node::start(container.exec("/usr/bin/env"), "0.0.0.0", &modes);

    // Where Docker's proxy is quicker than the request, its end sees none: an attempt by the port alone.
    let [.., [dead, _]] = &ports;
    let recording = Recording::start(&scratch.join("capture"), &["--websocket", &dead.to_string()]);
    let clients: Vec<_> = cases
        .iter()
        .zip(&ports)
        .map(|((mode, refused, ..), [out, _])| {
            let results = scratch.join(mode);
            let url = format!("ws://127.0.0.1:{out}/");
            let shape = [
                "load",
                "--url",
                &url,
                "--connections",
                "40",
                "--ramp",
                "50/s",
                "--hold",
                "2s",
                "--handshake-timeout",
                "1500ms",
                "--min-success",
                "0",
                "-o",
                &results,
            ];
            let _ = lab::run(&Place::host(), &shape, Duration::from_secs(60));
            let clients = sort_clients(&results);
            assert_eq!(clients[1].len(), *refused, "{mode}");
            clients
        })
        .collect();
    let recorded = recording.stop();

    for (((mode, refused, client, shard, cause), [out, inside]), clients) in
        cases.iter().zip(&ports).zip(&clients)
    {
        for (clients, outcome) in clients.iter().zip(["upgraded", client]) {
            for &port in clients {
                for row in [recorded.passive(port, *out), recorded.active(port, *out)] {
                    // Docker's proxy closes: with a reset if the request has come and was not read.
                    let outcome = match outcome.strip_suffix('_') {
                        Some(_) if row["request_ns"].is_null() => "no_request".to_owned(),
                        Some(server) if row["closed_how"] == "rst" => format!("{server}_reset"),
                        Some(server) => format!("{server}_closed"),
                        None => outcome.to_owned(),
                    };
                    assert_eq!(row["outcome"], outcome, "{mode}: {row}");
                }
            }
        }
        let upgraded = HEALTHY + HIT - refused;
        let mut legs_expected = BTreeMap::new();
        for role in ["active", "passive"] {
            for (outcome, count) in [("upgraded", upgraded), (*shard, *refused)] {
                if count > 0 {
                    legs_expected.insert((role.to_owned(), outcome.to_owned()), count);
                }
            }
        }
        assert_eq!(legs(&recorded, *inside), legs_expected, "{mode}: the container's legs");
        let report = recorded.handshakes(&[*out, *inside]);
        assert_eq!(report["failed"], *refused, "{mode}: {report}");
        let first = &report["causes"][0];
        assert_eq!(first["name"].as_str(), *cause, "{mode}: {:#}", report["causes"]);
    }
}
