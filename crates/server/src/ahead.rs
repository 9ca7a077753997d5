//! Instances made and kept ahead of demand: once a minute, what each version needed goes to the forecast in `plan`, and what the forecast
//! wants goes to the node. The simulator runs the same `plan::policy::Fleet`; see `docs/autoscaling.md`.

use mayfly_base::Clock;
use mayfly_base::config::Forecast;
use mayfly_base::shutdown::Shutdown;
use mayfly_node::Node;
use mayfly_node::pool::Pool;
use mayfly_plan::policy::{Fleet, FleetOptions, Function, FunctionId, Policy};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const MINUTE_MS: u64 = 60_000;
/// A version without a call for so many minutes is forgotten: its next call is a first one again.
const FORGOTTEN_MINUTES: u64 = 15 * 24 * 60;

/// A version, over all revisions of its code: what is learnt of it outlives an update.
type Key = (String, String);

struct Known {
    id: FunctionId,
    memory_mb: u32,
    /// The last minute in which it was needed.
    needed: u64,
}

/// Forecasts for the versions of one node.
pub struct Ahead {
    fleet: Fleet,
    policy: Policy,
    known: HashMap<Key, Known>,
}

impl Ahead {
    /// `None`: forecasts are switched off.
    pub fn new(mode: Forecast) -> Option<Self> {
        let policy = match mode {
            Forecast::Off => return None,
            Forecast::Conservative => Policy::CONSERVATIVE,
            Forecast::Eager => Policy::EAGER,
        };
        Some(Self { fleet: Fleet::new(FleetOptions::default()), policy, known: HashMap::new() })
    }

    /// Takes what was needed in the minute that has ended, and says what is to be kept in `minute`.
    fn turn(&mut self, minute: u64, pools: &[(Arc<Pool>, usize)]) -> Vec<(Arc<Pool>, usize)> {
        let mut demand = Vec::new();
        let mut by_id: HashMap<FunctionId, Arc<Pool>> = HashMap::new();
        for (pool, peak) in pools {
            let spec = &pool.spec;
            let key = (spec.key.function_id.clone(), spec.key.version.clone());
            let memory_mb = spec.config.memory_mb;
            let wanted = Function { memory_mb: f64::from(memory_mb), parked_mb: 0.0, policy: self.policy };
            let known = match self.known.get_mut(&key) {
                Some(known) => known,
                None => match self.fleet.add(wanted) {
                    Ok(id) => self.known.entry(key).or_insert(Known { id, memory_mb, needed: minute }),
                    Err(error) => {
                        tracing::warn!(%error, function = %spec.function, "no forecast for this function; it keeps to the keep-alive");
                        continue;
                    }
                },
            };
            if known.memory_mb != memory_mb && self.fleet.change(known.id, wanted).is_ok() {
                known.memory_mb = memory_mb;
            }
            if *peak > 0 {
                known.needed = minute;
            }
            // While a version is replaced it has two pools for a moment.
            demand.push((known.id, u32::try_from(*peak).unwrap_or(u32::MAX)));
            by_id.insert(known.id, Arc::clone(pool));
        }
        demand.sort_by_key(|(id, peak)| (*id, std::cmp::Reverse(*peak)));
        demand.dedup_by_key(|(id, _)| *id);
        if let Err(error) = self.fleet.close(&demand) {
            tracing::warn!(%error, "a minute's demand was not taken");
        }
        let fleet = &mut self.fleet;
        self.known.retain(|_, known| {
            let keep = minute.saturating_sub(known.needed) < FORGOTTEN_MINUTES;
            keep || fleet.remove(known.id).is_err()
        });
        let targets = self.fleet.plan(minute);
        targets.into_iter().filter_map(|t| Some((by_id.remove(&t.function)?, t.warm as usize))).collect()
    }

    /// Runs until the platform stops.
    pub async fn run(mut self, node: Node, clock: Arc<dyn Clock>, shutdown: Shutdown) {
        let mut last = clock.now_ms() / MINUTE_MS;
        self.fleet.plan(last);
        loop {
            let into_minute = clock.now_ms() % MINUTE_MS;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(MINUTE_MS - into_minute)) => {}
                () = shutdown.triggered() => return,
            }
            let minute = clock.now_ms() / MINUTE_MS;
            if minute == last {
                continue;
            }
            last = minute;
            for (pool, warm) in self.turn(minute, &node.demand()) {
                node.keep(&pool, warm);
            }
        }
    }
}
