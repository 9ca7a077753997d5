//! How many instances a version should have now, from live demand: scale out on arrival, scale in gently.
//!
//! [`Autoscaler`] is for one version: an event function, whose instances take one request at a time, or a service, whose
//! instances take many. [`share`] divides memory among versions and tenants when a ceiling binds. [`provisioned`] has
//! what users ordered to be ready. What forecasts want to be warm comes from [`crate::policy`] and enters as a floor.
//! Times are milliseconds on a clock of the caller's that never goes back.

mod autoscaler;
pub mod provisioned;
pub mod share;
mod victims;
mod window;

pub use autoscaler::{Autoscaler, Bounds, Desired, Live, ScaleOptions, Why, shortfall};
pub use victims::{Ending, InstanceLoad, victims};
pub use window::Window;
