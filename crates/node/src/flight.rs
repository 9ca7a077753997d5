//! One invocation, from its arrival to its record.

use crate::error::Refusal;
use crate::pool::{Place, Pool};
use crate::worker::{Lost, Worker};
use crate::{Inner, Invocation};
use mayfly_base::abort::asked;
use mayfly_model::invocation::RECORD_RET_BYTES_MAX;
use mayfly_model::{ColdStart, InvocationRecord, InvokeOutcome, Status, limits};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// See [`crate::Node::invoke`].
pub async fn invoke(inner: &Arc<Inner>, pool: &Arc<Pool>, invocation: Invocation) -> InvokeOutcome {
    let arrived = Instant::now();
    let mut flight = Flight {
        inner: Arc::clone(inner),
        pool: Arc::clone(pool),
        invocation,
        start_ms: now_ms(),
        arrived,
        begun: arrived,
        worker: None,
        detached: false,
    };
    for last_try in [false, true] {
        let worker = match pool.take() {
            Some(worker) => worker,
            None => {
                pool.starts_for(flight.invocation.lineage.child(flight.invocation.request_id));
                let place = tokio::select! {
                    biased;
                    place = pool.wait(inner) => place,
                    _ = asked(&mut flight.invocation.abort) => return flight.end_without_worker(aborted()),
                };
                match place {
                    Ok(Place::Alone(worker)) => worker,
                    Ok(Place::Shared(_)) => {
                        let refusal = Refusal::internal(&"an event function has got a service's slot");
                        return flight.end_without_worker(refusal);
                    }
                    Err(refusal) => return flight.end_without_worker(refusal),
                }
            }
        };
        flight.board(worker);
        match flight.land().await {
            // The process was gone before it can have begun: another one may try, once.
            None if !last_try => {}
            None => {
                return flight
                    .end_without_worker(Refusal::new(Status::PROCESS_EXIT, "The process ended before it answered"));
            }
            Some(outcome) => return outcome,
        }
    }
    unreachable!("the last try returns")
}

struct Flight {
    inner: Arc<Inner>,
    pool: Arc<Pool>,
    invocation: Invocation,
    start_ms: u64,
    arrived: Instant,
    begun: Instant,
    /// While it runs.
    worker: Option<Worker>,
    /// It has lost its caller before; when it is dropped again, the runtime is shutting down.
    detached: bool,
}

/// The parts of an end that differ.
struct End {
    result: Result<Vec<u8>, Refusal>,
    output: String,
    output_cut: u64,
    memory_bytes: u64,
    cold_start: Option<ColdStart>,
    duration_us: u64,
}

impl Flight {
    /// Puts the event on its way to a worker.
    fn board(&mut self, mut worker: Worker) {
        let config = &self.pool.spec.config;
        self.begun = Instant::now();
        let deadline_ms = now_ms() + u64::from(config.timeout_s) * 1000;
        let limits = (config.memory_mb, config.timeout_s);
        if let Some(inside) = &worker.process.inside {
            inside.caller().begin(self.invocation.request_id, self.invocation.lineage);
        }
        worker.begin(self.invocation.request_id, deadline_ms, &self.invocation.event, limits);
        self.worker = Some(worker);
    }

    /// Waits for the answer and ends the invocation. `None`: the process was gone before the event had reached it.
    async fn land(&mut self) -> Option<InvokeOutcome> {
        let spec = Arc::clone(&self.pool.spec);
        let deadline = self.begun + Duration::from_secs(u64::from(spec.config.timeout_s));
        let worker = self.worker.as_mut()?;
        let mut abort = self.invocation.abort.clone();
        let answer = tokio::select! {
            biased;
            answer = worker.answer(deadline) => Some(answer),
            grace = asked(&mut abort) => {
                if !grace.is_zero() {
                    worker.process.instance.terminate();
                    // Its answer comes too late to count; what it prints is kept.
                    let _ = worker.answer(deadline.min(Instant::now() + grace)).await;
                }
                None
            }
        };
        let duration_us = self.begun.elapsed().as_micros() as u64;
        let mut worker = self.worker.take()?;
        if let Some(inside) = &worker.process.inside {
            inside.caller().end(self.invocation.request_id);
        }
        let printed = worker.take_printed();
        let cold_start = worker.cold_start.take();
        let mut keep = true;
        let result = match answer {
            None => {
                keep = false;
                Err(aborted())
            }
            Some(Ok(Ok(body))) if body.len() > limits::RESULT_BYTES_MAX => Err(too_large(body.len())),
            Some(Ok(result)) => result,
            Some(Err(lost)) => {
                keep = false;
                // A large event may be what the memory did not suffice for: that is told, and not tried again.
                if matches!(lost, Lost::Unsent) && !worker.process.instance.ran_out_of_memory() {
                    return None;
                }
                Err(worker.explain(&lost, spec.config.timeout_s, spec.config.memory_mb))
            }
        };
        keep &= !matches!(&result, Err(refusal) if refusal.status.ends_instance());
        let failed = result.is_err() && self.invocation.log_failure;
        let measure = !keep || failed || cold_start.is_some() || self.invocation.want_log;
        if !keep {
            worker.process.instance.kill();
        }
        let memory_bytes = worker.memory_peak_bytes(measure);
        if keep {
            self.pool.give(worker);
        } else {
            drop(worker);
        }
        let (output, output_cut) = printed.into_text();
        Some(self.end(End { result, output, output_cut, memory_bytes, cold_start, duration_us }))
    }

    fn end_without_worker(&mut self, refusal: Refusal) -> InvokeOutcome {
        self.begun = Instant::now();
        self.end(End {
            result: Err(refusal),
            output: String::new(),
            output_cut: 0,
            memory_bytes: 0,
            cold_start: None,
            duration_us: 0,
        })
    }

    fn end(&self, end: End) -> InvokeOutcome {
        let spec = &self.pool.spec;
        let request_id = self.invocation.request_id;
        let (status, body) = match end.result {
            Ok(body) => (Status::OK, body),
            Err(refusal) => (refusal.status, refusal.to_json(request_id)),
        };
        let record = InvocationRecord {
            request_id,
            namespace: spec.namespace.to_string(),
            function: spec.function.to_string(),
            version: spec.key.version.clone(),
            qualifier: self.invocation.qualifier.clone(),
            start_ms: self.start_ms,
            duration_us: end.duration_us,
            wait_us: self.begun.duration_since(self.arrived).as_micros() as u64,
            status,
            ret_msg: cut_text(&body),
            memory_mb: spec.config.memory_mb,
            memory_bytes: end.memory_bytes,
            cold_start: end.cold_start,
            retry: self.invocation.retry,
            event: self.invocation.event_mark.clone(),
            origin: self.invocation.origin,
            lineage: self.invocation.lineage,
            output: end.output,
            output_cut_bytes: end.output_cut,
        };
        let wanted = self.invocation.want_log || self.invocation.log_failure && status.is_failure();
        let log = wanted.then(|| record.render());
        self.inner.sink.record(record);
        InvokeOutcome {
            request_id,
            status,
            body,
            duration_us: end.duration_us,
            memory_bytes: end.memory_bytes,
            cold_start: end.cold_start,
            log,
        }
    }
}

fn aborted() -> Refusal {
    Refusal::new(Status::CANCELED, "The event was terminated")
}

fn too_large(len: usize) -> Refusal {
    Refusal::new(
        Status::RESPONSE_TOO_LARGE,
        format!("The return value has {len} bytes; at most {} are allowed", limits::RESULT_BYTES_MAX),
    )
}

fn cut_text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(RECORD_RET_BYTES_MAX)]);
    // The cut may fall within a character.
    text.trim_end_matches('\u{fffd}').to_owned()
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        if self.detached {
            return;
        }
        // The caller is gone; the function is in the middle of its work. It finishes without an audience.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut flight = Self {
            inner: Arc::clone(&self.inner),
            pool: Arc::clone(&self.pool),
            invocation: self.invocation.clone(),
            start_ms: self.start_ms,
            arrived: self.arrived,
            begun: self.begun,
            worker: Some(worker),
            detached: true,
        };
        runtime.spawn(async move { flight.land().await });
    }
}
