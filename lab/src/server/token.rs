//! Tokens of the lab's own: JWT, signed with HMAC-SHA256 (RFC 7519, HS256).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    /// Unix seconds.
    exp: i64,
}

/// A token for `user` that is valid until `expires_unix_s`.
pub(crate) fn issue(user: &str, secret: &str, now_unix_s: i64, expires_unix_s: i64) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = json!({ "sub": user, "iat": now_unix_s, "exp": expires_unix_s });
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = mac(secret, &signed).map(|mac| mac.finalize().into_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap_or_default()))
}

/// Whom the token is for; else what to answer.
pub(crate) fn user(token: &str, secret: &str, now_unix_s: i64) -> Result<String, &'static str> {
    const NO_TOKEN: &str = "a bearer token (JWT) is expected\n";
    let (signed, signature) = token.rsplit_once('.').ok_or(NO_TOKEN)?;
    let (header, claims) = signed.split_once('.').ok_or(NO_TOKEN)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| NO_TOKEN);
    let header: serde_json::Value =
        serde_json::from_slice(&decode(header)?).map_err(|_| NO_TOKEN)?;
    // A token may not choose its own way to be checked.
    if header["alg"] != "HS256" {
        return Err("the token must be signed by HS256\n");
    }
    let mac = mac(secret, signed).ok_or(NO_TOKEN)?;
    mac.verify_slice(&decode(signature)?).map_err(|_| "the token's signature is wrong\n")?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| NO_TOKEN)?;
    if claims.exp <= now_unix_s {
        return Err("the token has expired\n");
    }
    Ok(claims.sub)
}

fn mac(secret: &str, text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7515_verifies() {
        // Appendix A.1; its claims have no `sub`, so only the signature can be right.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(
            b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog\
              Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        );
        let signature =
            URL_SAFE_NO_PAD.decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        mac.verify_slice(&signature).unwrap();
    }

    #[test]
    fn a_token_is_for_its_user_until_it_expires() {
        let token = issue("alice", "secret", 1_000, 1_000 + 86_400);
        assert_eq!(user(&token, "secret", 1_001).as_deref(), Ok("alice"));
        assert_eq!(user(&token, "secret", 87_400), Err("the token has expired\n"));
        assert_eq!(user(&token, "other", 1_001), Err("the token's signature is wrong\n"));
        let unsigned = format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert_eq!(user(&unsigned, "secret", 1), Err("the token must be signed by HS256\n"));
        for broken in ["", "a.b", "a.b.c", "..."] {
            assert!(user(broken, "secret", 1).is_err(), "{broken}");
        }
    }
}
