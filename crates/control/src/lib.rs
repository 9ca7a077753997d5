//! The control API: SCF 2018-04-16 actions over the catalogue of functions, and the dispatcher of asynchronous events.
//!
//! Start at [`Control::start`] and [`Control::handle`]. The parts:
//!
//! - [`api`]: what each action takes (one declaration per action), how values are checked, how answers are written.
//! - [`actions`]: what the actions do.
//! - [`catalogue`]: what exists, kept durable and read without locks; [`Catalogue::resolve`] is the routing table.
//! - [`events`]: asynchronous events.
//! - [`endings`]: what follows the end of a request; `letters`, `deliveries`: messages about it; `replays`: failures run again.
//! - `installs`: dependencies of packages that are being installed.
//! - [`ports`]: what is needed of siblings; the server implements them.
//!
//! Signatures are checked before: a [`Call`] carries what `mayfly_sign` has verified.

pub mod actions;
pub mod api;
mod callers;
pub mod catalogue;
mod control;
mod deliveries;
pub mod endings;
pub mod events;
pub mod ids;
mod installs;
mod letters;
pub mod ports;
pub mod provisioned;
mod replays;
mod triggered;

pub use actions::packages::DOWNLOAD_PATH;
pub use api::envelope::{ApiResponse, CONTENT_TYPE};
pub use api::markdown::compatibility_markdown;
pub use callers::Caller;
pub use catalogue::{Catalogue, DomainEntry, Domains, FunctionEntry, FunctionQuota, LoadError, RouteTarget, UrlRoute};
pub use control::{API_VERSION, Call, Control, Download, Options, Ports, WeakControl};
pub use endings::{Cause, Endings};
pub use events::{EventConcurrency, Events};
pub use ports::{
    ApiTrigger, ApiTriggerRef, ApiTriggers, DemandQuery, DemandRow, Destinations, ForecastCost, ForecastReport,
    InstallError, InstallJob, Installed, Installer, InvokeRequest, Invoker, KafkaTopics, LineSink, LogError, LogFilter,
    LogOrder, LogStatus, Logs, NewApiTrigger, ProvisionedState, RouteChange, SendError, TopicFound,
};
pub use provisioned::ProvisionedOrder;
pub use triggered::{BoundTrigger, CallEnd, TriggeredCall, TriggeredEvent};
