//! What happened before, minute by minute, and at which distances in time it tends to happen again.

use super::counter::Counter;

/// Minutes of a day.
pub const DAY: u64 = 24 * 60;
/// Minutes of a week.
pub const WEEK: u64 = 7 * DAY;

/// Every distance up to this many minutes is tried.
const SHORT_LAGS: u64 = 240;
/// Longer ones: six, eight and twelve hours, a day, a week.
const LONG_LAGS: [u64; 5] = [6 * 60, 8 * 60, 12 * 60, DAY, WEEK];
/// Trials a distance remembers: a schedule that changes is noticed after some ten of its periods.
const LAG_MEMORY: f32 = 30.0;

/// One bit per minute, for the past week.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The last 256 minutes as a shift register: bit 0 of the first word is the last minute. Most questions are about them.
    latest: [u64; LATEST_WORDS],
    /// The week as a ring.
    words: Vec<u64>,
    /// Minutes recorded so far.
    length: u64,
}

const LATEST_WORDS: usize = 4;
const RING_WORDS: usize = (WEEK as usize + 64) / 64 + 1;

impl History {
    /// A past of `minutes` in which nothing happened.
    pub fn quiet(minutes: u64) -> Self {
        Self { length: minutes, ..Self::default() }
    }

    /// Adds a minute.
    pub fn push(&mut self, active: bool) {
        let (word, bit) = Self::place(self.length);
        if active {
            if self.words.len() <= word {
                // Grows to where it is needed: most functions are young or rare.
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= 1 << bit;
        } else if let Some(word) = self.words.get_mut(word) {
            *word &= !(1 << bit);
        }
        self.length += 1;
        let mut carry = u64::from(active);
        for word in &mut self.latest {
            (*word, carry) = (*word << 1 | carry, *word >> 63);
        }
    }

    /// Adds many minutes in which nothing happened.
    pub fn skip(&mut self, minutes: u64) {
        if minutes >= WEEK {
            *self = Self::quiet(self.length + minutes);
        } else {
            (0..minutes).for_each(|_| self.push(false));
        }
    }

    /// Whether something happened `ago` minutes before the minute that comes next (1: the last one recorded).
    pub fn active(&self, ago: u64) -> bool {
        if ago == 0 || ago > self.length || ago > WEEK {
            return false;
        }
        if ago <= 64 * LATEST_WORDS as u64 {
            return self.latest[(ago - 1) as usize / 64] >> ((ago - 1) % 64) & 1 == 1;
        }
        let (word, bit) = Self::place(self.length - ago);
        self.words.get(word).is_some_and(|w| w >> bit & 1 == 1)
    }

    /// The last `count` minutes as bits, the newest lowest.
    pub fn recent(&self, count: u64) -> usize {
        self.latest[0] as usize & ((1 << count.min(32)) - 1)
    }

    /// How long ago things happened, of those within the last `most` (≤ 256) minutes, the latest first.
    fn happened(&self, most: u64) -> impl Iterator<Item = u64> {
        let words = self.latest.into_iter().enumerate();
        let bits = words.flat_map(|(at, word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(at as u64 * 64 + u64::from(bit) + 1)
            })
        });
        bits.take_while(move |ago| *ago <= most)
    }

    fn place(minute: u64) -> (usize, u64) {
        ((minute / 64) as usize % RING_WORDS, minute % 64)
    }
}

/// For each distance in time: how often something happened that long after something had happened.
#[derive(Clone, Debug, Default)]
pub struct Periods {
    lags: Vec<Counter>,
    strongest: f64,
}

/// What the distances say of a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recurrence {
    /// The highest rate of recurrence among the distances at which something did happen; 0: at none.
    pub rate: f64,
    /// On how many trials that rests.
    pub trials: f64,
    /// The highest rate among all distances: how periodic the series is.
    pub strongest: f64,
}

impl Periods {
    /// Places of the distances at which something did happen.
    fn places(history: &History) -> impl Iterator<Item = usize> {
        let short = history.happened(SHORT_LAGS).filter(|ago| *ago >= 2).map(|ago| ago as usize - 2);
        let long = LONG_LAGS.iter().enumerate().filter(|(_, ago)| history.active(**ago));
        short.chain(long.map(|(i, _)| SHORT_LAGS as usize - 1 + i))
    }

    /// What is to be expected of the minute that comes next.
    pub fn expect(&self, history: &History) -> Recurrence {
        let mut found = Recurrence { strongest: self.strongest, ..Recurrence::default() };
        if self.lags.is_empty() {
            return found;
        }
        for place in Self::places(history) {
            let rate = rate(&self.lags[place]);
            if rate > found.rate {
                (found.rate, found.trials) = (rate, self.lags[place].trials());
            }
        }
        found
    }

    /// Learns from a minute; `history` ends before it.
    pub fn learn(&mut self, history: &History, active: bool) {
        if self.lags.is_empty() {
            if !active {
                return;
            }
            self.lags = vec![Counter::default(); SHORT_LAGS as usize - 1 + LONG_LAGS.len()];
        }
        let mut changed = false;
        for place in Self::places(history) {
            self.lags[place].add(active, LAG_MEMORY);
            changed = true;
        }
        if changed {
            let proven = self.lags.iter().filter(|counter| counter.trials() > 1.0);
            self.strongest = proven.map(rate).fold(0.0, f64::max);
        }
    }
}

/// With one imagined failure: a distance seen once proves little.
fn rate(counter: &Counter) -> f64 {
    counter.probability(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_a_ring_of_a_week() {
        let mut history = History::default();
        for minute in 0..3 * WEEK {
            history.push(minute % 7 == 3);
        }
        for ago in 1..=WEEK {
            assert_eq!(history.active(ago), (3 * WEEK - ago) % 7 == 3, "{ago}");
        }
        assert!(!history.active(0) && !history.active(WEEK + 1));
        history.skip(10);
        assert_eq!(history.recent(10), 0);
        history.push(true);
        assert_eq!(history.recent(3), 1);
        history.skip(2 * WEEK);
        assert!((1..=WEEK).all(|ago| !history.active(ago)));
    }

    #[test]
    fn a_period_is_found_and_a_week_too() {
        for period in [2, 5, 60, 137, DAY, WEEK] {
            let (mut history, mut periods) = (History::default(), Periods::default());
            for minute in 0..6 * period {
                let active = minute % period == 0;
                periods.learn(&history, active);
                history.push(active);
            }
            let due = periods.expect(&history);
            assert!(due.rate > 0.7, "period {period}: {due:?}");
            history.push(true);
            assert!(periods.expect(&history).rate < 0.1 || period == 2, "period {period}: not due");
        }
    }
}
