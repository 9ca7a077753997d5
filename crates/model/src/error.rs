//! The one error type that reaches API clients: an SCF error code and a sentence.

use std::fmt;

/// An error as a client of the SCF API sees it: `Response.Error.{Code, Message}`.
///
/// `code` is one of SCF's published codes (`SCF 2018-04-16`, error list) or, where SCF has none, one of the codes
/// common to all services of the API (`AuthFailure.*`, `InvalidAction` …). The message is for people: what was wrong,
/// the value that was, and what to do next. It never holds a path of the host, a stack of ours, or another tenant's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The published code, for example `ResourceNotFound.Function`.
    pub code: &'static str,
    /// One or two sentences in English.
    pub message: String,
}

impl ApiError {
    /// Makes an error from a published code and a sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `MissingParameter`: a required field is absent.
    pub fn missing(field: &str) -> Self {
        Self::new("MissingParameter", format!("The request is missing a required parameter `{field}`."))
    }

    /// `InvalidParameterValue`: a field has a value that is not allowed, and SCF has no narrower code.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    /// `UnsupportedOperation`: the field or combination is documented by SCF, and Mayfly does not do it (yet).
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperation", message)
    }

    /// `InternalError`: our fault. `message` must already be fit for a client's eyes.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("InternalError", message)
    }

    /// True for errors that are the platform's fault rather than the caller's.
    pub fn is_internal(&self) -> bool {
        self.code.starts_with("InternalError")
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}
