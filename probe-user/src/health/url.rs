//! The URL of a health endpoint.

use std::str::FromStr;

use hyper::Uri;

/// An `http` or `https` URL with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthUrl {
    text: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// Path and query, as they stand in the request line.
    pub(crate) target: String,
}

impl FromStr for HealthUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected http://HOST:PORT/PATH or https://…";
        let uri: Uri = text.parse().map_err(|error| format!("{error}: {EXPECTED}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(format!("scheme {other:?}: {EXPECTED}")),
            None => return Err(format!("no scheme: {EXPECTED}")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("no host: {EXPECTED}"))?;
        Ok(Self {
            text: text.to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            target: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

impl std::fmt::Display for HealthUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        let url: HealthUrl = "http://[::1]:3005/health?full=1".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 3005));
        assert_eq!(url.target, "/health?full=1");
        let url: HealthUrl = "http://localhost".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("localhost", 80, "/"));
        let url: HealthUrl = "https://localhost/health".parse().unwrap();
        assert_eq!((url.port, url.tls), (443, true));
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, part) in [
            ("localhost:3005/health", "expected http://HOST:PORT/PATH"),
            ("/health", "no scheme"),
            ("ftp://localhost/", "scheme \"ftp\""),
        ] {
            let error = text.parse::<HealthUrl>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
