//! Provisioned concurrency: instances that a user ordered to be ready, always, by schedule, or by how busy they are
//! (`PutProvisionedConcurrencyConfig`).

/// A timed change that has fired: from then on so many instances, until a later one fires or a new order is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// When its schedule fired last, in milliseconds; the caller reads the schedule (`TriggerCronConfig`).
    pub at_ms: u64,
    /// `TriggerProvisionedConcurrencyNum`.
    pub count: u32,
}

/// How many are wanted by an order and its timed changes: the newest of them counts. `firings` in the order of the
/// configuration; of those that fired together the last one counts.
pub fn scheduled(ordered: u32, ordered_at_ms: u64, firings: &[Firing]) -> u32 {
    let newest = firings.iter().filter(|f| f.at_ms >= ordered_at_ms).max_by_key(|f| f.at_ms);
    newest.map_or(ordered, |f| f.count)
}

/// Options of utilisation tracking (`ProvisionedType` `ConcurrencyUtilizationTracking`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracking {
    /// The share of provisioned instances that should be busy, between 0 and 1 (`TrackingTarget`).
    pub target: f64,
    /// Fewest (`MinCapacity`).
    pub min: u32,
    /// Most (`MaxCapacity`).
    pub max: u32,
}

/// A change of demand within this share of the target is left alone, so that the number does not swing.
const SLACK: f64 = 0.1;

impl Tracking {
    /// How many to provision when `provisioned` are and `busy` instances are needed on average (a minute's, say). Up in
    /// one step, down by a tenth at a time: a lull is no reason to give back what the next minute needs.
    pub fn wanted(&self, provisioned: u32, busy: f64) -> u32 {
        let (low, high) = (self.min.min(self.max), self.max);
        let target = self.target.clamp(0.01, 0.99);
        // Beyond any maximum for what is no number.
        let needed =
            if busy.is_finite() { (busy.max(0.0) / target).ceil().min(f64::from(u32::MAX)) as u32 } else { high };
        let now = provisioned.clamp(low, high);
        let wanted = if needed > now {
            needed
        } else if f64::from(needed) < f64::from(now) * (1.0 - SLACK) {
            needed.max(now - (now / 10).max(1))
        } else {
            now
        };
        wanted.clamp(low, high)
    }
}

/// Status of an order, as `GetProvisionedConcurrencyConfig` words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// As many are ready as were ordered.
    Done,
    /// Some are on the way.
    InProgress,
    /// Some are missing and cannot be started.
    Failed,
}

impl OrderStatus {
    /// SCF's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::InProgress => "InProgress",
            Self::Failed => "Failed",
        }
    }
}

/// The status of an order of `wanted` of which `ready` are ready. `blocked`: the last start failed, or the ceiling
/// forbids more, and none is under way.
pub fn status(wanted: u32, ready: u32, blocked: bool) -> OrderStatus {
    match (ready >= wanted, blocked) {
        (true, _) => OrderStatus::Done,
        (false, false) => OrderStatus::InProgress,
        (false, true) => OrderStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_order_counts() {
        let firings =
            [Firing { at_ms: 100, count: 9 }, Firing { at_ms: 300, count: 2 }, Firing { at_ms: 300, count: 3 }];
        assert_eq!(scheduled(5, 0, &firings), 3);
        assert_eq!(scheduled(5, 200, &firings[..1]), 5, "what fired before the order is void");
        assert_eq!(scheduled(5, 0, &[]), 5);
    }

    #[test]
    fn tracking_goes_up_at_once_and_down_slowly() {
        let tracking = Tracking { target: 0.5, min: 2, max: 40 };
        assert_eq!(tracking.wanted(2, 10.0), 20);
        assert_eq!(tracking.wanted(20, 9.5), 20, "within the slack");
        assert_eq!(tracking.wanted(20, 1.0), 18);
        assert_eq!(tracking.wanted(3, 0.0), 2);
        assert_eq!(tracking.wanted(2, 0.0), 2, "never below the minimum");
        assert_eq!(tracking.wanted(40, 1e300), 40, "never above the maximum");
        assert_eq!(tracking.wanted(10, f64::NAN), 40);
        assert_eq!(Tracking { min: 9, max: 3, ..tracking }.wanted(0, 0.0), 3, "the maximum is the stronger one");
    }

    #[test]
    fn statuses() {
        assert_eq!(status(3, 3, true).as_str(), "Done");
        assert_eq!(status(3, 2, false).as_str(), "InProgress");
        assert_eq!(status(3, 2, true).as_str(), "Failed");
    }
}
