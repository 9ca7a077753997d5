//! Secrets, and where they come from.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The secret behind one secret id.
#[derive(Clone)]
pub struct Credential {
    /// The key that signs.
    pub secret_key: Arc<str>,
    /// Set for a temporary credential: requests must carry the same text in `X-TC-Token` (TC3) or `Token` (v1).
    pub token: Option<Arc<str>>,
    /// When a temporary credential ends, in milliseconds since the Unix epoch. `None` is never.
    pub expires_at_ms: Option<u64>,
}

impl Credential {
    /// A credential without token and end.
    pub fn permanent(secret_key: impl Into<Arc<str>>) -> Self {
        Self { secret_key: secret_key.into(), token: None, expires_at_ms: None }
    }

    /// A credential that needs `token` and ends at `expires_at_ms` (milliseconds since the Unix epoch).
    pub fn temporary(secret_key: impl Into<Arc<str>>, token: impl Into<Arc<str>>, expires_at_ms: u64) -> Self {
        Self { secret_key: secret_key.into(), token: Some(token.into()), expires_at_ms: Some(expires_at_ms) }
    }
}

// Secrets must not reach a log by way of `{:?}`.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("temporary", &self.token.is_some())
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

/// Where the verifier finds secrets. Called once a request, on the hot path: implementations look in memory.
pub trait CredentialSource: Send + Sync {
    /// The credential of `secret_id`, or `None` when there is none or it is disabled.
    fn find(&self, secret_id: &str) -> Option<Credential>;
}

impl<S: std::hash::BuildHasher + Send + Sync> CredentialSource for HashMap<String, Credential, S> {
    fn find(&self, secret_id: &str) -> Option<Credential> {
        self.get(secret_id).cloned()
    }
}
