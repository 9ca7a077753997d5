//! Ports to state (metadata, blobs, events) and their embedded implementations; package reading and the code cache.
//!
//! Three ports, each an object-safe trait with a durable implementation and a fake in memory that pass one contract
//! suite (`tests/`):
//!
//! - [`meta::MetaStore`]: what the operator and the API's clients asked for, as rows of JSON.
//! - [`events::EventLog`]: asynchronous events that were accepted and not finished.
//! - [`blobs::BlobStore`]: code and layers, named by the SHA-256 of their bytes.
//!
//! Beside them [`demand::DemandHistory`] keeps what forecasts learn from: observations, which may be lost.
//!
//! What the SQLite-backed ones share, [`sqlite`] and [`writer`], is there for other crates' stores too.
//!
//! On top of them: [`package`] reads uploaded zips without trusting them, and [`code_cache`] keeps unpacked trees.

pub mod blobs;
pub mod code_cache;
pub mod demand;
mod error;
pub mod events;
pub mod meta;
pub mod package;
pub mod sqlite;
pub mod writer;

pub use blobs::{BlobInfo, BlobStore, FileBlobs, MemoryBlobs};
pub use code_cache::{CodeCache, CodeTree, Collected};
pub use demand::{DemandHistory, DemandLimits, DemandSample};
pub use error::StoreError;
pub use events::{EventCursor, EventLimits, EventLog, MemoryEvents, SqliteEvents, StoredEvent};
pub use meta::{Change, MemoryMeta, MetaStore, Row, SqliteMeta};
pub use package::{PackageError, PackageLimits, PackageSummary};
