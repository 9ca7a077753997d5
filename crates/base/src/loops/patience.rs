//! Time-outs that hardly ever come, for next to nothing.
//!
//! A timer of the runtime that becomes the earliest one wakes the reactor, by a system call and another turn of the loop. Requests set such
//! timers and drop them a moment later. Here a loop has one timer for all of them, which rings a few times a second while there are any.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::Sleep;

/// How late such a time-out may be, beside the lateness of any timer.
const TICK: Duration = Duration::from_millis(25);

thread_local! {
    static BELL: OnceCell<Arc<Bell>> = const { OnceCell::new() };
}

/// The time-outs of one loop.
#[derive(Default)]
struct Bell {
    state: Mutex<State>,
    needed: Notify,
}

#[derive(Default)]
struct State {
    last: u64,
    /// By their time and a number of their own.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    /// True while the task that rings sleeps for a tick, not until it is needed.
    ticking: bool,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ring(self: Arc<Self>) {
        let mut due = Vec::new();
        loop {
            tokio::time::sleep(TICK).await;
            let idle = {
                let mut state = self.state();
                let later = state.sleepers.split_off(&(Instant::now(), u64::MAX));
                due.extend(std::mem::replace(&mut state.sleepers, later).into_values());
                state.ticking = !state.sleepers.is_empty();
                !state.ticking
            };
            due.drain(..).for_each(Waker::wake);
            if idle {
                self.needed.notified().await;
            }
        }
    }
}

/// Makes the calling thread's bell. Its ringing is to run on the thread's runtime.
pub(super) fn install() -> impl Future<Output = ()> + Send {
    let bell = BELL.with(|place| Arc::clone(place.get_or_init(Arc::default)));
    bell.ring()
}

/// Ready when its time has passed; on an event loop up to some 25 ms later than that. See [`patience`].
pub struct Patience(Way);

enum Way {
    Shared { bell: Arc<Bell>, at: Instant, place: Option<u64> },
    Own(Pin<Box<Sleep>>),
}

/// Waits, on an event loop for next to nothing, when nobody minds a few milliseconds more.
pub fn patience(time: Duration) -> Patience {
    /// As good as never; keeps sums within what `Instant` can hold.
    const LONG: Duration = Duration::from_secs(100 * 366 * 86_400);
    let time = time.min(LONG);
    Patience(match BELL.with(|place| place.get().map(Arc::clone)) {
        Some(bell) => Way::Shared { bell, at: Instant::now() + time, place: None },
        None => Way::Own(Box::pin(tokio::time::sleep(time))),
    })
}

/// The future's result, or `None` when it takes longer than `time`: [`patience`] says how exact that is.
pub async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        result = future => Some(result),
        () = patience(time) => None,
    }
}

impl Future for Patience {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Way::Own(sleep) => sleep.as_mut().poll(cx),
            Way::Shared { bell, at, place } => {
                let mut state = bell.state();
                if let Some(number) = *place {
                    // What is no longer among the sleepers has been rung for.
                    let Some(waker) = state.sleepers.get_mut(&(*at, number)) else { return Poll::Ready(()) };
                    waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
                state.last += 1;
                let number = state.last;
                state.sleepers.insert((*at, number), cx.waker().clone());
                *place = Some(number);
                if !std::mem::replace(&mut state.ticking, true) {
                    bell.needed.notify_one();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Way::Shared { bell, at, place: Some(number) } = &self.0 {
            let waker = bell.state().sleepers.remove(&(*at, *number));
            // Not under the lock: a waker's end may be a task's.
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventLoops;
    use super::*;

    async fn on_a_loop<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
        let loops = EventLoops::start().expect("threads");
        let (tell, told) = tokio::sync::oneshot::channel();
        loops.spawn(async move {
            let _ = tell.send(future.await);
        });
        told.await.expect("it ends")
    }

    #[tokio::test]
    async fn patience_ends_on_loops_and_elsewhere() {
        let elsewhere = within(Duration::from_millis(5), std::future::pending::<()>()).await;
        assert_eq!(elsewhere, None);
        let took = on_a_loop(async {
            let begun = Instant::now();
            // One after the other, with the bell idle in between, and many at once.
            for _ in 0..3 {
                assert_eq!(within(Duration::from_millis(30), std::future::pending::<()>()).await, None);
                tokio::time::sleep(3 * TICK).await;
            }
            let all: Vec<_> = (0..50).map(|n| tokio::spawn(patience(Duration::from_millis(n)))).collect();
            for one in all {
                one.await.expect("it ends");
            }
            begun.elapsed()
        })
        .await;
        assert!(took >= 3 * (Duration::from_millis(30) + 3 * TICK), "{took:?}");
    }

    #[tokio::test]
    async fn what_is_dropped_is_forgotten() {
        let left = on_a_loop(async {
            for _ in 0..100 {
                assert_eq!(within(Duration::MAX, async { 7 }).await, Some(7));
                let never = tokio::time::timeout(Duration::from_millis(1), patience(Duration::MAX)).await;
                assert!(never.is_err());
            }
            BELL.with(|bell| bell.get().expect("a loop has one").state().sleepers.len())
        })
        .await;
        assert_eq!(left, 0);
    }
}
