//! Certificates that sign themselves, by OpenSSL.

use std::process::Command;

use crate::machine::tool;
use crate::process::finish;
use crate::truth::wait_equal;

/// OpenSSL makes an authority unless it is told this, and that is no server.
pub const OF_A_SERVER: &str = "critical,CA:FALSE";

/// For the host of this alternative name (`IP:127.0.0.1`), with these basic constraints.
#[track_caller]
pub fn make(name: &str, constraints: &str, key: &str, certificate: &str) {
    let request =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let name = format!("subjectAltName={name}");
    let constraints = format!("basicConstraints={constraints}");
    let subject = ["-subj", "/CN=vm", "-days", "2", "-addext", &name, "-addext", &constraints];
    let files = ["-keyout", key, "-out", certificate];
    tool("openssl", &[&request[..], &subject, &files].concat());
}

/// Gives a certificate an end that is over: later than its last second, in which it is still valid for TLS.
#[track_caller]
pub fn expire(key: &str, certificate: &str) {
    tool(
        "openssl",
        &["x509", "-in", certificate, "-signkey", key, "-days", "0", "-out", certificate],
    );
    wait_equal("valid", &false, || {
        let check = ["x509", "-in", certificate, "-checkend", "-1", "-noout"];
        finish(Command::new("openssl").args(check)).code == Some(0)
    });
}
