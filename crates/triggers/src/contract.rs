//! What every trigger keeps to, as tests: [`trigger_contract!`](crate::trigger_contract) runs them over a [`Rig`].

use crate::{Door, Handed, Refusal, Trigger};
use async_trait::async_trait;
use mayfly_base::Shutdown;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// One kind of trigger, with a binding of its own, over state that outlives it.
#[async_trait]
pub trait Rig: Send {
    /// The trigger, over the state that there is: as after a start of the process.
    async fn start(&mut self, door: Arc<dyn Door>) -> Arc<dyn Trigger>;

    /// Lets so many more events happen.
    async fn happen(&mut self, events: usize);
}

/// How the door behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    Open,
    /// It takes nothing for the moment.
    Full,
    /// It does not answer.
    Hangs,
    /// It will never take the first event it sees, and takes the others.
    Picky,
}

#[derive(Debug)]
struct Seen {
    mood: Mood,
    /// Events taken in, and how often.
    taken: BTreeMap<u128, (Handed, usize)>,
    /// Events that were offered.
    offered: HashSet<u128>,
    refused: Option<u128>,
}

/// A door that remembers.
#[derive(Clone, Debug)]
pub struct FakeDoor(Arc<Mutex<Seen>>);

impl FakeDoor {
    /// A door in a mood.
    pub fn new(mood: Mood) -> Self {
        Self(Arc::new(Mutex::new(Seen { mood, taken: BTreeMap::new(), offered: HashSet::new(), refused: None })))
    }

    fn set(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    /// The events that were taken in.
    pub fn taken(&self) -> Vec<Handed> {
        self.0.lock().taken.values().map(|(event, _)| event.clone()).collect()
    }

    fn offered(&self) -> HashSet<u128> {
        self.0.lock().offered.clone()
    }
}

#[async_trait]
impl Door for FakeDoor {
    async fn hand(&self, event: Handed) -> Result<(), Refusal> {
        let mood = {
            let mut seen = self.0.lock();
            seen.offered.insert(event.id.0);
            if seen.mood == Mood::Picky && seen.refused.is_none() {
                seen.refused = Some(event.id.0);
            }
            if seen.mood == Mood::Picky && seen.refused == Some(event.id.0) {
                return Err(Refusal::Never("not this one".into()));
            }
            seen.mood
        };
        match mood {
            Mood::Full => Err(Refusal::Later("full".into())),
            Mood::Hangs => std::future::pending().await,
            Mood::Open | Mood::Picky => {
                let mut seen = self.0.lock();
                seen.taken.entry(event.id.0).or_insert((event, 0)).1 += 1;
                Ok(())
            }
        }
    }
}

/// A trigger at work.
struct Work {
    trigger: Arc<dyn Trigger>,
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Work {
    async fn start(rig: &mut impl Rig, door: &FakeDoor) -> Self {
        let trigger = rig.start(Arc::new(door.clone())).await;
        let (running, stop) = (Arc::clone(&trigger), Shutdown::new());
        let own = stop.clone();
        let task =
            tokio::spawn(async move { running.run(&own).await.expect("the trigger runs until it is told to stop") });
        Self { trigger, stop, task }
    }

    async fn stop(self) {
        self.stop.trigger();
        tokio::time::timeout(PATIENCE, self.task).await.expect("a trigger stops when it is told to").expect("in order");
    }

    /// As `kill -9` does: at no moment of its choice.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// Every event arrives, once while nothing goes wrong, and nothing waits afterwards.
pub async fn every_event_arrives(mut rig: impl Rig) {
    let door = FakeDoor::new(Mood::Open);
    rig.happen(3).await;
    let work = Work::start(&mut rig, &door).await;
    until("what happened before arrives", || door.taken().len() == 3).await;
    rig.happen(4).await;
    until("what happens now arrives", || door.taken().len() == 7).await;
    until("nothing waits", || work.trigger.lag().events == 0).await;
    assert!(door.0.lock().taken.values().all(|(_, times)| *times == 1), "nothing arrives twice");
    work.stop().await;
    let work = Work::start(&mut rig, &door).await;
    rig.happen(1).await;
    until("the next one arrives after a restart", || door.taken().len() == 8).await;
    assert_eq!(door.offered().len(), 8, "nothing else comes");
    work.stop().await;
}

/// Nothing is let go before it is in safe hands.
pub async fn a_full_door_loses_nothing(mut rig: impl Rig) {
    let door = FakeDoor::new(Mood::Full);
    let work = Work::start(&mut rig, &door).await;
    rig.happen(3).await;
    until("it is tried", || !door.offered().is_empty()).await;
    assert!(work.trigger.lag().events >= 1 && door.taken().is_empty());
    work.stop().await;
    let work = Work::start(&mut rig, &door).await;
    until("it is tried again", || !door.offered().is_empty()).await;
    door.set(Mood::Open);
    until("everything arrives", || door.taken().len() == 3).await;
    until("nothing waits", || work.trigger.lag().events == 0).await;
    work.stop().await;
}

/// What was cut off while it was handed in comes again, under the same id, and says that it may be known.
pub async fn a_kill_loses_nothing(mut rig: impl Rig) {
    let door = FakeDoor::new(Mood::Hangs);
    let work = Work::start(&mut rig, &door).await;
    rig.happen(3).await;
    until("it is being handed in", || !door.offered().is_empty()).await;
    let offered = door.offered();
    work.kill().await;
    door.set(Mood::Open);
    let work = Work::start(&mut rig, &door).await;
    until("everything arrives", || door.taken().len() == 3).await;
    let taken = door.taken();
    for id in offered {
        let event = taken.iter().find(|event| event.id.0 == id).expect("under the same id");
        assert!(event.maybe_again, "it is marked as one that may be known");
    }
    work.stop().await;
}

/// An event that nobody will ever take holds up no other.
pub async fn what_is_never_taken_blocks_nothing(mut rig: impl Rig) {
    let door = FakeDoor::new(Mood::Picky);
    let work = Work::start(&mut rig, &door).await;
    rig.happen(3).await;
    until("the others arrive", || door.taken().len() == 2).await;
    until("nothing waits", || work.trigger.lag().events == 0).await;
    work.stop().await;
}

/// It stops when it is told to, whatever the door does.
pub async fn it_stops(mut rig: impl Rig) {
    for mood in [Mood::Open, Mood::Full, Mood::Hangs] {
        let door = FakeDoor::new(mood);
        let work = Work::start(&mut rig, &door).await;
        rig.happen(1).await;
        until("it is offered", || !door.offered().is_empty()).await;
        work.stop().await;
    }
}

/// Runs the contract over a kind of trigger: `trigger_contract!(name, make)`, with `async fn make() -> impl Rig`, in a module of its own.
#[macro_export]
macro_rules! trigger_contract {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the path may be a local function")]
            use super::*;

            #[tokio::test]
            async fn every_event_arrives() {
                $crate::contract::every_event_arrives($make().await).await;
            }

            #[tokio::test]
            async fn a_full_door_loses_nothing() {
                $crate::contract::a_full_door_loses_nothing($make().await).await;
            }

            #[tokio::test]
            async fn a_kill_loses_nothing() {
                $crate::contract::a_kill_loses_nothing($make().await).await;
            }

            #[tokio::test]
            async fn what_is_never_taken_blocks_nothing() {
                $crate::contract::what_is_never_taken_blocks_nothing($make().await).await;
            }

            #[tokio::test]
            async fn it_stops() {
                $crate::contract::it_stops($make().await).await;
            }
        }
    };
}
