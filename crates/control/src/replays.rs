//! Replay jobs: failures that are run again, as asynchronous events, each once for a job.

use crate::endings::{Cause, Scene};
use crate::events::{Event, Events};
use mayfly_base::Clock;
use mayfly_model::{RequestId, limits};
use mayfly_store::failures::{Ending, JobStage, Replay, ReplayEnd};
use mayfly_store::{FailureLog, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Replays planned at a time: bounds what is sent beyond the rate after a crash.
const BATCH: u32 = 64;
/// Pause after a store did not take something.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a start tries to go on with what an earlier process had planned, before events run.
const RECOVER_TRIES: u32 = 5;

/// What a job does with each failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaySpec {
    /// The qualifier to run; `None`: the one first asked for.
    #[serde(default)]
    pub qualifier: Option<String>,
    /// The event, in place of the failure's own.
    #[serde(default)]
    pub event: Option<String>,
    /// Most replays sent in a second; 0: as fast as events are taken.
    #[serde(default)]
    pub rate: u32,
}

/// Runs replay jobs.
pub struct Replays {
    failures: Arc<dyn FailureLog>,
    events: Arc<Events>,
    clock: Arc<dyn Clock>,
    added: Notify,
    running: Mutex<HashMap<RequestId, CancellationToken>>,
}

/// Why a job's work stopped before its end.
enum Stop {
    Shutdown,
    Cancelled,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Replays {
    /// Over these parts.
    pub fn new(failures: Arc<dyn FailureLog>, events: Arc<Events>, clock: Arc<dyn Clock>) -> Self {
        Self { failures, events, clock, added: Notify::new(), running: Mutex::default() }
    }

    /// Says that there is a new job.
    pub fn added(&self) {
        self.added.notify_one();
    }

    /// Ends the sending of a job; what was sent runs.
    pub async fn cancel(&self, job: RequestId) -> Result<(), StoreError> {
        self.failures.set_stage(job, JobStage::Cancelled).await?;
        let running = self.running.lock().get(&job).cloned();
        match running {
            Some(token) => {
                token.cancel();
                Ok(())
            }
            None => self.failures.drop_planned(job).await,
        }
    }

    /// Goes on with what an earlier process had planned. To be called before events run: a replay that is still planned then has not ended, so
    /// that sending it again cannot run it twice.
    pub async fn recover(&self) {
        for _ in 0..RECOVER_TRIES {
            match self.resend().await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "planned replays could not be sent again; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn resend(&self) -> Result<(), StoreError> {
        for job in self.failures.jobs().await? {
            if job.stage == JobStage::Cancelled {
                self.failures.drop_planned(job.id).await?;
            }
            let spec = spec_of(&job.spec)?;
            let mut sent = Vec::new();
            for replay in self.failures.planned(job.id).await? {
                self.send(&spec, &replay).await?;
                sent.push(replay.id);
            }
            if !sent.is_empty() {
                self.failures.accepted(&sent).await?;
            }
        }
        Ok(())
    }

    /// Runs jobs until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tasks: JoinSet<()> = JoinSet::new();
        loop {
            match self.failures.jobs().await {
                Ok(jobs) => {
                    for job in jobs.into_iter().filter(|job| job.stage == JobStage::Sending) {
                        if let Entry::Vacant(place) = self.running.lock().entry(job.id) {
                            let token = place.insert(CancellationToken::new()).clone();
                            tasks.spawn(self.clone().work(job.id, token, shutdown.clone()));
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "replay jobs cannot be read; trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.added.notified() => {}
                Some(_) = tasks.join_next() => {}
                () = tokio::time::sleep(30 * PAUSE) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn work(self: Arc<Self>, job: RequestId, cancel: CancellationToken, shutdown: CancellationToken) {
        struct Leave<'a>(&'a Replays, RequestId);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.running.lock().remove(&self.1);
            }
        }
        let _leave = Leave(&self, job);
        loop {
            match self.send_all(job, &cancel, &shutdown).await {
                Ok(()) | Err(Stop::Shutdown) => return,
                Err(Stop::Cancelled) => match self.failures.drop_planned(job).await {
                    Ok(()) => return,
                    Err(error) => tracing::error!(%job, %error, "a cancelled replay job could not be ended"),
                },
                Err(Stop::Store(error)) => tracing::error!(%job, %error, "a replay job waits"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Sends everything that a job has left.
    async fn send_all(
        &self,
        job: RequestId,
        cancel: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<(), Stop> {
        let Some(known) = self.failures.job(job).await? else { return Ok(()) };
        match known.stage {
            JobStage::Sending => {}
            JobStage::Cancelled => return Err(Stop::Cancelled),
            JobStage::Sent => return Ok(()),
        }
        let spec = spec_of(&known.spec)?;
        let mut next = tokio::time::Instant::now();
        let batch_size = if spec.rate == 0 { BATCH } else { spec.rate.min(BATCH) } as usize;
        loop {
            let mut batch = self.failures.planned(job).await?;
            if batch.is_empty() {
                batch = self.failures.plan(job, self.clock.now_ms(), batch_size).await?;
            }
            if batch.is_empty() {
                if cancel.is_cancelled() {
                    return Err(Stop::Cancelled);
                }
                return Ok(self.failures.set_stage(job, JobStage::Sent).await?);
            }
            let mut sent = Vec::with_capacity(batch.len());
            let mut stopped = None;
            for replay in &batch {
                if let Err(stop) = self.send_one(&spec, replay, &mut next, cancel, shutdown).await {
                    stopped = Some(stop);
                    break;
                }
                sent.push(replay.id);
            }
            // Until this is known, they would be taken for unsent.
            while let Err(error) = self.failures.accepted(&sent).await {
                tracing::error!(%job, %error, "what a replay job has sent could not be noted; trying again");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = shutdown.cancelled() => return Err(Stop::Shutdown),
                }
            }
            if let Some(stop) = stopped {
                return Err(stop);
            }
        }
    }

    /// Sends one replay when its time has come; waits while the event log has no room.
    async fn send_one(
        &self,
        spec: &ReplaySpec,
        replay: &Replay,
        next: &mut tokio::time::Instant,
        cancel: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<(), Stop> {
        let mut pause_until = (spec.rate > 0).then_some(*next);
        loop {
            let pause = async {
                if let Some(until) = pause_until {
                    tokio::time::sleep_until(until).await;
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Stop::Cancelled),
                () = shutdown.cancelled() => return Err(Stop::Shutdown),
                () = pause => {}
            }
            match self.send(spec, replay).await {
                Err(StoreError::Full(_)) => pause_until = Some(tokio::time::Instant::now() + PAUSE),
                result => {
                    if spec.rate > 0 {
                        let step = Duration::from_secs(1) / spec.rate;
                        *next = (*next).max(tokio::time::Instant::now() - step) + step;
                    }
                    return Ok(result?);
                }
            }
        }
    }

    async fn send(&self, spec: &ReplaySpec, replay: &Replay) -> Result<(), StoreError> {
        let Some(failure) = self.failures.get(replay.origin).await? else {
            // It was deleted since the replay was planned.
            let end = ReplayEnd { id: replay.id, ok: false, status: 0, ended_ms: self.clock.now_ms() };
            return self.failures.conclude(Ending { replay: Some(end), ..Ending::default() }).await;
        };
        let scene: Scene = serde_json::from_slice(&failure.scene).unwrap_or_default();
        let by_reference = spec.event.is_none() && failure.event.len() > limits::EVENT_ASYNC_BYTES_MAX;
        let event = match &spec.event {
            Some(event) => event.clone(),
            None if by_reference => String::new(),
            None => String::from_utf8_lossy(&failure.event).into_owned(),
        };
        let head = failure.head;
        let source = match head.source.as_str() {
            "event" | "invoke" | "url" => String::new(),
            _ => head.source,
        };
        let event = Event {
            namespace: head.namespace,
            function: head.function,
            qualifier: spec.qualifier.clone().unwrap_or(head.qualifier),
            routing_key: scene.routing_key,
            event,
            accepted_ms: self.clock.now_ms(),
            // A new beginning: the chain that its failure was in has ended.
            cause: Cause { source, replay_of: Some(head.id), by_reference, ..Cause::default() },
        };
        self.events.offer(replay.id, event).await
    }
}

fn spec_of(bytes: &[u8]) -> Result<ReplaySpec, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt("what a replay job is to do"))
}
