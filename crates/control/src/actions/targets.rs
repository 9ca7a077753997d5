//! Who hears of the ends of a function's asynchronous events, and what is kept of failures.

use super::common::{existing, filled, find, function_name, named_function, namespace};
use super::{Answer, Cx, Run};
use crate::api::requests::{
    DeadLetterConfig, Destination, GetFunctionDestinations, GetFunctionFailures, PutFunctionDestinations,
    PutFunctionFailures,
};
use crate::catalogue::{Next, clip, no_version};
use crate::ports::SendError;
use async_trait::async_trait;
use mayfly_model::failures::FAILURE_RETENTION_H_MAX;
use mayfly_model::{ApiError, EventTargets, FunctionRecord, NamespaceName, Target};
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest name of a queue or topic, in characters.
const NAME_CHARS_MAX: usize = 64;

/// A queue or topic that can be a target. Errors: `code` for a bad name or tag, and those of [`check`].
async fn queue_or_topic(
    cx: Cx<'_>,
    topic: bool,
    name: &str,
    tag: &str,
    code: &'static str,
) -> Result<Target, ApiError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(good) {
        let message = format!(
            "`Name` is `{}`; a queue or topic has 1–{NAME_CHARS_MAX} letters, digits, `-`, `_`, `.`.",
            clip(name)
        );
        return Err(ApiError::new(code, message));
    }
    if tag.chars().count() > NAME_CHARS_MAX {
        return Err(ApiError::new(code, format!("`FilterType` has more than {NAME_CHARS_MAX} characters.")));
    }
    let name = name.to_owned();
    let target = if topic { Target::Topic { name, tag: tag.to_owned() } } else { Target::Queue { name } };
    check(cx, &target).await?;
    Ok(target)
}

/// Errors: `ResourceNotFound.Cmq`, `UnsupportedOperation` where there are no queues, `FailedOperation` when nobody knows.
async fn check(cx: Cx<'_>, target: &Target) -> Result<(), ApiError> {
    cx.control.destinations.check(target).await.map_err(|error| match error {
        SendError::Unsupported(why) => ApiError::new("UnsupportedOperation", format!("{target}: {why}.")),
        SendError::NotFound(_) => ApiError::new(
            "ResourceNotFound.Cmq",
            format!("There is no {target}. Create it before it is made a target."),
        ),
        SendError::Unavailable(why) => {
            ApiError::new("FailedOperation", format!("{target} cannot be looked for: {why}."))
        }
    })
}

/// `DeadLetterConfig`. `None`: the field is absent; `Some(None)`: dead letters go nowhere.
/// Errors: `InvalidParameterValue.DeadLetterConfig`, and those of [`check`].
pub(crate) async fn dead_letter(
    cx: Cx<'_>,
    config: Option<DeadLetterConfig>,
) -> Result<Option<Option<Target>>, ApiError> {
    const CODE: &str = "InvalidParameterValue.DeadLetterConfig";
    let Some(config) = config else { return Ok(None) };
    let text = |text| filled(text).unwrap_or_default();
    let (kind, name, tag) = (text(&config.kind), text(&config.name), text(&config.filter_type));
    let topic = match kind.to_ascii_lowercase().as_str() {
        "" if name.is_empty() => return Ok(Some(None)),
        "cmq-queue" | "queue" => false,
        "cmq-topic" | "topic" => true,
        _ => {
            let message = format!("`DeadLetterConfig.Type` is `{}`; it is CMQ-QUEUE or CMQ-TOPIC.", clip(kind));
            return Err(ApiError::new(CODE, message));
        }
    };
    queue_or_topic(cx, topic, name, tag, CODE).await.map(|target| Some(Some(target)))
}

/// `DeadLetterConfig` as GetFunction shows it.
pub(crate) fn show_dead_letter(targets: &EventTargets) -> Value {
    match &targets.dead_letter {
        Some(Target::Queue { name }) => json!({"Type": "CMQ-QUEUE", "Name": name, "FilterType": ""}),
        Some(Target::Topic { name, tag }) => json!({"Type": "CMQ-TOPIC", "Name": name, "FilterType": tag}),
        Some(Target::Function { .. }) | None => json!({"Type": "", "Name": "", "FilterType": ""}),
    }
}

/// A destination. `None`: the field is absent; `Some(None)`: nobody. Errors: `InvalidParameterValue`, `ResourceNotFound.*`, and those of [`check`].
async fn destination(
    cx: Cx<'_>,
    given: Option<Destination>,
    field: &str,
    own: &NamespaceName,
) -> Result<Option<Option<Target>>, ApiError> {
    let Some(given) = given else { return Ok(None) };
    let text = |text| filled(text).unwrap_or_default();
    let (kind, name) = (text(&given.kind), text(&given.name));
    match kind.to_ascii_lowercase().as_str() {
        "" if name.is_empty() => Ok(Some(None)),
        "queue" => queue_or_topic(cx, false, name, "", "InvalidParameterValue").await.map(|t| Some(Some(t))),
        "topic" => queue_or_topic(cx, true, name, text(&given.filter_type), "InvalidParameterValue")
            .await
            .map(|t| Some(Some(t))),
        "function" => {
            let namespace = match filled(&given.namespace) {
                None => own.clone(),
                Some(_) => namespace(&given.namespace)?,
            };
            let name = named_function(&format!("{field}.Name"), name)?;
            let qualifier = filled(&given.qualifier).unwrap_or("$DEFAULT").to_owned();
            let entry = existing(&cx.control.catalogue, &namespace, &name)?;
            let Some(target) = entry.route(&qualifier, &[], 0.0) else {
                return Err(no_version("ResourceNotFound.FunctionVersion", name.as_str(), &qualifier));
            };
            if target.spec.config.service.is_some() {
                let message = format!("`{field}`: `{name}` is an HTTP function, which takes no events.");
                return Err(ApiError::new("InvalidParameterValue.FunctionType", message));
            }
            Ok(Some(Some(Target::Function { namespace, name, qualifier })))
        }
        _ => Err(ApiError::invalid(format!(
            "`{field}.Type` is `{}`; it is function, queue or topic, or empty with an empty Name.",
            clip(kind)
        ))),
    }
}

fn show_destination(target: &Option<Target>) -> Value {
    match target {
        None => json!({"Type": "", "Name": ""}),
        Some(Target::Queue { name }) => json!({"Type": "queue", "Name": name}),
        Some(Target::Topic { name, tag }) => json!({"Type": "topic", "Name": name, "FilterType": tag}),
        Some(Target::Function { namespace, name, qualifier }) => {
            json!({"Type": "function", "Name": name, "Namespace": namespace, "Qualifier": qualifier})
        }
    }
}

#[async_trait]
impl Run for PutFunctionDestinations {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, function, _) = find(cx.control, &self.namespace, &self.function_name)?;
        let on_success = destination(cx, self.on_success, "OnSuccess", &namespace).await?;
        let on_failure = destination(cx, self.on_failure, "OnFailure", &namespace).await?;
        let decide = |state: &crate::catalogue::FunctionState| {
            let mut next = state.clone();
            let targets = &mut Arc::make_mut(&mut next.record).targets;
            if let Some(target) = on_success {
                targets.on_success = target;
            }
            if let Some(target) = on_failure {
                targets.on_failure = target;
            }
            Ok(Next::state(next, ()))
        };
        cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetFunctionDestinations {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let targets = &entry.state.record.targets;
        Ok(Answer::from_iter([
            ("OnSuccess".to_owned(), show_destination(&targets.on_success)),
            ("OnFailure".to_owned(), show_destination(&targets.on_failure)),
            ("DeadLetterConfig".to_owned(), show_dead_letter(targets)),
        ]))
    }
}

#[async_trait]
impl Run for PutFunctionFailures {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, function) = (namespace(&self.namespace)?, function_name(&self.function_name)?);
        let hours = self
            .retention_hours
            .map(|hours| {
                u32::try_from(hours).ok().filter(|h| *h <= FAILURE_RETENTION_H_MAX).ok_or_else(|| {
                    ApiError::invalid(format!("`RetentionHours` is {hours}; it is 0 to {FAILURE_RETENTION_H_MAX}."))
                })
            })
            .transpose()?;
        let decide = |state: &crate::catalogue::FunctionState| {
            let mut next = state.clone();
            let policy = &mut Arc::make_mut(&mut next.record).failures;
            policy.capture = self.capture.unwrap_or(policy.capture);
            policy.retention_h = hours.map_or(policy.retention_h, |h| (h > 0).then_some(h));
            Ok(Next::state(next, ()))
        };
        cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
        Ok(Answer::new())
    }
}

/// What is kept of failures, as GetFunctionFailures and GetFunction show it.
pub(crate) fn show_failures(record: &FunctionRecord) -> Value {
    json!({"Capture": record.failures.capture, "RetentionHours": record.failures.retention_h()})
}

#[async_trait]
impl Run for GetFunctionFailures {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        match show_failures(&entry.state.record) {
            Value::Object(fields) => Ok(fields),
            _ => Err(ApiError::internal("The function could not be shown.")),
        }
    }
}
