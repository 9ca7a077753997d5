//! Request signatures of the Tencent Cloud API (TC3-HMAC-SHA256 and the v1 form) and of object storage ([`verify_cos`]): making and verifying them. Pure.
//!
//! Nothing here reads a clock, a file or a socket: `now_ms` is passed in, and secrets come from a [`CredentialSource`].
//! Sources: "Signature method v3" and "Signature method v1" in the common part of Tencent's API documents, and the
//! traffic of the clients that Mayfly is tested with.
//!
//! Start at [`Verifier::verify`]; [`sign_tc3`] and [`sign_v1`] are the other side.
//!
//! # What a signature covers
//! TC3 covers the method, the path, the query of a GET, the headers the client lists (at least `content-type` and
//! `host`) and the body. The published SDKs do not list `x-tc-action`, so who holds a captured request may re-send its
//! body under another action until the timestamp is too old: only TLS protects against that, here as at Tencent.
//! The v1 form covers every field.
//!
//! # Replay
//! A v1 request carries a nonce that belongs to it alone: a second request with the same secret id, timestamp, nonce
//! and signature is refused ([`SignError::Replayed`]). A TC3 request carries no nonce: two threads that call the same
//! function with the same event within one second send the same bytes, and both mean it. Identical TC3 requests are
//! therefore accepted for as long as their timestamp is (five minutes).

mod cos;
mod credential;
mod date;
mod error;
mod form;
mod host;
mod keycache;
mod make;
mod replay;
mod tc3;
mod v1;
mod verify;

pub use cos::{
    COS_SKEW_S, CosRequest, CosSignError, CosToSign, CosVerified, check_session_token, is_cos_signed, sign_cos,
    verify_cos,
};
pub use credential::{Credential, CredentialSource};
pub use date::utc_date;
pub use error::SignError;
pub use form::{FIELDS_MAX, INDEX_MAX, KEY_BYTES_MAX, KEY_DEPTH_MAX, flatten, parse_form};
pub use keycache::KeyCache;
pub use make::{Tc3Request, V1Method, V1Request, sign_tc3, sign_v1};
pub use replay::ReplayGuard;
pub use tc3::{AUTHORIZATION_BYTES_MAX, Authorization, SIGNED_HEADERS_MAX};
pub use v1::COMMON_FIELDS;
pub use verify::{Params, RequestView, SKEW_S, Style, Verified, Verifier};
