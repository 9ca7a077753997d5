//! Fair shares of memory when a ceiling binds: max-min fairness, first among tenants, then among a tenant's versions.
//!
//! Instances are given out one by one, each to the tenant that has least for its weight, and there to the version that has
//! least. So nobody can have more unless somebody with less would lose (up to the size of one instance), and a version
//! that has none gets its first before another gets its hundredth.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// What a version asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Whose it is; shares are first made among tenants.
    pub tenant: u64,
    /// The tenant's weight; that of its first claim counts. At least 0.001.
    pub weight: f64,
    /// Memory of one instance, in MB; at least 1.
    pub memory_mb: u64,
    /// Instances wanted in all.
    pub wanted: u32,
    /// Instances that it has and that cannot be taken (busy or provisioned); they are granted whatever the ceiling says.
    pub fixed: u32,
}

/// Divides `total_mb`. The answer has the instances granted to each claim, in their order: never fewer than `fixed`.
pub fn divide(total_mb: u64, claims: &[Claim]) -> Vec<u32> {
    let mut granted: Vec<u32> = claims.iter().map(|c| c.fixed).collect();
    let size = |claim: &Claim| claim.memory_mb.max(1);
    let fixed_mb = claims.iter().fold(0u64, |sum, c| sum.saturating_add(size(c).saturating_mul(u64::from(c.fixed))));
    let mut free_mb = total_mb.saturating_sub(fixed_mb);
    let mut tenants: BTreeMap<u64, Tenant> = BTreeMap::new();
    for (at, claim) in claims.iter().enumerate() {
        let tenant = tenants.entry(claim.tenant).or_insert_with(|| Tenant {
            held_mb: 0,
            weight: claim.weight.max(0.001),
            versions: BinaryHeap::new(),
        });
        let held = size(claim).saturating_mul(u64::from(claim.fixed));
        tenant.held_mb = tenant.held_mb.saturating_add(held);
        if claim.wanted > claim.fixed {
            tenant.versions.push(Least { held: held as f64, at: at as u64 });
        }
    }
    let mut queue: BinaryHeap<Least> = tenants.iter().map(|(id, t)| Least { held: t.share(), at: *id }).collect();
    while let Some(Least { at: id, .. }) = queue.pop() {
        let Some(tenant) = tenants.get_mut(&id) else { continue };
        // A version whose next instance does not fit will not fit later either: what is free only shrinks.
        let Some(version) =
            std::iter::from_fn(|| tenant.versions.pop()).find(|v| size(&claims[v.at as usize]) <= free_mb)
        else {
            continue;
        };
        let at = version.at as usize;
        let memory_mb = size(&claims[at]);
        granted[at] += 1;
        free_mb -= memory_mb;
        tenant.held_mb = tenant.held_mb.saturating_add(memory_mb);
        if granted[at] < claims[at].wanted {
            tenant.versions.push(Least { held: version.held + memory_mb as f64, at: version.at });
        }
        queue.push(Least { held: tenant.share(), at: id });
    }
    granted
}

struct Tenant {
    held_mb: u64,
    weight: f64,
    versions: BinaryHeap<Least>,
}

impl Tenant {
    fn share(&self) -> f64 {
        self.held_mb as f64 / self.weight
    }
}

/// Orders a heap by who has least; ties by number, so that the answer is always the same.
struct Least {
    held: f64,
    at: u64,
}

impl Ord for Least {
    fn cmp(&self, other: &Self) -> Ordering {
        other.held.total_cmp(&self.held).then(other.at.cmp(&self.at))
    }
}

impl PartialOrd for Least {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Least {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Least {}

/// Up to how much all may hold together, in MB, for a version to start one more on arrival, when there is no time to divide anew.
///
/// Busy instances cannot be taken back, so the last `headroom_mb` below the ceiling (at most a quarter of it) are kept for first
/// instances: a burst of one version never takes the place that another's first request needs. `held_mb`: what the version holds already.
pub fn growth_limit_mb(held_mb: u64, ceiling_mb: u64, headroom_mb: u64) -> u64 {
    // Never so much that a version could not have even one instance on a small machine.
    if held_mb == 0 { ceiling_mb } else { ceiling_mb.saturating_sub(headroom_mb.min(ceiling_mb / 4)) }
}

/// Who among those who wait gets memory that came free: who holds least for its weight; among equals, who waited longest.
/// `waiting`: of each, memory held in MB, weight, and since when it waits.
pub fn next_in_line(waiting: &[(u64, f64, u64)]) -> Option<usize> {
    let share = |(held, weight, _): &(u64, f64, u64)| *held as f64 / weight.max(0.001);
    let order = |a: &usize, b: &usize| {
        let (a, b) = (&waiting[*a], &waiting[*b]);
        share(a).total_cmp(&share(b)).then(a.2.cmp(&b.2))
    };
    (0..waiting.len()).min_by(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(tenant: u64, wanted: u32) -> Claim {
        Claim { tenant, weight: 1.0, memory_mb: 128, wanted, fixed: 0 }
    }

    #[test]
    fn a_burst_does_not_starve_a_first_request() {
        assert_eq!(divide(1280, &[claim(1, 1000), claim(1, 1)]), [9, 1]);
        assert_eq!(divide(1280, &[claim(1, 1000), claim(2, 3)]), [7, 3]);
        assert_eq!(divide(256, &[claim(1, 1000), claim(2, 1000), claim(3, 1000)]), [1, 1, 0]);
        assert_eq!(growth_limit_mb(1000, 1280, 256), 1024, "the burst stops before the headroom");
        assert_eq!(growth_limit_mb(0, 1280, 256), 1280, "a first instance may use it");
        assert_eq!(growth_limit_mb(1, 1280, 1000), 960, "it is a quarter at most");
    }

    #[test]
    fn tenants_come_before_versions_and_weights_count() {
        let many: Vec<Claim> = (0..9).map(|_| claim(1, 100)).chain([claim(2, 100)]).collect();
        let granted = divide(128 * 18, &many);
        assert_eq!(granted, [1, 1, 1, 1, 1, 1, 1, 1, 1, 9], "many functions do not make a larger share");
        let heavy = [Claim { weight: 3.0, ..claim(1, 100) }, claim(2, 100)];
        assert_eq!(divide(128 * 16, &heavy), [12, 4]);
        let held = [Claim { fixed: 10, ..claim(1, 20) }, claim(2, 20)];
        assert_eq!(divide(128 * 16, &held), [10, 6], "what is busy stays, and counts");
    }

    #[test]
    fn who_has_least_comes_first() {
        assert_eq!(next_in_line(&[(500, 1.0, 1), (0, 1.0, 9), (0, 1.0, 7)]), Some(2));
        assert_eq!(next_in_line(&[(500, 10.0, 1), (100, 1.0, 0)]), Some(0));
        assert_eq!(next_in_line(&[]), None);
    }

    proptest! {
        #[test]
        fn shares_are_within_the_total_and_fair(
            total in 0u64..20_000,
            claims in prop::collection::vec((0u64..4, 1u64..500, 0u32..30, 0u32..5), 0..12),
        ) {
            let claims: Vec<Claim> = claims.into_iter()
                .map(|(tenant, memory_mb, wanted, fixed)| Claim { tenant, weight: 1.0, memory_mb, wanted, fixed })
                .collect();
            let granted = divide(total, &claims);
            let sum = |f: &dyn Fn(usize) -> u32| -> u64 {
                (0..claims.len()).map(|i| u64::from(f(i)) * claims[i].memory_mb).sum()
            };
            let (held, fixed) = (sum(&|i| granted[i]), sum(&|i| claims[i].fixed));
            prop_assert!(held <= total.max(fixed));
            let free = total.saturating_sub(held);
            for (i, claim) in claims.iter().enumerate() {
                prop_assert!(granted[i] >= claim.fixed && granted[i] <= claim.wanted.max(claim.fixed));
                let hungry = granted[i] < claim.wanted;
                prop_assert!(!hungry || free < claim.memory_mb, "nothing that fits is left over");
                for (j, other) in claims.iter().enumerate() {
                    // Within a tenant: who was given more than the hungry one has, by more than an instance, had it before.
                    if hungry && other.tenant == claim.tenant && granted[j] > other.fixed {
                        let mine = u64::from(granted[i]) * claim.memory_mb;
                        let before = u64::from(granted[j] - 1) * other.memory_mb;
                        prop_assert!(before <= mine + claim.memory_mb.max(other.memory_mb) || free < claim.memory_mb);
                    }
                }
            }
        }

        #[test]
        fn equal_claims_differ_by_one_at_most(total in 0u64..5000, wanted in prop::collection::vec(1u32..40, 1..10)) {
            let claims: Vec<Claim> = wanted.iter().map(|w| Claim { memory_mb: 100, ..claim(1, *w) }).collect();
            let granted = divide(total, &claims);
            let most = granted.iter().max().copied().unwrap_or(0);
            for (granted, wanted) in granted.iter().zip(&wanted) {
                prop_assert!(granted == wanted || granted + 1 >= most);
            }
        }
    }
}
