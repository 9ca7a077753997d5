//! The contract over both sorts of triggers, what is a timer's alone, and the engine.

use async_trait::async_trait;
use mayfly_base::{Clock, Shutdown, TestClock};
use mayfly_model::{CkafkaDesc, CmqDesc, TimerDesc, TriggerConfig, TriggerDesc, TriggerKind};
use mayfly_store::MemoryMeta;
use mayfly_triggers::contract::{FakeDoor, Mood, Rig};
use mayfly_triggers::source::FromSource;
use mayfly_triggers::timer::{CATCH_UP_MS, Timer};
use mayfly_triggers::{
    Binding, Counts, Cursors, Door, Engine, Item, Lag, Maker, Parts, Source, Trigger, TriggerError, trigger_contract,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A Monday, on the hour.
const BEGIN_MS: u64 = 1_772_438_400_000;
const MINUTE_MS: u64 = 60_000;

fn binding(id: &str, desc: TriggerDesc) -> Binding {
    let config = TriggerConfig {
        id: id.into(),
        name: "t".into(),
        desc,
        qualifier: "$LATEST".into(),
        enabled: true,
        argument: "message".into(),
        description: String::new(),
        add_time_ms: BEGIN_MS,
        mod_time_ms: BEGIN_MS,
    };
    Binding { namespace: "default".into(), function: "f".into(), config: Arc::new(config) }
}

fn minutely() -> TimerDesc {
    TimerDesc { cron: "0 * * * * * *".into(), time_zone: "UTC".into() }
}

struct TimerRig {
    clock: Arc<TestClock>,
    store: MemoryMeta,
    counts: Arc<Counts>,
    desc: TimerDesc,
    now_ms: u64,
}

impl TimerRig {
    fn new() -> Self {
        Self {
            clock: Arc::new(TestClock::new(BEGIN_MS)),
            store: MemoryMeta::new(),
            counts: Arc::default(),
            desc: minutely(),
            now_ms: BEGIN_MS,
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.clock.set(self.now_ms);
    }
}

#[async_trait]
impl Rig for TimerRig {
    async fn start(&mut self, door: Arc<dyn Door>) -> Arc<dyn Trigger> {
        let cursors = Arc::new(Cursors::open(Arc::new(self.store.clone())).await.unwrap());
        let binding = binding("timer", TriggerDesc::Timer(self.desc.clone()));
        let clock = Arc::clone(&self.clock) as _;
        Arc::new(Timer::new(binding, &self.desc, door, cursors, clock, Arc::clone(&self.counts)).unwrap())
    }

    async fn happen(&mut self, events: usize) {
        self.pass(events as u64 * MINUTE_MS);
    }
}

/// A source in memory.
#[derive(Default)]
struct Kept {
    items: Mutex<Vec<Item>>,
    bound: Mutex<Vec<String>>,
    news: Notify,
}

#[async_trait]
impl Source for Kept {
    fn bind(&self, triggers: &[Binding]) {
        *self.bound.lock() = triggers.iter().map(|b| b.id().to_owned()).collect();
    }

    async fn next(&self, _trigger: &Binding, limit: usize) -> Result<Vec<Item>, TriggerError> {
        loop {
            let news = self.news.notified();
            let found: Vec<_> = self.items.lock().iter().take(limit).cloned().collect();
            if !found.is_empty() {
                return Ok(found);
            }
            news.await;
        }
    }

    async fn ack(&self, _trigger: &Binding, positions: &[String]) -> Result<(), TriggerError> {
        self.items.lock().retain(|item| !positions.contains(&item.position));
        Ok(())
    }

    fn lag(&self, _trigger: &Binding) -> Lag {
        Lag { events: self.items.lock().len() as u64, oldest_ms: 0 }
    }
}

#[derive(Default)]
struct SourceRig {
    source: Arc<Kept>,
    happened: usize,
}

#[async_trait]
impl Rig for SourceRig {
    async fn start(&mut self, door: Arc<dyn Door>) -> Arc<dyn Trigger> {
        let source = Arc::clone(&self.source) as _;
        Arc::new(FromSource::new(binding("s", TriggerDesc::Cmq(CmqDesc::default())), source, door, Arc::default()))
    }

    async fn happen(&mut self, events: usize) {
        for n in self.happened..self.happened + events {
            self.source.items.lock().push(Item { position: n.to_string(), event: format!("{{\"n\":{n}}}") });
        }
        self.happened += events;
        self.source.news.notify_waiters();
        self.source.news.notify_one();
    }
}

async fn source_rig() -> SourceRig {
    SourceRig::default()
}

trigger_contract!(of_a_source, source_rig);

/// The contract of a timer: with Tokio's time paused, so that a nap is over at once.
mod of_a_timer {
    use super::TimerRig;
    use mayfly_triggers::contract;

    #[tokio::test(start_paused = true)]
    async fn every_event_arrives() {
        contract::every_event_arrives(TimerRig::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_loses_nothing() {
        contract::a_full_door_loses_nothing(TimerRig::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_loses_nothing() {
        contract::a_kill_loses_nothing(TimerRig::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_taken_blocks_nothing() {
        contract::what_is_never_taken_blocks_nothing(TimerRig::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops() {
        contract::it_stops(TimerRig::new()).await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(600), waiting).await.is_ok(), "never: {what}");
}

fn times(door: &FakeDoor) -> Vec<String> {
    let event = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let mut times: Vec<_> = door.taken().iter().map(|e| event(&e.event)["Time"].as_str().unwrap().to_owned()).collect();
    times.sort();
    times
}

#[tokio::test(start_paused = true)]
async fn each_tick_has_its_own_time_however_late_it_is() {
    let mut rig = TimerRig::new();
    let door = FakeDoor::new(Mood::Open);
    rig.pass(3 * MINUTE_MS + 20_000);
    let trigger = rig.start(Arc::new(door.clone())).await;
    assert_eq!((trigger.lag().events, trigger.lag().oldest_ms), (3, 2 * MINUTE_MS + 20_000));
    let stop = Shutdown::new();
    let own = stop.clone();
    let task = tokio::spawn(async move { trigger.run(&own).await });
    until("all are there", || door.taken().len() == 3).await;
    assert_eq!(times(&door), ["2026-03-02T08:01:00Z", "2026-03-02T08:02:00Z", "2026-03-02T08:03:00Z"]);
    let event: serde_json::Value = serde_json::from_str(&door.taken()[0].event).unwrap();
    assert_eq!(
        (&event["Type"], &event["TriggerName"], &event["Message"]),
        (&"Timer".into(), &"t".into(), &"message".into())
    );
    stop.trigger();
    task.await.unwrap().unwrap();

    // Down for two hours: the last hour is made up for, what is older is counted.
    rig.pass(2 * CATCH_UP_MS);
    let trigger = rig.start(Arc::new(door.clone())).await;
    let stop = Shutdown::new();
    let own = stop.clone();
    let task = tokio::spawn(async move { trigger.run(&own).await });
    until("an hour is made up for", || door.taken().len() >= 3 + 60).await;
    assert!(rig.counts.missed() >= 59, "{}", rig.counts.missed());
    stop.trigger();
    task.await.unwrap().unwrap();
    assert_eq!(door.taken().len() as u64 + rig.counts.missed(), 3 + 120, "each tick was run or counted");
}

#[tokio::test(start_paused = true)]
async fn a_new_schedule_begins_when_it_was_given() {
    let mut rig = TimerRig::new();
    let door = FakeDoor::new(Mood::Open);
    let trigger = rig.start(Arc::new(door.clone())).await;
    rig.pass(MINUTE_MS);
    let (stop, running) = (Shutdown::new(), Arc::clone(&trigger));
    let own = stop.clone();
    let task = tokio::spawn(async move { running.run(&own).await });
    until("one tick", || door.taken().len() == 1).await;
    stop.trigger();
    task.await.unwrap().unwrap();
    // Its cursor is of another schedule: the time of the change counts, which is before the cursor here.
    rig.desc.cron = "30 * * * * * *".into();
    let trigger = rig.start(Arc::new(door.clone())).await;
    assert_eq!(trigger.lag(), Lag::default(), "08:00:30 was before the cursor, and is not made up for");
    rig.pass(30_000);
    assert_eq!(trigger.lag().events, 1);
}

/// Makes triggers that count one event each, and remembers what it was told.
#[derive(Default)]
struct OwnWay {
    told: Mutex<Vec<String>>,
    stopped: Arc<Mutex<usize>>,
}

struct Once(Arc<Counts>, Arc<Mutex<usize>>);

#[async_trait]
impl Trigger for Once {
    async fn run(&self, stop: &Shutdown) -> Result<(), TriggerError> {
        self.0.add_handed(1);
        stop.triggered().await;
        *self.1.lock() += 1;
        Ok(())
    }

    fn lag(&self) -> Lag {
        Lag { events: 7, oldest_ms: 0 }
    }
}

impl Maker for OwnWay {
    fn bind(&self, triggers: &[Binding]) {
        *self.told.lock() = triggers.iter().map(|t| t.id().to_owned()).collect();
    }

    fn make(&self, binding: &Binding, counts: &Arc<Counts>) -> Result<Arc<dyn Trigger>, TriggerError> {
        match binding.id() {
            "broken" => Err(TriggerError("it cannot be made".into())),
            _ => Ok(Arc::new(Once(Arc::clone(counts), Arc::clone(&self.stopped)))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn kinds_that_go_their_own_way_are_made_by_their_maker() {
    let maker = Arc::new(OwnWay::default());
    let engine = Arc::new(Engine::new(Parts {
        door: Arc::new(FakeDoor::new(Mood::Open)),
        cursors: Arc::new(Cursors::open(Arc::new(MemoryMeta::new())).await.unwrap()),
        clock: Arc::new(TestClock::new(BEGIN_MS)),
        sources: HashMap::new(),
        makers: HashMap::from([(TriggerKind::Ckafka, Arc::clone(&maker) as Arc<dyn Maker>)]),
    }));
    let kafka = |id, enabled| {
        let binding = binding(id, TriggerDesc::Ckafka(CkafkaDesc::default()));
        let config = TriggerConfig { enabled, ..TriggerConfig::clone(&binding.config) };
        Binding { config: Arc::new(config), ..binding }
    };
    engine.set(|| vec![kafka("open", true), kafka("closed", false), kafka("broken", true)]);
    assert_eq!(*maker.told.lock(), ["open", "closed", "broken"], "closed ones too");
    let stop = Shutdown::new();
    let (running, own) = (Arc::clone(&engine), stop.clone());
    let task = tokio::spawn(async move { running.run(own).await });
    until("it runs", || engine.counts().handed() == 1).await;
    assert_eq!(engine.lags().iter().map(|(_, lag)| lag.events).collect::<Vec<_>>(), [7]);
    engine.set(|| vec![kafka("open", false)]);
    until("it is told to stop", || *maker.stopped.lock() == 1).await;
    stop.trigger();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_engine_follows_the_catalogue() {
    let clock = Arc::new(TestClock::new(BEGIN_MS));
    let door = FakeDoor::new(Mood::Open);
    let source = Arc::new(Kept::default());
    let store = MemoryMeta::new();
    let cursors = Arc::new(Cursors::open(Arc::new(store.clone())).await.unwrap());
    let engine = Arc::new(Engine::new(Parts {
        door: Arc::new(door.clone()),
        cursors: Arc::clone(&cursors),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        sources: HashMap::from([(TriggerKind::Cmq, Arc::clone(&source) as Arc<dyn Source>)]),
        makers: HashMap::new(),
    }));
    let timer = binding("timer", TriggerDesc::Timer(minutely()));
    let topic = binding("topic", TriggerDesc::Cmq(CmqDesc::default()));
    engine.set(|| vec![timer.clone(), topic.clone()]);
    assert_eq!(*source.bound.lock(), ["topic"], "the source knows at once");
    let stop = Shutdown::new();
    let (running, own) = (Arc::clone(&engine), stop.clone());
    let task = tokio::spawn(async move { running.run(own).await });
    until("both run", || engine.lags().len() == 2).await;
    clock.set(BEGIN_MS + MINUTE_MS);
    until("the timer fires", || door.taken().len() == 1).await;
    source.items.lock().push(Item { position: "1".into(), event: "{}".into() });
    source.news.notify_one();
    until("the topic's message comes", || door.taken().len() == 2).await;
    until("its cursor is there", || cursors.get("timer").is_some()).await;

    // Closed, and opened two minutes later: what it missed meanwhile is not wanted.
    let changed = |enabled: bool, mod_time_ms: u64| {
        let config = TriggerConfig { enabled, mod_time_ms, ..TriggerConfig::clone(&timer.config) };
        Binding { config: Arc::new(config), ..timer.clone() }
    };
    engine.set(|| vec![changed(false, BEGIN_MS + MINUTE_MS), topic.clone()]);
    until("it does not run", || engine.lags().len() == 1 && cursors.get("timer").is_none()).await;
    clock.set(BEGIN_MS + 3 * MINUTE_MS + 1);
    engine.set(|| vec![changed(true, BEGIN_MS + 3 * MINUTE_MS + 1), topic.clone()]);
    until("it runs", || engine.lags().len() == 2).await;
    clock.set(BEGIN_MS + 4 * MINUTE_MS);
    until("it fires again", || door.taken().len() == 3).await;
    engine.set(Vec::new);
    until("nothing runs", || engine.lags().is_empty()).await;
    assert!(source.bound.lock().is_empty());
    assert_eq!((engine.counts().handed(), engine.counts().dropped()), (3, 0));
    stop.trigger();
    task.await.unwrap();
}
