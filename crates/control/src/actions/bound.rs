//! Triggers that hand events to functions: their settings. What carries them out watches [`Control::triggers`](crate::Control::triggers).

use super::common::{description, filled, find, function_name, namespace};
use super::triggers::{argument, enable, existing_qualifier, trigger_name};
use super::{Answer, Cx};
use crate::api::requests::{CreateTrigger, DeleteTrigger, UpdateTrigger, UpdateTriggerStatus};
use crate::api::time;
use crate::catalogue::{FunctionState, Next, clip};
use crate::ports::TopicFound;
use mayfly_base::schedule::{Schedule, Zone};
use mayfly_model::{
    ApiError, COS_EVENTS, CkafkaDesc, CmqDesc, CosDesc, FunctionRecord, KAFKA_GROUP_CHARS_MAX, KAFKA_MESSAGES_MAX,
    KAFKA_RETRIES_MAX, KAFKA_WAIT_S_MAX, TimerDesc, TriggerConfig, TriggerDesc, TriggerKind,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most triggers of one type of one function. Source: "Quota Limits".
const PER_KIND_MAX: usize = 10;
/// Longest `TriggerDesc`, in bytes. Ours.
const DESC_BYTES_MAX: usize = 16 * 1024;
/// Most tags or binding keys of a `cmq` trigger. Source: CMQ's limit of a subscription.
const FILTER_KEYS_MAX: usize = 5;
/// Longest of them, in characters. Source: the same; binding keys have 64, tags 16.
const FILTER_KEY_CHARS_MAX: usize = 64;
/// Longest prefix or suffix of a `cos` trigger, in bytes: that of an object's key.
const COS_FILTER_BYTES_MAX: usize = 850;

fn bad(message: String) -> ApiError {
    ApiError::new("InvalidParameterValue.TriggerDesc", message)
}

/// Reads a `TriggerDesc`. Errors: `MissingParameter`, `InvalidParameterValue.TriggerDesc`.
fn read_desc(kind: TriggerKind, text: Option<&str>, now_ms: u64) -> Result<TriggerDesc, ApiError> {
    let text = text.unwrap_or_default().trim();
    if text.len() > DESC_BYTES_MAX {
        return Err(bad(format!("`TriggerDesc` has {} bytes; the limit is {DESC_BYTES_MAX}.", text.len())));
    }
    if text.is_empty() && !matches!(kind, TriggerKind::Cmq | TriggerKind::Ckafka) {
        return Err(ApiError::missing("TriggerDesc"));
    }
    let wrong = |e: serde_json::Error| {
        bad(format!("`TriggerDesc` is not what a {kind} trigger takes: {}.", clip(&e.to_string())))
    };
    Ok(match kind {
        TriggerKind::Timer => TriggerDesc::Timer(read_timer(text, now_ms)?),
        TriggerKind::Cos => {
            let desc: CosDesc = serde_json::from_str(text).map_err(wrong)?;
            if !COS_EVENTS.contains(&desc.event.as_str()) {
                let message = format!(
                    "`event` in `TriggerDesc` is `{}`; it is one of: {}.",
                    clip(&desc.event),
                    COS_EVENTS.join(", ")
                );
                return Err(bad(message));
            }
            if desc.filter.prefix.len().max(desc.filter.suffix.len()) > COS_FILTER_BYTES_MAX {
                return Err(bad(format!("`Prefix` and `Suffix` have at most {COS_FILTER_BYTES_MAX} bytes.")));
            }
            TriggerDesc::Cos(desc)
        }
        TriggerKind::Cmq => {
            let desc: CmqDesc =
                if text.is_empty() { CmqDesc::default() } else { serde_json::from_str(text).map_err(wrong)? };
            if desc.filter_type > 2 || (desc.filter_type == 0 && !desc.filter_key.is_empty()) {
                return Err(bad("`filterType` is 1 (tags) or 2 (binding keys).".into()));
            }
            let fits = |key: &String| (1..=FILTER_KEY_CHARS_MAX).contains(&key.chars().count());
            if desc.filter_key.len() > FILTER_KEYS_MAX || !desc.filter_key.iter().all(fits) {
                let message = format!(
                    "`filterKey` has at most {FILTER_KEYS_MAX} entries of 1 to {FILTER_KEY_CHARS_MAX} characters."
                );
                return Err(bad(message));
            }
            TriggerDesc::Cmq(desc)
        }
        TriggerKind::Ckafka => {
            let desc: CkafkaDesc =
                if text.is_empty() { CkafkaDesc::default() } else { serde_json::from_str(text).map_err(wrong)? };
            check_kafka(&desc)?;
            TriggerDesc::Ckafka(desc)
        }
    })
}

/// The limits of a `ckafka` trigger. Errors: `InvalidParameterValue.TriggerDesc`.
fn check_kafka(desc: &CkafkaDesc) -> Result<(), ApiError> {
    let numbers = [
        ("maxMsgNum", desc.max_msg_num, 1, KAFKA_MESSAGES_MAX),
        ("retry", desc.retry, 0, KAFKA_RETRIES_MAX),
        ("timeOut", desc.time_out, 0, KAFKA_WAIT_S_MAX),
    ];
    if let Some((name, value, min, max)) = numbers.into_iter().find(|(_, value, min, max)| value < min || value > max) {
        return Err(bad(format!("`{name}` in `TriggerDesc` is {value}; it is {min} to {max}.")));
    }
    let group = &desc.consumer_group_name;
    if group.chars().count() > KAFKA_GROUP_CHARS_MAX || group.chars().any(char::is_control) {
        let message =
            format!("`consumerGroupName` has at most {KAFKA_GROUP_CHARS_MAX} characters, and no control characters.");
        return Err(bad(message));
    }
    Ok(())
}

/// Looks for what a trigger listens to. Errors: `ResourceNotFound.Ckafka` for a cluster that nobody configured, or a topic that is not there.
async fn check_source(cx: Cx<'_>, kind: TriggerKind, name: &str) -> Result<(), ApiError> {
    let Some(kafka) = cx.control.kafka.as_ref().filter(|_| kind == TriggerKind::Ckafka) else { return Ok(()) };
    let message = match kafka.find(name).await {
        TopicFound::Ok => return Ok(()),
        TopicFound::NoCluster(known) => format!(
            "`{}` names no Kafka cluster. A trigger's name is `<cluster>-<topic>`; the clusters are: {}. Others are named in the platform's configuration (`[kafka.clusters.NAME]`).",
            clip(name),
            known.join(", ")
        ),
        TopicFound::NoTopic { cluster, topic } => {
            format!("Kafka cluster `{}` has no topic `{}`. Create it first.", clip(&cluster), clip(&topic))
        }
    };
    Err(ApiError::new("ResourceNotFound.Ckafka", message))
}

/// A timer's: the cron text itself, or JSON with it in `cron`. The form of five fields that old clients send begins at the minute.
fn read_timer(text: &str, now_ms: u64) -> Result<TimerDesc, ApiError> {
    let mut desc = match text.starts_with('{') {
        true => serde_json::from_str::<TimerDesc>(text)
            .map_err(|e| bad(format!("`TriggerDesc` is not what a timer takes: {}.", clip(&e.to_string()))))?,
        false => TimerDesc { cron: text.to_owned(), time_zone: String::new() },
    };
    desc.cron = desc.cron.split_whitespace().collect::<Vec<_>>().join(" ");
    if desc.cron.split(' ').count() == 5 {
        desc.cron = format!("0 {} *", desc.cron);
    }
    let checked = Zone::parse(&desc.time_zone)
        .and_then(|zone| Schedule::parse(&desc.cron, zone))
        .and_then(|schedule| schedule.next_after_ms(now_ms).ok_or(mayfly_base::schedule::ScheduleError::Past));
    match checked {
        Ok(_) => Ok(desc),
        Err(error) => Err(bad(format!("The schedule `{}` {error}.", clip(&desc.cron)))),
    }
}

/// True when `text` says what the trigger's `TriggerDesc` says.
pub fn is_desc(trigger: &TriggerConfig, text: &str) -> bool {
    read_desc(trigger.kind(), Some(text), trigger.add_time_ms).is_ok_and(|desc| desc == trigger.desc)
}

/// A trigger as the read actions show it.
pub fn show(cx: Cx<'_>, record: &FunctionRecord, trigger: &TriggerConfig) -> Value {
    json!({
        "TriggerName": trigger.name,
        "Type": trigger.kind().as_str(),
        "TriggerDesc": trigger.desc.show(),
        "Qualifier": trigger.qualifier,
        "Enable": u8::from(trigger.enabled),
        "AvailableStatus": "Available",
        "BindStatus": "on",
        "TriggerAttribute": "",
        "CustomArgument": trigger.argument,
        "Description": trigger.description,
        "AddTime": time::show(trigger.add_time_ms),
        "ModTime": time::show(trigger.mod_time_ms),
        "BoundResources": "",
        "ResourceId": format!(
            "qcs::scf:{}::trigger/{}/{}/{}/{}",
            cx.control.options.region, record.namespace, record.name, trigger.kind(), trigger.id
        ),
    })
}

/// Errors: `UnsupportedOperation.Trigger` when the platform has no such source of events.
fn check_there(cx: Cx<'_>, kind: TriggerKind) -> Result<(), ApiError> {
    if cx.control.options.trigger_kinds.contains(&kind) {
        return Ok(());
    }
    let what = match kind {
        TriggerKind::Timer => "no timers",
        TriggerKind::Cos => "no object store",
        TriggerKind::Cmq => "no message queues",
        TriggerKind::Ckafka => {
            "no Kafka clusters: name some in its configuration (`[kafka.clusters.NAME]`, or --kafka NAME=host:port)"
        }
    };
    Err(ApiError::new("UnsupportedOperation.Trigger", format!("This platform runs with {what}.")))
}

/// The place of a trigger in its function. Errors: `ResourceNotFound.Trigger`; `MissingParameter` when several differ only by what is not given.
fn place(
    state: &FunctionState,
    kind: TriggerKind,
    name: &str,
    qualifier: Option<&str>,
    desc: Option<&str>,
) -> Result<usize, ApiError> {
    let named = |t: &TriggerConfig| t.kind() == kind && t.name == name && qualifier.is_none_or(|q| t.qualifier == q);
    // Of a bucket a function may have several; else the name is enough, whatever a client repeats.
    let several = kind == TriggerKind::Cos;
    let meant = |t: &TriggerConfig| named(t) && desc.filter(|_| several).is_none_or(|text| is_desc(t, text));
    let mut found = state.record.triggers.iter().enumerate().filter(|(_, t)| meant(t)).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (Some(_), Some(_)) => Err(ApiError::missing("TriggerDesc")),
        (None, _) => {
            let message =
                format!("Function `{}` has no such trigger `{}` of type {kind}.", state.record.name, clip(name));
            Err(ApiError::new("ResourceNotFound.Trigger", message))
        }
    }
}

/// Errors: `InvalidParameterValue.CosNotifyRuleConflict` when another trigger of the same bucket could want the same change.
fn check_bucket(cx: Cx<'_>, name: &str, desc: &TriggerDesc, own_id: Option<&str>) -> Result<(), ApiError> {
    let TriggerDesc::Cos(wanted) = desc else { return Ok(()) };
    let bucket = mayfly_model::bucket_of(name);
    for bound in cx.control.catalogue.triggers() {
        let TriggerDesc::Cos(other) = &bound.config.desc else { continue };
        let same_bucket = mayfly_model::bucket_of(&bound.config.name) == bucket;
        if same_bucket && own_id != Some(bound.config.id.as_str()) && wanted.overlaps(other) {
            let message = format!(
                "Function `{}` in namespace `{}` has a trigger of this bucket that wants the same changes: {}.",
                bound.function,
                bound.namespace,
                bound.config.desc.show()
            );
            return Err(ApiError::new("InvalidParameterValue.CosNotifyRuleConflict", message));
        }
    }
    Ok(())
}

/// CreateTrigger.
pub async fn create(cx: Cx<'_>, kind: TriggerKind, request: CreateTrigger) -> Result<Answer, ApiError> {
    check_there(cx, kind)?;
    let (namespace, function) = (namespace(&request.namespace)?, function_name(&request.function_name)?);
    let name = trigger_name(request.trigger_name)?;
    let desc = read_desc(kind, request.trigger_desc.as_deref(), cx.now_ms)?;
    let enabled = filled(&request.enable).map(enable).transpose()?.unwrap_or(true);
    let argument = argument(request.custom_argument)?.unwrap_or_default();
    let description = description(request.description)?.unwrap_or_default();
    let qualifier = filled(&request.qualifier).unwrap_or("$LATEST");
    // Before the cluster is asked: who may not do it anyway is not told what there is.
    find(cx.control, &request.namespace, &request.function_name)?;
    check_source(cx, kind, &name).await?;
    let decide = |state: &FunctionState| {
        let qualifier = existing_qualifier(state, &function, qualifier)?;
        if state.record.latest.service.is_some() {
            let message = format!("`{function}` is an HTTP function, which takes requests and no events.");
            return Err(ApiError::new("UnsupportedOperation.Trigger", message));
        }
        let triggers = &state.record.triggers;
        let same =
            |t: &&TriggerConfig| t.kind() == kind && t.name == name && (kind != TriggerKind::Cos || t.desc == desc);
        if triggers.iter().any(|t| same(&t)) {
            let message = format!("Function `{function}` has this trigger `{}` of type {kind} already.", clip(&name));
            return Err(ApiError::new("ResourceInUse.TriggerName", message));
        }
        if triggers.iter().filter(|t| t.kind() == kind).count() >= PER_KIND_MAX {
            let message =
                format!("Function `{function}` has {PER_KIND_MAX} triggers of type {kind}, which is the limit.");
            return Err(ApiError::new("LimitExceeded.Trigger", message));
        }
        check_bucket(cx, &name, &desc, None)?;
        let trigger = TriggerConfig {
            id: crate::ids::trigger_id(),
            name,
            desc,
            qualifier,
            enabled,
            argument,
            description,
            add_time_ms: cx.now_ms,
            mod_time_ms: cx.now_ms,
        };
        let mut next = state.clone();
        let shown = show(cx, &next.record, &trigger);
        Arc::make_mut(&mut next.record).triggers.push(trigger);
        Ok(Next::state(next, shown))
    };
    let shown = cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
    Ok(Answer::from_iter([("TriggerInfo".to_owned(), shown)]))
}

/// DeleteTrigger.
pub async fn delete(cx: Cx<'_>, kind: TriggerKind, request: DeleteTrigger) -> Result<Answer, ApiError> {
    let (namespace, function) = (namespace(&request.namespace)?, function_name(&request.function_name)?);
    let decide = |state: &FunctionState| {
        let (qualifier, desc) = (filled(&request.qualifier), filled(&request.trigger_desc));
        let at = place(state, kind, &request.trigger_name, qualifier, desc)?;
        let mut next = state.clone();
        Arc::make_mut(&mut next.record).triggers.remove(at);
        Ok(Next::state(next, ()))
    };
    cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
    Ok(Answer::new())
}

/// UpdateTrigger.
pub async fn update(cx: Cx<'_>, kind: TriggerKind, request: UpdateTrigger) -> Result<Answer, ApiError> {
    check_there(cx, kind)?;
    let (namespace, function) = (namespace(&request.namespace)?, function_name(&request.function_name)?);
    let text = filled(&request.trigger_desc);
    let desc = text.map(|text| read_desc(kind, Some(text), cx.now_ms)).transpose()?;
    let enabled = filled(&request.enable).map(enable).transpose()?;
    let argument = argument(request.custom_argument)?;
    let description = description(request.description)?;
    let decide = |state: &FunctionState| {
        let at = place(state, kind, &request.trigger_name, filled(&request.qualifier), None)?;
        let mut next = state.clone();
        let trigger = &mut Arc::make_mut(&mut next.record).triggers[at];
        if let Some(desc) = desc {
            check_bucket(cx, &trigger.name, &desc, Some(&trigger.id))?;
            trigger.desc = desc;
        }
        trigger.enabled = enabled.unwrap_or(trigger.enabled);
        trigger.argument = argument.unwrap_or(std::mem::take(&mut trigger.argument));
        trigger.description = description.unwrap_or(std::mem::take(&mut trigger.description));
        trigger.mod_time_ms = cx.now_ms;
        Ok(Next::state(next, ()))
    };
    cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
    Ok(Answer::new())
}

/// UpdateTriggerStatus.
pub async fn update_status(cx: Cx<'_>, kind: TriggerKind, request: UpdateTriggerStatus) -> Result<Answer, ApiError> {
    let (namespace, function) = (namespace(&request.namespace)?, function_name(&request.function_name)?);
    let enabled = enable(&request.enable)?;
    if enabled {
        check_there(cx, kind)?;
    }
    let decide = |state: &FunctionState| {
        let (qualifier, desc) = (filled(&request.qualifier), filled(&request.trigger_desc));
        let at = place(state, kind, &request.trigger_name, qualifier, desc)?;
        let mut next = state.clone();
        let trigger = &mut Arc::make_mut(&mut next.record).triggers[at];
        if trigger.enabled == enabled {
            let state = if enabled { "open" } else { "closed" };
            let message = format!("The trigger `{}` is {state} already.", clip(&trigger.name));
            return Err(ApiError::new("FailedOperation.UpdateTriggerStatus", message));
        }
        trigger.enabled = enabled;
        trigger.mod_time_ms = cx.now_ms;
        Ok(Next::state(next, ()))
    };
    cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
    Ok(Answer::new())
}
