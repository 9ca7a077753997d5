//! Topics: publishing, and deliveries on their way out.

use super::work::{Tally, Work, unique};
use super::{Stop, int};
use crate::catalogue::{Queue, Topic};
use crate::error::ErrorKind;
use crate::filter;
use crate::spec::{FilterType, Target};
use mayfly_model::Lineage;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::sync::Arc;

/// A message on its way to one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number in the outbox.
    pub id: i64,
    /// How often it has been tried.
    pub attempt: u32,
    /// The message's number.
    pub message: u64,
    /// The topic.
    pub topic: String,
    /// When it was published, in milliseconds.
    pub sent_ms: u64,
    /// Until when it is kept, in milliseconds.
    pub expires_ms: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its routing key.
    pub routing_key: String,
    /// Its text.
    pub body: String,
    /// What published it, when that was an invocation of a function.
    pub lineage: Lineage,
}

/// All bodies of one page of deliveries, in bytes; at least one is given.
const PAGE_BYTES_MAX: usize = 8 << 20;

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.attempt, p.id, p.topic_name, p.sent_ms, p.expires_ms, p.tags, p.routing_key, p.body, p.lineage ",
            "FROM deliveries d JOIN published p ON p.id = d.publication ",
            $rest
        )
    };
}

fn delivery(row: &SqliteRow) -> Result<Delivery, sqlx::Error> {
    let tags: String = row.try_get(6)?;
    Ok(Delivery {
        id: row.try_get(0)?,
        attempt: u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(u32::MAX),
        message: row.try_get::<i64, _>(2)?.unsigned_abs(),
        topic: row.try_get(3)?,
        sent_ms: row.try_get::<i64, _>(4)?.unsigned_abs(),
        expires_ms: row.try_get::<i64, _>(5)?.unsigned_abs(),
        tags: serde_json::from_str(&tags).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        routing_key: row.try_get(7)?,
        body: row.try_get(8)?,
        // Empty: nobody's.
        lineage: serde_json::from_str(row.try_get(9)?).unwrap_or_default(),
    })
}

fn page(rows: &[SqliteRow]) -> Result<Vec<Delivery>, sqlx::Error> {
    let (mut out, mut bytes) = (Vec::new(), 0);
    for row in rows {
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
        let one = delivery(row)?;
        bytes += one.body.len();
        out.push(one);
    }
    Ok(out)
}

pub(super) async fn due(
    conn: &mut SqliteConnection,
    outlet: &str,
    now_ms: u64,
    limit: usize,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let rows = sqlx::query(columns!("WHERE d.outlet = ?1 AND d.due_ms <= ?2 ORDER BY d.due_ms, d.id LIMIT ?3"))
        .bind(outlet)
        .bind(int(now_ms))
        .bind(int(limit as u64))
        .fetch_all(conn)
        .await?;
    page(&rows)
}

pub(super) async fn first(
    conn: &mut SqliteConnection,
    outlet: &str,
    limit: usize,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let rows = sqlx::query(columns!("WHERE d.outlet = ?1 ORDER BY d.id LIMIT ?2"))
        .bind(outlet)
        .bind(int(limit as u64))
        .fetch_all(conn)
        .await?;
    page(&rows)
}

pub(super) async fn next_due(conn: &mut SqliteConnection, outlet: &str) -> Result<Option<u64>, sqlx::Error> {
    let next: Option<i64> =
        sqlx::query_scalar("SELECT MIN(due_ms) FROM deliveries WHERE outlet = ?1").bind(outlet).fetch_one(conn).await?;
    Ok(next.map(i64::unsigned_abs))
}

/// Who gets a message.
struct Receivers {
    /// Queues that take it now.
    queues: Vec<Arc<Queue>>,
    /// Outlets that it waits in.
    outlets: Vec<String>,
}

impl Work {
    pub(super) async fn publish(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        name: &str,
        bodies: &[String],
        (tags, routing_key): (&[String], &str),
        lineage: &Lineage,
    ) -> Result<Vec<u64>, Stop> {
        let topic = self.shared.topic(name)?;
        let bytes: u64 = bodies.iter().map(|b| b.len() as u64).sum();
        let receivers = self.receivers(tally, &topic, tags, routing_key, (bodies.len() as u64, bytes))?;
        let copies = receivers.queues.len() as u64 + u64::from(!receivers.outlets.is_empty());
        self.check_bytes(tally, bytes * copies)?;
        let now = self.now_ms();
        let mut ids = Vec::with_capacity(bodies.len());
        for body in bodies {
            let id = self.next_id();
            if !receivers.outlets.is_empty() {
                self.put_out(conn, tally, &topic, id, body, (tags, routing_key, lineage), &receivers.outlets, now)
                    .await?;
            }
            for queue in &receivers.queues {
                let id = self.next_id();
                self.insert(conn, tally, queue, id, body, now, 0).await?;
            }
            ids.push(id);
        }
        tally.published(name, bodies.len() as u64);
        Ok(ids)
    }

    fn receivers(
        &self,
        tally: &Tally,
        topic: &Topic,
        tags: &[String],
        routing_key: &str,
        (count, bytes): (u64, u64),
    ) -> Result<Receivers, Stop> {
        let functions = self.shared.names.read().functions_of(&topic.name).to_vec();
        if topic.subscriptions.is_empty() && functions.is_empty() {
            let why = format!("Nobody would get the message: subscribe to `{}` first.", topic.name);
            return Err(ErrorKind::NobodySubscribed.says(why).into());
        }
        let mut out = Receivers { queues: Vec::new(), outlets: Vec::new() };
        for subscription in topic.subscriptions.values() {
            let spec = &subscription.spec;
            if !filter::matches(topic.spec.filter, &spec.filters, tags, routing_key) {
                continue;
            }
            let queue = match &spec.target {
                Target::Queue(name) => self.shared.queue(name).ok(),
                Target::Http(_) => None,
            };
            match queue.filter(|q| self.check_room(tally, q, count, bytes).is_ok()) {
                Some(queue) => out.queues.push(queue),
                None => out.outlets.push(subscription.outlet.clone()),
            }
        }
        for function in &functions {
            if filter::matches(function.filter_type, &function.filter_keys, tags, routing_key) {
                out.outlets.push(function.outlet());
            }
        }
        if out.queues.is_empty() && out.outlets.is_empty() {
            let what = match topic.spec.filter {
                FilterType::Tag => "No subscription has one of the message's tags.",
                FilterType::Routing => "No binding key fits the message's routing key.",
            };
            return Err(ErrorKind::NobodyMatches.says(what).into());
        }
        Ok(out)
    }

    #[allow(clippy::too_many_arguments, reason = "a row has many columns")]
    async fn put_out(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        topic: &Topic,
        id: u64,
        body: &str,
        (tags, routing_key, lineage): (&[String], &str, &Lineage),
        outlets: &[String],
        now: u64,
    ) -> Result<(), Stop> {
        sqlx::query(
            "INSERT INTO published (id, topic, topic_name, sent_ms, expires_ms, tags, routing_key, refs, bytes, body, lineage) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(int(id))
        .bind(topic.row)
        .bind(&topic.name)
        .bind(int(now))
        .bind(int(now + topic.spec.retention_s * 1000))
        .bind(serde_json::Value::from(tags).to_string())
        .bind(routing_key)
        .bind(int(outlets.len() as u64))
        .bind(int(body.len() as u64))
        .bind(body)
        .bind(if lineage.is_root() { String::new() } else { json!(lineage).to_string() })
        .execute(&mut *conn)
        .await?;
        tally.bytes += int(body.len() as u64);
        for outlet in outlets {
            sqlx::query("INSERT INTO deliveries (outlet, publication, due_ms, attempt) VALUES (?1, ?2, ?3, 0)")
                .bind(outlet)
                .bind(int(id))
                .bind(int(now))
                .execute(&mut *conn)
                .await?;
            tally.outlet(outlet, 1);
        }
        Ok(())
    }

    /// Takes deliveries out of an outlet. Those that are not in it are passed over.
    pub(super) async fn finish(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        outlet: &str,
        ids: &[i64],
    ) -> Result<(), Stop> {
        for id in unique(ids) {
            let publication: Option<i64> =
                sqlx::query_scalar("DELETE FROM deliveries WHERE id = ?1 AND outlet = ?2 RETURNING publication")
                    .bind(id)
                    .bind(outlet)
                    .fetch_optional(&mut *conn)
                    .await?;
            let Some(publication) = publication else { continue };
            tally.outlet(outlet, -1);
            self.release(conn, tally, publication).await?;
        }
        Ok(())
    }

    /// One delivery fewer refers to a publication, which goes with the last.
    async fn release(&self, conn: &mut SqliteConnection, tally: &mut Tally, publication: i64) -> Result<(), Stop> {
        let left: Option<i64> = sqlx::query_scalar("UPDATE published SET refs = refs - 1 WHERE id = ?1 RETURNING refs")
            .bind(publication)
            .fetch_optional(&mut *conn)
            .await?;
        if left.is_some_and(|refs| refs <= 0) {
            let bytes: Option<i64> = sqlx::query_scalar("DELETE FROM published WHERE id = ?1 RETURNING bytes")
                .bind(publication)
                .fetch_optional(conn)
                .await?;
            tally.bytes -= bytes.unwrap_or(0);
            tally.freed = true;
        }
        Ok(())
    }

    pub(super) async fn again(
        &self,
        conn: &mut SqliteConnection,
        id: i64,
        due_ms: u64,
        attempt: u32,
    ) -> Result<(), Stop> {
        sqlx::query("UPDATE deliveries SET due_ms = ?2, attempt = ?3 WHERE id = ?1")
            .bind(id)
            .bind(int(due_ms))
            .bind(i64::from(attempt))
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Moves a delivery into its queue, in one transaction.
    pub(super) async fn enqueue(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        outlet: &str,
        id: i64,
        queue: &str,
    ) -> Result<(), Stop> {
        let queue = self.shared.queue(queue)?;
        let row = sqlx::query(columns!("WHERE d.id = ?1 AND d.outlet = ?2"))
            .bind(id)
            .bind(outlet)
            .fetch_optional(&mut *conn)
            .await?;
        let Some(row) = row else { return Ok(()) };
        let found = delivery(&row)?;
        self.check_room(tally, &queue, 1, 0)?;
        let number = self.next_id();
        self.insert(conn, tally, &queue, number, &found.body, self.now_ms(), 0).await?;
        self.finish(conn, tally, outlet, &[id]).await
    }

    /// Empties an outlet whose subscription is gone.
    pub(super) async fn drop_outlet(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        outlet: &str,
    ) -> Result<(), Stop> {
        let gone: Vec<i64> = sqlx::query_scalar("DELETE FROM deliveries WHERE outlet = ?1 RETURNING publication")
            .bind(outlet)
            .fetch_all(&mut *conn)
            .await?;
        tally.outlet(outlet, -int(gone.len() as u64));
        for publication in gone {
            self.release(conn, tally, publication).await?;
        }
        Ok(())
    }

    /// Drops what has waited for longer than its topic keeps messages. True when there is more.
    pub(super) async fn expire_published(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        limit: u64,
    ) -> Result<bool, Stop> {
        let old: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM published WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2")
                .bind(int(self.now_ms()))
                .bind(int(limit))
                .fetch_all(&mut *conn)
                .await?;
        for publication in &old {
            let outlets: Vec<String> =
                sqlx::query_scalar("DELETE FROM deliveries WHERE publication = ?1 RETURNING outlet")
                    .bind(publication)
                    .fetch_all(&mut *conn)
                    .await?;
            for outlet in outlets {
                tally.outlet(&outlet, -1);
            }
            let bytes: Option<i64> = sqlx::query_scalar("DELETE FROM published WHERE id = ?1 RETURNING bytes")
                .bind(publication)
                .fetch_optional(&mut *conn)
                .await?;
            tally.bytes -= bytes.unwrap_or(0);
            tally.freed = true;
        }
        Ok(old.len() as u64 >= limit)
    }
}
