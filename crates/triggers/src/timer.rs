//! Timers: an event for each time of a schedule.
//!
//! Each time ("tick") has its own event id, and the cursor is the last tick that was handed in. After a restart a timer goes on behind its
//! cursor: ticks that fell into the time when the platform was down are handed in late, in order, each with its own `Time`, if they are not
//! older than [`CATCH_UP_MS`]. A tick that was handed in just before a crash has the same id again, and is not run twice.

use crate::{Binding, Counts, Cursors, Door, Lag, Trigger, TriggerError, hand_in};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat};
use mayfly_base::schedule::{Schedule, Zone};
use mayfly_base::{Clock, Shutdown};
use mayfly_model::TimerDesc;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The age at which a missed tick is left out, in milliseconds. Ours.
pub const CATCH_UP_MS: u64 = 3_600_000;
/// Longest sleep: a clock that was set, or a machine that slept, is noticed after it.
const NAP_MAX: Duration = Duration::from_secs(30);
/// Most ticks that are counted for the lag.
const LAG_TICKS_MAX: u64 = 3600;

/// The cursor of a timer.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// The last tick that was handed in, in milliseconds since the epoch.
    at_ms: u64,
    /// The schedule it was a tick of.
    desc: TimerDesc,
}

/// A schedule at work.
pub struct Timer {
    binding: Binding,
    desc: TimerDesc,
    schedule: Schedule,
    door: Arc<dyn Door>,
    cursors: Arc<Cursors>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    /// The last tick that is behind it.
    at_ms: Mutex<u64>,
}

impl Timer {
    /// A timer that goes on where its cursor stands.
    ///
    /// # Errors
    /// When the schedule cannot be read, which stored ones can.
    pub fn new(
        binding: Binding,
        desc: &TimerDesc,
        door: Arc<dyn Door>,
        cursors: Arc<Cursors>,
        clock: Arc<dyn Clock>,
        counts: Arc<Counts>,
    ) -> Result<Self, TriggerError> {
        let schedule = Zone::parse(&desc.time_zone).and_then(|zone| Schedule::parse(&desc.cron, zone));
        let schedule = schedule.map_err(|error| TriggerError(format!("the schedule {error}")))?;
        let cursor = cursors.get(binding.id()).and_then(|text| serde_json::from_str::<Cursor>(&text).ok());
        let since_ms = binding.config.mod_time_ms;
        let at_ms = match cursor {
            // A new schedule begins when it was given.
            Some(cursor) if cursor.desc != *desc => cursor.at_ms.max(since_ms),
            Some(cursor) => cursor.at_ms,
            None => since_ms,
        };
        Ok(Self { binding, desc: desc.clone(), schedule, door, cursors, clock, counts, at_ms: Mutex::new(at_ms) })
    }

    fn event(&self, tick_ms: u64) -> String {
        let time = i64::try_from(tick_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
        json!({
            "Type": "Timer",
            "TriggerName": self.binding.config.name,
            "Time": time.to_rfc3339_opts(SecondsFormat::Secs, true),
            "Message": self.binding.config.argument,
        })
        .to_string()
    }

    /// The next tick. Those that are too old are counted and left out.
    fn next_tick(&self) -> Option<u64> {
        let oldest_ms = self.clock.now_ms().saturating_sub(CATCH_UP_MS);
        let mut at_ms = self.at_ms.lock();
        if *at_ms < oldest_ms {
            let mut missed = 0;
            while missed < LAG_TICKS_MAX
                && let Some(tick) = self.schedule.next_after_ms(*at_ms).filter(|tick| *tick < oldest_ms)
            {
                *at_ms = tick;
                missed += 1;
            }
            *at_ms = oldest_ms.saturating_sub(1).max(*at_ms);
            if missed > 0 {
                self.counts.missed.fetch_add(missed, Ordering::Relaxed);
                let Binding { namespace, function, config } = &self.binding;
                tracing::warn!(%namespace, %function, trigger = %config.name, missed, "ticks of a timer are too old to be run");
            }
        }
        self.schedule.next_after_ms(*at_ms)
    }
}

#[async_trait]
impl Trigger for Timer {
    async fn run(&self, stop: &Shutdown) -> Result<(), TriggerError> {
        let mut maybe_again = true;
        loop {
            let Some(tick_ms) = self.next_tick() else {
                // The last year of the schedule is over.
                stop.triggered().await;
                return Ok(());
            };
            loop {
                let wait = Duration::from_millis(tick_ms.saturating_sub(self.clock.now_ms()));
                if wait.is_zero() {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(wait.min(NAP_MAX)) => {}
                    () = stop.triggered() => return Ok(()),
                }
            }
            let event = self.binding.handed(&tick_ms.to_string(), self.event(tick_ms), maybe_again);
            if !hand_in(&*self.door, &self.counts, event, stop).await {
                return Ok(());
            }
            maybe_again = false;
            *self.at_ms.lock() = tick_ms;
            let cursor = Cursor { at_ms: tick_ms, desc: self.desc.clone() };
            let text = serde_json::to_string(&cursor).map_err(|error| TriggerError(error.to_string()))?;
            self.cursors.put(self.binding.id(), text).await.map_err(|error| TriggerError(error.to_string()))?;
        }
    }

    fn lag(&self) -> Lag {
        let now_ms = self.clock.now_ms();
        let at_ms = *self.at_ms.lock();
        let Some(oldest) = self.schedule.next_after_ms(at_ms).filter(|tick| *tick <= now_ms) else {
            return Lag::default();
        };
        let (mut events, mut tick) = (1, oldest);
        while events < LAG_TICKS_MAX
            && let Some(next) = self.schedule.next_after_ms(tick).filter(|tick| *tick <= now_ms)
        {
            events += 1;
            tick = next;
        }
        Lag { events, oldest_ms: now_ms - oldest }
    }
}
