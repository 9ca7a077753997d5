//! What goes on by itself: sweeping and pushing.

use crate::db::{Op, Told};
use crate::push::{PushOptions, Pusher};
use crate::service::Queues;
use mayfly_base::shutdown::Shutdown;
use std::time::Duration;

/// How often what time does to messages is looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The pause after a failure of the database.
const SWEEP_PAUSE: Duration = Duration::from_secs(10);

impl Queues {
    /// Moves dead letters, removes what has expired, and pushes to endpoints, until the stop. Nothing is lost while this does not run.
    pub async fn run(&self, push: PushOptions, shutdown: Shutdown) {
        let pusher = Pusher::new(self.clone(), push);
        tokio::join!(self.sweep_on(&shutdown), pusher.run(&shutdown));
    }

    /// One round of what time does to messages. True when there is more.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] when the database fails.
    pub async fn sweep(&self) -> Result<bool, crate::QueueError> {
        Ok(matches!(self.write(Op::Sweep).await?, Told::Swept(true)))
    }

    async fn sweep_on(&self, shutdown: &Shutdown) {
        loop {
            let pause = match self.sweep().await {
                // Others get their turn at the writer in between.
                Ok(true) => Duration::ZERO,
                Ok(false) => SWEEP_EVERY,
                Err(_) => SWEEP_PAUSE,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.triggered() => return,
            }
        }
    }
}
