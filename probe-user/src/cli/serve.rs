//! `probe serve`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{Questions, interval};
use crate::{health::url::HealthUrl, kernel};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo probe serve
  sudo probe serve --counts-only                     half the work on a host that opens many
  curl -s http://127.0.0.1:9464/metrics
  curl -s 'http://127.0.0.1:9464/v1/counts?port=3005&role=passive'
  sudo probe serve --listen 0.0.0.0:9464 --token-file token --tls-cert cert.pem --tls-key key.pem
  sudo probe serve --otlp http://127.0.0.1:4318
  curl -s --cacert cert.pem -H \"Authorization: Bearer $(cat token)\" https://vm:9464/metrics

What --health, --metrics and --table name is asked while somebody looks at the page (the health) or
records with `probe record --remote`. A browser asks for a name and a password: any name, and the token. A token has at least 16
characters, for example from: openssl rand -hex 32 > token")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) listen: Listen,

    /// Count, and follow no handshakes: no classes, and nothing for `probe record` to record
    #[arg(long)]
    pub(crate) counts_only: bool,

    /// Connections that can be followed at once; memory grows with those that there are
    #[arg(long, value_name = "N", default_value_t = kernel::Options::default().connections)]
    pub(crate) max_connections: u32,

    /// Size of the ring from the kernel, which holds what ends while the agent is busy: a power of two
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = kernel::Options::default().ring_bytes,
        value_parser = ring_bytes
    )]
    pub(crate) ring_bytes: u32,

    #[command(flatten)]
    pub(crate) asked: Questions,

    /// Hand metrics and failed handshakes to this OpenTelemetry receiver (OTLP/HTTP, protobuf)
    #[arg(long, value_name = "URL", help_heading = "OpenTelemetry")]
    pub(crate) otlp: Option<HealthUrl>,

    /// How often it gets them
    #[arg(
        long,
        value_name = "10s",
        default_value = "10s",
        help_heading = "OpenTelemetry",
        value_parser = interval
    )]
    pub(crate) otlp_interval: Duration,
}

/// Where the agent's HTTP side is, and for whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct Listen {
    /// Address of the metrics, the JSON and the page; without a token on loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub(crate) listen: SocketAddr,

    /// Answer only who shows the token in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Speak TLS with this certificate and those that vouch for it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    if !bytes.is_power_of_two() || bytes < 4096 {
        return Err("expected a power of two, at least 4096".into());
    }
    Ok(bytes)
}
