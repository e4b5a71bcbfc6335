//! A server that speaks nothing but TLS: its health is asked all the same, and only if it is trusted.

use std::process::Command;

use e2e::machine::{Need, require};
use e2e::net::Place;
use e2e::process::Running;
use e2e::scratch::Scratch;
use e2e::{certificate, lab, probe};

/// Answers every request with a health body that reports no connection.
const SERVER: &str = "
const [key, cert] = process.argv.slice(1).map(path => require('fs').readFileSync(path));
require('https').createServer({ key, cert }, (request, response) =>
    response.end(JSON.stringify({ checks: { capacity: { current: 0 } } }))
).listen(0, '127.0.0.1', function () { console.log(`port ${this.address().port}`); });";

#[test]
fn health_over_tls() {
    let needs = [Need::Bpf, Need::Program("node"), Need::Program("openssl")];
    let Some(_machine) = require(&needs) else { return };
    let scratch = Scratch::new("https");
    let (key, trusted) = (scratch.join("key.pem"), scratch.join("certificate.pem"));
    certificate::make("IP:127.0.0.1", certificate::OF_A_SERVER, &key, &trusted);
    let server = Running::start(Command::new("node").args(["-e", SERVER, &key, &trusted]));
    let port = server.wait_stdout("port ").trim_start_matches("port ").to_owned();
    let url = format!("https://127.0.0.1:{port}/health");
    let watch = |more: &[&str]| {
        let fixed = ["watch", "--health", &url, "--interval", "1s", "--duration", "2s", "--json"];
        probe::run(&[&fixed[..], more].concat())
    };

    let trusting = watch(&["--ca", &trusted]);
    let blocks = trusting.clone().success("probe watch");
    let first: serde_json::Value = serde_json::from_str(blocks.lines().next().unwrap()).unwrap();
    assert_eq!(first["reported"], 0, "{trusting}");
    // The request's own connection is the only one, and is left out by what it is.
    assert_eq!(first["kernel"]["established"], 0, "{trusting}");

    let stranger = watch(&[]);
    assert!(stranger.code != Some(0), "{stranger}");
    let words = "no TLS: nobody whom this host trusts has signed the server's certificate\n  \
                 name the certificate to trust with --ca FILE";
    assert!(stranger.stderr.contains(words), "{stranger}");

    let no_file = watch(&["--ca", &key]);
    assert!(no_file.code != Some(0), "{no_file}");
    assert!(
        no_file.stderr.contains(
            "key.pem: no certificate; expected certificates in PEM form\n  name a file of certificates \
             with --ca FILE"
        ),
        "{no_file}"
    );
    drop(server);
    let gone = watch(&["--ca", &trusted, "--role", "active"]);
    assert_eq!(gone.code, Some(2), "{gone}");
    let words = "cannot connect: Connection refused (os error 111)\n  does the server run there, and is \
                 this the URL of its health?";
    assert!(gone.stderr.contains(words), "{gone}");

    let plain = lab::Server::start(&Place::host(), &["serve", "--listen", "127.0.0.1:0"]);
    let url = format!("https://{}/health", plain.address());
    let refused = probe::run(&["watch", "--health", &url, "--duration", "2s"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    let words = format!("{url}: nobody speaks TLS there\n  write http:// instead of https://");
    assert!(refused.stderr.contains(&words), "{refused}");
}
