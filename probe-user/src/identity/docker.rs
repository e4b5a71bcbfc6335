//! Names and health of containers from the Docker API, asked over its socket. Podman's compatible socket
//! answers the same.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// A local socket answers at once, or is stuck.
const TIMEOUT: Duration = Duration::from_secs(2);
const BODY_LIMIT: usize = 16 << 20;

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Vec<String>,
    /// `Up 2 hours (healthy)`
    #[serde(rename = "Status", default)]
    status: String,
}

/// What Docker says of a container.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) name: String,
    /// `None` without a health check, while it is stopped, and until the first check has ended.
    pub(crate) healthy: Option<bool>,
}

/// The socket that `DOCKER_HOST` names if it is one, else the usual one.
pub(crate) fn socket_path() -> PathBuf {
    std::env::var("DOCKER_HOST")
        .ok()
        .and_then(|host| host.strip_prefix("unix://").map(PathBuf::from))
        .unwrap_or_else(|| "/var/run/docker.sock".into())
}

/// Every container by its full id, stopped ones included.
///
/// # Errors
/// When nobody listens on the socket, permission is missing, or the answer is not Docker's.
pub(crate) async fn containers(socket: &Path) -> anyhow::Result<HashMap<String, Told>> {
    let body = tokio::time::timeout(TIMEOUT, get(socket, "/containers/json?all=1")).await??;
    let listed: Vec<Listed> = serde_json::from_slice(&body)?;
    let told = |container: Listed| {
        let (name, healthy) = (own_name(&container.names)?, healthy(&container.status));
        Some((container.id, Told { name, healthy }))
    };
    Ok(listed.into_iter().filter_map(told).collect())
}

fn healthy(status: &str) -> Option<bool> {
    match status.rsplit_once('(')?.1 {
        "healthy)" => Some(true),
        "unhealthy)" => Some(false),
        _ => None,
    }
}

/// `["/db", "/web/db"]` → `db`: a name with a second slash is another container's link to it.
fn own_name(names: &[String]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix('/'))
        .find(|name| !name.contains('/'))
        .map(str::to_owned)
}

async fn get(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header("host", "docker").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    anyhow::ensure!(status.is_success(), "{} answered {status}", socket.display());
    let body = Limited::new(response.into_body(), BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!(error))?
        .to_bytes();
    driver.abort();
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_other_containers_are_no_names() {
        let names = ["/web/db".to_owned(), "/db".to_owned()];
        assert_eq!(own_name(&names).as_deref(), Some("db"));
        assert_eq!(own_name(&["/web/db".to_owned()]), None);
    }

    #[test]
    fn health_is_the_last_word_of_the_status() {
        for (status, is) in [
            ("Up 2 hours (healthy)", Some(true)),
            ("Up 3 seconds (unhealthy)", Some(false)),
            ("Up 1 second (health: starting)", None),
            ("Up 2 hours", None),
            ("Exited (0) 3 minutes ago", None),
            ("", None),
        ] {
            assert_eq!(healthy(status), is, "{status}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_error() {
        assert!(containers(Path::new("/nonexistent/docker.sock")).await.is_err());
    }
}
