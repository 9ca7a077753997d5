//! `mayfly trigger`: what hands events to functions.

use super::{Context, namespace_flag, pages, quoted, raw_items};
use crate::api::{CreateTrigger, DeleteTrigger, ListTriggers, Trigger, UpdateTriggerStatus};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

/// What hands events to functions: timers, buckets, topics, Kafka.
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TriggerCommand,
}

/// What can be done with triggers.
#[derive(Debug, Subcommand)]
pub enum TriggerCommand {
    /// Call a function by a schedule
    #[command(after_help = EXAMPLES)]
    Timer(TimerArgs),
    /// Call a function when objects of a bucket change
    Bucket(BucketArgs),
    /// Call a function for the messages of a topic
    Topic(TopicArgs),
    /// Call a function for the messages of a Kafka topic
    #[command(after_help = KAFKA_EXAMPLES)]
    Kafka(KafkaArgs),
    /// Let requests to a path of an API gateway's service call a function; `mayfly api` does more
    Api(ApiArgs),
    /// List the triggers of a function
    Ls {
        /// The function
        name: String,
        #[command(flatten)]
        place: InNamespace,
    },
    /// Hand events over again
    Open(Which),
    /// Hand nothing over until it is opened
    Close(Which),
    /// Delete a trigger
    Rm(Which),
}

const EXAMPLES: &str = "\
Seven fields: second minute hour day month weekday year.

Examples:
  mayfly trigger timer report nightly --cron '0 0 2 * * * *'
  mayfly trigger timer report workdays --cron '0 30 9 * * MON-FRI *' --time-zone Asia/Shanghai --message brief
";

const KAFKA_EXAMPLES: &str = "\
Clusters are named where the platform is started: --kafka main=broker:9092, or [kafka.clusters.main] in its configuration.

Examples:
  mayfly trigger kafka bill main orders --batch 500
  mayfly trigger kafka bill main orders --from earliest --group billing --retries 3 --wait 5
";

/// What every new trigger has.
#[derive(Debug, Args)]
pub struct New {
    /// The version or alias that gets the events
    #[arg(long, value_name = "QUALIFIER", default_value = "$DEFAULT")]
    pub qualifier: String,
    /// Hand nothing over until it is opened
    #[arg(long)]
    pub closed: bool,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// A new timer.
#[derive(Debug, Args)]
pub struct TimerArgs {
    /// The function
    pub name: String,
    /// A name for the timer
    pub trigger: String,
    /// When, in seven fields
    #[arg(long, value_name = "SCHEDULE")]
    pub cron: String,
    /// The time zone that the fields are meant in [default: the platform's]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// The `Message` of its events
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    #[command(flatten)]
    pub new: New,
}

/// A new trigger of a bucket.
#[derive(Debug, Args)]
pub struct BucketArgs {
    /// The function
    pub name: String,
    /// The bucket, such as photos-1250000000
    pub bucket: String,
    /// Which changes
    #[arg(long, value_enum, default_value_t = Change::Created)]
    pub event: Change,
    /// Only objects whose keys begin with this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
    /// Only objects whose keys end in this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub suffix: String,
    #[command(flatten)]
    pub new: New,
}

/// Changes of a bucket's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Change {
    /// Objects come to be, or are replaced
    Created,
    /// Objects are deleted
    Removed,
}

/// A new trigger of a topic.
#[derive(Debug, Args)]
pub struct TopicArgs {
    /// The function
    pub name: String,
    /// The topic
    pub topic: String,
    /// Only messages with one of these tags
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only messages whose routing key fits one of these, such as `order.*.paid`
    #[arg(long = "binding-key", value_name = "KEY", conflicts_with = "tags")]
    pub binding_keys: Vec<String>,
    #[command(flatten)]
    pub new: New,
}

/// A new trigger of a Kafka topic.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// The function
    pub name: String,
    /// The cluster, as the platform's configuration names it
    pub cluster: String,
    /// The topic
    pub topic: String,
    /// Most messages in an event
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub batch: u32,
    /// How long an event may wait to be full, in seconds; 0: what is there goes as soon as the function is free
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u32,
    /// Where a new consumer group begins: latest, earliest, or a time in milliseconds since the epoch
    #[arg(long, value_name = "WHERE", default_value = "latest")]
    pub from: String,
    /// How often messages that the function fails on are handed over again before they are kept as a failure
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub retries: u32,
    /// The consumer group [default: one of the trigger's own]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    #[command(flatten)]
    pub new: New,
}

/// A new route of a service of the API gateway.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// The function
    pub name: String,
    /// The path, with {name} for a segment [default: /<function>]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "ANY")]
    pub method: String,
    /// The service, by name or id; it is made when there is none of the name
    #[arg(long, value_name = "SERVICE", default_value = "SCF_API_SERVICE")]
    pub service: String,
    /// The return value is the body, and not what says status, headers and body
    #[arg(long)]
    pub plain: bool,
    /// Only with a key of a usage plan
    #[arg(long)]
    pub key: bool,
    /// The version or alias that answers
    #[arg(long, value_name = "QUALIFIER", default_value = "$DEFAULT")]
    pub qualifier: String,
    #[command(flatten)]
    pub place: InNamespace,
}

/// A trigger that is there.
#[derive(Debug, Args)]
pub struct Which {
    /// The function
    pub name: String,
    /// The trigger
    pub trigger: String,
    /// Its type, where a name stands for several
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    #[command(flatten)]
    pub place: InNamespace,
}

fn create(context: &Context, new: &New, request: CreateTrigger) -> Result<(), CliError> {
    let request = CreateTrigger {
        namespace: new.place.namespace.clone(),
        qualifier: new.qualifier.clone(),
        enable: Some(if new.closed { "CLOSE" } else { "OPEN" }.into()),
        description: new.description.clone(),
        ..request
    };
    let answer = context.client.call(&request)?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
    }
    let (function, trigger) = (&request.function_name, &request.trigger_name);
    let state = if new.closed { ", which is closed" } else { "" };
    context.out.note(format_args!("{function} has the {} trigger {trigger} now{state}", request.kind));
    if !new.closed {
        let flag = namespace_flag(&new.place.namespace);
        context.out.note(format_args!("see what it runs: mayfly logs {} -f{flag}", quoted(function)));
    }
    Ok(())
}

fn list(
    context: &Context,
    name: &str,
    place: &InNamespace,
) -> Result<(Vec<Trigger>, Vec<serde_json::Value>), CliError> {
    let mut raw = Vec::new();
    let all = pages(|offset, limit| {
        let answer = context.client.call(&ListTriggers {
            function_name: name.to_owned(),
            namespace: place.namespace.clone(),
            offset,
            limit,
            order_by: "add_time".into(),
            order: "ASC".into(),
        })?;
        raw.extend(raw_items(&answer, "Triggers")?);
        Ok((answer.body.triggers, answer.body.total_count))
    })?;
    Ok((all, raw))
}

/// The one trigger that is meant.
fn find(context: &Context, which: &Which) -> Result<Trigger, CliError> {
    let meant = |t: &Trigger| {
        t.trigger_name == which.trigger && which.kind.as_ref().is_none_or(|kind| t.kind.eq_ignore_ascii_case(kind))
    };
    let mut found: Vec<_> = list(context, &which.name, &which.place)?.0.into_iter().filter(meant).collect();
    match (found.pop(), found.is_empty()) {
        (Some(trigger), true) => Ok(trigger),
        (Some(_), false) => Err(CliError::local(format!("{} has several triggers {}", which.name, which.trigger))
            .hint("name the --type; of several for one bucket, change them by the API with their TriggerDesc")),
        (None, _) => {
            let flag = namespace_flag(&which.place.namespace);
            Err(CliError::local(format!("{} has no such trigger {}", which.name, which.trigger))
                .hint(format!("see them with: mayfly trigger ls {}{flag}", quoted(&which.name))))
        }
    }
}

fn set_open(context: &Context, which: &Which, open: bool) -> Result<(), CliError> {
    let trigger = find(context, which)?;
    let answer = context.client.call(&UpdateTriggerStatus {
        function_name: which.name.clone(),
        namespace: which.place.namespace.clone(),
        trigger_name: trigger.trigger_name.clone(),
        kind: trigger.kind.clone(),
        trigger_desc: trigger.trigger_desc.clone(),
        enable: if open { "OPEN" } else { "CLOSE" }.into(),
    })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
    }
    let state = if open { "open" } else { "closed" };
    context.out.note(format_args!("the trigger {} of {} is {state}", which.trigger, which.name));
    Ok(())
}

/// Runs the command.
pub fn run(args: &TriggerArgs, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    let request = |name: &str, trigger: &str, kind: &str, desc: String| CreateTrigger {
        function_name: name.to_owned(),
        trigger_name: trigger.to_owned(),
        kind: kind.to_owned(),
        trigger_desc: desc,
        ..CreateTrigger::default()
    };
    match &args.command {
        TriggerCommand::Timer(timer) => {
            let desc = match &timer.time_zone {
                Some(zone) => json!({"cron": timer.cron, "timeZone": zone}),
                None => json!({"cron": timer.cron}),
            };
            let mut request = request(&timer.name, &timer.trigger, "timer", desc.to_string());
            request.custom_argument = timer.message.clone();
            create(context, &timer.new, request)
        }
        TriggerCommand::Bucket(bucket) => {
            let event = match bucket.event {
                Change::Created => "cos:ObjectCreated:*",
                Change::Removed => "cos:ObjectRemove:*",
            };
            let desc = json!({"event": event, "filter": {"Prefix": bucket.prefix, "Suffix": bucket.suffix}});
            create(context, &bucket.new, request(&bucket.name, &bucket.bucket, "cos", desc.to_string()))
        }
        TriggerCommand::Topic(topic) => {
            let (kind, keys) = match topic.binding_keys.is_empty() {
                true => (1, &topic.tags),
                false => (2, &topic.binding_keys),
            };
            let desc = json!({"filterType": kind, "filterKey": keys});
            create(context, &topic.new, request(&topic.name, &topic.topic, "cmq", desc.to_string()))
        }
        TriggerCommand::Kafka(kafka) => {
            let desc = json!({
                "maxMsgNum": kafka.batch,
                "offset": kafka.from,
                "retry": kafka.retries,
                "timeOut": kafka.wait,
                "consumerGroupName": kafka.group.as_deref().unwrap_or_default(),
            });
            let trigger = format!("{}-{}", kafka.cluster, kafka.topic);
            create(context, &kafka.new, request(&kafka.name, &trigger, "ckafka", desc.to_string()))
        }
        TriggerCommand::Api(api) => {
            let word = |on: bool| if on { "TRUE" } else { "FALSE" };
            let by = if api.service.starts_with("service-") { "serviceId" } else { "serviceName" };
            let mut desc = json!({
                "api": { "authRequired": word(api.key), "isIntegratedResponse": word(!api.plain), "requestConfig": { "method": api.method } },
                "service": { by: api.service },
                "release": { "environmentName": "release" },
            });
            if let Some(path) = &api.path {
                desc["api"]["requestConfig"]["path"] = path.as_str().into();
            }
            let mut request = request(&api.name, &api.service, "apigw", desc.to_string());
            request.namespace = api.place.namespace.clone();
            request.qualifier = api.qualifier.clone();
            let answer = context.client.call(&request)?;
            if out.is_json() {
                out.json(&answer.raw);
                return Ok(());
            }
            let shown: serde_json::Value = serde_json::from_str(&answer.raw).unwrap_or_default();
            let desc = shown["TriggerInfo"]["TriggerDesc"].as_str().unwrap_or_default();
            let desc: serde_json::Value = serde_json::from_str(desc).unwrap_or_default();
            out.line(desc["service"]["subDomain"].as_str().unwrap_or_default());
            out.note(format_args!(
                "{} answers {} {} there now",
                api.name,
                api.method,
                desc["api"]["requestConfig"]["path"].as_str().unwrap_or_default()
            ));
            Ok(())
        }
        TriggerCommand::Ls { name, place } => {
            let (all, raw) = list(context, name, place)?;
            if out.is_json() {
                out.json(&json!({"Triggers": raw, "TotalCount": raw.len()}).to_string());
                return Ok(());
            }
            let row = |t: Trigger| {
                let open = if t.enable == 1 { "open" } else { "closed" };
                vec![t.trigger_name, t.kind, t.qualifier, open.into(), t.trigger_desc]
            };
            out.table(&["TRIGGER", "TYPE", "QUALIFIER", "STATE", "SETTINGS"], all.into_iter().map(row).collect());
            Ok(())
        }
        TriggerCommand::Open(which) => set_open(context, which, true),
        TriggerCommand::Close(which) => set_open(context, which, false),
        TriggerCommand::Rm(which) => {
            let trigger = find(context, which)?;
            let answer = context.client.call(&DeleteTrigger {
                function_name: which.name.clone(),
                namespace: which.place.namespace.clone(),
                trigger_name: trigger.trigger_name,
                kind: trigger.kind,
                qualifier: trigger.qualifier,
                trigger_desc: trigger.trigger_desc,
            })?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("deleted the trigger {} of {}", which.trigger, which.name));
            Ok(())
        }
    }
}
