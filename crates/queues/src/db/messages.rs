//! Messages in queues: in, out, hidden, away.

use super::schema::NEVER;
use super::work::{Tally, Work};
use super::{Stop, int};
use crate::catalogue::Queue;
use crate::error::{ErrorKind, QueueError};
use crate::spec::DeadLetterRule;
use sqlx::{Row as _, SqliteConnection};
use std::sync::atomic::Ordering;

/// Messages looked at in one receive that turn out to be expired or dead letters, before it answers with what it has.
const ASIDE_MAX: usize = 256;

/// What a receive gives out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub id: u64,
    /// Its text.
    pub body: String,
    /// What it can be deleted with.
    pub handle: String,
    /// When it was sent, in milliseconds.
    pub sent_ms: u64,
    /// When it was received first, in milliseconds.
    pub first_ms: u64,
    /// Until when it is hidden, in milliseconds.
    pub visible_ms: u64,
    /// How often it has been received, this time included.
    pub received: u64,
}

/// A receipt handle, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    id: i64,
    token: i64,
}

impl Handle {
    /// Reads the text that [`Received::handle`] has.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, token) = text.split_once('-')?;
        let digits = |t: &str, n: usize| (1..=n).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits(id, 16) || !digits(token, 16) {
            return None;
        }
        let number = |t| u64::from_str_radix(t, 16).ok();
        Some(Self { id: i64::try_from(number(id)?).ok()?, token: number(token)?.cast_signed() })
    }

    fn text(self) -> String {
        format!("{:x}-{:016x}", self.id, self.token)
    }
}

/// How many messages of a queue are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Can be received.
    pub active: u64,
    /// Received, hidden.
    pub in_flight: u64,
    /// Sent with a delay that is not over.
    pub delayed: u64,
    /// Deleted, and can be brought back.
    pub rewindable: u64,
    /// When the oldest one that is not deleted was sent, in milliseconds.
    pub oldest_ms: Option<u64>,
}

impl Work {
    pub(super) async fn send(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        name: &str,
        bodies: &[String],
        delay_s: u64,
    ) -> Result<Vec<u64>, Stop> {
        let queue = self.shared.queue(name)?;
        let bytes: u64 = bodies.iter().map(|b| b.len() as u64).sum();
        self.check_room(tally, &queue, bodies.len() as u64, bytes)?;
        let now = self.now_ms();
        let mut ids = Vec::with_capacity(bodies.len());
        for body in bodies {
            let id = self.next_id();
            self.insert(conn, tally, &queue, id, body, now, delay_s).await?;
            ids.push(id);
        }
        Ok(ids)
    }

    /// Whether so much more fits.
    pub(super) fn check_room(&self, tally: &Tally, queue: &Queue, count: u64, bytes: u64) -> Result<(), QueueError> {
        let depth = queue.live.depth.load(Ordering::Acquire).saturating_add_signed(tally.depth_of(queue.slot));
        if depth + count > queue.spec.heap_max {
            return Err(ErrorKind::Full.says(format!(
                "The queue `{}` holds {depth} messages, and may hold {}. Receive and delete some, or raise `maxMsgHeapNum`.",
                queue.name, queue.spec.heap_max
            )));
        }
        self.check_bytes(tally, bytes)
    }

    pub(super) fn check_bytes(&self, tally: &Tally, bytes: u64) -> Result<(), QueueError> {
        let held = self.shared.bytes.load(Ordering::Acquire).saturating_add_signed(tally.bytes);
        if held + bytes > self.limits.bytes_max {
            return Err(ErrorKind::Full.says(format!(
                "All queues and topics together hold {held} bytes, and may hold {}. Receive and delete messages.",
                self.limits.bytes_max
            )));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "a row has many columns")]
    pub(super) async fn insert(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        queue: &Queue,
        id: u64,
        body: &str,
        now: u64,
        delay_s: u64,
    ) -> Result<(), Stop> {
        sqlx::query(
            "INSERT INTO messages (id, slot, visible_ms, sent_ms, expires_ms, first_ms, received, token, deleted_ms, doom_ms, bytes) \
             VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, 0, ?6)",
        )
        .bind(int(id))
        .bind(queue.slot)
        .bind(int(now + delay_s * 1000))
        .bind(int(now))
        .bind(int(now + queue.spec.retention_s * 1000))
        .bind(int(body.len() as u64))
        .execute(&mut *conn)
        .await?;
        sqlx::query("INSERT INTO bodies (id, body) VALUES (?1, ?2)").bind(int(id)).bind(body).execute(conn).await?;
        tally.added(queue.slot, body.len() as u64);
        tally.sent(queue.slot);
        Ok(())
    }

    /// Takes up to `limit` messages; with none, tells when there may be one.
    pub(super) async fn receive(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        name: &str,
        limit: usize,
    ) -> Result<(Vec<Received>, Option<u64>), Stop> {
        let queue = self.shared.queue(name)?;
        let now = self.now_ms();
        let (mut out, mut aside) = (Vec::new(), 0);
        while out.len() < limit && aside < ASIDE_MAX {
            let wanted = limit - out.len();
            let rows = sqlx::query(
                "SELECT id, sent_ms, expires_ms, first_ms, received FROM messages \
                 WHERE slot = ?1 AND visible_ms <= ?2 ORDER BY visible_ms, id LIMIT ?3",
            )
            .bind(queue.slot)
            .bind(int(now))
            .bind(int(wanted as u64))
            .fetch_all(&mut *conn)
            .await?;
            let found = rows.len();
            for row in rows {
                let (id, sent_ms, expires_ms): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                let (first_ms, received): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
                if self.set_aside(conn, tally, &queue, id, (sent_ms, expires_ms, received), now).await? {
                    aside += 1;
                    continue;
                }
                out.push(self.hide(conn, &queue, id, (sent_ms, first_ms, received), now).await?);
            }
            if found < wanted {
                break;
            }
        }
        if !out.is_empty() {
            tally.received(queue.slot, out.len() as u64);
            return Ok((out, None));
        }
        if aside >= ASIDE_MAX {
            return Ok((out, Some(now)));
        }
        let next: Option<i64> =
            sqlx::query_scalar("SELECT MIN(visible_ms) FROM messages WHERE slot = ?1 AND visible_ms < ?2")
                .bind(queue.slot)
                .bind(NEVER)
                .fetch_one(conn)
                .await?;
        Ok((out, next.map(|ms| ms.max(0).unsigned_abs())))
    }

    /// True when the message is not to be given out: it has expired, or is a dead letter, and is where it belongs now.
    pub(super) async fn set_aside(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        queue: &Queue,
        id: i64,
        (sent_ms, expires_ms, received): (i64, i64, i64),
        now: u64,
    ) -> Result<bool, Stop> {
        let dead = queue.spec.dead_letters.as_ref().filter(|d| match d.rule {
            DeadLetterRule::Received(max) => received >= int(max),
            DeadLetterRule::Age(age_s) => sent_ms + int(age_s * 1000) <= int(now),
        });
        // Bound first: the lock is not held over the move.
        let target = dead.and_then(|d| self.shared.queue(&d.queue).ok());
        if let Some(target) = target.filter(|t| t.slot != queue.slot) {
            self.bury(conn, tally, queue, &target, id, now).await?;
            return Ok(true);
        }
        if expires_ms <= int(now) {
            self.remove(conn, tally, queue.slot, id, true).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Moves a message to a dead-letter queue.
    async fn bury(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        queue: &Queue,
        target: &Queue,
        id: i64,
        now: u64,
    ) -> Result<(), Stop> {
        sqlx::query(
            "UPDATE messages SET slot = ?2, visible_ms = ?3, sent_ms = ?3, expires_ms = ?4, first_ms = 0, received = 0, token = 0, doom_ms = 0 \
             WHERE id = ?1",
        )
        .bind(id)
        .bind(target.slot)
        .bind(int(now))
        .bind(int(now + target.spec.retention_s * 1000))
        .execute(conn)
        .await?;
        tally.moved(queue.slot, target.slot);
        Ok(())
    }

    async fn hide(
        &self,
        conn: &mut SqliteConnection,
        queue: &Queue,
        id: i64,
        (sent_ms, first_ms, received): (i64, i64, i64),
        now: u64,
    ) -> Result<Received, Stop> {
        let visible_ms = now + queue.spec.visibility_s * 1000;
        let received = received + 1;
        let last = matches!(&queue.spec.dead_letters, Some(d) if matches!(d.rule, DeadLetterRule::Received(max) if received >= int(max)));
        let handle = Handle { id, token: self.random() };
        let first_ms = if first_ms > 0 { first_ms } else { int(now) };
        sqlx::query(
            "UPDATE messages SET visible_ms = ?2, first_ms = ?3, received = ?4, token = ?5, doom_ms = ?6 WHERE id = ?1",
        )
        .bind(id)
        .bind(int(visible_ms))
        .bind(first_ms)
        .bind(received)
        .bind(handle.token)
        .bind(if last { int(visible_ms) } else { 0 })
        .execute(&mut *conn)
        .await?;
        let body: String = sqlx::query_scalar("SELECT body FROM bodies WHERE id = ?1").bind(id).fetch_one(conn).await?;
        Ok(Received {
            id: id.unsigned_abs(),
            body,
            handle: handle.text(),
            sent_ms: sent_ms.unsigned_abs(),
            first_ms: first_ms.unsigned_abs(),
            visible_ms,
            received: received.unsigned_abs(),
        })
    }

    /// Removes a message for good. `counted`: it was not deleted before.
    pub(super) async fn remove(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        slot: i64,
        id: i64,
        counted: bool,
    ) -> Result<(), Stop> {
        let bytes: Option<i64> = sqlx::query_scalar("DELETE FROM messages WHERE id = ?1 RETURNING bytes")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
        if let Some(bytes) = bytes {
            sqlx::query("DELETE FROM bodies WHERE id = ?1").bind(id).execute(conn).await?;
            tally.removed(slot, bytes, counted);
        }
        Ok(())
    }

    /// Deletes by handle; tells of each whether it was valid.
    pub(super) async fn delete(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        name: &str,
        handles: &[Option<Handle>],
    ) -> Result<Vec<bool>, Stop> {
        let queue = self.shared.queue(name)?;
        let now = self.now_ms();
        let mut out = Vec::with_capacity(handles.len());
        for handle in handles {
            let Some(handle) = handle else {
                out.push(false);
                continue;
            };
            let done = if queue.spec.rewind_s > 0 {
                let kept = sqlx::query(
                    "UPDATE messages SET deleted_ms = ?4, visible_ms = ?5, token = 0, doom_ms = 0, expires_ms = MIN(expires_ms, ?6) \
                     WHERE id = ?1 AND slot = ?2 AND token = ?3 AND received > 0 AND deleted_ms = 0",
                )
                .bind(handle.id)
                .bind(queue.slot)
                .bind(handle.token)
                .bind(int(now))
                .bind(NEVER)
                .bind(int(now + queue.spec.rewind_s * 1000))
                .execute(&mut *conn)
                .await?;
                let kept = kept.rows_affected() > 0;
                if kept {
                    tally.put_aside(queue.slot);
                }
                kept
            } else {
                let bytes: Option<i64> = sqlx::query_scalar(
                    "DELETE FROM messages WHERE id = ?1 AND slot = ?2 AND token = ?3 AND received > 0 AND deleted_ms = 0 RETURNING bytes",
                )
                .bind(handle.id)
                .bind(queue.slot)
                .bind(handle.token)
                .fetch_optional(&mut *conn)
                .await?;
                if let Some(bytes) = bytes {
                    sqlx::query("DELETE FROM bodies WHERE id = ?1").bind(handle.id).execute(&mut *conn).await?;
                    tally.removed(queue.slot, bytes, true);
                }
                bytes.is_some()
            };
            if done {
                tally.deleted(queue.slot);
            }
            out.push(done);
        }
        Ok(out)
    }

    /// Brings back what was deleted and had been sent at or after `from_ms`.
    pub(super) async fn rewind(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        name: &str,
        from_ms: u64,
    ) -> Result<(), Stop> {
        let queue = self.shared.queue(name)?;
        if queue.spec.rewind_s == 0 {
            let why = "Set `rewindSeconds` first; messages deleted from then on are kept for so long.";
            return Err(ErrorKind::NoRewind.says(why).into());
        }
        let now = self.now_ms();
        let done = sqlx::query(
            "UPDATE messages SET deleted_ms = 0, visible_ms = ?3, received = 0, first_ms = 0, token = 0, expires_ms = sent_ms + ?4 \
             WHERE slot = ?1 AND visible_ms = ?5 AND deleted_ms > 0 AND sent_ms >= ?2",
        )
        .bind(queue.slot)
        .bind(int(from_ms))
        .bind(int(now))
        .bind(int(queue.spec.retention_s * 1000))
        .bind(NEVER)
        .execute(conn)
        .await?;
        tally.brought_back(queue.slot, done.rows_affected());
        Ok(())
    }

    pub(super) async fn counts(&self, conn: &mut SqliteConnection, queue: &Queue) -> Result<QueueCounts, sqlx::Error> {
        let now = int(self.now_ms());
        let hidden: (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*) FILTER (WHERE received > 0), COUNT(*) FILTER (WHERE received = 0) FROM messages \
             WHERE slot = ?1 AND visible_ms > ?2 AND visible_ms < ?3",
        )
        .bind(queue.slot)
        .bind(now)
        .bind(NEVER)
        .fetch_one(&mut *conn)
        .await?;
        let rewindable: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM messages WHERE slot = ?1 AND visible_ms = ?2")
            .bind(queue.slot)
            .bind(NEVER)
            .fetch_one(&mut *conn)
            .await?;
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT MIN(sent_ms) FROM messages WHERE slot = ?1 AND deleted_ms = 0")
                .bind(queue.slot)
                .fetch_one(conn)
                .await?;
        let (in_flight, delayed) = (hidden.0.unsigned_abs(), hidden.1.unsigned_abs());
        let depth = queue.live.depth.load(Ordering::Acquire);
        Ok(QueueCounts {
            active: depth.saturating_sub(in_flight + delayed),
            in_flight,
            delayed,
            rewindable: rewindable.unsigned_abs(),
            oldest_ms: oldest.map(i64::unsigned_abs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_back_and_nothing_else_is() {
        for handle in
            [Handle { id: 1, token: -1 }, Handle { id: i64::MAX, token: i64::MIN }, Handle { id: 7, token: 0 }]
        {
            assert_eq!(Handle::parse(&handle.text()), Some(handle));
        }
        for bad in [
            "",
            "-",
            "1-",
            "-1",
            "1",
            "g-1",
            "1-g",
            "+1-1",
            "ffffffffffffffff-1",
            "1-11111111111111111",
            "1-2-3",
            " 1-1",
        ] {
            assert_eq!(Handle::parse(bad), None, "{bad}");
        }
    }
}
