//! The contract suites of the stores, run over every implementation, and the tests of packages and the code cache.

mod blobs;
mod code_cache;
mod events;
mod failures;
mod kill;
mod meta;
mod nats_crashes;
mod package;
mod rawzip;
