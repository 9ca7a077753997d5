//! Message queues and topics as Tencent Cloud's CMQ has them: [`Queues`], with its API ([`api`]) and the pushes to endpoints ([`push`]).
//!
//! What becomes of a message, and what can fail, is in `docs/queues.md`. Everything durable is in one SQLite file behind one writer ([`db`]);
//! what there is (names, attributes, figures) is in memory too ([`catalogue`]), changed after the disk and read without it.

pub mod api;
mod catalogue;
mod consumer;
mod db;
mod error;
pub mod filter;
pub mod push;
mod run;
mod service;
pub mod spec;
mod topics;

pub use catalogue::{FunctionSubscription, Queue, Subscription, Topic};
pub use consumer::{Consumer, Lag};
pub use db::{Delivery, QueueCounts, Received, SubscriptionChange};
pub use error::{ErrorKind, QueueError};
pub use service::{QueueFigures, QueueLimits, QueueView, Queues};
pub use topics::NewSubscription;
