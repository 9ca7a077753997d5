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
