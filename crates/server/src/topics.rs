//! Topics as a source of events: what `cmq` triggers take.

use async_trait::async_trait;
use mayfly_model::TriggerDesc;
use mayfly_queues::spec::FilterType;
use mayfly_queues::{Consumer, FunctionSubscription, Queues};
use mayfly_triggers::{Binding, Item, Lag, Source, TriggerError};

/// The queues' topics. A trigger's name is its topic's.
pub struct TopicSource {
    queues: Queues,
    /// The account's number, which events tell.
    owner: String,
}

impl TopicSource {
    /// The topics of `queues`; `owner` is the account's number (APPID).
    pub fn new(queues: Queues, owner: u64) -> Self {
        Self { queues, owner: owner.to_string() }
    }

    fn consumer(&self, trigger: &Binding) -> Consumer {
        self.queues.consumer(trigger.id())
    }
}

fn subscription(trigger: &Binding) -> Option<(String, FunctionSubscription)> {
    let TriggerDesc::Cmq(desc) = &trigger.config.desc else { return None };
    let filter_type = if desc.filter_type == 2 { FilterType::Routing } else { FilterType::Tag };
    let function =
        FunctionSubscription { id: trigger.id().to_owned(), filter_type, filter_keys: desc.filter_key.clone() };
    Some((trigger.config.name.clone(), function))
}

fn failed(error: mayfly_queues::QueueError) -> TriggerError {
    TriggerError(error.message)
}

#[async_trait]
impl Source for TopicSource {
    fn bind(&self, triggers: &[Binding]) {
        self.queues.set_function_subscriptions(triggers.iter().filter_map(subscription));
    }

    async fn next(&self, trigger: &Binding, limit: usize) -> Result<Vec<Item>, TriggerError> {
        let deliveries = self.consumer(trigger).next(limit).await.map_err(failed)?;
        let item = |delivery: &mayfly_queues::Delivery| Item {
            position: delivery.id.to_string(),
            event: delivery.event(&self.owner, &trigger.config.name).to_string(),
            lineage: delivery.lineage,
        };
        Ok(deliveries.iter().map(item).collect())
    }

    async fn ack(&self, trigger: &Binding, positions: &[String]) -> Result<(), TriggerError> {
        let ids = positions.iter().filter_map(|position| position.parse().ok()).collect();
        self.consumer(trigger).ack(ids).await.map_err(failed)
    }

    fn lag(&self, trigger: &Binding) -> Lag {
        let lag = self.consumer(trigger).lag();
        Lag { events: lag.count, oldest_ms: u64::try_from(lag.age.as_millis()).unwrap_or(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::SystemClock;
    use mayfly_model::{CmqDesc, TriggerConfig};
    use mayfly_queues::QueueLimits;
    use mayfly_queues::spec::TopicChange;
    use mayfly_triggers::contract::Rig;
    use mayfly_triggers::source::FromSource;
    use mayfly_triggers::{Door, Trigger, trigger_contract};
    use std::sync::Arc;

    /// A topic, and a trigger of it.
    struct TopicRig {
        queues: Queues,
        binding: Binding,
        published: usize,
        _data: tempfile::TempDir,
    }

    async fn rig() -> TopicRig {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("queues.db");
        let queues = Queues::open(&path, QueueLimits::default(), Arc::new(SystemClock)).await.unwrap();
        queues.create_topic("news", TopicChange::default()).await.unwrap();
        let config = TriggerConfig {
            id: "0123456789abcdef".into(),
            name: "news".into(),
            desc: TriggerDesc::Cmq(CmqDesc::default()),
            qualifier: "$LATEST".into(),
            enabled: true,
            argument: String::new(),
            description: String::new(),
            add_time_ms: 0,
            mod_time_ms: 0,
        };
        let binding = Binding { namespace: "default".into(), function: "f".into(), config: Arc::new(config) };
        TopicSource::new(queues.clone(), 1).bind(std::slice::from_ref(&binding));
        TopicRig { queues, binding, published: 0, _data: data }
    }

    #[async_trait]
    impl Rig for TopicRig {
        async fn start(&mut self, door: Arc<dyn Door>) -> Arc<dyn Trigger> {
            let source = TopicSource::new(self.queues.clone(), 1);
            source.bind(std::slice::from_ref(&self.binding));
            Arc::new(FromSource::new(self.binding.clone(), Arc::new(source), door, Arc::default()))
        }

        async fn happen(&mut self, events: usize) {
            for _ in 0..events {
                self.published += 1;
                self.queues.publish("news", format!("message {}", self.published), Vec::new()).await.unwrap();
            }
        }
    }

    trigger_contract!(contract, rig);
}
