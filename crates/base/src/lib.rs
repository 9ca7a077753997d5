//! Configuration, telemetry set-up, shutdown, back-off: what every part of the server needs.

pub mod backoff;
pub mod cidr;
pub mod clock;
pub mod config;
pub mod loops;
pub mod schedule;
pub mod shutdown;
pub mod telemetry;

pub use backoff::Backoff;
pub use cidr::Cidr;
pub use clock::{Clock, SystemClock, TestClock};
pub use config::{ConfigError, Forecast, Listen, LogFormat, PlatformOptions, PlatformOverlay};
pub use loops::EventLoops;
pub use shutdown::{Gate, GateClosed, GateGuard, Shutdown, StillBusy};
