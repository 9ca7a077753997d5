//! What is learnt of each version's demand, and what each mode of pre-creation wants and would have cost. Knows no clock and no instance.

use mayfly_control::{ForecastCost, ForecastReport};
use mayfly_model::Forecast;
use mayfly_plan::forecast::Accuracy;
use mayfly_plan::policy::{Fleet, FleetOptions, Function, FunctionId, Policy};
use std::collections::HashMap;

/// A version without a call for so many minutes is forgotten: its next call is a first one again.
const FORGOTTEN_MINUTES: u64 = 15 * 24 * 60;
/// The modes, each with a fleet that is fed with the same demand: one is carried out, the others are kept for comparison.
const MODES: [Forecast; 3] = [Forecast::Off, Forecast::Conservative, Forecast::Eager];

/// A version, over all revisions of its code: what is learnt of it outlives an update.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Id of the function.
    pub function_id: String,
    /// Version, as text.
    pub version: String,
}

/// What was seen of a version in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub key: Key,
    /// Namespace.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Memory of one instance, in MB.
    pub memory_mb: u32,
    /// Instances that were needed at once.
    pub instances: u32,
}

/// What is wanted of a version in a minute.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Which.
    pub key: Key,
    /// Namespace.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Instances to be warm; `None`: the keep-alive decides.
    pub warm: Option<u32>,
    /// What became of those that were warm, since the last wish: hits, misses, GB·s held for nothing.
    pub since: (u64, u64, f64),
}

struct Known {
    namespace: String,
    function: String,
    ids: [FunctionId; MODES.len()],
    memory_mb: u32,
    /// The last minute in which it was needed.
    needed: u64,
    watched: u64,
    warm: [u32; MODES.len()],
    told: [Accuracy; MODES.len()],
}

/// Forecasts for the versions of one node.
pub struct Foresight {
    mode: Forecast,
    fleets: [Fleet; MODES.len()],
    policies: [Policy; MODES.len()],
    known: HashMap<Key, Known>,
    /// Functions with a mode of their own.
    own: HashMap<String, Forecast>,
    full: bool,
}

impl Foresight {
    /// One that knows nothing. `keep_alive_s`: how long instances are kept without forecasts.
    pub fn new(mode: Forecast, keep_alive_s: u64) -> Self {
        let minutes = u32::try_from(keep_alive_s.div_ceil(60)).unwrap_or(u32::MAX).min(Policy::KEEP_ALIVE_MAX_MINUTES);
        Self {
            mode,
            fleets: MODES.map(|_| Fleet::new(FleetOptions::default())),
            policies: [Policy::KeepAlive { minutes }, Policy::CONSERVATIVE, Policy::EAGER],
            known: HashMap::new(),
            own: HashMap::new(),
            full: false,
        }
    }

    /// Replaces the modes that functions have of their own, by function id.
    pub fn set_own(&mut self, own: HashMap<String, Forecast>) {
        self.own = own;
    }

    fn mode_of(&self, key: &Key) -> Forecast {
        self.own.get(&key.function_id).copied().unwrap_or(self.mode)
    }

    /// Ends the minute that was planned last: what was seen in it. Versions that are not named had nothing to do.
    pub fn close(&mut self, minute: u64, seen: &[Seen]) {
        let mut demand: [Vec<(FunctionId, u32)>; MODES.len()] = Default::default();
        for one in seen {
            let Some(known) = self.know(minute, one) else { continue };
            if one.instances > 0 {
                known.needed = minute;
            }
            for (demand, id) in demand.iter_mut().zip(known.ids) {
                demand.push((id, one.instances));
            }
        }
        for (fleet, demand) in self.fleets.iter_mut().zip(&demand) {
            if let Err(error) = fleet.close(demand) {
                tracing::warn!(%error, "a minute's demand was not taken");
            }
        }
        let fleets = &mut self.fleets;
        self.known.retain(|_, known| {
            known.watched += 1;
            let keep = minute.saturating_sub(known.needed) < FORGOTTEN_MINUTES;
            if !keep {
                for (fleet, id) in fleets.iter_mut().zip(known.ids) {
                    // It is there: nobody else removes any.
                    let _ = fleet.remove(id);
                }
            }
            keep
        });
    }

    fn know(&mut self, minute: u64, seen: &Seen) -> Option<&mut Known> {
        let of = |policy| Function { memory_mb: f64::from(seen.memory_mb.max(1)), parked_mb: 0.0, policy };
        if !self.known.contains_key(&seen.key) {
            let mut ids = Vec::with_capacity(MODES.len());
            for (fleet, policy) in self.fleets.iter_mut().zip(self.policies) {
                match fleet.add(of(policy)) {
                    Ok(id) => ids.push(id),
                    Err(error) => {
                        if !std::mem::replace(&mut self.full, true) {
                            tracing::warn!(%error, function = seen.function, "no forecast for this function and others; they keep to the keep-alive");
                        }
                        break;
                    }
                }
            }
            let Ok(ids) = <[FunctionId; MODES.len()]>::try_from(ids.clone()) else {
                for (fleet, id) in self.fleets.iter_mut().zip(ids) {
                    let _ = fleet.remove(id);
                }
                return None;
            };
            let known = Known {
                namespace: seen.namespace.clone(),
                function: seen.function.clone(),
                ids,
                memory_mb: seen.memory_mb,
                needed: minute,
                watched: 0,
                warm: [0; MODES.len()],
                told: Default::default(),
            };
            self.known.insert(seen.key.clone(), known);
        }
        let known = self.known.get_mut(&seen.key)?;
        if known.memory_mb != seen.memory_mb {
            known.memory_mb = seen.memory_mb;
            for ((fleet, policy), id) in self.fleets.iter_mut().zip(self.policies).zip(known.ids) {
                if let Err(error) = fleet.change(id, of(policy)) {
                    tracing::warn!(%error, function = seen.function, "a change of memory was not taken");
                }
            }
        }
        Some(known)
    }

    /// Plans `minute`: to be asked with [`Self::wishes`].
    pub fn plan(&mut self, minute: u64) {
        let by_id: [HashMap<FunctionId, u32>; MODES.len()] =
            self.fleets.each_mut().map(|fleet| fleet.plan(minute).into_iter().map(|t| (t.function, t.warm)).collect());
        for known in self.known.values_mut() {
            for (mode, warm) in by_id.iter().enumerate() {
                known.warm[mode] = warm.get(&known.ids[mode]).copied().unwrap_or(0);
            }
        }
    }

    /// What is wanted of every version in the minute that was planned.
    pub fn wishes(&mut self) -> Vec<Wish> {
        let modes: HashMap<Key, Forecast> = self.known.keys().map(|key| (key.clone(), self.mode_of(key))).collect();
        let fleets = &self.fleets;
        let wish = |(key, known): (&Key, &mut Known)| {
            let mode = modes.get(key).copied().unwrap_or(Forecast::Off);
            let mut since = (0, 0, 0.0);
            for (at, fleet) in fleets.iter().enumerate() {
                let now = fleet.accuracy(known.ids[at]).unwrap_or_default();
                let told = std::mem::replace(&mut known.told[at], now);
                if MODES[at] == mode {
                    since =
                        (now.hits - told.hits, now.misses - told.misses, now.idle_gb_seconds - told.idle_gb_seconds);
                }
            }
            let at = MODES.iter().position(|m| *m == mode).unwrap_or(0);
            Wish {
                key: key.clone(),
                namespace: known.namespace.clone(),
                function: known.function.clone(),
                warm: (mode != Forecast::Off).then_some(known.warm[at]),
                since,
            }
        };
        self.known.iter_mut().map(wish).collect()
    }

    /// What is known and foreseen, by namespace, function and version.
    pub fn reports(&self) -> Vec<ForecastReport> {
        let report = |(key, known): (&Key, &Known)| {
            let mode = self.mode_of(key);
            let at = MODES.iter().position(|m| *m == mode).unwrap_or(0);
            let costs = MODES.iter().zip(&self.fleets).zip(known.ids).map(|((mode, fleet), id)| {
                let sums = fleet.accuracy(id).unwrap_or_default();
                ForecastCost {
                    mode: *mode,
                    hits: sums.hits,
                    misses: sums.misses,
                    starts_ahead: sums.starts_ahead,
                    used_gb_seconds: sums.used_gb_seconds,
                    idle_gb_seconds: sums.idle_gb_seconds,
                }
            });
            ForecastReport {
                namespace: known.namespace.clone(),
                function: known.function.clone(),
                version: key.version.clone(),
                memory_mb: known.memory_mb,
                mode,
                warm: (mode != Forecast::Off).then_some(known.warm[at]),
                minutes: known.watched,
                costs: costs.collect(),
            }
        };
        let mut reports: Vec<ForecastReport> = self.known.iter().map(report).collect();
        reports.sort_by(|a, b| (&a.namespace, &a.function, &a.version).cmp(&(&b.namespace, &b.function, &b.version)));
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(instances: u32) -> Seen {
        Seen {
            key: Key { function_id: "lam-1".into(), version: "$LATEST".into() },
            namespace: "default".into(),
            function: "timer".into(),
            memory_mb: 128,
            instances,
        }
    }

    /// Plays a minute; says what was wanted for the one after it.
    fn play(foresight: &mut Foresight, minute: u64, instances: u32) -> Option<u32> {
        foresight.close(minute, &[seen(instances)]);
        foresight.plan(minute + 1);
        foresight.wishes()[0].warm
    }

    #[test]
    fn a_timer_is_met_and_forgotten_when_it_stops() {
        let mut foresight = Foresight::new(Forecast::Conservative, 60);
        foresight.plan(0);
        let mut met = Vec::new();
        for minute in 0..360 {
            let wanted = play(&mut foresight, minute, u32::from(minute % 10 == 0));
            if (minute + 1) % 10 == 0 {
                met.push(wanted >= Some(1));
            }
        }
        assert!(met[12..].iter().all(|met| *met), "after two hours every call finds a warm instance: {met:?}");
        let costs = &foresight.reports()[0].costs;
        let of = |mode| costs.iter().find(|c| c.mode == mode).unwrap();
        assert_eq!(of(Forecast::Off).misses, 36, "a keep-alive of a minute never met it");
        assert!(of(Forecast::Conservative).misses < 13 && of(Forecast::Conservative).hits > 23);
        // It stops: for a while it is waited for, then no more.
        let mut held = [0; 24];
        for minute in 360..1800 {
            held[(minute as usize - 360) / 60] += play(&mut foresight, minute, 0).unwrap_or_default();
        }
        assert!(
            held[12..].iter().all(|minutes| *minutes == 0),
            "half a day after its end nothing is held for it: {held:?}"
        );
    }

    #[test]
    fn a_function_may_have_a_mode_of_its_own() {
        let mut foresight = Foresight::new(Forecast::Off, 600);
        foresight.plan(0);
        assert_eq!(play(&mut foresight, 0, 1), None);
        foresight.set_own(HashMap::from([("lam-1".to_owned(), Forecast::Eager)]));
        assert!(play(&mut foresight, 1, 1).is_some());
        assert_eq!(foresight.reports()[0].mode, Forecast::Eager);
        // What is told once is not told again.
        let hits: u64 = (2..12)
            .map(|minute| {
                play(&mut foresight, minute, 1);
                foresight.wishes()[0].since.0
            })
            .sum();
        assert_eq!(hits, 0, "the second question in a minute has nothing new");
    }
}
