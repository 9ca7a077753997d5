use super::*;
use crate::forecast::DAY;
use proptest::prelude::*;

fn function(policy: Policy) -> Function {
    Function { memory_mb: 128.0, parked_mb: 4.0, policy }
}

/// Plays the demand of some functions, all under one policy, and returns what was planned in each minute.
fn play(policy: Policy, demand: &[Vec<u32>]) -> (Vec<Vec<u32>>, Accuracy) {
    let mut fleet = Fleet::new(FleetOptions::default());
    let ids: Vec<FunctionId> = demand.iter().map(|_| fleet.add(function(policy)).expect("valid")).collect();
    let mut plans = Vec::new();
    for minute in 0..demand.first().map_or(0, Vec::len) {
        plans.push(fleet.plan(minute as u64).iter().map(|t| t.warm).collect());
        let needed: Vec<_> = ids.iter().zip(demand).map(|(id, d)| (*id, d[minute])).collect();
        fleet.close(&needed).expect("all are there");
    }
    (plans, fleet.totals().accuracy)
}

#[test]
fn a_fixed_keep_alive_holds_the_highest_demand_of_its_minutes() {
    let demand = vec![vec![1, 0, 0, 2, 0, 0, 0, 1]];
    let (plans, sums) = play(Policy::KeepAlive { minutes: 2 }, &demand);
    assert_eq!(plans.concat(), [0, 1, 1, 0, 2, 2, 0, 0]);
    assert_eq!((sums.hits, sums.idle, sums.misses, sums.starts_ahead), (0, 6, 4, 0));
    let minute = 128.0 / 1024.0 * 60.0;
    assert_eq!((sums.used_gb_seconds, sums.idle_gb_seconds), (4.0 * minute, 6.0 * minute));
    let (plans, sums) = play("off".parse().expect("a policy"), &demand);
    assert_eq!((plans.concat().iter().sum::<u32>(), sums.misses), (0, 4));
}

#[test]
fn a_timer_is_foreseen_to_the_minute_and_nothing_is_held_between() {
    // A busy neighbour and a rare one earn the budget: alone, a timer slower than the keep-alive has hardly any.
    let timer: Vec<u32> = (0..3 * DAY).map(|m| u32::from(m % 30 == 7)).collect();
    let rare: Vec<u32> = (0..3 * DAY).map(|m| u32::from(m % 997 == 500)).collect();
    let (plans, _) = play(Policy::CONSERVATIVE, &[timer.clone(), rare]);
    let last = (2 * DAY) as usize..(3 * DAY) as usize;
    let missed = last.clone().filter(|m| timer[*m] > plans[*m][0]).count();
    let idle = last.clone().filter(|m| timer[*m] < plans[*m][0]).count();
    assert!(missed <= 1 && idle <= 100, "missed {missed} of 48, idle {idle} of 1,392");
}

#[test]
fn a_daily_job_is_foreseen() {
    let days = 6;
    let demand: Vec<u32> = (0..days * DAY).map(|m| u32::from(m % DAY == 555)).collect();
    let (plans, _) = play(Policy::EAGER, &[demand]);
    let at = ((days - 1) * DAY + 555) as usize;
    assert_eq!(plans[at][0], 1, "on the sixth day");
    let night = plans[at + 60..at + 600].iter().filter(|p| p[0] > 0).count();
    assert!(night < 60, "and not held through the night: {night} of 540 minutes");
}

#[test]
fn parked_functions_are_charged_for_it() {
    let (_, sums) = play(Policy::PARKED, &[vec![0; 100], vec![1; 100]]);
    assert_eq!(sums.parked_gb_seconds, 2.0 * 100.0 * 4.0 / 1024.0 * 60.0);
}

#[test]
fn bad_numbers_and_unknown_functions_are_refused() {
    let mut fleet = Fleet::new(FleetOptions { functions_max: 1, ..FleetOptions::default() });
    for memory_mb in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(fleet.add(Function { memory_mb, ..function(Policy::EAGER) }).is_err(), "{memory_mb}");
    }
    assert!(fleet.add(Function { parked_mb: f64::NAN, ..function(Policy::EAGER) }).is_err());
    assert!(fleet.add(function(Policy::Forecast { budget: f64::NAN, parked: false })).is_err());
    let id = fleet.add(function(Policy::EAGER)).expect("valid");
    assert_eq!(fleet.add(function(Policy::EAGER)), Err(FleetError::TooMany { max: 1 }));
    fleet.plan(0);
    fleet.close(&[(id, 3)]).expect("known");
    assert_eq!(fleet.accuracy(id).map(|a| a.misses), Ok(3));
    fleet.change(id, function(Policy::KeepAlive { minutes: 3 })).expect("valid");
    assert_eq!(fleet.plan(1)[0].warm, 0, "a keep-alive that is set later begins then");
    fleet.close(&[(id, 2)]).expect("known");
    assert_eq!(fleet.plan(2)[0].warm, 2);
    fleet.remove(id).expect("known");
    assert_eq!(fleet.remove(id), Err(FleetError::NoFunction));
    assert_eq!(fleet.plan(3), []);
    assert!(fleet.close(&[(FunctionId(7), 1)]).is_err());
    let again = fleet.add(function(Policy::EAGER)).expect("there is room again");
    assert_eq!(fleet.accuracy(again), Ok(Accuracy::default()), "with nothing of the one before");
}

#[test]
fn unwatched_minutes_and_clocks_that_go_back_do_no_harm() {
    let mut fleet = Fleet::new(FleetOptions::default());
    let id = fleet.add(function(Policy::KeepAlive { minutes: 10 })).expect("valid");
    fleet.plan(100);
    fleet.close(&[(id, 4)]).expect("known");
    assert_eq!(fleet.plan(50)[0].warm, 4, "planned as minute 101");
    fleet.close(&[]).expect("nothing needed");
    assert_eq!(fleet.plan(109)[0].warm, 4);
    assert_eq!(fleet.plan(111)[0].warm, 0);
    assert_eq!(fleet.plan(u64::MAX / 2)[0].warm, 0, "a very long pause");
    fleet.close(&[(id, u32::MAX)]).expect("known");
    assert_eq!(fleet.close(&[(id, 1)]), Ok(()), "closing twice is nothing");
}

fn workload() -> impl Strategy<Value = Vec<Vec<u32>>> {
    // Runs of equal demand, so that there is something to learn.
    let series = prop::collection::vec((0u32..4, 1usize..30), 20..40).prop_map(|runs| {
        let mut demand: Vec<u32> =
            runs.into_iter().flat_map(|(level, run)| vec![level.saturating_sub(1); run]).collect();
        demand.resize(240, 0);
        demand
    });
    prop::collection::vec(series, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_comes_later_changes_no_earlier_decision(demand in workload(), cut in 1usize..239) {
        for policy in [Policy::CONSERVATIVE, Policy::EAGER, Policy::PARKED, Policy::KeepAlive { minutes: 10 }] {
            let (whole, _) = play(policy, &demand);
            let mut other = demand.clone();
            other.iter_mut().for_each(|d| d[cut..].fill(7));
            let (changed, _) = play(policy, &other);
            // The plan for the minute of the cut is made before that minute is seen.
            prop_assert_eq!(&whole[..=cut], &changed[..=cut]);
        }
    }

    #[test]
    fn the_budget_is_never_passed(demand in workload()) {
        let (_, baseline) = play(Policy::KeepAlive { minutes: Policy::BASELINE_MINUTES }, &demand);
        for (policy, budget) in [(Policy::CONSERVATIVE, 1.0), (Policy::EAGER, 1.15)] {
            let (_, sums) = play(policy, &demand);
            prop_assert!(sums.held_gb_seconds() >= sums.used_gb_seconds);
            prop_assert!(sums.held_gb_seconds() <= budget * baseline.held_gb_seconds() + 1e-6,
                "{} of {}", sums.held_gb_seconds(), baseline.held_gb_seconds());
            prop_assert_eq!(sums.hits + sums.misses, baseline.hits + baseline.misses, "the demand is the same");
        }
    }

    #[test]
    fn a_longer_keep_alive_is_never_colder(demand in workload(), minutes in 0u32..30, more in 0u32..30) {
        let (_, short) = play(Policy::KeepAlive { minutes }, &demand);
        let (_, long) = play(Policy::KeepAlive { minutes: minutes + more }, &demand);
        prop_assert!(long.misses <= short.misses && long.held_gb_seconds() >= short.held_gb_seconds());
    }
}
