//! The small forecasters and how they are averaged.

use super::counter::{Counter, LOG_BUCKETS, log_bucket, log_odds, logistic};
use super::period::{DAY, History, Periods};
use std::collections::BTreeMap;

/// Views that all series share: what is counted depends on the situation alone, not on whose it is.
const POOLED: usize = 6;
/// Views of one series by itself.
const OWN: usize = 7;
/// Forecasters: all views, and recurrence.
pub const EXPERTS: usize = POOLED + OWN + 1;

/// Probabilities stay away from 0 and 1 by this much: no past, however long, proves that something never happens.
const DOUBT: f64 = 1e-5;
/// Trials a pooled counter remembers.
const POOLED_MEMORY: f32 = 1000.0;
/// Trials a counter of one series remembers.
const OWN_MEMORY: f32 = 255.0;
/// Trials that what is known elsewhere counts for.
const PRIOR_WEIGHT: f64 = 2.0;
/// What of a forecaster's record is left after each minute: the record covers about the last fifty.
const RECORD_KEEP: f64 = 0.98;
/// The pooled record covers this share of a new observation.
const POOLED_RECORD_STEP: f64 = 0.001;
/// Minutes of its own record that the pooled one counts for.
const POOLED_RECORD_WEIGHT: f64 = 5.0;
/// Pairs of idle time and last gap that one series may have.
const PAIRS_MAX: usize = 512;

/// Sizes of the pooled tables.
const POOLED_SIZES: [usize; POOLED] =
    [(LOG_BUCKETS + 1) * 3, (LOG_BUCKETS + 1) * 16 * 2, 8 * 8 * 4, 64 * 3, 64, LOG_BUCKETS * 2];
/// Sizes of a series' own tables; the pairs are a map.
const OWN_SIZES: [usize; OWN] = [LOG_BUCKETS, 0, 60, 15, 32, 2, 24];
/// Cells of a table that says how far a rate on few trials can be trusted: by trials, by rate.
const TRUST_TRIALS: usize = 40;
const TRUST_RATES: usize = 11;

/// What a series must know of the world around it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The minute to forecast, counted from a common beginning that is the start of a day (of a week, better).
    pub minute: u64,
    /// The level, 1 the lowest.
    pub level: u32,
    /// Whether the level below was needed in the last minute (for level 1: whether anything ran).
    pub below: bool,
}

/// What all series have in common.
#[derive(Clone, Debug)]
pub struct Shared {
    pooled: [Vec<Counter>; POOLED],
    trust: [Vec<Counter>; OWN + 1],
    /// Average loss of each forecaster, in nats a minute.
    record: [f64; EXPERTS],
}

impl Default for Shared {
    fn default() -> Self {
        let trust = TRUST_TRIALS * TRUST_RATES;
        Self {
            pooled: POOLED_SIZES.map(|size| vec![Counter::default(); size]),
            trust: std::array::from_fn(|i| vec![Counter::default(); if i == OWN { trust * 6 } else { trust }]),
            record: [0.0; EXPERTS],
        }
    }
}

/// One level of one function.
#[derive(Clone, Debug)]
pub struct Series {
    history: History,
    periods: Periods,
    /// Minutes since the last activity (1: the last minute was active), or since the beginning when there was none.
    age: u64,
    /// The last gap and the one before, in minutes; 0: none yet.
    gaps: [u64; 2],
    /// Active minutes so far.
    active: u64,
    own: Option<Box<Own>>,
    record: [f64; EXPERTS],
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Own {
    tables: [Vec<Counter>; OWN],
    pairs: BTreeMap<(u32, u32), Counter>,
}

impl Default for Own {
    fn default() -> Self {
        Self { tables: OWN_SIZES.map(|size| vec![Counter::default(); size]), pairs: BTreeMap::new() }
    }
}

/// What was looked at for a forecast, to be learnt from when the minute is over.
#[derive(Clone, Copy, Debug)]
struct Pending {
    pooled: [usize; POOLED],
    own: [usize; OWN],
    trust: [usize; OWN + 1],
    says: [f64; EXPERTS],
    probability: f64,
}

/// How an idle time stands to an earlier gap, in eight kinds.
fn relation(age: u64, gap: u64) -> usize {
    match gap {
        0 => 0,
        _ if age == gap => 1,
        _ if age.abs_diff(gap) == 1 => 2,
        _ if age < gap => 3 + usize::from(age * 2 >= gap),
        _ if age < 2 * gap => 5,
        _ => 6 + usize::from(age > 4 * gap),
    }
}

fn doubting(probability: f64) -> f64 {
    probability.clamp(DOUBT, 1.0 - DOUBT)
}

impl Series {
    /// A level that nobody has needed in the `quiet` minutes since its function came to be.
    pub fn new(quiet: u64) -> Self {
        Self {
            history: History::quiet(quiet),
            periods: Periods::default(),
            age: quiet + 1,
            gaps: [0; 2],
            active: 0,
            own: None,
            record: [0.0; EXPERTS],
            pending: None,
        }
    }

    /// Minutes since the last activity, or since the beginning.
    pub fn age(&self) -> u64 {
        self.age
    }

    /// Active minutes so far.
    pub fn active_minutes(&self) -> u64 {
        self.active
    }

    /// The probability that the level is needed in the minute that comes next.
    pub fn forecast(&mut self, shared: &Shared, around: Surroundings) -> f64 {
        let pooled = self.pooled_places(&around);
        let own = self.own_places(&around);
        let mut trust = [0; OWN + 1];
        let mut says = [0.0; EXPERTS];
        // With no knowledge at all: the longer it has been idle, the longer it will be (a Pareto law's hazard).
        let prior = 1.0 / (self.age as f64 + 2.0);
        let by_age = doubting(shared.pooled[0][pooled[0]].probability(prior, PRIOR_WEIGHT));
        says[0] = by_age;
        for (i, place) in pooled.iter().enumerate().skip(1) {
            says[i] = doubting(shared.pooled[i][*place].probability(by_age, PRIOR_WEIGHT));
        }
        for (i, place) in own.iter().enumerate() {
            let counter = self.own_counter(i, *place);
            trust[i] = trust_place(counter.trials(), counter.rate());
            let guess = counter.probability(by_age, PRIOR_WEIGHT);
            says[POOLED + i] = doubting(shared.trust[i][trust[i]].probability(guess, PRIOR_WEIGHT));
        }
        let due = self.periods.expect(&self.history);
        let kind = (due.strongest * 5.0) as usize;
        trust[OWN] = trust_place(due.trials, due.rate) + kind.min(5) * TRUST_TRIALS * TRUST_RATES;
        let guess = due.rate.max(by_age);
        says[EXPERTS - 1] = doubting(shared.trust[OWN][trust[OWN]].probability(guess, PRIOR_WEIGHT));

        let probability = self.average(shared, &says);
        self.pending = Some(Pending { pooled, own, trust, says, probability });
        probability
    }

    /// Averages in log-odds, by the weights that the forecasters' losses give them.
    fn average(&self, shared: &Shared, says: &[f64; EXPERTS]) -> f64 {
        let loss: [f64; EXPERTS] = std::array::from_fn(|i| self.record[i] + POOLED_RECORD_WEIGHT * shared.record[i]);
        let least = loss.iter().copied().fold(f64::INFINITY, f64::min);
        let (mut weights, mut sum) = (0.0, 0.0);
        for (loss, p) in loss.iter().zip(says) {
            let weight = (least - loss).exp();
            weights += weight;
            sum += weight * log_odds(*p);
        }
        doubting(logistic(sum / weights))
    }

    /// Takes in what happened in the minute that was forecast. Without a forecast before, only the past grows.
    pub fn learn(&mut self, shared: &mut Shared, active: bool) {
        if let Some(pending) = self.pending.take() {
            self.learn_from(shared, &pending, active);
            self.periods.learn(&self.history, active);
        }
        self.history.push(active);
        if active {
            if self.active > 0 {
                self.gaps = [self.age, self.gaps[0]];
            }
            self.active += 1;
            self.age = 1;
        } else {
            self.age = self.age.saturating_add(1);
        }
    }

    /// Lets minutes pass that nobody watched.
    pub fn skip(&mut self, minutes: u64) {
        self.pending = None;
        self.history.skip(minutes);
        self.age = self.age.saturating_add(minutes);
    }

    fn learn_from(&mut self, shared: &mut Shared, pending: &Pending, active: bool) {
        for (i, says) in pending.says.iter().enumerate() {
            let loss = -if active { says.ln() } else { (1.0 - says).ln() };
            self.record[i] = self.record[i] * RECORD_KEEP + loss;
            shared.record[i] += (loss - shared.record[i]) * POOLED_RECORD_STEP;
        }
        for (table, place) in shared.pooled.iter_mut().zip(pending.pooled) {
            table[place].add(active, POOLED_MEMORY);
        }
        for (table, place) in shared.trust.iter_mut().zip(pending.trust) {
            table[place].add(active, POOLED_MEMORY);
        }
        // A level that was never needed has nothing of its own to remember.
        if self.active == 0 && !active {
            return;
        }
        let own = self.own.get_or_insert_default();
        for (i, (table, place)) in own.tables.iter_mut().zip(pending.own).enumerate() {
            if i != PAIR {
                table[place].add(active, OWN_MEMORY);
            }
        }
        let pair = (log_bucket(self.age) as u32, self.gaps[0].min(DAY) as u32);
        if own.pairs.len() < PAIRS_MAX || own.pairs.contains_key(&pair) {
            own.pairs.entry(pair).or_default().add(active, OWN_MEMORY);
        }
    }

    fn pooled_places(&self, around: &Surroundings) -> [usize; POOLED] {
        let level = around.level.saturating_sub(1).min(2) as usize;
        let below = usize::from(around.below);
        let age = if self.active == 0 { LOG_BUCKETS } else { log_bucket(self.age) };
        let experience = log_bucket(self.active).min(15);
        let [last, before] = self.gaps;
        let alike = usize::from(last > 1) * 2 + usize::from(last == before);
        let round = [60, 30, 20, 15, 10, 5].iter().enumerate();
        [
            age * 3 + level,
            (age * 16 + experience) * 2 + below,
            (relation(self.age, last) * 8 + relation(self.age, before)) * 4 + alike,
            self.history.recent(6) * 3 + level,
            round.filter(|(_, ago)| self.history.active(**ago)).map(|(i, _)| 1 << i).sum(),
            log_bucket(self.age) * 2 + below,
        ]
    }

    fn own_places(&self, around: &Surroundings) -> [usize; OWN] {
        let minute = around.minute;
        [
            log_bucket(self.age),
            0,
            (minute % 60) as usize,
            (minute % 15) as usize,
            self.history.recent(5),
            usize::from(around.below),
            (minute % DAY / 60) as usize,
        ]
    }

    fn own_counter(&self, view: usize, place: usize) -> Counter {
        let Some(own) = &self.own else { return Counter::default() };
        if view == PAIR {
            let pair = (log_bucket(self.age) as u32, self.gaps[0].min(DAY) as u32);
            return own.pairs.get(&pair).copied().unwrap_or_default();
        }
        own.tables[view][place]
    }

    /// The forecast that waits for its minute to end.
    pub fn pending_probability(&self) -> Option<f64> {
        self.pending.map(|p| p.probability)
    }
}

/// The view of idle time and last gap together.
const PAIR: usize = 1;

fn trust_place(trials: f64, rate: f64) -> usize {
    let trials = log_bucket(trials.round() as u64).min(TRUST_TRIALS - 1);
    trials * TRUST_RATES + (rate * (TRUST_RATES - 1) as f64).round() as usize
}
