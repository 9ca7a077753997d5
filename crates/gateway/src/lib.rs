//! The front door: the HTTP listener, its limits, and the way of a call to the control API.
//!
//! [`Gateway`] accepts connections, reads whole requests within [`GatewayLimits`], hands each to a [`Service`] and
//! writes its answer. It knows nothing of actions and functions: routes (`/healthz`, `/metrics`, the API) are the
//! service's.
//!
//! What a client can and cannot do here:
//! - `Host` is passed on as it came: `tccli` sends `Host: http://127.0.0.1:8700` and signs it.
//! - A request reaches the service only when its body has arrived in full, and its future then runs to its end even if the client
//!   goes away (the connection is read again only after the answer). Only a shutdown whose drain time is over drops it.
//! - Requests for which [`Service::streams`] says so are different: the service gets them with their head, bodies stream both ways in
//!   constant memory, the connection may be upgraded, and a client that goes away takes its request with it.
//! - With [`Gateway::listen_tls`] the same is spoken over TLS on a second address; ALPN says whether it is HTTP/2.
//! - [`Inlets`] serve sockets that somebody else has opened, many of them, each with limits of its own and all with some together.
//! - HTTP/2 without TLS is spoken with clients that begin with its preface (gRPC does).

mod answer;
mod body;
mod case;
mod gone;
mod guard;
mod http2;
mod inlet;
mod limits;
mod listener;
mod service;
mod stats;
mod tls;

pub use case::HeaderCase;
pub use inlet::{Inlet, Inlets};
pub use limits::GatewayLimits;
pub use listener::{BindError, Drained, Gateway};
pub use service::{HttpRequest, HttpResponse, Service, StreamBody, StreamRequest};
pub use stats::GatewayStats;
