//! Why a request was not accepted, with the published code of each case.

use mayfly_model::ApiError;

/// A request whose signature is absent, malformed or wrong, or whose envelope cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Neither an `Authorization` header nor a signed form.
    #[error(
        "The request is not signed: send an `Authorization` header (TC3-HMAC-SHA256), or a form or query with `Signature` (HmacSHA1, HmacSHA256)."
    )]
    Unsigned,
    /// The `Authorization` header, or a header that it leans on, is not of the documented form.
    #[error("The request `Authorization` header does not conform to tencentcloud standards: {0}.")]
    InvalidAuthorization(String),
    /// The timestamp is more than [`crate::SKEW_S`] seconds from the server's time.
    #[error(
        "The signature has expired: the request's timestamp {timestamp_s} and the server's time {now_s} may differ by at most 300 seconds. Check that the local clock is right."
    )]
    Expired {
        /// What the request says, in seconds since the Unix epoch.
        timestamp_s: u64,
        /// The server's time, in seconds since the Unix epoch.
        now_s: u64,
    },
    /// No such secret id.
    #[error("The SecretId is not found, please ensure that your SecretId is correct.")]
    SecretIdNotFound,
    /// The signature is not the one this request has under that secret.
    #[error("The provided credentials could not be validated. Please check your signature is correct.")]
    SignatureFailure,
    /// A v1 request that has been seen before.
    #[error(
        "The request is a replay: another one with the same SecretId, Timestamp, Nonce and Signature was accepted. Use a new Nonce for each request."
    )]
    Replayed,
    /// The token of a temporary credential is absent, wrong, superfluous or too old.
    #[error("The token is not valid: {0}.")]
    Token(&'static str),
    /// A common parameter is absent.
    #[error("The request is missing a required parameter `{0}`.")]
    Missing(&'static str),
    /// A field cannot be read.
    #[error("{0}")]
    InvalidParameter(String),
    /// The body is of a type that the API does not read.
    #[error("{0}")]
    InvalidRequest(String),
    /// Neither GET nor POST.
    #[error("The API is called with GET or POST only.")]
    UnsupportedMethod,
}

impl SignError {
    /// The published error code (common to all services of the API).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsigned | Self::InvalidAuthorization(_) => "AuthFailure.InvalidAuthorization",
            Self::Expired { .. } => "AuthFailure.SignatureExpire",
            Self::SecretIdNotFound => "AuthFailure.SecretIdNotFound",
            // Tencent publishes no code of its own for a replay; clients that branch on codes know this one.
            Self::SignatureFailure | Self::Replayed => "AuthFailure.SignatureFailure",
            Self::Token(_) => "AuthFailure.TokenFailure",
            Self::Missing(_) => "MissingParameter",
            Self::InvalidParameter(_) => "InvalidParameter",
            Self::InvalidRequest(_) => "InvalidRequest",
            Self::UnsupportedMethod => "UnsupportedProtocol",
        }
    }
}

impl From<SignError> for ApiError {
    fn from(error: SignError) -> Self {
        ApiError::new(error.code(), error.to_string())
    }
}

/// A client's text made fit for an error message: cut to 64 characters, control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
