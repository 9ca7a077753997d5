//! Ending an invocation early: the wish of whoever may end it, and the ear of whoever runs it.

use std::time::Duration;
use tokio::sync::watch;

/// Makes the wish. Dropping it makes none.
#[derive(Debug)]
pub struct Aborter(watch::Sender<Option<Duration>>);

/// Hears of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Abort(watch::Receiver<Option<Duration>>);

/// Both ends.
pub fn abort() -> (Aborter, Abort) {
    let (sender, receiver) = watch::channel(None);
    (Aborter(sender), Abort(receiver))
}

impl Aborter {
    /// Asks for the end. `grace`: how long the code may go on after it was told (zero: it is not told). Of several wishes the first holds.
    pub fn ask(&self, grace: Duration) {
        self.0.send_if_modified(|wish| {
            let first = wish.is_none();
            wish.get_or_insert(grace);
            first
        });
    }
}

impl Abort {
    /// Waits until the end is asked for, for ever if it never is, and returns the grace.
    pub async fn asked(&mut self) -> Duration {
        let wish = self.0.wait_for(Option::is_some).await.ok().and_then(|wish| *wish);
        match wish {
            Some(grace) => grace,
            None => std::future::pending().await,
        }
    }
}

/// As [`Abort::asked`], for what may have no such ear.
pub async fn asked(abort: &mut Option<Abort>) -> Duration {
    match abort {
        Some(abort) => abort.asked().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_wish_holds_and_is_heard_late_too() {
        let (aborter, abort) = abort();
        aborter.ask(Duration::from_secs(1));
        aborter.ask(Duration::ZERO);
        for mut ear in [abort.clone(), abort] {
            assert_eq!(ear.asked().await, Duration::from_secs(1));
        }
    }

    #[tokio::test]
    async fn no_wish_is_heard_when_none_was_made() {
        let (aborter, mut ear) = abort();
        drop(aborter);
        assert!(tokio::time::timeout(Duration::from_millis(10), ear.asked()).await.is_err());
        assert!(tokio::time::timeout(Duration::from_millis(10), asked(&mut None)).await.is_err());
    }
}
