//! What time does to messages: they expire, become dead letters, and go with their queues. A few hundred at a time, so that nobody waits long.

use super::work::{Tally, Work};
use super::{Stop, int};
use crate::catalogue::Queue;
use crate::spec::DeadLetterRule;
use sqlx::{Row as _, SqliteConnection};
use std::sync::Arc;

/// Rows of each kind in one go.
const ROWS: u64 = 500;

impl Work {
    /// True when there is more.
    pub(super) async fn sweep(&self, conn: &mut SqliteConnection, tally: &mut Tally) -> Result<bool, Stop> {
        let mut more = self.bury_doomed(conn, tally).await?;
        more |= self.bury_old(conn, tally).await?;
        more |= self.expire(conn, tally).await?;
        more |= self.clear_slots(conn, tally).await?;
        more |= self.expire_published(conn, tally, ROWS).await?;
        Ok(more)
    }

    fn by_slot(&self, slot: i64) -> Option<Arc<Queue>> {
        self.shared.names.read().slots.get(&slot).cloned()
    }

    /// Messages that have been received for the last time and are visible again.
    async fn bury_doomed(&self, conn: &mut SqliteConnection, tally: &mut Tally) -> Result<bool, Stop> {
        let now = self.now_ms();
        let rows = sqlx::query(
            "SELECT id, slot, sent_ms, expires_ms, received FROM messages WHERE doom_ms > 0 AND doom_ms <= ?1 ORDER BY doom_ms LIMIT ?2",
        )
        .bind(int(now))
        .bind(int(ROWS))
        .fetch_all(&mut *conn)
        .await?;
        for row in &rows {
            let (id, slot): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let facts = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            let moved = match self.by_slot(slot) {
                Some(queue) => self.set_aside(conn, tally, &queue, id, facts, now).await?,
                None => false,
            };
            if !moved {
                // The rule has changed, or its queue is gone: the message is one like any other.
                sqlx::query("UPDATE messages SET doom_ms = 0 WHERE id = ?1").bind(id).execute(&mut *conn).await?;
            }
        }
        Ok(rows.len() as u64 >= ROWS)
    }

    /// Messages that are too old by their queue's dead-letter rule.
    async fn bury_old(&self, conn: &mut SqliteConnection, tally: &mut Tally) -> Result<bool, Stop> {
        let now = self.now_ms();
        let by_age: Vec<(Arc<Queue>, u64)> = {
            let names = self.shared.names.read();
            let rule = |q: &Arc<Queue>| match q.spec.dead_letters.as_ref().map(|d| (d.rule, &d.queue)) {
                Some((DeadLetterRule::Age(s), target)) if names.queue(target).is_ok() => Some((Arc::clone(q), s)),
                _ => None,
            };
            names.queues.values().filter_map(rule).collect()
        };
        let mut more = false;
        for (queue, age_s) in by_age {
            let rows = sqlx::query(
                "SELECT id, sent_ms, expires_ms, received FROM messages \
                 WHERE slot = ?1 AND deleted_ms = 0 AND sent_ms <= ?2 ORDER BY sent_ms LIMIT ?3",
            )
            .bind(queue.slot)
            .bind(int(now) - int(age_s * 1000))
            .bind(int(ROWS))
            .fetch_all(&mut *conn)
            .await?;
            for row in &rows {
                let facts = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                self.set_aside(conn, tally, &queue, row.try_get(0)?, facts, now).await?;
            }
            more |= rows.len() as u64 >= ROWS;
        }
        Ok(more)
    }

    /// Messages older than their queue keeps them, and deleted ones that cannot be brought back any more.
    async fn expire(&self, conn: &mut SqliteConnection, tally: &mut Tally) -> Result<bool, Stop> {
        let now = self.now_ms();
        let rows = sqlx::query(
            "SELECT id, slot, sent_ms, expires_ms, received, deleted_ms FROM messages WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2",
        )
        .bind(int(now))
        .bind(int(ROWS))
        .fetch_all(&mut *conn)
        .await?;
        for row in &rows {
            let (id, slot, deleted_ms): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(5)?);
            let queue = self.by_slot(slot).filter(|_| deleted_ms == 0);
            match queue {
                // After a long stop it may be a dead letter that nobody was there to move.
                Some(queue) => {
                    let facts = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
                    self.set_aside(conn, tally, &queue, id, facts, now).await?;
                }
                None => self.remove(conn, tally, slot, id, false).await?,
            }
        }
        Ok(rows.len() as u64 >= ROWS)
    }

    /// Messages of queues that were deleted or cleared.
    async fn clear_slots(&self, conn: &mut SqliteConnection, tally: &mut Tally) -> Result<bool, Stop> {
        let slots: Vec<i64> =
            sqlx::query_scalar("SELECT slot FROM doomed ORDER BY slot LIMIT 4").fetch_all(&mut *conn).await?;
        let mut more = slots.len() == 4;
        for slot in slots {
            let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM messages WHERE slot = ?1 LIMIT ?2")
                .bind(slot)
                .bind(int(ROWS))
                .fetch_all(&mut *conn)
                .await?;
            for id in &ids {
                self.remove(conn, tally, slot, *id, false).await?;
            }
            if (ids.len() as u64) < ROWS {
                sqlx::query("DELETE FROM doomed WHERE slot = ?1").bind(slot).execute(&mut *conn).await?;
            } else {
                more = true;
            }
        }
        Ok(more)
    }
}
