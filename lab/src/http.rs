//! HTTP/1.1 that server and balancer share: one connection driven by hyper until it upgrades or
//! ends, and the answers both give.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, FORWARDED, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) type Body = Full<Bytes>;

/// Answers requests on `stream` until an answer is 101, an answer fails, or the peer is done. The
/// socket comes back open, with what was read past the last request.
pub(crate) async fn serve<F>(
    stream: TcpStream,
    answer: impl Fn(Request<Incoming>) -> F + Unpin,
) -> (TcpStream, Bytes)
where
    F: Future<Output = std::io::Result<Response<Body>>>,
{
    let _ = stream.set_nodelay(true);
    let mut http = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(|request| Box::pin(answer(request))));
    // How it ended is told by what the answers left behind; a broken request needs no more.
    let _ = poll_fn(|context| http.poll_without_shutdown(context)).await;
    let parts = http.into_parts();
    (parts.io.into_inner(), parts.read_buf)
}

/// Ends the HTTP connection without an answer.
pub(crate) fn no_answer() -> std::io::Error {
    std::io::Error::other("no answer is meant to be given")
}

pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket")
}

/// Whether a comma-separated header has `token`, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The client's own address, as a balancer passes it on (RFC 7239).
pub(crate) fn forwarded_for(headers: &HeaderMap) -> Option<SocketAddr> {
    let value = headers.get(FORWARDED)?.to_str().ok()?;
    value.strip_prefix("for=\"")?.strip_suffix('"')?.parse().ok()
}

pub(crate) fn forwarded(client: SocketAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("for=\"{client}\"")).ok()
}

/// A 101 whose accept key fits a request with `key`.
pub(crate) fn switching_protocols(key: &[u8]) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

pub(crate) fn json(body: &serde_json::Value) -> Response<Body> {
    typed("application/json", body.to_string())
}

/// Prometheus' text format.
pub(crate) fn prometheus(body: String) -> Response<Body> {
    typed("text/plain; version=0.0.4", body)
}

fn typed(content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
