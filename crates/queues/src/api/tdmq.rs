//! TDMQ's API for CMQ (2020-02-17): management, and sending one message. There is no receiving in it.

use super::Account;
use super::cmq::{filters, new_subscription, queue_change, shape, simplified};
use super::fields::Fields;
use crate::catalogue::{Subscription, Topic};
use crate::db::SubscriptionChange;
use crate::error::{ErrorKind, QueueError};
use crate::service::{QueueView, Queues};
use crate::spec::{DeadLetterRule, FilterType, MESSAGE_BYTES_MAX, QueueChange, Strategy, Target, TopicChange};
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Done = Result<Map<String, Value>, QueueError>;

fn done(fields: Value) -> Done {
    Ok(if let Value::Object(map) = fields { map } else { Map::new() })
}

/// Carries an action out.
pub(super) async fn handle(queues: &Queues, account: &Account, action: &str, params: &Map<String, Value>) -> Done {
    let fields = Fields(params);
    match action {
        "CreateCmqQueue"
        | "ModifyCmqQueueAttribute"
        | "DeleteCmqQueue"
        | "DescribeCmqQueueDetail"
        | "DescribeCmqQueues"
        | "RewindCmqQueue"
        | "ClearCmqQueue"
        | "UnbindCmqDeadLetter"
        | "SendCmqMsg" => of_queues(queues, account, action, &fields).await,
        "CreateCmqTopic"
        | "ModifyCmqTopicAttribute"
        | "DeleteCmqTopic"
        | "DescribeCmqTopicDetail"
        | "DescribeCmqTopics"
        | "PublishCmqMsg" => topics(queues, account, action, &fields).await,
        "CreateCmqSubscribe"
        | "ModifyCmqSubscriptionAttribute"
        | "DeleteCmqSubscribe"
        | "DescribeCmqSubscriptionDetail"
        | "ClearCmqSubscriptionFilterTags" => subscriptions(queues, account, action, &fields).await,
        _ => Err(ErrorKind::UnknownAction.says(format!(
            "`{}` is not one of the actions for CMQ, which are all that there is of TDMQ here.",
            crate::catalogue::shown(action)
        ))),
    }
}

async fn of_queues(queues: &Queues, account: &Account, action: &str, fields: &Fields<'_>) -> Done {
    match action {
        "DescribeCmqQueues" => {
            let mut found = queues.list_queues(&fields.text_or("QueueName")?.unwrap_or_default());
            if let Some(only) = fields.list("QueueNameList")?.filter(|l| !l.is_empty()) {
                found.retain(|q| only.iter().any(|n| n.eq_ignore_ascii_case(&q.name)));
            }
            let page = fields.page("Offset", "Limit")?;
            let mut list = Vec::new();
            for queue in page.of(&found) {
                // One that was deleted meanwhile is left out.
                if let Ok(view) = queues.queue(&queue.name).await {
                    list.push(shown_queue(account, &view, queues.now_ms()));
                }
            }
            return done(json!({"TotalCount": found.len(), "QueueList": list}));
        }
        "UnbindCmqDeadLetter" => {
            let change = QueueChange { dead_letter_queue: Some(String::new()), ..QueueChange::default() };
            queues.set_queue(&fields.text("SourceQueueName")?, change).await?;
            return done(Value::Null);
        }
        _ => {}
    }
    let name = fields.text("QueueName")?;
    if fields.number("Transaction")?.is_some_and(|t| t != 0) {
        return Err(ErrorKind::Invalid.says("Transactional queues are not supported: leave `Transaction` out."));
    }
    match action {
        "CreateCmqQueue" => {
            let mut change = queue_change(fields, true)?;
            change.message_bytes_max = change.message_bytes_max.or(Some(MESSAGE_BYTES_MAX));
            done(json!({"QueueId": queues.create_queue(&name, change).await?}))
        }
        "ModifyCmqQueueAttribute" => {
            queues.set_queue(&name, queue_change(fields, true)?).await?;
            done(Value::Null)
        }
        "DeleteCmqQueue" => {
            queues.delete_queue(&name).await?;
            done(Value::Null)
        }
        "ClearCmqQueue" => {
            queues.clear_queue(&name).await?;
            done(Value::Null)
        }
        "DescribeCmqQueueDetail" => {
            let view = queues.queue(&name).await?;
            done(json!({"QueueDescribe": shown_queue(account, &view, queues.now_ms())}))
        }
        "RewindCmqQueue" => {
            let from = fields.number("StartConsumeTime")?.ok_or_else(|| QueueError::missing("StartConsumeTime"))?;
            queues.rewind_queue(&name, from.saturating_mul(1000)).await?;
            done(Value::Null)
        }
        _ => {
            let body = fields.text("MsgContent")?;
            let ids = queues.send_batch(&name, vec![body], fields.number("DelaySeconds")?.unwrap_or(0)).await?;
            done(json!({"Result": true, "MsgId": ids.first().map(u64::to_string)}))
        }
    }
}

fn shown_queue(account: &Account, view: &QueueView, now_ms: u64) -> Value {
    let (spec, counts) = (&view.queue.spec, &view.counts);
    let policy = spec.dead_letters.as_ref().map(|dead| match dead.rule {
        DeadLetterRule::Received(n) => json!({"DeadLetterQueue": dead.queue, "Policy": 0, "MaxReceiveCount": n}),
        DeadLetterRule::Age(s) => json!({"DeadLetterQueue": dead.queue, "Policy": 1, "MaxTimeToLive": s}),
    });
    json!({
        "QueueId": spec.id,
        "QueueName": view.queue.name,
        "MaxDelaySeconds": crate::spec::DELAY_S_MAX,
        "MaxMsgHeapNum": spec.heap_max,
        "PollingWaitSeconds": spec.poll_s,
        "MsgRetentionSeconds": spec.retention_s,
        "VisibilityTimeout": spec.visibility_s,
        "MaxMsgSize": spec.message_bytes_max,
        "RewindSeconds": spec.rewind_s,
        "CreateTime": spec.created_ms,
        "LastModifyTime": spec.changed_ms,
        "ActiveMsgNum": counts.active,
        "InactiveMsgNum": counts.in_flight,
        "DelayMsgNum": counts.delayed,
        "RewindMsgNum": counts.rewindable,
        "MinMsgTime": counts.oldest_ms.map_or(0, |ms| now_ms.saturating_sub(ms) / 1000),
        "Transaction": false,
        "DeadLetterSource": view.sources.iter().map(|(id, name)| json!({"QueueId": id, "QueueName": name})).collect::<Vec<_>>(),
        "DeadLetterPolicy": policy,
        "CreateUin": account.uin,
        "Trace": spec.trace,
        "Status": 1,
    })
}

async fn topics(queues: &Queues, account: &Account, action: &str, fields: &Fields<'_>) -> Done {
    if action == "DescribeCmqTopics" {
        let mut found = queues.list_topics(&fields.text_or("TopicName")?.unwrap_or_default());
        if let Some(only) = fields.list("TopicNameList")?.filter(|l| !l.is_empty()) {
            found.retain(|t| only.iter().any(|n| n.eq_ignore_ascii_case(&t.name)));
        }
        let page = fields.page("Offset", "Limit")?;
        let list: Vec<Value> = page.of(&found).iter().map(|t| shown_topic(queues, account, t)).collect();
        return done(json!({"TotalCount": found.len(), "TopicList": list}));
    }
    let name = fields.text("TopicName")?;
    let change = || -> Result<TopicChange, QueueError> {
        Ok(TopicChange {
            message_bytes_max: fields.number("MaxMsgSize")?,
            retention_s: fields.number("MsgRetentionSeconds")?,
            filter: None,
            trace: fields.flag("Trace")?,
        })
    };
    match action {
        "CreateCmqTopic" => {
            let filter = fields.number("FilterType")?.map(FilterType::from_number).transpose()?;
            done(json!({"TopicId": queues.create_topic(&name, TopicChange { filter, ..change()? }).await?}))
        }
        "ModifyCmqTopicAttribute" => {
            queues.set_topic(&name, change()?).await?;
            done(Value::Null)
        }
        "DeleteCmqTopic" => {
            queues.delete_topic(&name).await?;
            done(Value::Null)
        }
        "DescribeCmqTopicDetail" => {
            let topic = queues.topic(&name)?;
            done(json!({"TopicDescribe": shown_topic(queues, account, &topic)}))
        }
        _ => {
            let (body, tags) = (fields.text("MsgContent")?, fields.list("MsgTag")?.unwrap_or_default());
            // There is no field for a routing key: with a topic that matches by it, the first tag is the key.
            let routing = queues.topic(&name)?.spec.filter == FilterType::Routing;
            let key = if routing { tags.first().cloned().unwrap_or_default() } else { String::new() };
            let tags = if routing { Vec::new() } else { tags };
            let ids = queues.publish_batch(&name, vec![body], tags, &key).await?;
            done(json!({"Result": true, "MsgId": ids.first().map(u64::to_string)}))
        }
    }
}

fn shown_topic(queues: &Queues, account: &Account, topic: &Topic) -> Value {
    let spec = &topic.spec;
    json!({
        "TopicId": spec.id,
        "TopicName": topic.name,
        "MsgRetentionSeconds": spec.retention_s,
        "MaxMsgSize": spec.message_bytes_max,
        "FilterType": spec.filter.number(),
        "CreateTime": spec.created_ms,
        "LastModifyTime": spec.changed_ms,
        "MsgCount": queues.pending_of_topic(topic),
        "CreateUin": account.uin,
        "Trace": spec.trace,
        "Status": 1,
        "SubscriptionCount": topic.subscriptions.len(),
    })
}

async fn subscriptions(queues: &Queues, account: &Account, action: &str, fields: &Fields<'_>) -> Done {
    if action == "DescribeCmqSubscriptionDetail" {
        return describe_subscriptions(queues, account, fields);
    }
    let (topic, name) = (fields.text("TopicName")?, fields.text("SubscriptionName")?);
    match action {
        "CreateCmqSubscribe" => {
            let filters = filters(queues, &topic, fields.list("FilterTag")?, fields.list("BindingKey")?)?;
            let names = ["Protocol", "Endpoint", "NotifyStrategy", "NotifyContentFormat"];
            let new = new_subscription(fields, names, filters.unwrap_or_default())?;
            done(json!({"SubscriptionId": queues.subscribe(&topic, &name, new).await?}))
        }
        "ModifyCmqSubscriptionAttribute" => {
            let change = SubscriptionChange {
                strategy: fields.text_or("NotifyStrategy")?.map(|s| Strategy::from_name(&s)).transpose()?,
                simplified: fields.text_or("NotifyContentFormat")?.map(|f| simplified(&f)).transpose()?,
                filters: filters(queues, &topic, fields.list("FilterTags")?, fields.list("BindingKey")?)?,
            };
            queues.set_subscription(&topic, &name, change).await?;
            done(Value::Null)
        }
        "DeleteCmqSubscribe" => {
            queues.unsubscribe(&topic, &name).await?;
            done(Value::Null)
        }
        _ => {
            let change = SubscriptionChange { filters: Some(Vec::new()), ..SubscriptionChange::default() };
            queues.set_subscription(&topic, &name, change).await?;
            done(Value::Null)
        }
    }
}

fn describe_subscriptions(queues: &Queues, account: &Account, fields: &Fields<'_>) -> Done {
    let search = fields.text_or("SubscriptionName")?.unwrap_or_default().to_ascii_lowercase();
    let mut all: Vec<Value> = Vec::new();
    let mut add = |topic: &Arc<Topic>, wanted: &dyn Fn(&Subscription) -> bool| {
        let named = topic.subscriptions.iter().filter(|(key, s)| key.contains(&search) && wanted(s));
        all.extend(named.map(|(_, s)| shown_subscription(queues, account, topic, s)));
    };
    if fields.text_or("QueryType")?.as_deref() == Some("queue") {
        let queue = fields.text("QueueName")?;
        let into = |s: &Subscription| matches!(&s.spec.target, Target::Queue(q) if q.eq_ignore_ascii_case(&queue));
        queues.list_topics("").iter().for_each(|t| add(t, &into));
    } else {
        add(&queues.topic(&fields.text("TopicName")?)?, &|_| true);
    }
    let page = fields.page("Offset", "Limit")?;
    done(json!({"TotalCount": all.len(), "SubscriptionSet": page.of(&all)}))
}

fn shown_subscription(queues: &Queues, account: &Account, topic: &Topic, found: &Subscription) -> Value {
    let spec = &found.spec;
    let (protocol, endpoint, format) = shape(found);
    let (tags, keys) = match topic.spec.filter {
        FilterType::Tag => (json!(spec.filters), json!([])),
        FilterType::Routing => (json!([]), json!(spec.filters)),
    };
    json!({
        "SubscriptionName": found.name,
        "SubscriptionId": spec.id,
        "TopicOwner": account.app_id,
        "TopicName": topic.name,
        "MsgCount": queues.pending(found),
        "LastModifyTime": spec.changed_ms,
        "CreateTime": spec.created_ms,
        "BindingKey": keys,
        "Endpoint": endpoint,
        "FilterTags": tags,
        "Protocol": protocol,
        "NotifyStrategy": spec.strategy.name(),
        "NotifyContentFormat": format,
    })
}
