//! The control API as its clients see it, over the stores' fakes.

mod aliases;
mod async_events;
mod bound;
mod catalogue;
mod chains;
mod domains;
mod events;
mod failures;
mod functions;
mod harness;
mod http;
mod installs;
mod invocations;
mod layers;
mod logs;
mod namespaces;
mod provisioned;
mod quotas;
mod triggers;
mod versions;
mod wire;
