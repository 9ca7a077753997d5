//! The object store: buckets and objects on disk, spoken to in the COS XML API and in S3 on one listener, and what it tells of changes.
//!
//! [`Store`] keeps objects; [`Objects`] answers requests. [`Store::outbox`] has the notices that triggers are called by, [`cos_event`] makes SCF's
//! event of one. See `docs/objects.md`.

mod access;
mod cache;
mod combine;
mod cors;
mod cos;
mod db;
mod entry;
mod error;
mod event;
mod files;
mod ingest;
mod limits;
mod outbox;
mod outgoing;
mod rules;
mod s3;
mod service;
mod store;

pub use access::Within;
pub use error::ObjectError;
pub use event::{EventTarget, cos_event};
pub use limits::Limits;
pub use outbox::{Cause, Notice, Outbox};
pub use rules::{EVENT_NAMES, EventKind, Rule};
pub use service::{Body, Objects, ServiceStats, Settings};
pub use store::{Store, StoreStats};
