//! Kafka topics, wired: what `ckafka` triggers take, and how they call functions.

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use mayfly_base::{Clock, Kafka, Shutdown, SystemClock};
use mayfly_control::{CallEnd, Control, KafkaTopics, TopicFound, TriggeredCall};
use mayfly_kafka::{Batch, Clusters as Known, Consumer, Ended, Handler, Settings, Start, TopicState, Tried};
use mayfly_model::{CkafkaDesc, KafkaStart, TriggerDesc, kafka_topic_of, limits};
use mayfly_triggers::{Binding, Counts, Lag, Maker, Trigger, TriggerError};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Pauses before a group whose trigger was deleted is deleted: its member takes a while to leave.
const DELETE_AFTER_S: [u64; 4] = [2, 5, 15, 60];

/// The clusters that the operator named.
pub struct Clusters(Arc<Known>);

impl Clusters {
    /// Those of the options. `None`: there are none.
    pub fn open(options: &Kafka) -> Result<Option<Self>> {
        let known = Known::new(options, |name| std::env::var(name).ok()).context("set up Kafka clusters")?;
        let any = known.names().next().is_some();
        Ok(any.then(|| Self(Arc::new(known))))
    }

    /// Their topics, for the control API.
    pub fn topics(&self) -> Arc<dyn KafkaTopics> {
        Arc::new(Topics(Arc::clone(&self.0)))
    }

    /// What makes their triggers. To be called on the runtime that these are to run on.
    pub fn maker(&self, control: Control) -> Arc<dyn Maker> {
        let clusters = Arc::clone(&self.0);
        Arc::new(KafkaTriggers { control, clusters, groups: Mutex::default(), runtime: Handle::current() })
    }
}

struct Topics(Arc<Known>);

#[async_trait]
impl KafkaTopics for Topics {
    async fn find(&self, trigger: &str) -> TopicFound {
        let Some((name, topic)) = kafka_topic_of(trigger, self.0.names()) else {
            return TopicFound::NoCluster(self.0.names().map(str::to_owned).collect());
        };
        let Some(cluster) = self.0.get(name) else { return TopicFound::NoCluster(Vec::new()) };
        match cluster.topic(topic).await {
            TopicState::There(_) => TopicFound::Ok,
            TopicState::Missing => TopicFound::NoTopic { cluster: name.to_owned(), topic: topic.to_owned() },
            TopicState::Unknown(why) => {
                tracing::warn!(
                    cluster = name,
                    topic,
                    why,
                    "a Kafka cluster does not answer; a trigger is bound to it all the same"
                );
                TopicFound::Ok
            }
        }
    }
}

/// The consumer group of a trigger.
fn group_of(binding: &Binding, desc: &CkafkaDesc) -> String {
    match desc.consumer_group_name.as_str() {
        "" => format!("scf-{}", binding.id()),
        given => given.to_owned(),
    }
}

/// Makes `ckafka` triggers.
struct KafkaTriggers {
    control: Control,
    clusters: Arc<Known>,
    /// The groups that were made for triggers, with their clusters, by the ids of these.
    groups: Mutex<HashMap<String, (String, String)>>,
    runtime: Handle,
}

impl KafkaTriggers {
    /// Deletes a group of a trigger that is no more. That it stays where the cluster does not let it go does no harm: it expires there.
    fn forget(&self, cluster: &str, group: String) {
        let Some(cluster) = self.clusters.get(cluster).cloned() else { return };
        self.runtime.spawn(async move {
            let mut why = String::new();
            for after_s in DELETE_AFTER_S {
                tokio::time::sleep(Duration::from_secs(after_s)).await;
                match cluster.delete_group(&group).await {
                    Ok(()) => return,
                    Err(error) => why = error.to_string(),
                }
            }
            tracing::warn!(group, why, "the consumer group of a deleted trigger is left where it is");
        });
    }
}

impl Maker for KafkaTriggers {
    fn bind(&self, triggers: &[Binding]) {
        let mut now = HashMap::new();
        for binding in triggers {
            let TriggerDesc::Ckafka(desc) = &binding.config.desc else { continue };
            let Some((cluster, _)) = kafka_topic_of(&binding.config.name, self.clusters.names()) else { continue };
            if desc.consumer_group_name.is_empty() {
                now.insert(binding.id().to_owned(), (cluster.to_owned(), group_of(binding, desc)));
            }
        }
        let before = std::mem::replace(&mut *self.groups.lock(), now.clone());
        for (id, (cluster, group)) in before {
            // That of a trigger which was given a group by name stays: it may come back.
            if !triggers.iter().any(|binding| binding.id() == id) {
                self.forget(&cluster, group);
            }
        }
    }

    fn make(&self, binding: &Binding, counts: &Arc<Counts>) -> Result<Arc<dyn Trigger>, TriggerError> {
        let TriggerDesc::Ckafka(desc) = &binding.config.desc else {
            return Err(TriggerError("it is no trigger of Kafka".into()));
        };
        let found = kafka_topic_of(&binding.config.name, self.clusters.names());
        let cluster = found.and_then(|(name, topic)| Some((self.clusters.get(name)?, topic)));
        let Some((cluster, topic)) = cluster else {
            return Err(TriggerError("its Kafka cluster is not in the configuration any more".into()));
        };
        let settings = Settings {
            topic: topic.to_owned(),
            group: group_of(binding, desc),
            start: match desc.offset {
                KafkaStart::Earliest => Start::Earliest,
                // Not when the consumer is there at last: what came between would be left out.
                KafkaStart::Latest => Start::At(binding.config.add_time_ms),
                KafkaStart::At(ms) => Start::At(ms),
            },
            messages_max: desc.max_msg_num,
            bytes_max: limits::EVENT_SYNC_BYTES_MAX,
            wait: Duration::from_secs(u64::from(desc.time_out)),
            retries: desc.retry,
        };
        let calls = Calls { control: self.control.clone(), binding: binding.clone(), counts: Arc::clone(counts) };
        Ok(Arc::new(KafkaTrigger(Consumer::new(Arc::clone(cluster), settings, Arc::new(calls)))))
    }
}

/// A `ckafka` trigger at work.
struct KafkaTrigger(Consumer);

#[async_trait]
impl Trigger for KafkaTrigger {
    async fn run(&self, stop: &Shutdown) -> Result<(), TriggerError> {
        self.0.run(stop).await.map_err(|error| TriggerError(error.to_string()))
    }

    fn lag(&self) -> Lag {
        let lag = self.0.lag();
        let oldest_ms = match lag.oldest_ms {
            0 => 0,
            ms => SystemClock.now_ms().saturating_sub(ms),
        };
        Lag { events: lag.messages, oldest_ms }
    }
}

/// Hands batches to a function.
struct Calls {
    control: Control,
    binding: Binding,
    counts: Arc<Counts>,
}

#[async_trait]
impl Handler for Calls {
    async fn hand(&self, batch: &Batch, tried: Tried, last: bool) -> Ended {
        let Batch { topic, partition, first, next, .. } = batch;
        let call = TriggeredCall {
            id: self.binding.event_id(&format!("{topic}/{partition}/{first}")),
            namespace: self.binding.namespace.clone(),
            function: self.binding.function.clone(),
            qualifier: self.binding.config.qualifier.clone(),
            source: self.binding.config.kind().as_str(),
            event: batch.event.clone(),
            reference: if batch.event.len() > limits::EVENT_SYNC_BYTES_MAX {
                json!({"Records": [{"Ckafka": {"topic": topic, "partition": partition, "offset": first}}]}).to_string()
            } else {
                String::new()
            },
            since_ms: SystemClock.now_ms(),
            run_errors: tried.run_errors,
            turned_away: tried.turned_away,
            last,
        };
        let messages = u64::from(batch.messages);
        match self.control.call_for_trigger(call).await {
            CallEnd::Done => {
                self.counts.add_handed(messages);
                Ended::Done
            }
            CallEnd::Failed(why) => {
                self.counts.add_postponed(messages);
                Ended::Failed(why)
            }
            CallEnd::Later(why) => {
                self.counts.add_postponed(messages);
                Ended::Later(why)
            }
            CallEnd::GivenUp(why) => {
                self.counts.add_dropped(messages);
                let Binding { namespace, function, config } = &self.binding;
                tracing::warn!(%namespace, %function, trigger = %config.name, partition, first, next, "messages are given up");
                Ended::GivenUp(why)
            }
        }
    }
}
