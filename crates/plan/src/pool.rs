//! Starting and ending instances of one version: whether a request may have a new instance, and which idle ones to let go.

use mayfly_model::{ColdStartReason, Status};

/// What is known when a request finds no idle instance.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Memory of one instance of the version, in MB.
    pub memory_mb: u64,
    /// Memory that instances of the whole function hold, running or starting, in MB.
    pub function_mb: u64,
    /// The function's reserved quota, in MB; `None`: it shares what is not reserved.
    pub reserved_mb: Option<u64>,
    /// Memory that instances of functions without a quota of their own hold, in MB.
    pub shared_mb: u64,
    /// What those may hold together: the platform's ceiling less all reservations, in MB.
    pub shared_ceiling_mb: u64,
    /// Memory that all idle instances of other functions without a quota hold, in MB: what can be taken back at once.
    pub evictable_mb: u64,
    /// Requests of this version that wait already.
    pub waiting: usize,
    /// Most requests of one version that may wait.
    pub waiting_max: usize,
}

/// What to do with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Start an instance now, after ending idle ones of others that hold `evict_mb`.
    Start {
        /// Memory to take back first, in MB.
        evict_mb: u64,
    },
    /// Take a seat until memory is free.
    Wait,
    /// Turn the request away with this status.
    Refuse(Status),
}

/// Decides. A reserved quota is both a cap and a share of the function's own: within it, a start is always granted.
pub fn admit(demand: &Demand) -> Admission {
    if demand.waiting >= demand.waiting_max {
        return Admission::Refuse(Status::RESOURCE_LIMIT);
    }
    if let Some(reserved) = demand.reserved_mb {
        return if demand.function_mb + demand.memory_mb <= reserved {
            Admission::Start { evict_mb: 0 }
        } else {
            Admission::Refuse(Status::CONCURRENCY_EXCEEDED)
        };
    }
    let after = demand.shared_mb + demand.memory_mb;
    if after <= demand.shared_ceiling_mb {
        Admission::Start { evict_mb: 0 }
    } else if after - demand.evictable_mb.min(after) <= demand.shared_ceiling_mb {
        Admission::Start { evict_mb: after - demand.shared_ceiling_mb }
    } else if demand.memory_mb > demand.shared_ceiling_mb {
        // No wait would ever help.
        Admission::Refuse(Status::CONCURRENCY_EXCEEDED)
    } else {
        Admission::Wait
    }
}

/// Which instance of a service gets the next request. `loads`: the requests each has, oldest instance first; `None` takes no more.
/// `limit`: how many one takes.
///
/// Only as many instances, the oldest first, are used as the load asks for at three quarters of what they could take; the least loaded of
/// those gets the request. So load is spread, and what is not needed becomes idle and can be let go. `None`: none has room.
pub fn place(loads: impl Iterator<Item = Option<usize>> + Clone, limit: usize) -> Option<usize> {
    let total: usize = loads.clone().flatten().sum();
    let wanted = ((total + 1) * 4).div_ceil(limit.max(1) * 3);
    let open = loads.enumerate().filter_map(|(i, load)| Some((i, load?)));
    let spread = open.clone().take(wanted).filter(|(_, load)| *load < limit).min_by_key(|(_, load)| *load);
    spread.or_else(|| open.clone().find(|(_, load)| *load < limit)).map(|(i, _)| i)
}

/// How idle instances are let go.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// An instance idle for less than this stays, in milliseconds.
    pub idle_ms: u64,
    /// Of the instances idle for longer, at most this share (one in `share`) goes at each look, and at least one.
    pub share: usize,
}

impl KeepAlive {
    /// How many of the longest-idle instances to end now. `idle_ms`: how long each has been idle, longest first.
    pub fn excess(&self, idle_ms: impl Iterator<Item = u64>) -> usize {
        let expired = idle_ms.take_while(|ms| *ms >= self.idle_ms).count();
        if expired == 0 { 0 } else { (expired / self.share.max(1)).max(1) }
    }
}

/// What is known of a version's past when an instance has to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// Instances alive or starting, this one not counted.
    pub alive: usize,
    /// Why the last instance that ended did so; `None`: none ever ran.
    pub last_end: Option<ColdStartReason>,
    /// True when this version took the place of an older state of the same function.
    pub replaces: bool,
}

/// The reason of a start.
pub fn cold_start_reason(past: Past) -> ColdStartReason {
    match past {
        Past { alive: 1.., .. } => ColdStartReason::ScaleOut,
        Past { last_end: Some(reason), .. } => reason,
        Past { replaces: true, .. } => ColdStartReason::CodeUpdated,
        _ => ColdStartReason::First,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_spread_over_as_few_instances_as_suffice() {
        let at = |loads: &[Option<usize>], limit| place(loads.iter().copied(), limit);
        assert_eq!(at(&[], 1), None);
        assert_eq!(at(&[Some(0)], 1), Some(0));
        assert_eq!(at(&[Some(1), Some(0)], 1), Some(1));
        assert_eq!(at(&[Some(1), None], 1), None, "what ends takes nothing");
        // Ten requests fit into the first of three; the others fall idle.
        assert_eq!(at(&[Some(9), Some(0), Some(0)], 100), Some(0));
        // Eighty ask for two, and the less loaded gets the next.
        assert_eq!(at(&[Some(70), Some(10), Some(0)], 100), Some(1));
        assert_eq!(at(&[Some(100), Some(100), Some(99)], 100), Some(2));
    }

    proptest! {
        #[test]
        fn whoever_has_room_is_found(loads in proptest::collection::vec(proptest::option::of(0usize..5), 0..8)) {
            let found = place(loads.iter().copied(), 4);
            prop_assert_eq!(found.is_some(), loads.iter().flatten().any(|l| *l < 4));
            if let Some(i) = found {
                prop_assert!(loads[i].is_some_and(|l| l < 4));
            }
        }
    }

    fn demand() -> Demand {
        Demand {
            memory_mb: 128,
            function_mb: 0,
            reserved_mb: None,
            shared_mb: 0,
            shared_ceiling_mb: 1024,
            evictable_mb: 0,
            waiting: 0,
            waiting_max: 10,
        }
    }

    #[test]
    fn a_reserved_quota_is_a_cap_and_a_share() {
        let full = Demand { shared_mb: 1024, ..demand() };
        assert_eq!(admit(&Demand { reserved_mb: Some(128), ..full }), Admission::Start { evict_mb: 0 });
        let used = Demand { reserved_mb: Some(128), function_mb: 128, ..demand() };
        assert_eq!(admit(&used), Admission::Refuse(Status::CONCURRENCY_EXCEEDED));
        assert_eq!(
            admit(&Demand { reserved_mb: Some(0), ..demand() }),
            Admission::Refuse(Status::CONCURRENCY_EXCEEDED),
            "a quota of nothing stops the function"
        );
    }

    #[test]
    fn under_the_ceiling_others_give_way_before_anybody_waits() {
        let full = Demand { shared_mb: 1000, ..demand() };
        assert_eq!(admit(&full), Admission::Wait);
        assert_eq!(admit(&Demand { evictable_mb: 104, ..full }), Admission::Start { evict_mb: 104 });
        assert_eq!(admit(&Demand { evictable_mb: 103, ..full }), Admission::Wait);
        assert_eq!(admit(&Demand { waiting: 10, ..full }), Admission::Refuse(Status::RESOURCE_LIMIT));
        assert_eq!(
            admit(&Demand { memory_mb: 2048, ..demand() }),
            Admission::Refuse(Status::CONCURRENCY_EXCEEDED),
            "what can never fit does not wait"
        );
    }

    #[test]
    fn instances_go_in_steps() {
        let keep = KeepAlive { idle_ms: 100, share: 4 };
        assert_eq!(keep.excess([99, 5].into_iter()), 0);
        assert_eq!(keep.excess([100].into_iter()), 1);
        assert_eq!(keep.excess([500; 40].into_iter()), 10);
        assert_eq!(keep.excess([500, 400, 50].into_iter()), 1);
    }

    #[test]
    fn reasons() {
        use ColdStartReason::*;
        let reason = |alive, last_end, replaces| cold_start_reason(Past { alive, last_end, replaces });
        assert_eq!(reason(0, None, false), First);
        assert_eq!(reason(0, None, true), CodeUpdated);
        assert_eq!(reason(2, Some(Crashed), false), ScaleOut);
        assert_eq!(reason(0, Some(Expired), false), Expired);
    }

    proptest! {
        #[test]
        fn a_start_never_passes_the_ceiling(
            memory in 1u64..4000, shared in 0u64..4000, ceiling in 0u64..4000, idle_share in 0u64..100
        ) {
            let evictable = shared * idle_share / 100;
            let d = Demand { memory_mb: memory, shared_mb: shared, shared_ceiling_mb: ceiling, evictable_mb: evictable, ..demand() };
            if let Admission::Start { evict_mb } = admit(&d) {
                prop_assert!(evict_mb <= evictable);
                prop_assert!(shared + memory - evict_mb <= ceiling);
            }
        }
    }
}
