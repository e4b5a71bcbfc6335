//! Takes the connections of the agent's HTTP side, over TLS where it has a certificate, and bounds
//! what each may cost: the size and the time of a head, and the time of an answer.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use axum::{Router, response::Response};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::{
    guests::{Doing, Guest, Guests},
    holding::Holding,
};
use crate::error::Error;

/// From the connection, or from the answer before, to the end of a request's head, and as long for
/// TLS.
const HEAD_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 16 << 10;
/// How long the peer's end may take nothing of what waits for it.
const STALLED: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(1);
/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(20);

/// Marks a response that ends only when the client has enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endless;

/// TLS with a certificate, and the key that it is for.
///
/// # Errors
/// [`Error::Input`] for files that hold none, or that do not belong together.
pub(crate) fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        Error::input(
            format!("{}: {error}", path.display()),
            "expected a certificate and its private key, unencrypted, each in PEM form",
        )
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| wrong(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers for as long as it is polled.
pub(crate) async fn serve(
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
) -> Infallible {
    let guests = Arc::new(Guests::default());
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            _ = sweep.tick() => {
                guests.send_slow_away();
                continue;
            }
        };
        let Ok((stream, _)) = accepted else {
            // The peer is gone already, or no descriptor is free.
            guests.make_room();
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(guest) = guests.admit() else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let guest = Arc::new(guest);
            tokio::select! {
                () = guest.sent_away() => {}
                () = attend(stream, tls, router, Arc::clone(&guest)) => {}
            }
        });
    }
}

/// What goes wrong on a connection is its peer's doing, and the end of it.
async fn attend(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, guest: Arc<Guest>) {
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED));
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(stream, router, guest).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
                speak(stream, router, guest).await;
            }
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    guest: Arc<Guest>,
) {
    let service = TowerToHyperService::new(router);
    let answer = service_fn(|request: Request<Incoming>| {
        guest.now(Doing::Answered);
        let answer = service.call(request);
        let guest = Arc::clone(&guest);
        async move {
            let response: Response = answer.await?;
            if response.extensions().get::<Endless>().is_some() {
                guest.now(Doing::Streaming);
            }
            Ok::<_, Infallible>(response.map(|body| Holding::new(body, Answering(guest))))
        }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// Held by the body of an answer, whose end is the end of the answer.
struct Answering(Arc<Guest>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.now(Doing::Waiting);
    }
}
