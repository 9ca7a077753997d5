//! Instances made and kept ahead of demand: once a minute, what each version needed is stored and goes to the forecasts in `plan`, and
//! what they want goes to the node. The simulator runs the same `plan::policy::Fleet`; see `docs/autoscaling.md`.

mod foresight;

use crate::invoker::NodeInvoker;
use foresight::{Foresight, Key, Seen};
use mayfly_base::Clock;
use mayfly_base::shutdown::Shutdown;
use mayfly_control::{Control, DemandQuery, DemandRow, ForecastReport, LogError, RouteTarget};
use mayfly_model::Forecast;
use mayfly_node::Node;
use mayfly_node::pool::Pool;
use mayfly_observe::Metrics;
use mayfly_store::{DemandHistory, DemandLimits, DemandSample};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MINUTE_MS: u64 = 60_000;
/// Most rows of history that are learnt from at a start: the newest. A row takes some ten microseconds.
const LEARNT_ROWS_MAX: u64 = 1_000_000;
/// Rows that are read at a time.
const PAGE_ROWS: u64 = 20_000;

/// The history of demand, and what was last foreseen.
pub struct Memory {
    history: DemandHistory,
    reports: Mutex<Arc<Vec<ForecastReport>>>,
    /// Modes that functions have of their own, by function id.
    own: Mutex<HashMap<String, Forecast>>,
}

impl Memory {
    /// Opens the history at `path`. One that cannot be read is set aside and begun anew: it is worth having, not worth failing for.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let (history, trouble) = DemandHistory::open_or_begin_anew(path, DemandLimits::default()).await?;
        if let Some(error) = trouble {
            tracing::warn!(%error, file = %path.display(), "the history of demand cannot be read and was set aside; forecasts learn anew");
        }
        Ok(Self { history, reports: Mutex::default(), own: Mutex::default() })
    }

    /// What was foreseen for this minute.
    pub fn reports(&self) -> Vec<ForecastReport> {
        let reports = Arc::clone(&self.reports.lock());
        reports.to_vec()
    }

    /// Sets the mode of a function; `None`: the platform's.
    pub fn set_own(&self, function_id: &str, mode: Option<Forecast>) {
        let mut own = self.own.lock();
        match mode {
            Some(mode) => drop(own.insert(function_id.to_owned(), mode)),
            None => drop(own.remove(function_id)),
        }
    }

    /// The stored demand.
    pub async fn demand(&self, query: DemandQuery) -> Result<(u64, Vec<DemandRow>), LogError> {
        let DemandQuery { from, to, offset, limit } = query;
        let found = self.history.samples(from, to, offset, limit).await;
        let (total, samples) = found.map_err(|e| LogError(e.to_string()))?;
        let row = |s: DemandSample| DemandRow {
            minute: s.minute,
            namespace: s.namespace,
            function: s.function,
            version: s.version,
            runtime: s.runtime,
            memory_mb: s.memory_mb,
            demand: s.instances,
            invocations: s.calls,
        };
        Ok((total, samples.into_iter().map(row).collect()))
    }

    /// Forecasts that have learnt from the stored demand before `now`.
    async fn learn(&self, mut foresight: Foresight, now: u64) -> Result<Foresight, mayfly_store::StoreError> {
        let (total, _) = self.history.samples(0, now, 0, 0).await?;
        let mut offset = total.saturating_sub(LEARNT_ROWS_MAX);
        let spans = self.history.watched().await?;
        let mut rows: Vec<DemandSample> = Vec::new();
        let mut first = None;
        loop {
            let (_, page) = self.history.samples(0, now, offset, PAGE_ROWS).await?;
            let last = page.len() < PAGE_ROWS as usize;
            offset += page.len() as u64;
            rows.extend(page);
            // The last minute of a page may go on in the next one.
            let upto = if last { now } else { rows.last().map_or(now, |row| row.minute) };
            let from = *first.get_or_insert_with(|| rows.first().map_or(now, |row| row.minute));
            let (spans, taken) = (spans.clone(), rows.iter().take_while(|row| row.minute < upto).count());
            let part: Vec<DemandSample> = rows.drain(..taken).collect();
            let replay = tokio::task::spawn_blocking(move || {
                replay(&mut foresight, &spans, from, upto, &part);
                foresight
            });
            foresight = replay.await.map_err(|_| mayfly_store::StoreError::Closed)?;
            first = Some(upto);
            if last {
                return Ok(foresight);
            }
        }
    }
}

/// Plays the watched minutes from `from` up to, and without, `to`.
fn replay(foresight: &mut Foresight, spans: &[(u64, u64)], from: u64, to: u64, rows: &[DemandSample]) {
    let mut rows = rows.iter().peekable();
    for (first, last) in spans {
        for minute in (*first).max(from)..(last + 1).min(to) {
            foresight.plan(minute);
            let mut seen = Vec::new();
            while let Some(row) = rows.next_if(|row| row.minute <= minute) {
                if row.minute == minute {
                    seen.push(Seen {
                        key: Key { function_id: row.function_id.clone(), version: row.version.clone() },
                        namespace: row.namespace.clone(),
                        function: row.function.clone(),
                        memory_mb: row.memory_mb,
                        instances: row.instances,
                    });
                }
            }
            foresight.close(minute, &seen);
        }
    }
}

/// What the minute-by-minute work needs of the platform.
pub struct Ahead {
    /// The history.
    pub memory: Arc<Memory>,
    /// Where instances are.
    pub node: Node,
    /// How versions come to their pools.
    pub invoker: Arc<NodeInvoker>,
    /// What exists.
    pub control: Control,
    /// Where hits and misses are counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Ahead {
    /// Runs until the platform stops. `mode`: that of functions without one of their own; `keep_alive_s`: what is compared with.
    pub async fn run(self, mode: Forecast, keep_alive_s: u64, shutdown: Shutdown) {
        let mut last = self.clock.now_ms() / MINUTE_MS;
        let learnt = self.memory.learn(Foresight::new(mode, keep_alive_s), last).await;
        let mut foresight = learnt.unwrap_or_else(|error| {
            tracing::warn!(%error, "the history of demand could not be read; forecasts learn anew");
            Foresight::new(mode, keep_alive_s)
        });
        foresight.plan(last);
        // What was counted before the restart was told before it.
        foresight.wishes();
        *self.memory.reports.lock() = Arc::new(foresight.reports());
        loop {
            let into_minute = self.clock.now_ms() % MINUTE_MS;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(MINUTE_MS - into_minute)) => {}
                () = shutdown.triggered() => return,
            }
            let minute = self.clock.now_ms() / MINUTE_MS;
            if minute == last {
                continue;
            }
            self.turn(&mut foresight, last, minute).await;
            last = minute;
        }
    }

    /// Takes what was needed in the minute that has ended, and has carried out what is wanted in `minute`.
    async fn turn(&self, foresight: &mut Foresight, ended: u64, minute: u64) {
        let mut samples: Vec<DemandSample> = Vec::new();
        let mut pools: HashMap<Key, Arc<Pool>> = HashMap::new();
        let mut seen: HashMap<Key, Seen> = HashMap::new();
        for (pool, peak, calls) in self.node.demand() {
            let (spec, config) = (&pool.spec, &pool.spec.config);
            let key = Key { function_id: spec.key.function_id.clone(), version: spec.key.version.clone() };
            let instances = u32::try_from(peak).unwrap_or(u32::MAX);
            let (namespace, function) = (spec.namespace.to_string(), spec.function.to_string());
            let memory_mb = config.memory_mb;
            if instances > 0 || calls > 0 {
                samples.push(DemandSample {
                    minute: ended,
                    function_id: key.function_id.clone(),
                    version: key.version.clone(),
                    namespace: namespace.clone(),
                    function: function.clone(),
                    runtime: config.runtime_name.clone(),
                    memory_mb,
                    instances,
                    calls,
                });
            }
            // While a version is replaced it has two pools for a moment.
            let one = seen.entry(key.clone()).or_insert(Seen {
                key: key.clone(),
                namespace,
                function,
                memory_mb,
                instances: 0,
            });
            one.instances = one.instances.max(instances);
            pools.insert(key, pool);
        }
        if let Err(error) = self.memory.history.append(ended, &samples).await {
            tracing::warn!(%error, "a minute's demand could not be stored");
        }
        let seen: Vec<Seen> = seen.into_values().collect();
        foresight.set_own(self.memory.own.lock().clone());
        foresight.close(ended, &seen);
        foresight.plan(minute);
        for wish in foresight.wishes() {
            let (hits, misses, idle) = wish.since;
            if hits + misses > 0 || idle > 0.0 || wish.warm.is_some_and(|warm| warm > 0) {
                let metrics = self.metrics.function(&wish.namespace, &wish.function);
                metrics.forecast(wish.warm.unwrap_or(0), hits, misses, idle);
            }
            match (pools.get(&wish.key), wish.warm) {
                (Some(pool), Some(warm)) => self.node.keep(pool, warm as usize),
                (Some(pool), None) => self.node.unkeep(pool),
                // It was called before the platform started, and not since.
                (None, Some(warm)) if warm > 0 => {
                    if let Some(target) = self.target(&wish.namespace, &wish.function, &wish.key) {
                        self.node.keep(&self.invoker.pool(&target), warm as usize);
                    }
                }
                _ => {}
            }
        }
        *self.memory.reports.lock() = Arc::new(foresight.reports());
    }

    /// The version that a key means, if it is still there.
    fn target(&self, namespace: &str, function: &str, key: &Key) -> Option<Arc<RouteTarget>> {
        let entry = self.control.catalogue().function(namespace, function)?;
        let found =
            entry.targets().find(|t| t.spec.key.function_id == key.function_id && t.spec.key.version == key.version);
        found.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restart_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demand.db");
        let key = Key { function_id: "lam-1".into(), version: "$LATEST".into() };
        let sample = |minute: u64| DemandSample {
            minute,
            function_id: key.function_id.clone(),
            version: key.version.clone(),
            namespace: "default".into(),
            function: "timer".into(),
            runtime: "Python3.9".into(),
            memory_mb: 128,
            instances: 1,
            calls: 3,
        };
        let begun = 29_000_000;
        let memory = Memory::open(&path).await.unwrap();
        for minute in begun..begun + 361 {
            let called = minute % 10 == 0;
            memory.history.append(minute, &if called { vec![sample(minute)] } else { vec![] }).await.unwrap();
        }
        drop(memory);
        // The platform starts anew nine minutes after the last call.
        let memory = Memory::open(&path).await.unwrap();
        let now = begun + 361;
        let mut foresight = memory.learn(Foresight::new(Forecast::Conservative, 60), now).await.unwrap();
        for minute in now..now + 9 {
            foresight.plan(minute);
            let wish = foresight.wishes().remove(0);
            assert_eq!((wish.key, wish.function.as_str()), (key.clone(), "timer"));
            foresight.close(minute, &[]);
        }
        foresight.plan(now + 9);
        assert!(foresight.wishes()[0].warm >= Some(1), "it is due");
        let report = &foresight.reports()[0];
        assert_eq!(report.minutes, 370);
        let query = DemandQuery { from: begun, to: now, offset: 30, limit: 100 };
        let (total, rows) = memory.demand(query).await.unwrap();
        assert_eq!((total, rows.len(), rows[0].invocations), (37, 7, 3));
    }
}
