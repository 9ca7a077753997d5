//! CMQ's own API (`/v2/index.php`), as its SDKs use it.

use super::fields::Fields;
use super::{Account, Outcome};
use crate::catalogue::{Queue, Subscription};
use crate::db::{Received, SubscriptionChange};
use crate::error::{ErrorKind, QueueError};
use crate::push::check_endpoint;
use crate::service::{QueueView, Queues, check_count};
use crate::spec::{DeadLetterRule, FilterType, QueueChange, Strategy, Target, TopicChange};
use crate::topics::NewSubscription;
use serde_json::{Map, Value, json};

type Done = Result<Outcome, QueueError>;

fn done(fields: Value) -> Done {
    let fields = if let Value::Object(map) = fields { map } else { Map::new() };
    Ok(Outcome { error: None, fields })
}

/// Carries an action out. The SDK begins actions with a capital; others do not.
pub(super) async fn handle(
    queues: &Queues,
    account: &Account,
    action: &str,
    params: &Map<String, Value>,
) -> Result<Outcome, QueueError> {
    let fields = Fields(params);
    let mut name = action.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    match name.as_str() {
        "SendMessage"
        | "BatchSendMessage"
        | "ReceiveMessage"
        | "BatchReceiveMessage"
        | "DeleteMessage"
        | "BatchDeleteMessage" => messages(queues, &name, &fields).await,
        "CreateQueue" | "ListQueue" | "GetQueueAttributes" | "SetQueueAttributes" | "DeleteQueue" | "RewindQueue"
        | "ClearQueue" | "UnbindDeadLetter" => of_queues(queues, &name, &fields).await,
        "CreateTopic"
        | "ListTopic"
        | "GetTopicAttributes"
        | "SetTopicAttributes"
        | "DeleteTopic"
        | "PublishMessage"
        | "BatchPublishMessage" => topics(queues, &name, &fields).await,
        "Subscribe"
        | "Unsubscribe"
        | "ListSubscriptionByTopic"
        | "GetSubscriptionAttributes"
        | "SetSubscriptionAttributes"
        | "ClearSubscriptionFilterTags" => subscriptions(queues, account, &name, &fields).await,
        _ => Err(ErrorKind::UnknownAction.says(format!("`{}`.", crate::catalogue::shown(action)))),
    }
}

async fn messages(queues: &Queues, action: &str, fields: &Fields<'_>) -> Done {
    let queue = fields.text("queueName")?;
    match action {
        "SendMessage" => {
            let body = fields.text_even_empty("msgBody")?.ok_or_else(|| QueueError::missing("msgBody"))?;
            let ids = queues.send_batch(&queue, vec![body], fields.number("delaySeconds")?.unwrap_or(0)).await?;
            done(json!({"msgId": ids.first().map(u64::to_string)}))
        }
        "BatchSendMessage" => {
            let bodies = fields.list("msgBody")?.unwrap_or_default();
            let ids = queues.send_batch(&queue, bodies, fields.number("delaySeconds")?.unwrap_or(0)).await?;
            done(id_list(&ids))
        }
        "ReceiveMessage" => {
            let found = queues.receive(&queue, 1, fields.number("pollingWaitSeconds")?).await?;
            done(found.first().map_or(Value::Null, received))
        }
        "BatchReceiveMessage" => {
            let limit = fields.number("numOfMsg")?.ok_or_else(|| QueueError::missing("numOfMsg"))?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let found = queues.receive(&queue, limit, fields.number("pollingWaitSeconds")?).await?;
            done(json!({"msgInfoList": found.iter().map(received).collect::<Vec<_>>()}))
        }
        "DeleteMessage" => {
            let handle = fields.text("receiptHandle")?;
            match queues.delete(&queue, &[handle]).await?.first() {
                Some(true) => done(Value::Null),
                _ => Err(bad_handle()),
            }
        }
        _ => {
            let handles = fields.list("receiptHandle")?.unwrap_or_default();
            let each = queues.delete(&queue, &handles).await?;
            let bad: Vec<&String> = handles.iter().zip(&each).filter(|(_, ok)| !**ok).map(|(h, _)| h).collect();
            batch_deleted(&bad, each.len())
        }
    }
}

fn bad_handle() -> QueueError {
    ErrorKind::Handle
        .says("It is none of this queue's, its message has been deleted, or it has been received again since.")
}

fn batch_deleted(bad: &[&String], all: usize) -> Done {
    let error = match bad.len() {
        0 => None,
        n if n == all => Some((6020, 10290, "batch delete message failed")),
        _ => Some((6010, 10150, "delete message partially failed")),
    };
    let (code, module, text) = ErrorKind::Handle.cmq();
    let each =
        |handle: &&String| json!({"code": code, "message": format!("({module}){text}"), "receiptHandle": handle});
    let list: Vec<Value> = bad.iter().map(each).collect();
    let fields = if list.is_empty() { Map::new() } else { Map::from_iter([("errorList".to_owned(), json!(list))]) };
    Ok(Outcome { error, fields })
}

fn id_list(ids: &[u64]) -> Value {
    json!({"msgList": ids.iter().map(|id| json!({"msgId": id.to_string()})).collect::<Vec<_>>()})
}

fn received(message: &Received) -> Value {
    json!({
        "msgId": message.id.to_string(),
        "msgBody": message.body,
        "receiptHandle": message.handle,
        "enqueueTime": message.sent_ms / 1000,
        "firstDequeueTime": message.first_ms / 1000,
        "nextVisibleTime": message.visible_ms / 1000,
        "dequeueCount": message.received,
    })
}

/// The attributes of a queue that a request names. TDMQ's begin with a capital.
pub(super) fn queue_change(fields: &Fields<'_>, capital: bool) -> Result<QueueChange, QueueError> {
    let name = |small: &'static str| {
        let mut text = small.to_owned();
        if capital {
            text[..1].make_ascii_uppercase();
        }
        text
    };
    let number = |n| fields.number(&name(n));
    Ok(QueueChange {
        heap_max: number("maxMsgHeapNum")?,
        poll_s: number("pollingWaitSeconds")?,
        visibility_s: number("visibilityTimeout")?,
        message_bytes_max: number("maxMsgSize")?,
        retention_s: number("msgRetentionSeconds")?,
        rewind_s: number("rewindSeconds")?,
        dead_letter_queue: fields.text_or(&name("deadLetterQueueName"))?,
        policy: number("policy")?,
        receives_max: number("maxReceiveCount")?,
        age_s: number("maxTimeToLive")?,
        trace: fields.flag(&name("trace"))?,
    })
}

async fn of_queues(queues: &Queues, action: &str, fields: &Fields<'_>) -> Done {
    if action == "ListQueue" {
        let found = queues.list_queues(&fields.text_or("searchWord")?.unwrap_or_default());
        let page = fields.page("offset", "limit")?;
        let one = |q: &std::sync::Arc<Queue>| json!({"queueId": q.spec.id, "queueName": q.name});
        let list: Vec<Value> = page.of(&found).iter().map(one).collect();
        return done(json!({"totalCount": found.len(), "queueList": list}));
    }
    if action == "UnbindDeadLetter" {
        let change = QueueChange { dead_letter_queue: Some(String::new()), ..QueueChange::default() };
        queues.set_queue(&fields.text("sourceQueueName")?, change).await?;
        return done(Value::Null);
    }
    let name = fields.text("queueName")?;
    match action {
        "CreateQueue" => done(json!({"queueId": queues.create_queue(&name, queue_change(fields, false)?).await?})),
        "GetQueueAttributes" => done(attributes(&queues.queue(&name).await?, queues.now_ms())),
        "SetQueueAttributes" => {
            queues.set_queue(&name, queue_change(fields, false)?).await?;
            done(Value::Null)
        }
        "DeleteQueue" => {
            queues.delete_queue(&name).await?;
            done(Value::Null)
        }
        "ClearQueue" => {
            queues.clear_queue(&name).await?;
            done(Value::Null)
        }
        _ => {
            let from = fields.number("startConsumeTime")?.ok_or_else(|| QueueError::missing("startConsumeTime"))?;
            queues.rewind_queue(&name, from.saturating_mul(1000)).await?;
            done(Value::Null)
        }
    }
}

fn attributes(view: &QueueView, now_ms: u64) -> Value {
    let (spec, counts) = (&view.queue.spec, &view.counts);
    let mut out = json!({
        "queueId": spec.id,
        "queueName": view.queue.name,
        "maxMsgHeapNum": spec.heap_max,
        "pollingWaitSeconds": spec.poll_s,
        "visibilityTimeout": spec.visibility_s,
        "maxMsgSize": spec.message_bytes_max,
        "msgRetentionSeconds": spec.retention_s,
        "rewindSeconds": spec.rewind_s,
        "createTime": spec.created_ms / 1000,
        "lastModifyTime": spec.changed_ms / 1000,
        "activeMsgNum": counts.active,
        "inactiveMsgNum": counts.in_flight,
        "delayMsgNum": counts.delayed,
        "rewindmsgNum": counts.rewindable,
        "minMsgTime": counts.oldest_ms.map_or(0, |ms| now_ms.saturating_sub(ms) / 1000),
        "deadLetterSource": view.sources.iter().map(|(id, name)| json!({"queueId": id, "queueName": name})).collect::<Vec<_>>(),
    });
    if let Some(dead) = &spec.dead_letters {
        out["deadLetterPolicy"] = match dead.rule {
            DeadLetterRule::Received(n) => {
                json!({"deadLetterQueueName": dead.queue, "policy": 0, "maxReceiveCount": n})
            }
            DeadLetterRule::Age(s) => json!({"deadLetterQueueName": dead.queue, "policy": 1, "maxTimeToLive": s}),
        };
    }
    out
}

async fn topics(queues: &Queues, action: &str, fields: &Fields<'_>) -> Done {
    if action == "ListTopic" {
        let found = queues.list_topics(&fields.text_or("searchWord")?.unwrap_or_default());
        let page = fields.page("offset", "limit")?;
        let one = |t: &std::sync::Arc<crate::Topic>| json!({"topicId": t.spec.id, "topicName": t.name});
        let list: Vec<Value> = page.of(&found).iter().map(one).collect();
        return done(json!({"totalCount": found.len(), "topicList": list}));
    }
    let name = fields.text("topicName")?;
    let change = || -> Result<TopicChange, QueueError> {
        Ok(TopicChange {
            message_bytes_max: fields.number("maxMsgSize")?,
            retention_s: fields.number("msgRetentionSeconds")?,
            filter: None,
            trace: fields.flag("trace")?,
        })
    };
    match action {
        "CreateTopic" => {
            let filter = fields.number("filterType")?.map(FilterType::from_number).transpose()?;
            done(json!({"topicId": queues.create_topic(&name, TopicChange { filter, ..change()? }).await?}))
        }
        "GetTopicAttributes" => {
            let topic = queues.topic(&name)?;
            let spec = &topic.spec;
            done(json!({
                "topicId": spec.id,
                "topicName": topic.name,
                "msgCount": queues.pending_of_topic(&topic),
                "maxMsgSize": spec.message_bytes_max,
                "msgRetentionSeconds": spec.retention_s,
                "filterType": spec.filter.number(),
                "createTime": spec.created_ms / 1000,
                "lastModifyTime": spec.changed_ms / 1000,
            }))
        }
        "SetTopicAttributes" => {
            queues.set_topic(&name, change()?).await?;
            done(Value::Null)
        }
        "DeleteTopic" => {
            queues.delete_topic(&name).await?;
            done(Value::Null)
        }
        _ => {
            let tags = fields.list("msgTag")?.unwrap_or_default();
            let routing_key = fields.text_or("routingKey")?.unwrap_or_default();
            if action == "PublishMessage" {
                let body = fields.text_even_empty("msgBody")?.ok_or_else(|| QueueError::missing("msgBody"))?;
                let ids = queues.publish_batch(&name, vec![body], tags, &routing_key).await?;
                return done(json!({"msgId": ids.first().map(u64::to_string)}));
            }
            let bodies = fields.list("msgBody")?.unwrap_or_default();
            check_count("msgBody", bodies.len())?;
            done(id_list(&queues.publish_batch(&name, bodies, tags, &routing_key).await?))
        }
    }
}

/// What a request says of a new subscription, by fields that are named as given.
pub(super) fn new_subscription(
    fields: &Fields<'_>,
    [protocol, endpoint, strategy, format]: [&str; 4],
    filters: Vec<String>,
) -> Result<NewSubscription, QueueError> {
    let (protocol, endpoint) = (fields.text(protocol)?, fields.text(endpoint)?);
    let format = fields.text_or(format)?;
    let (target, simplified) = match protocol.as_str() {
        "queue" => {
            // The Python SDK says JSON unless told otherwise, with either protocol; the real service refuses that.
            if format.as_deref().is_some_and(|f| f != "SIMPLIFIED") {
                return Err(ErrorKind::QueueFormat.says("Say `SIMPLIFIED`, or nothing."));
            }
            (Target::Queue(endpoint), true)
        }
        "http" => {
            check_endpoint(&endpoint)?;
            (Target::Http(endpoint), format.as_deref().map(simplified).transpose()?.unwrap_or(false))
        }
        _ => return Err(ErrorKind::Protocol.says("`protocol` is `queue` or `http`.")),
    };
    let strategy = fields.text_or(strategy)?.map_or(Ok(Strategy::Decay), |s| Strategy::from_name(&s))?;
    Ok(NewSubscription { target, strategy, simplified, filters })
}

/// Whether a format is the one without attributes.
pub(super) fn simplified(format: &str) -> Result<bool, QueueError> {
    match format {
        "SIMPLIFIED" => Ok(true),
        "JSON" => Ok(false),
        _ => Err(ErrorKind::Format.says("`notifyContentFormat` is `JSON` or `SIMPLIFIED`.")),
    }
}

/// A topic's filters from the list that is its type's.
pub(super) fn filters(
    queues: &Queues,
    topic: &str,
    tags: Option<Vec<String>>,
    keys: Option<Vec<String>>,
) -> Result<Option<Vec<String>>, QueueError> {
    let (own, other, names) = match queues.topic(topic)?.spec.filter {
        FilterType::Tag => (tags, keys, ["tags (`filterTag`)", "`bindingKey`"]),
        FilterType::Routing => (keys, tags, ["binding keys (`bindingKey`)", "`filterTag`"]),
    };
    if other.is_some_and(|o| !o.is_empty()) {
        let why = format!("The topic `{topic}` filters by {}: {} has no meaning there.", names[0], names[1]);
        return Err(ErrorKind::Invalid.says(why));
    }
    Ok(own)
}

/// What a subscription looks like: protocol, endpoint, format.
pub(super) fn shape(subscription: &Subscription) -> (&'static str, &str, &'static str) {
    let format = if subscription.spec.simplified { "SIMPLIFIED" } else { "JSON" };
    match &subscription.spec.target {
        Target::Queue(name) => ("queue", name, format),
        Target::Http(url) => ("http", url, format),
    }
}

async fn subscriptions(queues: &Queues, account: &Account, action: &str, fields: &Fields<'_>) -> Done {
    let topic = fields.text("topicName")?;
    if action == "ListSubscriptionByTopic" {
        let found = queues.topic(&topic)?;
        let search = fields.text_or("searchWord")?.unwrap_or_default().to_ascii_lowercase();
        let named = found.subscriptions.iter().filter(|(key, _)| key.contains(&search));
        let all: Vec<Value> = named
            .map(|(_, s)| {
                let (protocol, endpoint, _) = shape(s);
                json!({"subscriptionId": s.spec.id, "subscriptionName": s.name, "protocol": protocol, "endpoint": endpoint})
            })
            .collect();
        let page = fields.page("offset", "limit")?;
        return done(json!({"totalCount": all.len(), "subscriptionList": page.of(&all)}));
    }
    let name = fields.text("subscriptionName")?;
    let lists = || Ok::<_, QueueError>((fields.list("filterTag")?, fields.list("bindingKey")?));
    match action {
        "Subscribe" => {
            let (tags, keys) = lists()?;
            let filters = filters(queues, &topic, tags, keys)?.unwrap_or_default();
            let names = ["protocol", "endpoint", "notifyStrategy", "notifyContentFormat"];
            let id = queues.subscribe(&topic, &name, new_subscription(fields, names, filters)?).await?;
            done(json!({"subscriptionId": id}))
        }
        "Unsubscribe" => {
            queues.unsubscribe(&topic, &name).await?;
            done(Value::Null)
        }
        "GetSubscriptionAttributes" => {
            let found = queues.subscription(&topic, &name)?;
            let filter = queues.topic(&topic)?.spec.filter;
            done(subscription_attributes(queues, account, filter, &found))
        }
        "SetSubscriptionAttributes" => {
            let (tags, keys) = lists()?;
            let change = SubscriptionChange {
                strategy: fields.text_or("notifyStrategy")?.map(|s| Strategy::from_name(&s)).transpose()?,
                simplified: fields.text_or("notifyContentFormat")?.map(|f| simplified(&f)).transpose()?,
                filters: filters(queues, &topic, tags, keys)?,
            };
            queues.set_subscription(&topic, &name, change).await?;
            done(Value::Null)
        }
        _ => {
            let change = SubscriptionChange { filters: Some(Vec::new()), ..SubscriptionChange::default() };
            queues.set_subscription(&topic, &name, change).await?;
            done(Value::Null)
        }
    }
}

fn subscription_attributes(queues: &Queues, account: &Account, filter: FilterType, found: &Subscription) -> Value {
    let spec = &found.spec;
    let (protocol, endpoint, format) = shape(found);
    let (tags, keys) = match filter {
        FilterType::Tag => (json!(spec.filters), json!([])),
        FilterType::Routing => (json!([]), json!(spec.filters)),
    };
    json!({
        "topicOwner": account.app_id.to_string(),
        "subscriptionId": spec.id,
        "subscriptionName": found.name,
        "protocol": protocol,
        // As the Python SDK spells it.
        "protocal": protocol,
        "endpoint": endpoint,
        "notifyStrategy": spec.strategy.name(),
        "notifyContentFormat": format,
        "filterTags": tags,
        "bindingKey": keys,
        "msgCount": queues.pending(found),
        "createTime": spec.created_ms / 1000,
        "lastModifyTime": spec.changed_ms / 1000,
    })
}
