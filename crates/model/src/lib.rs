//! Names, specs, limits and error kinds that every other crate of Mayfly speaks of.
//!
//! Pure by rule: no async, no clock, no I/O. Times are numbers handed in (`u64` milliseconds since the Unix
//! epoch unless the field says otherwise), so that the same values mean the same in the server, in tests and in
//! the simulator.

pub mod domain;
pub mod error;
pub mod failures;
pub mod invocation;
pub mod limits;
pub mod names;
pub mod runtime;
pub mod spec;
pub mod status;
pub mod trigger;

pub use domain::*;
pub use error::ApiError;
pub use failures::{EventTargets, FailurePolicy, Target};
pub use invocation::{
    ColdStart, ColdStartReason, EventMark, InvocationRecord, InvokeOutcome, Lineage, Phases, RequestId,
};
pub use names::{AliasName, FunctionName, LayerName, NamespaceName, Qualifier};
pub use runtime::RuntimeId;
pub use spec::*;
pub use status::Status;
pub use trigger::*;
