//! The stock of processes that wait for any function of their runtime.

use crate::worker::Waiting;
use mayfly_model::RuntimeId;
use mayfly_sandbox::{Backend, SandboxError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest time a new process may take to say HELLO.
const HELLO_PATIENCE: Duration = Duration::from_secs(20);

/// Pause before each process that is made ahead: starts that requests wait for come in flocks, and go first.
const REFILL_PAUSE: Duration = Duration::from_millis(3);

/// Pause after a runtime's first failed start ahead of need; each further one doubles it, up to the maximum.
const TROUBLE_PAUSE_MIN: Duration = Duration::from_secs(1);
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(60);

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
    /// Nothing is kept before it is set: see [`RuntimeId::is_kept_on_demand`].
    needed: AtomicBool,
    ready: Mutex<Vec<Waiting>>,
    trouble: Mutex<Option<Trouble>>,
}

/// A runtime that could not be started ahead is left alone for a while, so that a broken machine is not kept busy with failing.
struct Trouble {
    until: Instant,
    pause: Duration,
}

impl Shelf {
    fn wants_more(&self) -> bool {
        self.needed.load(Ordering::Acquire)
            && self.ready.lock().len() < self.want
            && self.trouble.lock().as_ref().is_none_or(|t| t.until <= Instant::now())
    }

    fn note_trouble(&self) {
        let mut trouble = self.trouble.lock();
        let pause = trouble.as_ref().map_or(TROUBLE_PAUSE_MIN, |t| (t.pause * 2).min(TROUBLE_PAUSE_MAX));
        *trouble = Some(Trouble { until: Instant::now() + pause, pause });
    }
}

impl Warm {
    /// An empty stock with room for `want` of each runtime.
    pub fn new(backend: Arc<dyn Backend>, want: &HashMap<RuntimeId, usize>) -> Self {
        let shelves = RuntimeId::ALL
            .into_iter()
            .map(|r| {
                (
                    r,
                    Shelf {
                        want: want.get(&r).copied().unwrap_or(0),
                        needed: AtomicBool::new(!r.is_kept_on_demand()),
                        ready: Mutex::default(),
                        trouble: Mutex::default(),
                    },
                )
            })
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
        shelf.needed.store(true, Ordering::Release);
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
            let Some(runtime) = RuntimeId::ALL.into_iter().find(|r| self.shelves[r].wants_more()) else { return };
            let shelf = &self.shelves[&runtime];
            match make(self.backend.as_ref(), runtime).await {
                Ok(waiting) => {
                    shelf.ready.lock().push(waiting);
                    *shelf.trouble.lock() = None;
                }
                Err(SandboxError::Stopped) => return,
                Err(_) if self.stopped.load(Ordering::Acquire) => return,
                Err(error) => {
                    tracing::warn!(%error, %runtime, "no process could be made ahead; trying again later");
                    shelf.note_trouble();
                }
            }
        }
    }
}

async fn make(backend: &dyn Backend, runtime: RuntimeId) -> Result<Waiting, SandboxError> {
    let instance = backend.prepare(runtime.as_str()).await?;
    Waiting::greet(instance, HELLO_PATIENCE).await
}

/// See [`Warm::urgent`].
pub struct Urgent(Arc<Stock>);

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.urgent.fetch_sub(1, Ordering::AcqRel);
    }
}
