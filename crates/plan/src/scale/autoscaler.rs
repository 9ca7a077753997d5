//! The wanted number of instances of one version.

use super::window::Window;
use std::collections::VecDeque;

/// Options of an autoscaler. The windows are those of Knative's autoscaler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleOptions {
    /// Requests that an instance takes at a time; 1 for event functions.
    pub concurrency: u32,
    /// Of these, the share that is aimed at, so that there is room for what comes next: above 0, up to 1.
    pub utilization: f64,
    /// Scale-in follows the average over this long, in milliseconds.
    pub stable_ms: u64,
    /// Scale-out follows the average over this long, in milliseconds.
    pub panic_ms: u64,
    /// When the short window wants so many times the instances there are, none is ended until a stable window has passed.
    pub panic_factor: f64,
    /// The highest wish of the last so many milliseconds holds before instances are ended.
    pub scale_in_delay_ms: u64,
    /// At each step at most one in so many of those too many goes, and at least one.
    pub scale_in_share: u32,
    /// Time between two such steps, in milliseconds.
    pub scale_in_step_ms: u64,
}

impl ScaleOptions {
    /// For an event function. The forecast's floor holds what is to stay longer.
    pub fn event() -> Self {
        Self { concurrency: 1, utilization: 1.0, ..Self::service(1) }
    }

    /// For a service whose instances take `concurrency` requests at a time.
    pub fn service(concurrency: u32) -> Self {
        Self {
            concurrency: concurrency.max(1),
            utilization: 0.7,
            stable_ms: 60_000,
            panic_ms: 6_000,
            panic_factor: 2.0,
            scale_in_delay_ms: 30_000,
            scale_in_share: 4,
            scale_in_step_ms: 1_000,
        }
    }

    /// Requests an instance should have on average. An instance that takes only one is full with one.
    fn target(&self) -> f64 {
        if self.concurrency <= 1 {
            1.0
        } else {
            (f64::from(self.concurrency) * self.utilization.clamp(0.01, 1.0)).max(1.0)
        }
    }
}

/// What is so now, over all gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests, streams and WebSockets that instances have.
    pub in_flight: u32,
    /// Requests that wait for an instance.
    pub waiting: u32,
    /// Instances that take requests.
    pub ready: u32,
    /// Instances under way.
    pub starting: u32,
    /// Of the ready ones, those without any request: only these can be ended at once.
    pub idle: u32,
}

/// Between which numbers the wish must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The function's own minimum.
    pub min: u32,
    /// Provisioned, whether ordered, scheduled or tracked.
    pub provisioned: u32,
    /// What the forecast wants to be warm.
    pub warm: u32,
    /// The function's own maximum, its reserved quota, and its share of what there is, whichever is lowest.
    pub max: u32,
}

/// Why the wish is what it is: the reason shown for starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Requests need them now.
    Demand,
    /// The average over the stable window.
    Stable,
    /// The average over the short window, or the most it wanted since the panic began.
    Panic,
    /// An earlier wish that still holds.
    Delay,
    /// Forecast to be needed.
    Forecast,
    /// Provisioned.
    Provisioned,
    /// The function's minimum.
    Minimum,
    /// No more are allowed.
    Ceiling,
}

/// The wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Instances, ready and starting.
    pub instances: u32,
    /// Of these, to start now.
    pub start: u32,
    /// Idle ones to end now; never more than are idle.
    pub end: u32,
    /// What decided.
    pub why: Why,
    /// In panic: nothing is ended.
    pub panic: bool,
}

/// Instances to start for requests that find no free place, on arrival: no tick and no window, for the request is here.
pub fn shortfall(live: &Live, concurrency: u32, max: u32) -> u32 {
    let all = u64::from(live.in_flight) + u64::from(live.waiting);
    let needed = all.div_ceil(u64::from(concurrency.max(1)));
    let there = u64::from(live.ready) + u64::from(live.starting);
    let start = needed.min(u64::from(max)).saturating_sub(there);
    u32::try_from(start).unwrap_or(u32::MAX)
}

/// The autoscaler of one version.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    options: ScaleOptions,
    stable: Window,
    panic: Window,
    panic_until_ms: Option<u64>,
    panic_peak: u32,
    /// Times and wishes, falling: the highest wish of the delay is in front.
    wishes: VecDeque<(u64, u32, Why)>,
    last_step_ms: Option<u64>,
}

impl Autoscaler {
    /// One that has seen nothing.
    pub fn new(options: ScaleOptions) -> Self {
        Self {
            options,
            stable: Window::new(options.stable_ms),
            panic: Window::new(options.panic_ms),
            panic_until_ms: None,
            panic_peak: 0,
            wishes: VecDeque::new(),
            last_step_ms: None,
        }
    }

    /// Notes how many requests there are (in flight and waiting), whenever that changes or is sampled.
    pub fn observe(&mut self, now_ms: u64, requests: u32) {
        self.stable.set(now_ms, f64::from(requests));
        self.panic.set(now_ms, f64::from(requests));
    }

    /// True while nothing is ended because demand rose steeply.
    pub fn in_panic(&self, now_ms: u64) -> bool {
        self.panic_until_ms.is_some_and(|until| now_ms < until)
    }

    /// Decides. May be called on arrivals and on ticks; ending instances needs ticks.
    pub fn decide(&mut self, now_ms: u64, live: &Live, bounds: &Bounds) -> Desired {
        self.observe(now_ms, live.in_flight.saturating_add(live.waiting));
        let there = live.ready.saturating_add(live.starting);
        let (wish, why) = self.wish(now_ms, live);
        let (held, held_why) = self.hold(now_ms, wish, why);
        let mut best = (held, held_why);
        for floor in [(bounds.warm, Why::Forecast), (bounds.provisioned, Why::Provisioned), (bounds.min, Why::Minimum)]
        {
            if floor.0 > best.0 {
                best = floor;
            }
        }
        if best.0 > bounds.max {
            best = (bounds.max, Why::Ceiling);
        }
        let (instances, why) = best;
        let panic = self.in_panic(now_ms);
        // What the ceiling forbids goes at once; what is merely not needed goes in steps, and not in panic.
        let over = there.saturating_sub(bounds.max.max(instances)).min(live.idle);
        let end = if over > 0 { over } else { self.step(now_ms, there.saturating_sub(instances), live.idle, panic) };
        Desired { instances, start: instances.saturating_sub(there), end, why, panic }
    }

    /// What demand asks for by itself.
    fn wish(&mut self, now_ms: u64, live: &Live) -> (u32, Why) {
        let now = u64::from(live.in_flight) + u64::from(live.waiting);
        let needed = u32::try_from(now.div_ceil(u64::from(self.options.concurrency.max(1)))).unwrap_or(u32::MAX);
        if self.options.concurrency <= 1 {
            // Averages of ones and noughts would ask for too few: a request of an event function needs its own instance.
            return (needed, Why::Demand);
        }
        let target = self.options.target();
        let stable = (self.stable.average(now_ms) / target).ceil() as u32;
        let short = (self.panic.average(now_ms) / target).ceil() as u32;
        // What is needed on arrival is there before the short window has noticed: both are signs of a steep rise.
        if f64::from(short.max(needed)) >= self.options.panic_factor * f64::from(live.ready.max(1)) {
            self.panic_until_ms = Some(now_ms.saturating_add(self.options.stable_ms));
        }
        self.panic_peak = if self.in_panic(now_ms) { self.panic_peak.max(short) } else { short };
        let mut best = (stable, Why::Stable);
        if self.panic_peak > best.0 {
            best = (self.panic_peak, Why::Panic);
        }
        if needed > best.0 { (needed, Why::Demand) } else { best }
    }

    /// The highest wish of the last while.
    fn hold(&mut self, now_ms: u64, wish: u32, why: Why) -> (u32, Why) {
        while self.wishes.back().is_some_and(|(_, earlier, _)| *earlier <= wish) {
            self.wishes.pop_back();
        }
        self.wishes.push_back((now_ms, wish, why));
        let delay = self.options.scale_in_delay_ms;
        while self.wishes.front().is_some_and(|(at, ..)| at.saturating_add(delay) < now_ms) {
            self.wishes.pop_front();
        }
        match self.wishes.front() {
            Some((_, held, _)) if *held > wish => (*held, Why::Delay),
            _ => (wish, why),
        }
    }

    fn step(&mut self, now_ms: u64, excess: u32, idle: u32, panic: bool) -> u32 {
        let early = self.last_step_ms.is_some_and(|last| now_ms < last.saturating_add(self.options.scale_in_step_ms));
        if excess == 0 || idle == 0 || panic || early {
            return 0;
        }
        self.last_step_ms = Some(now_ms);
        (excess / self.options.scale_in_share.max(1)).max(1).min(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FREE: Bounds = Bounds { min: 0, provisioned: 0, warm: 0, max: 1000 };

    fn busy(requests: u32, ready: u32, concurrency: u32) -> Live {
        let used = requests.div_ceil(concurrency).min(ready);
        let in_flight = requests.min(ready * concurrency);
        Live { in_flight, waiting: requests - in_flight, ready, starting: 0, idle: ready - used }
    }

    #[test]
    fn an_arrival_starts_what_is_missing_and_no_more() {
        let live = Live { in_flight: 3, waiting: 5, ready: 3, starting: 2, idle: 0 };
        assert_eq!(shortfall(&live, 1, 100), 3);
        assert_eq!(shortfall(&live, 1, 6), 1, "up to the maximum");
        assert_eq!(shortfall(&live, 4, 100), 0, "two would do for a service");
        assert_eq!(shortfall(&Live::default(), 1, 100), 0);
        assert_eq!(shortfall(&Live { waiting: u32::MAX, in_flight: u32::MAX, ..live }, 1, u32::MAX), u32::MAX - 5);
    }

    #[test]
    fn an_event_function_goes_up_at_once_and_down_in_steps_after_a_delay() {
        let mut scaler = Autoscaler::new(ScaleOptions::event());
        let desired = scaler.decide(0, &busy(40, 0, 1), &FREE);
        assert_eq!((desired.start, desired.why), (40, Why::Demand));
        let calm = Live { ready: 40, idle: 40, ..Live::default() };
        assert_eq!(scaler.decide(29_000, &calm, &FREE).end, 0, "not yet");
        let (mut ready, mut now, mut steps) = (40u32, 31_000, Vec::new());
        while ready > 0 && now < 120_000 {
            let live = Live { ready, idle: ready, ..Live::default() };
            let end = scaler.decide(now, &live, &FREE).end;
            assert!(end <= (ready / 4).max(1));
            ready -= end;
            steps.push(end);
            now += 1000;
        }
        assert_eq!(ready, 0, "{steps:?}");
        assert_eq!(&steps[..3], [10, 7, 5]);
    }

    #[test]
    fn a_service_panics_and_calms_down() {
        let mut scaler = Autoscaler::new(ScaleOptions::service(10));
        for second in 0..60 {
            scaler.decide(second * 1000, &busy(7, 1, 10), &FREE);
        }
        assert!(!scaler.in_panic(60_000));
        let mut ready = 1;
        for second in 60..70 {
            let desired = scaler.decide(second * 1000, &busy(140, ready, 10), &FREE);
            ready += desired.start;
            assert_eq!(desired.end, 0);
        }
        assert_eq!(ready, 20, "140 requests at seven an instance");
        assert!(scaler.in_panic(70_000));
        let mut lowest = ready;
        for second in 70..300 {
            let desired = scaler.decide(second * 1000, &busy(7, ready, 10), &FREE);
            if second < 120 {
                assert_eq!(desired.end, 0, "second {second}: a stable window after the last panic");
            }
            ready -= desired.end;
            lowest = lowest.min(ready);
        }
        assert_eq!((ready, lowest), (1, 1), "down to what is needed, not below");
    }

    #[test]
    fn floors_and_ceilings() {
        let mut scaler = Autoscaler::new(ScaleOptions::event());
        let floors = Bounds { min: 1, provisioned: 5, warm: 3, max: 1000 };
        let desired = scaler.decide(0, &Live::default(), &floors);
        assert_eq!((desired.start, desired.why), (5, Why::Provisioned));
        let desired = scaler.decide(1, &Live::default(), &Bounds { warm: 7, ..floors });
        assert_eq!((desired.start, desired.why), (7, Why::Forecast));
        let full = Live { in_flight: 6, waiting: 4, ready: 8, starting: 0, idle: 2 };
        let desired = scaler.decide(2, &full, &Bounds { max: 4, ..floors });
        assert_eq!(
            (desired.instances, desired.start, desired.end, desired.why),
            (4, 0, 2, Why::Ceiling),
            "busy ones stay"
        );
    }

    proptest! {
        #[test]
        fn busy_instances_are_never_ended_and_no_ceiling_is_passed(
            concurrency in 1u32..20, max in 0u32..40,
            load in prop::collection::vec((0u32..200, 1u64..20_000), 1..80),
        ) {
            let mut scaler = Autoscaler::new(ScaleOptions { concurrency, ..ScaleOptions::service(concurrency) });
            let (mut ready, mut now) = (0u32, 0);
            for (requests, pause) in load {
                now += pause;
                let live = busy(requests, ready, concurrency);
                let bounds = Bounds { min: 1, provisioned: 0, warm: 2, max };
                let desired = scaler.decide(now, &live, &bounds);
                prop_assert!(desired.end <= live.idle);
                prop_assert!(desired.start == 0 || desired.end == 0);
                prop_assert!(desired.instances <= max);
                prop_assert!(ready + desired.start <= max.max(ready));
                let needed = requests.div_ceil(concurrency);
                prop_assert!(desired.instances >= needed.min(max), "every request that may has a place");
                ready = ready + desired.start - desired.end;
            }
        }
    }
}
