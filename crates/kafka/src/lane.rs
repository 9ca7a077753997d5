//! A partition at work: one batch is handed over while the next one gathers, and never two at once.

use crate::consumer::{Shared, Watcher};
use crate::event::{Builder, Record};
use crate::{Batch, Ended, Tried};
use mayfly_base::Backoff;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::message::{Headers as _, Message as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages taken in one go before others get a turn of the thread.
const TURN: u32 = 512;
/// A queue that was empty is looked at after this long even if nobody said that it is not.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pauses before a batch is handed over again.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30) };

/// What a look at the queue found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing more for the moment.
    Dry,
    /// There may be more.
    More,
}

/// A partition that this member has.
pub(crate) struct Lane {
    pub shared: Arc<Shared>,
    pub partition: i32,
    pub epoch: u64,
    pub queue: PartitionQueue<Watcher>,
    /// Rung when the queue is not empty any more.
    pub rung: Arc<Notify>,
    /// Nothing new begins: what runs may end.
    pub stop: CancellationToken,
    /// What runs is cut off.
    pub cut: CancellationToken,
    /// What is gathered ahead, in bytes, before it is its turn.
    pub ahead_bytes: usize,
}

impl Lane {
    /// Hands over what the partition brings until it is told to stop.
    pub async fn run(self) {
        let settings = &self.shared.settings;
        let mut builder = Builder::new(&settings.topic, self.partition, settings.messages_max, settings.bytes_max);
        while self.gather(&mut builder).await {
            let Some(permit) = self.seat().await else { return };
            // There is a seat: it may be filled to the brim, with what is there.
            while !builder.is_full() && self.take(&mut builder) == Found::More {}
            let Some(batch) = builder.seal() else { continue };
            self.shared.progress.lock().begun(self.partition, self.epoch, batch.oldest_ms);
            let handing = self.hand_over(&batch, permit);
            tokio::pin!(handing);
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = &mut handing => break ended,
                    () = self.more(&mut builder), if self.has_room(&builder) => {}
                }
            };
            if !ended {
                return;
            }
            self.shared.progress.lock().done(self.partition, self.epoch, batch.next);
            self.shared.commit();
        }
    }

    fn has_room(&self, builder: &Builder) -> bool {
        !builder.is_full() && builder.bytes() < self.ahead_bytes
    }

    /// Gathers until the batch is full or has waited long enough. False: told to stop.
    async fn gather(&self, builder: &mut Builder) -> bool {
        loop {
            if self.stop.is_cancelled() {
                return false;
            }
            if !self.has_room(builder) {
                return true;
            }
            let found = self.take(builder);
            let due = builder.began().map(|began| began + self.shared.settings.wait);
            match (found, due) {
                (Found::More, _) => tokio::task::yield_now().await,
                (Found::Dry, Some(due)) if due <= Instant::now() => return true,
                (Found::Dry, due) => tokio::select! {
                    () = self.stop.cancelled() => return false,
                    () = self.rung.notified() => {}
                    () = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN)) => {}
                },
            }
        }
    }

    /// Gathers a little, or waits until there is something.
    async fn more(&self, builder: &mut Builder) {
        match self.take(builder) {
            Found::More => tokio::task::yield_now().await,
            Found::Dry => {
                tokio::select! {
                    () = self.rung.notified() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        }
    }

    /// Takes messages off the queue, as many as there are and fit, and not for long.
    fn take(&self, builder: &mut Builder) -> Found {
        for _ in 0..TURN {
            if builder.is_full() {
                return Found::More;
            }
            match self.queue.poll(Duration::ZERO) {
                None => return Found::Dry,
                Some(Ok(message)) => {
                    let headers = message.headers().map(|all| all.iter().map(|h| (h.key, h.value)).collect());
                    builder.push(&Record {
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis().and_then(|ms| ms.try_into().ok()).unwrap_or(0),
                        key: message.key(),
                        body: message.payload(),
                        headers: headers.unwrap_or_default(),
                    });
                }
                Some(Err(error)) => self.shared.trouble(&format!("partition {}: {error}", self.partition)),
            }
        }
        Found::More
    }

    /// One of the batches that may be handed over at once. `None`: told to stop.
    async fn seat(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            permit = Arc::clone(&self.shared.seats).acquire_owned() => permit.ok(),
        }
    }

    /// Hands a batch over, as often as it takes. False: told to stop before it had ended.
    async fn hand_over(&self, batch: &Batch, permit: OwnedSemaphorePermit) -> bool {
        let (mut tried, mut permit) = (Tried::default(), Some(permit));
        loop {
            let Some(seat) = (match permit.take() {
                Some(permit) => Some(permit),
                None => self.seat().await,
            }) else {
                return false;
            };
            let last = tried.run_errors >= self.shared.settings.retries;
            let ended = tokio::select! {
                biased;
                () = self.cut.cancelled() => return false,
                ended = self.shared.handler.hand(batch, tried, last) => ended,
            };
            // Others are let in while this one waits.
            drop(seat);
            let Batch { topic, partition, first, next, .. } = batch;
            let nth = match ended {
                Ended::Done => return true,
                Ended::GivenUp(why) => {
                    tracing::debug!(topic, partition, first, next, why, "messages are given up");
                    return true;
                }
                Ended::Failed(why) => {
                    tracing::debug!(topic, partition, first, next, why, "a function failed on messages");
                    tried.run_errors += 1;
                    tried.run_errors
                }
                Ended::Later(why) => {
                    tracing::debug!(topic, partition, first, next, why, "messages wait");
                    tried.turned_away = tried.turned_away.saturating_add(1);
                    tried.turned_away
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = pause(nth - 1) => {}
            }
        }
    }
}

/// Waits after the so-and-so-many-th failure, from 0.
async fn pause(nth: u32) {
    let mut random = [0; 8];
    // Without randomness they come back together, which is no reason to fail.
    let _ = getrandom::fill(&mut random);
    tokio::time::sleep(BACKOFF.delay(nth, u64::from_le_bytes(random)).max(Duration::from_millis(10))).await;
}
