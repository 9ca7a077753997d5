//! The database: one file, one writer, and what it is asked to do.

mod admin;
mod load;
mod messages;
mod outbox;
mod schema;
mod sweep;
mod work;

pub(crate) use load::open;
pub(crate) use messages::Handle;
pub use messages::{QueueCounts, Received};
pub use outbox::Delivery;
pub use work::SubscriptionChange;
pub(crate) use work::{Admin, Answer, Ask, Op, Told, Write};

/// Why an operation in a transaction did not happen.
pub(crate) enum Stop {
    /// The client is at fault, or the limits: nothing was changed, the transaction goes on.
    Refused(crate::QueueError),
    /// The database is at fault: the transaction is rolled back.
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<crate::QueueError> for Stop {
    fn from(error: crate::QueueError) -> Self {
        Self::Refused(error)
    }
}

/// Milliseconds, and other numbers of ours, as the database has them.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
