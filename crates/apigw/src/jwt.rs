//! Tokens: signed JWTs (RFC 7519), verified with the public key of an authorising API.
//!
//! The library reads tokens and claims; `ring`, which the platform has anyway, computes. Only public-key algorithms are known, so that no
//! public key is ever taken for a shared secret. Source of the settings: API Gateway, "OAuth 2.0".

use crate::keypair::Denied;
use crate::records::TokenRules;
use http::HeaderMap;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, Validation, decode, decode_header};
use ring::signature as rs;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Once;

/// Longest token, in bytes. Ours.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest key document, in bytes. Ours.
pub const KEYS_BYTES_MAX: usize = 32 * 1024;
/// Most keys in a set. Ours.
pub const KEYS_MAX: usize = 16;
/// How far clocks may differ, in seconds. Ours.
const LEEWAY_S: u64 = 60;

/// `ring` behind the library's seam.
struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

fn unknown_algorithm() -> Error {
    ErrorKind::InvalidAlgorithm.into()
}

impl RingVerifier {
    fn make(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
        Ok(Box::new(Self { algorithm: *algorithm, key: key.kind().clone() }))
    }

    fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn jsonwebtoken::crypto::JwtSigner>, Error> {
        Err(unknown_algorithm())
    }
}

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], sent: &Vec<u8>) -> Result<(), signature::Error> {
        let wrong = |_| signature::Error::new();
        match (&self.algorithm, &self.key) {
            (algorithm, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let scheme: &rs::RsaParameters = match algorithm {
                    Algorithm::RS256 => &rs::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::RS384 => &rs::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::RS512 => &rs::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::PS256 => &rs::RSA_PSS_2048_8192_SHA256,
                    Algorithm::PS384 => &rs::RSA_PSS_2048_8192_SHA384,
                    Algorithm::PS512 => &rs::RSA_PSS_2048_8192_SHA512,
                    _ => return Err(signature::Error::new()),
                };
                rs::RsaPublicKeyComponents { n, e }.verify(scheme, message, sent).map_err(wrong)
            }
            (algorithm, DecodingKeyKind::SecretOrDer(key)) => {
                let scheme: &dyn rs::VerificationAlgorithm = match algorithm {
                    Algorithm::ES256 => &rs::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &rs::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &rs::ED25519,
                    _ => return Err(signature::Error::new()),
                };
                rs::UnparsedPublicKey::new(scheme, key).verify(message, sent).map_err(wrong)
            }
        }
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: RingVerifier::refuse_to_sign,
    verifier_factory: RingVerifier::make,
    key_utils: KeyUtils::new_unimplemented(),
};

fn provide() {
    static ONCE: Once = Once::new();
    // Only this crate uses the library, so nobody can have been first.
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

/// The algorithms that a key is good for.
fn algorithms(key: &Jwk) -> Vec<Algorithm> {
    let all = match &key.algorithm {
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        _ => Vec::new(),
    };
    match key.common.key_algorithm {
        None => all,
        // A key may say that it is for one algorithm only.
        Some(only) => all.into_iter().filter(|a| only.to_string() == format!("{a:?}")).collect(),
    }
}

/// The keys of an authorising API, and what else tokens must say.
#[derive(Debug)]
struct Keys {
    keys: Vec<(Jwk, DecodingKey, Vec<Algorithm>)>,
    issuers: Vec<String>,
    audiences: Vec<String>,
}

/// Beside the keys of a set; ours.
#[derive(Debug, Default, Deserialize)]
struct Terms {
    #[serde(default)]
    iss: OneOrMany,
    #[serde(default)]
    aud: OneOrMany,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
    #[default]
    None,
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
            Self::None => Vec::new(),
        }
    }
}

impl Keys {
    /// Reads a JWK, or a set of them with `iss` and `aud` beside. Errors: a sentence for the client.
    fn parse(text: &str) -> Result<Self, String> {
        provide();
        if text.len() > KEYS_BYTES_MAX {
            return Err(format!("it has {} bytes; the limit is {KEYS_BYTES_MAX}", text.len()));
        }
        let value: Value = serde_json::from_str(text.trim()).map_err(|e| format!("it is no JSON: {e}"))?;
        let (list, terms) = if value.get("keys").is_some() {
            let terms: Terms = serde_json::from_value(value.clone()).map_err(|e| format!("`iss` or `aud`: {e}"))?;
            let set: JwkSet = serde_json::from_value(value).map_err(|e| format!("it is no JWK set: {e}"))?;
            (set.keys, terms)
        } else {
            let key: Jwk = serde_json::from_value(value).map_err(|e| format!("it is no JWK: {e}"))?;
            (vec![key], Terms::default())
        };
        if list.is_empty() || list.len() > KEYS_MAX {
            return Err(format!("a set has 1 to {KEYS_MAX} keys"));
        }
        let mut keys = Vec::new();
        for key in list {
            let allowed = algorithms(&key);
            if allowed.is_empty() {
                return Err(
                    "its keys are RSA (RS256 … PS512), P-256 (ES256), P-384 (ES384) or Ed25519 (EdDSA) public keys"
                        .into(),
                );
            }
            let decoding = DecodingKey::from_jwk(&key).map_err(|e| format!("a key in it cannot be used: {e}"))?;
            keys.push((key, decoding, allowed));
        }
        Ok(Self { keys, issuers: terms.iss.list(), audiences: terms.aud.list() })
    }
}

/// Checks the settings of an authorising API. Errors: a sentence for the client.
pub fn check_rules(rules: &TokenRules) -> Result<(), String> {
    Keys::parse(&rules.public_key).map_err(|why| format!("`PublicKey` is not usable: {why}"))?;
    let (place, name) = place(&rules.location);
    if !matches!(place, "header" | "query" | "cookie") || name == Some("") {
        return Err(
            "`TokenLocation` is header, query or cookie, with `:<name>` for another name than the usual one".into()
        );
    }
    Ok(())
}

fn place(location: &str) -> (&str, Option<&str>) {
    match location.split_once(':') {
        Some((place, name)) => (place, Some(name)),
        None if location.is_empty() => ("header", None),
        None => (location, None),
    }
}

/// The token of a request: by default `Authorization: Bearer …`, the query's `id_token`, or the cookie of that name.
fn token<'a>(location: &str, headers: &'a HeaderMap, query: &'a str) -> Option<Cow<'a, str>> {
    let (place, name) = place(location);
    match place {
        "query" => {
            let name = name.unwrap_or("id_token");
            form_urlencoded::parse(query.as_bytes()).find(|(n, _)| n == name).map(|(_, v)| v)
        }
        "cookie" => {
            let name = name.unwrap_or("id_token");
            let cookies = headers.get_all(http::header::COOKIE).iter().filter_map(|v| v.to_str().ok());
            let mut pairs = cookies.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(n, _)| *n == name).map(|(_, v)| v.into())
        }
        _ => {
            let text = headers.get(name.unwrap_or("authorization"))?.to_str().ok()?.trim();
            let bare = match text.split_once(' ') {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
                _ => text,
            };
            Some(bare.into())
        }
    }
}

/// Verifies the token of a request, and returns its claims. `exp` has to be there. Errors: what the caller is told.
pub fn verify(rules: &TokenRules, headers: &HeaderMap, query: &str) -> Result<Map<String, Value>, Denied> {
    let token = token(&rules.location, headers, query).filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| Denied::new(401, "a token is required"))?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Denied::new(403, "the token is too long"));
    }
    let keys = Keys::parse(&rules.public_key).map_err(|why| {
        tracing::error!(why, "a stored public key cannot be used");
        Denied::new(403, "the token cannot be verified")
    })?;
    let header = decode_header(token.as_bytes()).map_err(|_| Denied::new(403, "the token is no signed JWT"))?;
    let named = |key: &Jwk| match (&header.kid, &key.common.key_id) {
        (Some(wanted), Some(id)) => wanted == id,
        _ => true,
    };
    let mut last = Denied::new(403, "no key verifies the token's algorithm");
    for (_, key, _) in keys.keys.iter().filter(|(jwk, _, allowed)| named(jwk) && allowed.contains(&header.alg)) {
        let mut rules = Validation::new(header.alg);
        (rules.validate_exp, rules.validate_nbf, rules.leeway) = (true, true, LEEWAY_S);
        // A token that names audiences is for them only; which are ours stands in the set.
        rules.validate_aud = !keys.audiences.is_empty();
        let mut required = vec!["exp"];
        if !keys.audiences.is_empty() {
            rules.set_audience(&keys.audiences);
            required.push("aud");
        }
        if !keys.issuers.is_empty() {
            rules.set_issuer(&keys.issuers);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        match decode::<Map<String, Value>>(token.as_bytes(), key, &rules) {
            Ok(data) => return Ok(data.claims),
            Err(error) => {
                last = Denied::new(
                    403,
                    match error.kind() {
                        ErrorKind::ExpiredSignature => "the token has expired",
                        ErrorKind::ImmatureSignature => "the token is not valid yet",
                        ErrorKind::InvalidAudience => "the token is for somebody else",
                        ErrorKind::InvalidIssuer => "the token is of somebody else",
                        ErrorKind::MissingRequiredClaim(_) => "the token lacks exp, or an aud or iss that is asked for",
                        _ => "the token cannot be verified",
                    },
                );
            }
        }
    }
    Err(last)
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
