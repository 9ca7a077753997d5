//! Starting and ending instances of one version: whether a request may have a new instance, and which idle ones to let go.

use crate::scale::share::growth_limit_mb;
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
    /// Memory that instances of this version hold, in MB.
    pub held_mb: u64,
    /// Part of the shared ceiling that is only for versions that have no instance yet, in MB.
    pub headroom_mb: u64,
    /// Memory that the instances of the tenant hold, in MB.
    pub tenant_mb: u64,
    /// What they may hold, in MB; `None`: as much as there is.
    pub tenant_ceiling_mb: Option<u64>,
    /// Of `evictable_mb`, what is the tenant's.
    pub tenant_evictable_mb: u64,
    /// Instances of the whole function, running or starting.
    pub instances: u32,
    /// Most that it may have; `None`: no limit of its own.
    pub instances_max: Option<u32>,
    /// Others wait for memory and hold less: they come first.
    pub others_first: bool,
    /// Requests of this version that wait already.
    pub waiting: usize,
    /// Most requests of one version that may wait.
    pub waiting_max: usize,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The function has all the instances it may have.
    Function,
    /// The tenant's memory is used up.
    Tenant,
    /// The platform's memory is used up.
    Platform,
}

/// What to do with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Start an instance now, after ending idle ones of others that hold `evict_mb`.
    Start {
        /// Memory to take back first, in MB.
        evict_mb: u64,
        /// Of that, what has to come from the tenant's own idle instances.
        tenant_mb: u64,
    },
    /// Take a seat until there is room.
    Wait(Short),
    /// Turn the request away with this status.
    Refuse(Status),
}

impl Admission {
    /// A start that takes nothing from anybody.
    pub const FREE: Self = Self::Start { evict_mb: 0, tenant_mb: 0 };
}

/// Decides. A reserved quota is both a cap and a share of the function's own: within it, a start is always granted.
pub fn admit(demand: &Demand) -> Admission {
    if demand.waiting >= demand.waiting_max {
        return Admission::Refuse(Status::RESOURCE_LIMIT);
    }
    let full = demand.instances_max.is_some_and(|max| demand.instances >= max);
    if let Some(reserved) = demand.reserved_mb {
        return if demand.function_mb + demand.memory_mb > reserved {
            Admission::Refuse(Status::CONCURRENCY_EXCEEDED)
        } else if full {
            Admission::Wait(Short::Function)
        } else {
            Admission::FREE
        };
    }
    let tenant_ceiling_mb = demand.tenant_ceiling_mb.unwrap_or(u64::MAX);
    if demand.memory_mb > demand.shared_ceiling_mb.min(tenant_ceiling_mb) {
        // No wait would ever help.
        return Admission::Refuse(Status::CONCURRENCY_EXCEEDED);
    }
    if full {
        return Admission::Wait(Short::Function);
    }
    let tenant_mb = (demand.tenant_mb + demand.memory_mb).saturating_sub(tenant_ceiling_mb);
    if tenant_mb > demand.tenant_evictable_mb {
        return Admission::Wait(Short::Tenant);
    }
    if demand.others_first {
        return Admission::Wait(Short::Platform);
    }
    let after = demand.shared_mb + demand.memory_mb;
    let limit = growth_limit_mb(demand.held_mb, demand.shared_ceiling_mb, demand.headroom_mb);
    let evict_mb = after.saturating_sub(limit).max(tenant_mb);
    if evict_mb > demand.evictable_mb.max(tenant_mb) {
        return Admission::Wait(Short::Platform);
    }
    Admission::Start { evict_mb, tenant_mb }
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
            held_mb: 0,
            headroom_mb: 0,
            tenant_mb: 0,
            tenant_ceiling_mb: None,
            tenant_evictable_mb: 0,
            instances: 0,
            instances_max: None,
            others_first: false,
            waiting: 0,
            waiting_max: 10,
        }
    }

    #[test]
    fn a_reserved_quota_is_a_cap_and_a_share() {
        let full = Demand { shared_mb: 1024, ..demand() };
        assert_eq!(admit(&Demand { reserved_mb: Some(128), ..full }), Admission::FREE);
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
        assert_eq!(admit(&full), Admission::Wait(Short::Platform));
        assert_eq!(admit(&Demand { evictable_mb: 104, ..full }), Admission::Start { evict_mb: 104, tenant_mb: 0 });
        assert_eq!(admit(&Demand { evictable_mb: 103, ..full }), Admission::Wait(Short::Platform));
        assert_eq!(admit(&Demand { waiting: 10, ..full }), Admission::Refuse(Status::RESOURCE_LIMIT));
        assert_eq!(
            admit(&Demand { memory_mb: 2048, ..demand() }),
            Admission::Refuse(Status::CONCURRENCY_EXCEEDED),
            "what can never fit does not wait"
        );
    }

    #[test]
    fn a_maximum_a_tenant_and_the_line_make_wait() {
        let at_most = |instances| Demand { instances, instances_max: Some(2), ..demand() };
        assert_eq!(admit(&at_most(1)), Admission::FREE);
        assert_eq!(admit(&at_most(2)), Admission::Wait(Short::Function));
        let reserved = Demand { reserved_mb: Some(1024), ..at_most(2) };
        assert_eq!(admit(&reserved), Admission::Wait(Short::Function));
        let tenant = Demand { tenant_mb: 200, tenant_ceiling_mb: Some(256), ..demand() };
        assert_eq!(admit(&tenant), Admission::Wait(Short::Tenant));
        let idle = Demand { tenant_evictable_mb: 128, evictable_mb: 128, ..tenant };
        assert_eq!(admit(&idle), Admission::Start { evict_mb: 72, tenant_mb: 72 });
        let tiny = Demand { tenant_ceiling_mb: Some(64), ..demand() };
        assert_eq!(admit(&tiny), Admission::Refuse(Status::CONCURRENCY_EXCEEDED));
        assert_eq!(admit(&Demand { others_first: true, ..demand() }), Admission::Wait(Short::Platform));
    }

    #[test]
    fn the_headroom_is_for_first_instances() {
        let nearly_full = Demand { shared_mb: 800, headroom_mb: 128, ..demand() };
        assert_eq!(admit(&nearly_full), Admission::FREE);
        let second = Demand { held_mb: 128, ..nearly_full };
        assert_eq!(admit(&second), Admission::Wait(Short::Platform));
        assert_eq!(admit(&Demand { evictable_mb: 64, ..second }), Admission::Start { evict_mb: 32, tenant_mb: 0 });
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
            if let Admission::Start { evict_mb, .. } = admit(&d) {
                prop_assert!(evict_mb <= evictable);
                prop_assert!(shared + memory - evict_mb <= ceiling);
            }
        }
    }
}
