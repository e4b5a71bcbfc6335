//! Who may ask: whoever shows the token, as a bearer or as a browser's password. Without a token,
//! whoever is on this host.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;

use crate::error::Error;

/// Shorter ones can be guessed over a network.
const SHORTEST: usize = 16;
/// Browsers know only the second.
const CHALLENGES: [(HeaderName, HeaderValue); 2] = [
    (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"groundtruth\"")),
    (WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"groundtruth\", charset=\"UTF-8\"")),
];

/// A shared secret. Its text appears in no message.
pub(crate) struct Token(String);

impl Token {
    /// # Errors
    /// [`Error::Input`] for a file that cannot be read, or holds no token.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let next = "write one with: openssl rand -hex 32 > token; chmod 600 token";
        let text = fs::read_to_string(path).map_err(|error| {
            Error::input(format!("cannot read {}: {error}", path.display()), next)
        })?;
        let token = text.trim();
        if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let path = path.display();
            return Err(Error::input(
                format!(
                    "{path} holds no token: expected {SHORTEST} or more characters of ASCII on one line"
                ),
                next,
            ));
        }
        Ok(Self(token.to_owned()))
    }

    /// What a request that shows it says.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let Some((scheme, rest)) = shown.split_once(' ') else { return false };
        let shown = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => rest.trim().as_bytes().to_vec(),
            "basic" => match BASE64_STANDARD.decode(rest.trim()) {
                // Any name, then the password.
                Ok(pair) => match pair.iter().position(|byte| *byte == b':') {
                    Some(colon) => pair[colon + 1..].to_vec(),
                    None => return false,
                },
                Err(_) => return false,
            },
            _ => return false,
        };
        // Takes as long for a wrong first byte as for a wrong last one; only the length shows.
        self.0.as_bytes().ct_eq(&shown).into()
    }
}

/// Turns away who does not show the token, and what another site's page makes a browser send.
pub(crate) async fn check(
    State(token): State<Option<Arc<Token>>>,
    request: Request,
    next: Next,
) -> Response {
    if !request.method().is_safe() && is_of_another_site(request.headers()) {
        return (StatusCode::FORBIDDEN, "a page of another site asks for this\n").into_response();
    }
    match token {
        Some(token) if token.is_shown(request.headers()) => next.run(request).await,
        Some(_) => {
            let mut response =
                (StatusCode::UNAUTHORIZED, "show the agent's token: Authorization: Bearer …\n")
                    .into_response();
            for (name, value) in CHALLENGES {
                response.headers_mut().append(name, value);
            }
            response
        }
        None if names_this_host(request.headers()) => next.run(request).await,
        None => {
            let why = "without a token the agent answers only to localhost and to addresses\n";
            (StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
    }
}

/// A browser sends what any page asks for, and only keeps the answer from it. Tools name no site.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, a)| a);
    authority.map(str::as_bytes) != headers.get(HOST).map(HeaderValue::as_bytes)
}

/// A page from elsewhere can make its own name mean 127.0.0.1, and would then read what the
/// browser's host holds; but it cannot make the browser send another name than its own.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let name = authority.host();
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> bool {
        let token = Token("0123456789abcdef".into());
        token.is_shown(&HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]))
    }

    #[test]
    fn another_sites_page_is_known_by_what_its_browser_says() {
        let of_another = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            is_of_another_site(&HeaderMap::from_iter(headers))
        };
        assert!(!of_another(&[("host", "localhost:9464")]));
        assert!(!of_another(&[("host", "localhost:9464"), ("origin", "http://localhost:9464")]));
        // Behind a proxy the host is another one.
        assert!(!of_another(&[
            ("host", "127.0.0.1:9464"),
            ("origin", "https://probe.example"),
            ("sec-fetch-site", "same-origin")
        ]));
        for origin in ["https://evil.example", "http://localhost:8080", "null"] {
            assert!(of_another(&[("host", "localhost:9464"), ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(of_another(&[("host", "localhost:9464"), ("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn a_token_is_shown_whole_or_not_at_all() {
        assert!(shown("Bearer 0123456789abcdef"));
        assert!(shown(&format!("Basic {}", BASE64_STANDARD.encode("anyone:0123456789abcdef"))));
        for wrong in [
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer",
            "0123456789abcdef",
            "Digest 0123456789abcdef",
            "Basic 0123456789abcdef",
            &format!("Basic {}", BASE64_STANDARD.encode("0123456789abcdef:")),
        ] {
            assert!(!shown(wrong), "{wrong}");
        }
    }

    #[test]
    fn names_that_only_this_host_has() {
        let is_ours =
            |host: &str| names_this_host(&HeaderMap::from_iter([(HOST, host.parse().unwrap())]));
        for ours in ["127.0.0.1:9464", "[::1]:9464", "localhost", "LOCALHOST:80", "10.0.0.7"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_token_says_how_to_make_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, is_token) in
            [("0123456789abcdef\n", true), ("short", false), ("two words of it all", false)]
        {
            fs::write(file.path(), text).unwrap();
            match Token::read(file.path()) {
                Ok(token) => assert!(is_token && token.bearer() == "Bearer 0123456789abcdef"),
                Err(error) => assert!(!is_token && error.to_string().contains("openssl rand")),
            }
        }
    }
}
