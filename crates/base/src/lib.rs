//! Configuration, telemetry set-up, shutdown, back-off: what every part of the server needs.

pub mod abort;
pub mod backoff;
pub mod cidr;
pub mod clock;
pub mod config;
pub mod kafka;
pub mod listen;
pub mod loops;
pub mod schedule;
pub mod shutdown;
pub mod telemetry;

pub use abort::{Abort, Aborter};
pub use backoff::Backoff;
pub use cidr::Cidr;
pub use clock::{Clock, SystemClock, TestClock};
pub use config::{ConfigError, Forecast, LogFormat, PlatformOptions, PlatformOverlay};
pub use kafka::{Kafka, KafkaCluster};
pub use listen::Listen;
pub use loops::EventLoops;
pub use shutdown::{Gate, GateClosed, GateGuard, Shutdown, StillBusy};
