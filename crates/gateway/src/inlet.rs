//! Small listeners on sockets that somebody else has opened: one for each instance that may ask the platform for something.

use crate::body::{Memory, permits};
use crate::limits::GatewayLimits;
use crate::listener::{Doorman, Shared, http_builder};
use crate::service::Service;
use crate::stats::GatewayStats;
use mayfly_base::{EventLoops, Gate, Shutdown};
use std::io;
use std::sync::{Arc, Weak};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Refusals that one inlet sends at a time: whoever is behind it floods only itself.
const REFUSALS_MAX: usize = 4;

/// What inlets have in common.
pub struct Inlets {
    limits: GatewayLimits,
    stats: Arc<GatewayStats>,
    memory: Arc<Semaphore>,
    seats: Arc<Semaphore>,
    /// Weak: whoever keeps inlets may itself be kept by what runs on a loop, which must not be the one to end the loops.
    loops: Weak<EventLoops>,
}

impl Inlets {
    /// `each`: the limits of one. All together have `connections_max` connections and `bodies_bytes_max` bytes of bodies that are collected.
    pub fn new(each: GatewayLimits, connections_max: usize, bodies_bytes_max: usize, loops: &Arc<EventLoops>) -> Self {
        Self {
            limits: each,
            stats: Arc::default(),
            memory: permits(bodies_bytes_max),
            seats: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
            loops: Arc::downgrade(loops),
        }
    }

    /// Figures of all inlets together.
    pub fn stats(&self) -> Arc<GatewayStats> {
        self.stats.clone()
    }

    /// Serves `listener`, which must be non-blocking, by `service` until the inlet is dropped. To be called on a runtime.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn open(&self, listener: std::net::TcpListener, service: Arc<dyn Service>) -> io::Result<Inlet> {
        let loops = self.loops.upgrade().ok_or_else(|| io::Error::other("the platform is stopping"))?;
        let listener = TcpListener::from_std(listener)?;
        let (stop, cut) = (Shutdown::new(), CancellationToken::new());
        let shared = Arc::new(Shared {
            http: http_builder(&self.limits),
            service,
            stats: self.stats.clone(),
            memory: Memory::new(self.limits.bodies_bytes_max, Some(self.memory.clone())),
            stop: stop.clone(),
            cut: cut.clone(),
            limits: self.limits.clone(),
        });
        let doorman = Doorman {
            seats: Arc::new(Semaphore::new(self.limits.connections_max)),
            all_seats: Some(self.seats.clone()),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            gate: Gate::new(),
            shared,
            loops,
        };
        let task = tokio::spawn(async move { doorman.accept(listener, None).await }).abort_handle();
        Ok(Inlet { stop, cut, task })
    }
}

/// An open inlet. Dropping it ends its connections at once, with what is under way on them.
pub struct Inlet {
    stop: Shutdown,
    cut: CancellationToken,
    task: AbortHandle,
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.cut.cancel();
        self.stop.trigger();
        self.task.abort();
    }
}
