//! TLS for `https` URLs: the certificates that this host trusts, and those of `--ca`.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::request::Failure;

/// What to do about the rest.
const LOOK: &str = "`openssl s_client -connect HOST:PORT` shows what the server answers";

/// Made at the first `https` request: reading a host's certificates takes some milliseconds.
static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();

/// Speaks TLS on an open connection to `host`, a name or an address.
///
/// # Errors
/// The certificate is not trusted or for another host, `ca` cannot be read, or nobody speaks TLS there.
pub(crate) async fn connect(
    stream: TcpStream,
    host: &str,
    ca: Option<&Path>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let config = CONFIG
        .get_or_init(|| config(ca))
        .as_ref()
        .map_err(|why| tls(why, "name a file of certificates with --ca FILE"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        tls(&format_args!("{host}: {error}"), "write a host's name into the URL")
    })?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        inner.map_or_else(|| tls(&error, LOOK), failure)
    })
}

fn failure(error: &rustls::Error) -> Failure {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    match error {
        InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Failure::Plain,
        InvalidCertificate(CertificateError::UnknownIssuer) => Failure::Untrusted,
        InvalidCertificate(Expired | ExpiredContext { .. }) => {
            tls(error, "have it renewed on the server; or is this host's clock wrong?")
        }
        InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            tls(error, "is this host's clock wrong, or that of who made it?")
        }
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            tls(error, "write a name that it is for into the URL, or have one made for this name")
        }
        // What OpenSSL makes where it is asked for no more than a certificate.
        InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            Failure::Authority
        }
        _ => tls(error, LOOK),
    }
}

fn tls(why: &dyn std::fmt::Display, next: &'static str) -> Failure {
    Failure::Tls { why: why.to_string(), next }
}

fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let wrong = |error: &dyn std::fmt::Display| {
            format!("{}: {error}; expected certificates in PEM form", path.display())
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
        let before = roots.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.len() == before {
            return Err(wrong(&"no certificate"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
