//! Opening the database, and what memory holds of it.

use super::admin::new_topic;
use super::schema::MIGRATIONS;
use super::work::{Ask, Work, Write};
use crate::catalogue::{Live, Names, Queue, Shared, Subscription};
use crate::service::QueueLimits;
use crate::spec::key;
use mayfly_base::Clock;
use mayfly_store::writer::Jobs;
use mayfly_store::{StoreError, sqlite};
use serde::de::DeserializeOwned;
use sqlx::SqliteConnection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn read<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("the attributes of a queue, a topic or a subscription"))
}

/// Opens the database at `path`, makes it where absent, and starts its writer on the current tokio runtime.
pub(crate) async fn open(
    path: &Path,
    limits: QueueLimits,
    clock: Arc<dyn Clock>,
) -> Result<(Jobs<Write, Ask>, Arc<Shared>), StoreError> {
    let mut conn = sqlite::open(path, MIGRATIONS).await?;
    let shared = Arc::new(Shared::default());
    let mut names = Names::default();
    load_queues(&mut conn, &mut names).await?;
    load_topics(&mut conn, &mut names).await?;
    *shared.names.write() = names;
    let bytes: i64 = sqlx::query_scalar(
        "SELECT (SELECT COALESCE(SUM(bytes), 0) FROM messages) + (SELECT COALESCE(SUM(bytes), 0) FROM published)",
    )
    .fetch_one(&mut conn)
    .await?;
    shared.bytes.store(bytes.unsigned_abs(), Ordering::Release);
    let last: Option<i64> =
        sqlx::query_scalar("SELECT MAX(seq) FROM sqlite_sequence WHERE name IN ('messages', 'published')")
            .fetch_one(&mut conn)
            .await?;
    let last_id = AtomicU64::new(last.unwrap_or(0).unsigned_abs());
    let work = Work { shared: Arc::clone(&shared), limits, clock, last_id };
    Ok((Jobs::start(conn, work), shared))
}

async fn load_queues(conn: &mut SqliteConnection, names: &mut Names) -> Result<(), StoreError> {
    let queues: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT slot, name, spec FROM queues").fetch_all(&mut *conn).await?;
    for (slot, name, spec) in queues {
        names.put_queue(Queue { slot, name, spec: read(&spec)?, live: Arc::new(Live::default()) });
    }
    let depths: Vec<(i64, i64)> =
        sqlx::query_as("SELECT slot, COUNT(*) FROM messages WHERE deleted_ms = 0 GROUP BY slot")
            .fetch_all(conn)
            .await?;
    for (slot, depth) in depths {
        if let Some(queue) = names.slots.get(&slot) {
            queue.live.depth.store(depth.unsigned_abs(), Ordering::Release);
        }
    }
    Ok(())
}

async fn load_topics(conn: &mut SqliteConnection, names: &mut Names) -> Result<(), StoreError> {
    let topics: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT id, name, spec FROM topics").fetch_all(&mut *conn).await?;
    for (row, name, spec) in topics {
        let mut topic = new_topic(row, name, read(&spec)?);
        let subscriptions: Vec<(i64, String, String)> =
            sqlx::query_as("SELECT id, name, spec FROM subscriptions WHERE topic = ?1")
                .bind(row)
                .fetch_all(&mut *conn)
                .await?;
        for (id, name, spec) in subscriptions {
            let subscription = Subscription { outlet: format!("s{id}"), name, spec: read(&spec)? };
            topic.subscriptions.insert(key(&subscription.name), Arc::new(subscription));
        }
        names.topics.insert(key(&topic.name), Arc::new(topic));
    }
    let pending: Vec<(String, i64)> =
        sqlx::query_as("SELECT outlet, COUNT(*) FROM deliveries GROUP BY outlet").fetch_all(conn).await?;
    for (outlet, count) in pending {
        names.outlet(&outlet).pending.store(count.unsigned_abs(), Ordering::Release);
    }
    Ok(())
}
