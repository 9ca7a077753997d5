//! Certificates and their keys: reading them from PEM text, saying what is wrong with them, and making a TLS server's settings.
//!
//! Knows no files and no clock. The gateway takes a [`ServerConfig`], the control API checks what clients give it with [`Identity::from_pem`],
//! and the server joins the two.

use std::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, ResolvesServerCert};
pub use rustls::sign::CertifiedKey;
pub use rustls::{ServerConfig, server};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest PEM text of a certificate chain or a key, in bytes.
pub const PEM_BYTES_MAX: usize = 64 * 1024;
/// Most certificates of a chain.
pub const CHAIN_MAX: usize = 10;
/// What a TLS client may choose to speak, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate and a key cannot be used. Says what to do; never holds a part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// The text is too long.
    #[error("the {what} is larger than {} KiB", PEM_BYTES_MAX / 1024)]
    TooLarge {
        /// Certificate or key.
        what: &'static str,
    },
    /// The text holds no certificate.
    #[error("there is no PEM certificate in it; it begins with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// The text holds no key.
    #[error("there is no PEM private key in it; it begins with `-----BEGIN PRIVATE KEY-----` (or `RSA`, or `EC`)")]
    NoKey,
    /// The key is locked by a pass phrase.
    #[error("the private key is encrypted; decrypt it first, as with `openssl pkey -in KEY -out PLAIN`")]
    EncryptedKey,
    /// PEM text that is damaged, or holds something else than it says.
    #[error("the {what} cannot be read: {why}")]
    Damaged {
        /// Certificate or key.
        what: &'static str,
        /// What the parser says.
        why: String,
    },
    /// A chain without end.
    #[error("the chain has more than {CHAIN_MAX} certificates")]
    LongChain,
    /// Key and certificate are no pair.
    #[error(
        "the private key does not belong to the first certificate; a chain begins with the server's own certificate"
    )]
    Mismatch,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The names it is good for, as they stand in it; `*.` stands for one label.
    pub names: Vec<String>,
    /// Who it is about.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// From when it is good, in seconds since the epoch.
    pub not_before_s: i64,
    /// Until when it is good, in seconds since the epoch.
    pub not_after_s: i64,
    /// SHA-256 of it, in hex.
    pub sha256: String,
}

/// Whether a certificate is good at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is.
    Good,
    /// It will be.
    NotYet,
    /// It was.
    Expired,
}

/// A certificate with its chain and its key, ready to serve.
#[derive(Clone)]
pub struct Identity {
    /// What the TLS library takes.
    pub certified: Arc<CertifiedKey>,
    /// What the certificate says.
    pub facts: Facts,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a chain (the server's own certificate first) and its key, both in PEM. Text around them is passed over, so that both may stand
    /// in one file.
    ///
    /// # Errors
    /// [`CertError`]. An expired certificate is none: see [`Identity::validity`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CertError> {
        for (what, text) in [("certificate", certificate), ("private key", key)] {
            if text.len() > PEM_BYTES_MAX {
                return Err(CertError::TooLarge { what });
            }
        }
        let damaged = |what, why: &dyn fmt::Display| CertError::Damaged { what, why: why.to_string() };
        let mut chain = Vec::new();
        for der in CertificateDer::pem_slice_iter(certificate) {
            if chain.len() == CHAIN_MAX {
                return Err(CertError::LongChain);
            }
            chain.push(der.map_err(|e| damaged("certificate", &e))?);
        }
        let leaf = chain.first().ok_or(CertError::NoCertificate)?;
        let facts = Facts::of(leaf)?;
        let key = read_key(key)?;
        let key = provider().key_provider.load_private_key(key).map_err(|e| damaged("private key", &e))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(CertError::Mismatch);
            }
            Err(error) => return Err(damaged("certificate", &error)),
        }
        Ok(Self { certified: Arc::new(certified), facts })
    }

    /// True when clients that ask for `name` (in ASCII) take this certificate for it, as far as names go.
    pub fn covers(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let leaf = self.certified.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        leaf.is_some_and(|leaf| verify_server_name(&leaf, &name).is_ok())
    }

    /// Whether it is good at this time, in seconds since the epoch.
    pub fn validity(&self, now_s: i64) -> Validity {
        match () {
            () if now_s < self.facts.not_before_s => Validity::NotYet,
            () if now_s > self.facts.not_after_s => Validity::Expired,
            () => Validity::Good,
        }
    }
}

impl Facts {
    fn of(leaf: &CertificateDer<'_>) -> Result<Self, CertError> {
        let damaged = |why: String| CertError::Damaged { what: "certificate", why };
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| damaged(e.to_string()))?;
        let names = certificate.subject_alternative_name().map_err(|e| damaged(e.to_string()))?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        Ok(Self {
            names: names.collect(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before_s: certificate.validity().not_before.timestamp(),
            not_after_s: certificate.validity().not_after.timestamp(),
            sha256: hex::encode(Sha256::digest(leaf)),
        })
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string())).ok()
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, CertError> {
    match PrivateKeyDer::from_pem_slice(text) {
        // The old form of a locked key has the label of a plain one.
        _ if contains(text, b"ENCRYPTED") => Err(CertError::EncryptedKey),
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(CertError::NoKey),
        Err(error) => Err(CertError::Damaged { what: "private key", why: error.to_string() }),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// Settings of a TLS server: versions 1.2 and 1.3, HTTP/2 or HTTP/1.1 as the client likes, no certificates of clients, and certificates as
/// `resolver` gives them, which is asked anew for each connection.
///
/// # Panics
/// Never: the versions are those of the crypto library.
pub fn server_config(resolver: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .expect("the library's own versions fit its own cipher suites")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // Without it, each connection of a client that comes again costs a whole handshake.
    match ring::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(_) => { /* no randomness just now: clients resume by the small cache, or not */ }
    }
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 1, 2);
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn error(certificate: &str, key: &str) -> CertError {
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_pair_is_read_with_what_it_says() {
        let (certificate, key) = made(&["shop.example.com", "*.api.example.com", "192.0.2.1"]);
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(identity.facts.names, ["shop.example.com", "*.api.example.com", "192.0.2.1"]);
        assert_eq!(identity.facts.sha256.len(), 64);
        for (name, covered) in [
            ("shop.example.com", true),
            ("SHOP.example.com", true),
            ("a.api.example.com", true),
            ("a.b.api.example.com", false),
            ("api.example.com", false),
            ("192.0.2.1", true),
            ("example.com", false),
            ("", false),
            ("*.api.example.com", false),
        ] {
            assert_eq!(identity.covers(name), covered, "{name}");
        }
        let day = 86_400;
        assert_eq!(identity.validity(identity.facts.not_before_s - day), Validity::NotYet);
        assert_eq!(identity.validity(identity.facts.not_before_s + day), Validity::Good);
        assert_eq!(identity.validity(identity.facts.not_after_s + day), Validity::Expired);
        // Both in one text, with remarks around them.
        let both = format!("a remark\n{key}\nanother\n{certificate}");
        Identity::from_pem(both.as_bytes(), both.as_bytes()).unwrap();
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (certificate, key) = made(&["a.example"]);
        let (other, _) = made(&["a.example"]);
        assert_eq!(error(&other, &key), CertError::Mismatch);
        assert_eq!(error(&format!("{other}{certificate}"), &key), CertError::Mismatch);
        assert_eq!(error("", &key), CertError::NoCertificate);
        assert_eq!(error(&key, &key), CertError::NoCertificate);
        assert_eq!(error(&certificate, ""), CertError::NoKey);
        assert_eq!(error(&certificate, &certificate), CertError::NoKey);
        assert_eq!(error(&certificate.repeat(CHAIN_MAX + 1), &key), CertError::LongChain);
        assert_eq!(error(&certificate, &key.repeat(1000)), CertError::TooLarge { what: "private key" });
        let new_form = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(error(&certificate, &new_form), CertError::EncryptedKey);
        let old_form = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(error(&certificate, old_form), CertError::EncryptedKey);
        let cut = &certificate[..certificate.len() - 60];
        assert!(matches!(error(cut, &key), CertError::Damaged { what: "certificate", .. }), "{:?}", error(cut, &key));
        let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(error(wrong, &key), CertError::Damaged { what: "certificate", .. }));
        let wrong = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(error(&certificate, wrong), CertError::Damaged { what: "private key", .. }));
    }
}
