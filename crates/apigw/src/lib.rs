//! The API gateway: services, their routes and releases, who may call them and how often, and WebSockets in front of functions.
//!
//! - [`records`]: what is stored; [`state`]: kept durable, read without locks.
//! - [`api`]: API Gateway's API 2018-08-08; [`trigger`]: the same seen as a trigger of a function.
//! - [`door`]: which API a request means and whether it is let in; [`event`]: what event functions see and answer.
//! - [`keypair`], [`jwt`], [`limits`]: how it is let in.
//! - [`socket`]: open WebSockets.
//!
//! It knows neither functions nor the listener: the server puts it between both. See `docs/apigw.md`.

pub mod api;
pub mod door;
pub mod event;
pub mod jwt;
pub mod keypair;
pub mod limits;
pub mod records;
pub mod route;
pub mod socket;
pub mod state;
pub mod trigger;

pub use state::{Edit, Gateway, State};
