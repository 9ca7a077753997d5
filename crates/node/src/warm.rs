//! The stock of processes that wait for any function of their runtime.

use crate::worker::Waiting;
use mayfly_model::RuntimeId;
use mayfly_sandbox::{Backend, SandboxError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Longest time a new process may take to say HELLO.
const HELLO_PATIENCE: Duration = Duration::from_secs(20);

/// Pause before each process that is made ahead: starts that requests wait for come in flocks, and go first.
const REFILL_PAUSE: Duration = Duration::from_millis(3);

/// The stock. Cloning gives another handle.
#[derive(Clone)]
pub struct Warm(Arc<Stock>);

struct Stock {
    backend: Arc<dyn Backend>,
    shelves: HashMap<RuntimeId, Shelf>,
    /// Starts that a request is waiting for. Filling the stock stands back for them.
    urgent: AtomicUsize,
    filling: AtomicBool,
    stopped: AtomicBool,
}

struct Shelf {
    want: usize,
    ready: Mutex<Vec<Waiting>>,
}

impl Warm {
    /// An empty stock with room for `want` of each runtime.
    pub fn new(backend: Arc<dyn Backend>, want: &HashMap<RuntimeId, usize>) -> Self {
        let shelves = RuntimeId::ALL
            .into_iter()
            .map(|r| (r, Shelf { want: want.get(&r).copied().unwrap_or(0), ready: Mutex::default() }))
            .collect();
        Self(Arc::new(Stock {
            backend,
            shelves,
            urgent: AtomicUsize::new(0),
            filling: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Waiting processes in stock: of one runtime, or of all.
    pub fn len(&self, runtime: Option<RuntimeId>) -> usize {
        let counted = self.0.shelves.iter().filter(|(r, _)| runtime.is_none_or(|wanted| wanted == **r));
        counted.map(|(_, s)| s.ready.lock().len()).sum()
    }

    /// Takes a waiting process, or makes one now. True in the second place: it came from stock.
    pub async fn take(&self, runtime: RuntimeId) -> Result<(Waiting, bool), SandboxError> {
        let shelf = &self.0.shelves[&runtime];
        loop {
            let taken = shelf.ready.lock().pop();
            let Some(mut waiting) = taken else { break };
            // It may have died on the shelf, by the hand of an operator or for want of memory.
            if waiting.is_alive() {
                self.fill();
                return Ok((waiting, true));
            }
        }
        let waiting = make(self.0.backend.as_ref(), runtime).await;
        self.fill();
        waiting.map(|w| (w, false))
    }

    /// Says that a request waits for a start, until the guard is dropped. The backend does one thing after the other: were the stock
    /// refilled meanwhile, the request would wait for that too.
    pub fn urgent(&self) -> Urgent {
        self.0.urgent.fetch_add(1, Ordering::AcqRel);
        Urgent(Arc::clone(&self.0))
    }

    /// Fills the stock in the background.
    pub fn fill(&self) {
        if self.0.stopped.load(Ordering::Acquire) || self.0.filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let stock = Arc::clone(&self.0);
        tokio::spawn(async move {
            stock.fill().await;
            stock.filling.store(false, Ordering::Release);
        });
    }

    /// Empties the stock for good.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        for shelf in self.0.shelves.values() {
            shelf.ready.lock().clear();
        }
    }
}

impl Stock {
    async fn fill(&self) {
        // A runtime that fails is left alone until the next call, so that a broken machine is not kept busy with failing.
        let mut failed = Vec::new();
        loop {
            loop {
                tokio::time::sleep(REFILL_PAUSE).await;
                if self.urgent.load(Ordering::Acquire) == 0 {
                    break;
                }
            }
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            let next = RuntimeId::ALL
                .into_iter()
                .find(|r| !failed.contains(r) && self.shelves[r].ready.lock().len() < self.shelves[r].want);
            let Some(runtime) = next else { return };
            match make(self.backend.as_ref(), runtime).await {
                Ok(waiting) => self.shelves[&runtime].ready.lock().push(waiting),
                Err(SandboxError::Stopped) => return,
                Err(_) if self.stopped.load(Ordering::Acquire) => return,
                Err(error) => {
                    tracing::warn!(%error, %runtime, "no process could be made ahead");
                    failed.push(runtime);
                }
            }
        }
    }
}

async fn make(backend: &dyn Backend, runtime: RuntimeId) -> Result<Waiting, SandboxError> {
    let instance = backend.prepare(runtime.as_str()).await?;
    Waiting::greet(instance, HELLO_PATIENCE)
        .await
        .map_err(|e| SandboxError::Failed { what: "greet a new process", reason: e.message })
}

/// See [`Warm::urgent`].
pub struct Urgent(Arc<Stock>);

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.urgent.fetch_sub(1, Ordering::AcqRel);
    }
}
