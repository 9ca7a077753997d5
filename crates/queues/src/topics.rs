//! Topics, subscriptions and functions, as the rest of the platform sees them.

use crate::catalogue::{FunctionSubscription, Subscription, Topic};
use crate::consumer::Consumer;
use crate::db::{Admin, Answer, Op, SubscriptionChange, Told};
use crate::error::ErrorKind;
use crate::filter;
use crate::service::{Queues, check_batch, new_id, unexpected};
use crate::spec::{SubscriptionSpec, Target, TopicChange, TopicSpec, check_topic_name, key};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Queues {
    /// Creates a topic and tells its id.
    ///
    /// # Errors
    /// [`ErrorKind::TopicName`], [`ErrorKind::TopicExists`], [`ErrorKind::TooManyTopics`], and what [`TopicSpec::with`] says.
    pub async fn create_topic(&self, name: &str, change: TopicChange) -> Answer<String> {
        check_topic_name(name)?;
        let spec = TopicSpec::new(new_id("topic"), self.now_ms());
        match self.admin(Admin::CreateTopic { name: name.to_owned(), spec, change }).await? {
            Told::Made(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes a topic.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], and what [`TopicSpec::with`] says.
    pub async fn set_topic(&self, name: &str, change: TopicChange) -> Answer<()> {
        self.admin(Admin::SetTopic { name: name.to_owned(), change }).await.map(drop)
    }

    /// Deletes a topic that nobody subscribes to.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], [`ErrorKind::TopicInUse`].
    pub async fn delete_topic(&self, name: &str) -> Answer<()> {
        self.admin(Admin::DeleteTopic { name: name.to_owned() }).await.map(drop)
    }

    /// The topics whose names contain `search`, in the order of their names.
    pub fn list_topics(&self, search: &str) -> Vec<Arc<Topic>> {
        let search = search.to_ascii_lowercase();
        let names = self.shared().names.read();
        names.topics.iter().filter(|(key, _)| key.contains(&search)).map(|(_, t)| Arc::clone(t)).collect()
    }

    /// A topic.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`].
    pub fn topic(&self, name: &str) -> Answer<Arc<Topic>> {
        self.shared().topic(name)
    }

    /// Messages on their way out to a subscription.
    pub fn pending(&self, subscription: &Subscription) -> u64 {
        self.pending_of(&subscription.outlet)
    }

    pub(crate) fn pending_of(&self, outlet: &str) -> u64 {
        let names = self.shared().names.read();
        names.outlets.get(outlet).map_or(0, |o| o.pending.load(Ordering::Acquire))
    }

    /// Messages on their way out of a topic.
    pub fn pending_of_topic(&self, topic: &Topic) -> u64 {
        let functions = self.shared().names.read().functions_of(&topic.name).to_vec();
        let subscriptions: u64 = topic.subscriptions.values().map(|s| self.pending(s)).sum();
        subscriptions + functions.iter().map(|f| self.pending_of(&f.outlet())).sum::<u64>()
    }

    /// Publishes a message with tags, and tells its number. It is on disk, for everybody who gets it, when this returns.
    ///
    /// # Errors
    /// As [`Queues::publish_batch`].
    pub async fn publish(&self, topic: &str, body: impl Into<String>, tags: Vec<String>) -> Answer<u64> {
        let ids = self.publish_batch(topic, vec![body.into()], tags, "").await?;
        ids.first().copied().ok_or_else(|| ErrorKind::Internal.says("The message has no number."))
    }

    /// Publishes messages, all or none, and tells their numbers.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], [`ErrorKind::NobodySubscribed`], [`ErrorKind::NobodyMatches`], [`ErrorKind::TooManyTags`],
    /// [`ErrorKind::Invalid`] for a bad tag or key, and those of the messages as in [`Queues::send_batch`].
    pub async fn publish_batch(
        &self,
        topic: &str,
        bodies: Vec<String>,
        tags: Vec<String>,
        routing_key: &str,
    ) -> Answer<Vec<u64>> {
        let found = self.shared().topic(topic)?;
        check_batch(&bodies, found.spec.message_bytes_max)?;
        filter::check_tags("msgTag", &tags)?;
        filter::check_key("routingKey", routing_key)?;
        let op = Op::Publish {
            topic: topic.to_owned(),
            bodies,
            tags,
            routing_key: routing_key.to_owned(),
            lineage: self.lineage,
        };
        Ok(self.write(op).await?.ids())
    }

    /// Subscribes a queue or an endpoint to a topic, and tells the subscription's id.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], [`ErrorKind::NoQueue`], [`ErrorKind::TopicName`], [`ErrorKind::SubscriptionExists`],
    /// [`ErrorKind::TooManySubscriptions`], and those of [`filter::check`].
    pub async fn subscribe(&self, topic: &str, name: &str, new: NewSubscription) -> Answer<String> {
        check_topic_name(name)?;
        let now = self.now_ms();
        let spec = SubscriptionSpec {
            id: new_id("sub"),
            target: new.target,
            strategy: new.strategy,
            simplified: new.simplified,
            filters: new.filters,
            created_ms: now,
            changed_ms: now,
        };
        match self.admin(Admin::Subscribe { topic: topic.to_owned(), name: name.to_owned(), spec }).await? {
            Told::Made(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes a subscription.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], [`ErrorKind::NoSubscription`], and those of [`filter::check`].
    pub async fn set_subscription(&self, topic: &str, name: &str, change: SubscriptionChange) -> Answer<()> {
        self.admin(Admin::SetSubscription { topic: topic.to_owned(), name: name.to_owned(), change }).await.map(drop)
    }

    /// Removes a subscription, and what is on its way to it.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], [`ErrorKind::NoSubscription`].
    pub async fn unsubscribe(&self, topic: &str, name: &str) -> Answer<()> {
        self.admin(Admin::Unsubscribe { topic: topic.to_owned(), name: name.to_owned() }).await.map(drop)
    }

    /// A subscription.
    ///
    /// # Errors
    /// [`ErrorKind::NoTopic`], [`ErrorKind::NoSubscription`].
    pub fn subscription(&self, topic: &str, name: &str) -> Answer<Arc<Subscription>> {
        let topic = self.topic(topic)?;
        let found = topic.subscriptions.get(&key(name)).cloned();
        found.ok_or_else(|| {
            let name = crate::catalogue::shown(name);
            ErrorKind::NoSubscription.says(format!("The topic `{}` has no subscription `{name}`.", topic.name))
        })
    }

    /// Says which functions get the messages of which topics: all of them, whoever was named before. Who keeps the triggers says so at the start,
    /// before anything can be published, and again at each change. What is published from its return on is kept for them; what is on its
    /// way to those that are not named any more is dropped soon after. Does not wait.
    ///
    /// A topic need not be there: who creates it later has these subscribers.
    pub fn set_function_subscriptions(&self, topics: impl IntoIterator<Item = (String, FunctionSubscription)>) {
        let mut functions: HashMap<String, Vec<FunctionSubscription>> = HashMap::new();
        for (topic, function) in topics {
            functions.entry(key(&topic)).or_default().push(function);
        }
        let gone: Vec<String> = {
            let mut names = self.shared().names.write();
            names.functions = functions;
            let functions = names.outlets.keys().filter(|outlet| outlet.starts_with('f'));
            let gone: Vec<String> = functions.filter(|outlet| !names.is_bound(outlet)).cloned().collect();
            for outlet in &gone {
                names.outlets.remove(outlet);
            }
            gone
        };
        if gone.is_empty() {
            return;
        }
        let queues = self.clone();
        self.runtime().spawn(async move {
            // What cannot be dropped now is dropped at the next change, or expires.
            if let Err(error) = queues.write(Op::Forget { outlets: gone }).await {
                tracing::warn!(%error, "what was on its way to triggers that are no more stays for now");
            }
        });
    }

    /// What is on its way to the function subscription of this id.
    pub fn consumer(&self, subscription: &str) -> Consumer {
        Consumer::new(self.clone(), subscription)
    }
}

/// What a subscription is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSubscription {
    /// Where messages go.
    pub target: Target,
    /// What is done when they are not taken.
    pub strategy: crate::spec::Strategy,
    /// Whether an endpoint gets the message alone.
    pub simplified: bool,
    /// Tags or binding keys.
    pub filters: Vec<String>,
}
