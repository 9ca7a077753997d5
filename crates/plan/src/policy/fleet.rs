//! All functions that share memory, minute by minute.

use super::ledger::{Ledger, Minute, worth};
use super::{Levels, Policy, RecentPeak};
use crate::forecast::{Accuracy, Series, Shared, Surroundings, WEEK};
use std::fmt;

/// Seconds of the step in which the fleet plans.
pub const STEP_S: f64 = 60.0;
/// How long an ended instance and a new one in its place occupy its memory by themselves, in seconds. Whatever the price, a
/// slot is kept when that would be more than what keeping it is expected to waste.
const RESTART_S: f64 = 1.0;
/// A level that nobody needed for this long is forgotten, in minutes.
const FORGET_MINUTES: u64 = 2 * WEEK;
/// Most levels of one function that are forecast.
const LEVELS_MAX: usize = 128;

/// Options of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetOptions {
    /// The fixed keep-alive that budgets are measured against, in minutes.
    pub baseline_minutes: u32,
    /// Most functions.
    pub functions_max: usize,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self { baseline_minutes: Policy::BASELINE_MINUTES, functions_max: 100_000 }
    }
}

/// What the fleet must know of a function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Function {
    /// Memory of one instance, in MB: configured, or better, measured.
    pub memory_mb: f64,
    /// Memory of its parked instance, in MB, measured; charged all the time where the policy parks.
    pub parked_mb: f64,
    /// Its policy.
    pub policy: Policy,
}

/// A function of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(u32);

/// What a function should have in the minute that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The function.
    pub function: FunctionId,
    /// Instances that should be warm, busy ones included.
    pub warm: u32,
    /// Whether an instance should be parked besides.
    pub parked: bool,
}

/// What was wrong with a call.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetError {
    /// More functions than the options allow.
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A number that is not finite, negative, or out of reason.
    Invalid {
        /// Which.
        what: &'static str,
    },
    /// No such function (any more).
    NoFunction,
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { max } => write!(f, "more than {max} functions"),
            Self::Invalid { what } => write!(f, "{what} is out of range"),
            Self::NoFunction => write!(f, "there is no such function"),
        }
    }
}

impl std::error::Error for FleetError {}

struct Member {
    spec: Function,
    /// The ledger of its policy; `None`: a fixed keep-alive has none.
    ledger: Option<usize>,
    levels: Vec<Level>,
    baseline: RecentPeak,
    keep: RecentPeak,
    born: u64,
    /// Demand of the minute before.
    last: u32,
    /// Instances at the end of the minute before: warm or needed.
    before: u32,
    warm: u32,
    accuracy: Accuracy,
}

struct Level {
    series: Series,
    probability: f64,
}

impl Member {
    /// GB·s of one instance in one step.
    fn cost(&self) -> f64 {
        self.spec.memory_mb / 1024.0 * STEP_S
    }

    fn parked_cost(&self) -> f64 {
        match self.spec.policy {
            Policy::Forecast { parked: true, .. } => self.spec.parked_mb / 1024.0 * STEP_S,
            _ => 0.0,
        }
    }

    fn forecast(&mut self, shared: &Shared, minute: u64) {
        let mut above = 1.0f64;
        for (index, level) in self.levels.iter_mut().enumerate() {
            let below = if index == 0 { self.last > 0 } else { self.last > Levels::floor(index - 1) };
            let around = Surroundings { minute, level: index as u32 + 1, below };
            // A level cannot be needed without those below.
            above = above.min(level.series.forecast(shared, around));
            level.probability = above;
        }
    }

    fn learn(&mut self, shared: &mut Shared, demand: u32, minute: u64) {
        for (index, level) in self.levels.iter_mut().enumerate() {
            let needed = demand > Levels::floor(index);
            level.series.learn(shared, needed);
            let error = f64::from(u8::from(needed)) - level.probability;
            self.accuracy.forecasts += 1;
            self.accuracy.squared_error += error * error;
        }
        let age = minute - self.born;
        // One level more than was ever needed: the next could come.
        let wanted = (Levels::reached(demand) + 1).min(LEVELS_MAX);
        while self.levels.len() < wanted {
            let mut series = Series::new(age);
            series.learn(shared, demand > Levels::floor(self.levels.len()));
            self.levels.push(Level { series, probability: 0.0 });
        }
        while self.levels.len() > wanted.max(2) && self.levels[self.levels.len() - 2].series.age() > FORGET_MINUTES {
            self.levels.pop();
        }
        if self.levels.len() == 2 && self.levels[0].series.age() > FORGET_MINUTES {
            self.levels = vec![Level { series: Series::new(age + 1), probability: 0.0 }];
        }
    }
}

/// All functions that share memory. See the module's text.
pub struct Fleet {
    options: FleetOptions,
    members: Vec<Option<Member>>,
    /// Places of functions that were removed.
    free: Vec<usize>,
    shared: Shared,
    ledgers: Vec<(Policy, Ledger)>,
    /// The minute that [`Fleet::plan`] was called for and [`Fleet::close`] was not.
    planned: Option<u64>,
    next: Option<u64>,
}

/// Sums over a whole fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// What became of what was held ahead.
    pub accuracy: Accuracy,
}

impl Fleet {
    /// A fleet without functions.
    pub fn new(options: FleetOptions) -> Self {
        Self {
            options,
            members: Vec::new(),
            free: Vec::new(),
            shared: Shared::default(),
            ledgers: Vec::new(),
            planned: None,
            next: None,
        }
    }

    /// Adds a function; it has no past. From the next [`Fleet::plan`] on it is planned for.
    pub fn add(&mut self, spec: Function) -> Result<FunctionId, FleetError> {
        check(&spec)?;
        if self.members.len() - self.free.len() >= self.options.functions_max {
            return Err(FleetError::TooMany { max: self.options.functions_max });
        }
        let ledger = self.ledger_of(spec.policy);
        let keep = match spec.policy {
            Policy::KeepAlive { minutes } => minutes,
            Policy::Forecast { .. } => 0,
        };
        let member = Member {
            spec,
            ledger,
            levels: vec![Level { series: Series::new(0), probability: 0.0 }],
            baseline: RecentPeak::new(self.options.baseline_minutes),
            keep: RecentPeak::new(keep),
            born: self.next.unwrap_or(0),
            last: 0,
            before: 0,
            warm: 0,
            accuracy: Accuracy::default(),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.members[place] = Some(member);
        Ok(FunctionId(place as u32))
    }

    /// Changes memory or policy; the past stays, but a fixed keep-alive begins anew.
    pub fn change(&mut self, id: FunctionId, spec: Function) -> Result<(), FleetError> {
        check(&spec)?;
        let ledger = self.ledger_of(spec.policy);
        let member = self.member_mut(id)?;
        if let Policy::KeepAlive { minutes } = spec.policy
            && member.spec.policy != spec.policy
        {
            member.keep = RecentPeak::new(minutes);
        }
        (member.spec, member.ledger) = (spec, ledger);
        Ok(())
    }

    /// Forgets a function. Its id may be given out again.
    pub fn remove(&mut self, id: FunctionId) -> Result<(), FleetError> {
        self.member_mut(id)?;
        self.members[id.0 as usize] = None;
        self.free.push(id.0 as usize);
        Ok(())
    }

    /// What a function's forecasts were worth so far.
    pub fn accuracy(&self, id: FunctionId) -> Result<Accuracy, FleetError> {
        self.members.get(id.0 as usize).and_then(Option::as_ref).map(|m| m.accuracy).ok_or(FleetError::NoFunction)
    }

    /// The same over all functions.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.members.iter().flatten().for_each(|m| totals.accuracy.add(&m.accuracy));
        totals
    }

    /// Says what should be warm in `minute`, from what happened before it. Minutes count from the start of a day (best: of
    /// a week), in the zone in which users live. Minutes left out since the last call count as unwatched.
    ///
    /// A minute that does not come after the last one is planned as the one after it.
    pub fn plan(&mut self, minute: u64) -> Vec<Target> {
        let next = self.next.unwrap_or(minute);
        let minute = minute.max(next);
        if minute > next {
            self.skip(minute - next);
        }
        self.next = Some(minute);
        self.planned = Some(minute);
        for member in self.members.iter_mut().flatten() {
            // The keep-alive's instances need no forecast, but their past is kept: the policy may be changed.
            member.forecast(&self.shared, minute);
            member.warm = member.keep.get();
        }
        for ledger in 0..self.ledgers.len() {
            self.spend(ledger);
        }
        let targets = self.members.iter_mut().enumerate().filter_map(|(index, member)| {
            let member = member.as_mut()?;
            member.accuracy.starts_ahead += u64::from(member.warm.saturating_sub(member.before));
            let parked = matches!(member.spec.policy, Policy::Forecast { parked: true, .. });
            Some(Target { function: FunctionId(index as u32), warm: member.warm, parked })
        });
        targets.collect()
    }

    /// Ends the planned minute: what was needed at once in it, by function; those not named needed nothing.
    pub fn close(&mut self, demand: &[(FunctionId, u32)]) -> Result<(), FleetError> {
        let Some(minute) = self.planned.take() else { return Ok(()) };
        let mut needed = vec![0u32; self.members.len()];
        for (id, demand) in demand {
            let slot = needed.get_mut(id.0 as usize).ok_or(FleetError::NoFunction)?;
            *slot = (*slot).max(*demand);
        }
        let mut minutes = vec![Minute::default(); self.ledgers.len()];
        for (member, demand) in self.members.iter_mut().zip(needed) {
            let Some(member) = member else { continue };
            let cost = member.cost();
            let (used, idle) = (f64::from(demand) * cost, f64::from(member.warm.saturating_sub(demand)) * cost);
            let accuracy = &mut member.accuracy;
            accuracy.hits += u64::from(member.warm.min(demand));
            accuracy.idle += u64::from(member.warm.saturating_sub(demand));
            accuracy.misses += u64::from(demand.saturating_sub(member.warm));
            accuracy.used_gb_seconds += used;
            accuracy.idle_gb_seconds += idle;
            let parked = member.spec.parked_mb / 1024.0 * STEP_S;
            let parked = if member.parked_cost() > 0.0 { parked } else { 0.0 };
            member.accuracy.parked_gb_seconds += parked;
            if let Some(ledger) = member.ledger {
                let sums = &mut minutes[ledger];
                sums.used += used;
                sums.idle += idle + parked;
                sums.baseline_idle += f64::from(member.baseline.get().saturating_sub(demand)) * cost;
                for (index, level) in member.levels.iter().enumerate() {
                    if demand <= Levels::floor(index) {
                        let size = f64::from(Levels::top(index) - Levels::floor(index));
                        self.ledgers[ledger].1.not_needed(worth(level.probability, cost), size * cost);
                    }
                }
            }
            member.learn(&mut self.shared, demand, minute);
            member.baseline.push(demand);
            member.keep.push(demand);
            member.last = demand;
            member.before = member.warm.max(demand);
        }
        for ((_, ledger), minute) in self.ledgers.iter_mut().zip(minutes) {
            ledger.close(minute);
        }
        self.next = Some(minute + 1);
        Ok(())
    }

    /// Gives warm slots to those who are worth most for their memory, down to the ledger's price; with a budget of at least
    /// the fixed keep-alive's, never so many that it could be passed whatever the minute brings. A smaller budget cannot
    /// be kept for certain, for what is needed is held too: there the price alone steers, and pays back what was too much.
    fn spend(&mut self, ledger: usize) {
        let account = &self.ledgers[ledger].1;
        let price = account.price().0;
        let mut offers: Vec<(f64, usize, usize)> = Vec::new();
        let mut standing = 0.0;
        for (at, member) in self.members.iter().enumerate() {
            let Some(member) = member.as_ref().filter(|m| m.ledger == Some(ledger)) else { continue };
            standing += member.parked_cost();
            let price = price.min(STEP_S / RESTART_S / member.cost());
            let offered =
                member.levels.iter().enumerate().map(|(i, level)| (worth(level.probability, member.cost()), at, i));
            offers.extend(offered.take_while(|(worth, ..)| *worth >= price));
        }
        offers.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut room = account.room() - standing;
        let strict = account.budget() >= 1.0;
        for (_, at, level) in offers {
            let Some(member) = &mut self.members[at] else { continue };
            let floor = Levels::floor(level);
            if member.warm != floor {
                continue;
            }
            let size = Levels::top(level) - floor;
            let beside = member.baseline.get().saturating_sub(floor).min(size);
            // What the fixed keep-alive would hold in this minute too takes nothing from the budget.
            let cost = f64::from(size - beside) * member.cost();
            if strict && size > beside && cost > room {
                continue;
            }
            room -= cost;
            member.warm = Levels::top(level);
        }
    }

    fn skip(&mut self, minutes: u64) {
        for member in self.members.iter_mut().flatten() {
            member.levels.iter_mut().for_each(|level| level.series.skip(minutes));
            member.baseline.skip(minutes);
            member.keep.skip(minutes);
            (member.last, member.before) = (0, 0);
        }
    }

    fn ledger_of(&mut self, policy: Policy) -> Option<usize> {
        let Policy::Forecast { budget, .. } = policy else { return None };
        let known = self.ledgers.iter().position(|(p, _)| *p == policy);
        Some(known.unwrap_or_else(|| {
            self.ledgers.push((policy, Ledger::new(budget)));
            self.ledgers.len() - 1
        }))
    }

    fn member_mut(&mut self, id: FunctionId) -> Result<&mut Member, FleetError> {
        self.members.get_mut(id.0 as usize).and_then(Option::as_mut).ok_or(FleetError::NoFunction)
    }
}

fn check(spec: &Function) -> Result<(), FleetError> {
    let memory = 0.0..=1e9;
    if !memory.contains(&spec.memory_mb) || spec.memory_mb <= 0.0 {
        return Err(FleetError::Invalid { what: "memory" });
    }
    if !memory.contains(&spec.parked_mb) {
        return Err(FleetError::Invalid { what: "parked memory" });
    }
    match spec.policy {
        Policy::Forecast { budget, .. } if !(0.0..=Policy::BUDGET_MAX).contains(&budget) => {
            Err(FleetError::Invalid { what: "budget" })
        }
        Policy::KeepAlive { minutes } if minutes > Policy::KEEP_ALIVE_MAX_MINUTES => {
            Err(FleetError::Invalid { what: "keep-alive" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
