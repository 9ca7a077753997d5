//! Queues, topics and subscriptions come, change and go: first on disk, then in memory.

use super::Stop;
use super::work::{Admin, Tally, Told, Work};
use crate::catalogue::{Live, Queue, Shared, Subscription, Topic};
use crate::error::{ErrorKind, QueueError};
use crate::filter;
use crate::spec::{QueueSpec, Target, TopicSpec, key};
use serde::Serialize;
use sqlx::SqliteConnection;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A change of the catalogue in memory.
pub(super) enum Made {
    Queue(Box<Queue>),
    NoQueue(String),
    Topic(Box<Topic>),
    NoTopic(String),
}

/// Makes a change visible, once it is on disk.
pub(super) fn publish(shared: &Shared, made: Made) {
    let mut names = shared.names.write();
    match made {
        Made::Queue(queue) => {
            let queue = names.put_queue(*queue);
            drop(names);
            // Attributes of what waits may have changed.
            queue.live.arrived.notify_one();
        }
        Made::NoQueue(name) => {
            let gone = names.queues.get(&key(&name)).cloned();
            names.remove_queue(&name);
            drop(names);
            if let Some(gone) = gone {
                gone.live.arrived.notify_waiters();
            }
        }
        Made::Topic(topic) => {
            for subscription in topic.subscriptions.values() {
                names.outlet(&subscription.outlet);
            }
            let kept: std::collections::HashSet<String> = outlets(&topic).collect();
            if let Some(before) = names.topics.insert(key(&topic.name), Arc::new(*topic)) {
                for outlet in outlets(&before).filter(|o| !kept.contains(o)) {
                    names.outlets.remove(&outlet);
                }
            }
        }
        Made::NoTopic(name) => {
            if let Some(before) = names.topics.remove(&key(&name)) {
                for outlet in outlets(&before) {
                    names.outlets.remove(&outlet);
                }
            }
        }
    }
}

fn outlets(topic: &Topic) -> impl Iterator<Item = String> + '_ {
    topic.subscriptions.values().map(|s| s.outlet.clone())
}

fn text(value: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string(value).map_err(|e| Stop::Failed(sqlx::Error::Encode(Box::new(e))))
}

impl Work {
    pub(super) async fn admin(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        admin: &Admin,
    ) -> Result<(Told, Made), Stop> {
        let now = self.now_ms();
        match admin {
            Admin::CreateQueue { name, spec, change } => self.create_queue(conn, name, spec, change, now).await,
            Admin::SetQueue { name, change } => {
                let queue = self.shared.queue(name)?;
                let spec = queue.spec.clone().with(change, now)?;
                self.check_dead_letters(&queue.name, &spec)?;
                sqlx::query("UPDATE queues SET spec = ?2 WHERE slot = ?1")
                    .bind(queue.slot)
                    .bind(text(&spec)?)
                    .execute(&mut *conn)
                    .await?;
                if spec.retention_s != queue.spec.retention_s {
                    // The new retention holds for messages that are there, too.
                    sqlx::query("UPDATE messages SET expires_ms = sent_ms + ?2 WHERE slot = ?1 AND deleted_ms = 0")
                        .bind(queue.slot)
                        .bind(super::int(spec.retention_s * 1000))
                        .execute(conn)
                        .await?;
                }
                Ok((Told::Done, Made::Queue(Box::new(Queue { spec, ..(*queue).clone() }))))
            }
            Admin::DeleteQueue { name } => {
                let queue = self.shared.queue(name)?;
                let user = self.shared.names.read().sources_of(&queue.name).next().map(|q| q.name.clone());
                if let Some(user) = user.filter(|u| *u != queue.name) {
                    return Err(ErrorKind::QueueInUse
                        .says(format!(
                            "`{}` is the dead-letter queue of `{user}`; give that one another first.",
                            queue.name
                        ))
                        .into());
                }
                sqlx::query("DELETE FROM queues WHERE slot = ?1").bind(queue.slot).execute(&mut *conn).await?;
                doom(conn, queue.slot).await?;
                Ok((Told::Done, Made::NoQueue(queue.name.clone())))
            }
            Admin::ClearQueue { name } => {
                let queue = self.shared.queue(name)?;
                sqlx::query("DELETE FROM queues WHERE slot = ?1").bind(queue.slot).execute(&mut *conn).await?;
                doom(conn, queue.slot).await?;
                let slot = insert_queue(conn, &queue.name, &queue.spec).await?;
                Ok((Told::Done, Made::Queue(Box::new(Queue { slot, ..(*queue).clone() }))))
            }
            Admin::CreateTopic { name, spec, change } => {
                let names = self.shared.names.read().topics.len();
                if self.shared.topic(name).is_ok() {
                    return Err(ErrorKind::TopicExists.says(format!("There is a topic `{name}` already.")).into());
                }
                if names >= self.limits.topics_max {
                    return Err(ErrorKind::TooManyTopics
                        .says(format!("There are {names} topics, and there may be no more."))
                        .into());
                }
                let spec = spec.clone().with(change, now)?;
                let row = sqlx::query("INSERT INTO topics (name, spec) VALUES (?1, ?2)")
                    .bind(name)
                    .bind(text(&spec)?)
                    .execute(conn)
                    .await?
                    .last_insert_rowid();
                let id = spec.id.clone();
                Ok((Told::Made(id), Made::Topic(Box::new(new_topic(row, name.clone(), spec)))))
            }
            Admin::SetTopic { name, change } => {
                let topic = self.shared.topic(name)?;
                let spec = topic.spec.clone().with(change, now)?;
                sqlx::query("UPDATE topics SET spec = ?2 WHERE id = ?1")
                    .bind(topic.row)
                    .bind(text(&spec)?)
                    .execute(conn)
                    .await?;
                Ok((Told::Done, Made::Topic(Box::new(Topic { spec, ..(*topic).clone() }))))
            }
            Admin::DeleteTopic { name } => {
                let topic = self.shared.topic(name)?;
                let functions = self.shared.names.read().functions_of(&topic.name).len();
                if !topic.subscriptions.is_empty() || functions > 0 {
                    let subscriptions = topic.subscriptions.len();
                    return Err(ErrorKind::TopicInUse
                        .says(format!(
                            "`{}` has {subscriptions} subscriptions and {functions} triggers; remove them first.",
                            topic.name
                        ))
                        .into());
                }
                sqlx::query("DELETE FROM topics WHERE id = ?1").bind(topic.row).execute(conn).await?;
                Ok((Told::Done, Made::NoTopic(topic.name.clone())))
            }
            _ => self.subscriptions(conn, tally, admin, now).await,
        }
    }

    async fn create_queue(
        &self,
        conn: &mut SqliteConnection,
        name: &str,
        spec: &QueueSpec,
        change: &crate::spec::QueueChange,
        now: u64,
    ) -> Result<(Told, Made), Stop> {
        if self.shared.queue(name).is_ok() {
            return Err(ErrorKind::QueueExists.says(format!("There is a queue `{name}` already.")).into());
        }
        let count = self.shared.names.read().queues.len();
        if count >= self.limits.queues_max {
            return Err(ErrorKind::TooManyQueues
                .says(format!("There are {count} queues, and there may be no more."))
                .into());
        }
        let spec = spec.clone().with(change, now)?;
        self.check_dead_letters(name, &spec)?;
        let slot = insert_queue(conn, name, &spec).await?;
        let id = spec.id.clone();
        let queue = Queue { slot, name: name.to_owned(), spec, live: Arc::new(Live::default()) };
        Ok((Told::Made(id), Made::Queue(Box::new(queue))))
    }

    fn check_dead_letters(&self, name: &str, spec: &QueueSpec) -> Result<(), QueueError> {
        let Some(dead) = &spec.dead_letters else { return Ok(()) };
        if dead.queue.eq_ignore_ascii_case(name) {
            return Err(ErrorKind::Invalid.says("A queue cannot be its own dead-letter queue."));
        }
        self.shared.queue(&dead.queue).map(drop)
    }

    async fn subscriptions(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        admin: &Admin,
        now: u64,
    ) -> Result<(Told, Made), Stop> {
        match admin {
            Admin::Subscribe { topic, name, spec } => {
                let mut topic = (*self.shared.topic(topic)?).clone();
                if topic.subscriptions.contains_key(&key(name)) {
                    let why = format!("The topic `{}` has a subscription `{name}` already.", topic.name);
                    return Err(ErrorKind::SubscriptionExists.says(why).into());
                }
                if topic.subscriptions.len() >= self.limits.subscriptions_max {
                    let why = format!("The topic `{}` has as many subscriptions as it may have.", topic.name);
                    return Err(ErrorKind::TooManySubscriptions.says(why).into());
                }
                filter::check(topic.spec.filter, &spec.filters)?;
                if let Target::Queue(queue) = &spec.target {
                    self.shared.queue(queue)?;
                }
                let row = sqlx::query("INSERT INTO subscriptions (topic, name, spec) VALUES (?1, ?2, ?3)")
                    .bind(topic.row)
                    .bind(name)
                    .bind(text(spec)?)
                    .execute(conn)
                    .await?
                    .last_insert_rowid();
                let subscription = Subscription { outlet: format!("s{row}"), name: name.clone(), spec: spec.clone() };
                topic.subscriptions.insert(key(name), Arc::new(subscription));
                Ok((Told::Made(spec.id.clone()), Made::Topic(Box::new(topic))))
            }
            Admin::SetSubscription { topic, name, change } => {
                let mut topic = (*self.shared.topic(topic)?).clone();
                let found = topic.subscriptions.get(&key(name));
                let before = found.ok_or_else(|| Admin::no_subscription(&topic.name, name))?;
                let mut subscription = (**before).clone();
                let spec = &mut subscription.spec;
                if let Some(filters) = &change.filters {
                    filter::check(topic.spec.filter, filters)?;
                    spec.filters.clone_from(filters);
                }
                spec.strategy = change.strategy.unwrap_or(spec.strategy);
                if let Some(simplified) = change.simplified {
                    if matches!(spec.target, Target::Queue(_)) && !simplified {
                        return Err(ErrorKind::QueueFormat.says("Leave `notifyContentFormat` out.").into());
                    }
                    spec.simplified = simplified;
                }
                spec.changed_ms = now;
                sqlx::query("UPDATE subscriptions SET spec = ?3 WHERE topic = ?1 AND name = ?2 COLLATE NOCASE")
                    .bind(topic.row)
                    .bind(&subscription.name)
                    .bind(text(spec)?)
                    .execute(conn)
                    .await?;
                topic.subscriptions.insert(key(name), Arc::new(subscription));
                Ok((Told::Done, Made::Topic(Box::new(topic))))
            }
            Admin::Unsubscribe { topic, name } => {
                let mut topic = (*self.shared.topic(topic)?).clone();
                let gone = topic.subscriptions.remove(&key(name));
                let gone = gone.ok_or_else(|| Admin::no_subscription(&topic.name, name))?;
                sqlx::query("DELETE FROM subscriptions WHERE topic = ?1 AND name = ?2 COLLATE NOCASE")
                    .bind(topic.row)
                    .bind(&gone.name)
                    .execute(&mut *conn)
                    .await?;
                self.drop_outlet(conn, tally, &gone.outlet).await?;
                Ok((Told::Done, Made::Topic(Box::new(topic))))
            }
            _ => Err(ErrorKind::Internal.says("This is no change of subscriptions.").into()),
        }
    }
}

pub(super) fn new_topic(row: i64, name: String, spec: TopicSpec) -> Topic {
    Topic { row, name, spec, subscriptions: std::collections::BTreeMap::new(), published: Arc::new(AtomicU64::new(0)) }
}

async fn insert_queue(conn: &mut SqliteConnection, name: &str, spec: &QueueSpec) -> Result<i64, Stop> {
    let done = sqlx::query("INSERT INTO queues (name, spec) VALUES (?1, ?2)")
        .bind(name)
        .bind(text(spec)?)
        .execute(conn)
        .await?;
    Ok(done.last_insert_rowid())
}

async fn doom(conn: &mut SqliteConnection, slot: i64) -> Result<(), Stop> {
    sqlx::query("INSERT INTO doomed (slot) VALUES (?1)").bind(slot).execute(conn).await?;
    Ok(())
}
