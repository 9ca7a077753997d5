//! What follows the end of a request: its failure is kept with its scene, a replay is noted at its origin, dead letters and results are
//! put on their way. The one place that decides it; [`crate::events`] asks here before it forgets an event.

use crate::catalogue::{Catalogue, RouteTarget};
use crate::events::Event;
use crate::letters;
use crate::ports::{InvokeRequest, Invoker};
use bytes::Bytes;
use mayfly_base::Clock;
use mayfly_model::{ColdStart, EventPolicy, FunctionRecord, InvokeOutcome, Lineage, RequestId, Status, Target};
use mayfly_plan::retry::{Tried, Verdict};
use mayfly_store::failures::{Ending, Failure, FailureHead, Message, MessageKind, ReplayEnd};
use mayfly_store::{FailureLog, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Largest part of a log that is kept with a failure, in bytes: its end.
const LOG_BYTES_MAX: usize = 256 * 1024;
/// Largest part of an error document that is kept, in bytes.
const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Largest text of an error that can be searched, in bytes.
const ERROR_BYTES_MAX: usize = 4096;
/// Pause before an event is run again whose end could not be kept, in milliseconds.
const UNKEPT_PAUSE_MS: u64 = 60_000;
/// How long a synchronous answer waits for its failure to be kept.
const CAPTURE_PATIENCE: Duration = Duration::from_secs(5);

/// What an event came of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Type of the trigger; `url`: a visit to the function's URL; empty: a call of the API.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Invocations before it in a row: [`Lineage::depth`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: u32,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RequestId>,
    /// The failure that it replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<RequestId>,
    /// True when the event is that of the failure, too large to be repeated here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_reference: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Cause {
    /// True for a call of the API.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Of a trigger of this type, or, with an empty one, of a call.
    pub fn of(kind: &str, lineage: Lineage) -> Self {
        Self { source: kind.into(), depth: lineage.depth, parent: lineage.parent, ..Self::default() }
    }

    /// What called it, when that was another invocation.
    pub fn lineage(&self) -> Lineage {
        Lineage { depth: self.depth, parent: self.parent }
    }

    /// As lists of events show it (`InvokeType`): `API`, or the trigger's type in capitals.
    pub fn invoke_type(&self) -> String {
        match self.source.as_str() {
            "" | "url" => "API".into(),
            trigger => trigger.to_ascii_uppercase(),
        }
    }

    /// Where the request came from, as failures show it.
    pub fn source(&self) -> &str {
        if self.source.is_empty() { "event" } else { &self.source }
    }
}

/// The scene of a failure: what is kept of it beside its event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scene {
    /// Names of the environment variables that the function had.
    pub environment: Vec<String>,
    /// The error document.
    pub result: String,
    /// Bytes of it that were cut off.
    pub result_cut_bytes: u64,
    /// The end of the log.
    pub log: String,
    /// Bytes that were cut off before it.
    pub log_cut_bytes: u64,
    /// Run time of the handler, in microseconds.
    pub duration_us: u64,
    /// Configured memory, in MB; 0 when nothing ran.
    pub memory_mb: u32,
    /// Peak memory of the instance, in bytes.
    pub memory_bytes: u64,
    /// Set when the last attempt waited for a start.
    pub cold_start: Option<ColdStart>,
    /// Attempts before the last.
    pub retries: u32,
    /// Pairs of the caller's `RoutingKey`.
    pub routing_key: Vec<(String, String)>,
}

/// The last attempt of an event.
#[derive(Debug)]
pub struct Ran {
    /// The event.
    pub event: Arc<Event>,
    /// What was tried before this attempt.
    pub tried: Tried,
    /// What ran; `None`: nothing could.
    pub target: Option<Arc<RouteTarget>>,
    /// How it ended.
    pub outcome: InvokeOutcome,
}

/// A request to an HTTP function that failed.
#[derive(Debug)]
pub struct FailedVisit {
    /// The request, in the form in which it can be made again.
    pub request: Vec<u8>,
    /// What the visitor named.
    pub qualifier: String,
    /// What it came by: `url` or `apigw`.
    pub source: &'static str,
    /// When it arrived, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// How it ended.
    pub outcome: InvokeOutcome,
    /// What whoever looks at it should know.
    pub note: String,
}

/// Where a message goes, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Addressed {
    pub to: Target,
    /// [`Cause::depth`] of the event that a function gets.
    #[serde(default)]
    pub depth: u32,
    /// [`Cause::parent`] of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RequestId>,
}

/// Who the platform says it is, in dead letters.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// `AppId`.
    pub app_id: u64,
    /// `Uin`.
    pub uin: u64,
}

/// Keeps what follows the ends of requests.
pub struct Endings {
    failures: Arc<dyn FailureLog>,
    catalogue: Catalogue,
    clock: Arc<dyn Clock>,
    account: Account,
    /// Rung when there is something to deliver.
    pub(crate) posted: Arc<Notify>,
    unkept: AtomicU64,
}

impl Endings {
    /// Over these parts.
    pub fn new(failures: Arc<dyn FailureLog>, catalogue: Catalogue, clock: Arc<dyn Clock>, account: Account) -> Self {
        Self { failures, catalogue, clock, account, posted: Arc::default(), unkept: AtomicU64::new(0) }
    }

    /// Failures of synchronous requests that could not be kept, since the start.
    pub fn unkept(&self) -> u64 {
        self.unkept.load(Ordering::Relaxed)
    }

    /// What an event carries, or the failure that it refers to. `None`: that is not kept any more.
    pub(crate) async fn content(&self, event: &Event) -> Option<Bytes> {
        match event.cause.replay_of.filter(|_| event.cause.by_reference) {
            None => Some(Bytes::copy_from_slice(event.event.as_bytes())),
            Some(origin) => match self.failures.get(origin).await {
                Ok(failure) => failure.map(|f| f.event.into()),
                Err(error) => {
                    tracing::error!(%origin, %error, "the event of a failure could not be read");
                    None
                }
            },
        }
    }

    /// Carries out what follows when an event is to be forgotten. When that cannot be made durable, the event is to be run again instead.
    pub(crate) async fn follow(&self, id: RequestId, verdict: Verdict, ran: Option<Ran>) -> Verdict {
        let (Verdict::Finish, Some(ran)) = (verdict, ran) else { return verdict };
        let function = self.catalogue.function(&ran.event.namespace, &ran.event.function);
        let record = function.as_ref().map(|f| &*f.state.record);
        let mut ending = self.ending(id, &ran, record).await;
        if ending.is_empty() {
            return verdict;
        }
        let posts = !ending.messages.is_empty();
        let mut result = self.failures.conclude(ending.clone()).await;
        if let Err(StoreError::Full(why)) = &result
            && posts
        {
            tracing::warn!(request_id = %id, why, "the end of an event is kept without its messages");
            ending.messages.clear();
            if let Some(failure) = &mut ending.failure {
                add_note(&mut failure.head.note, "No message was sent: too many wait to be delivered.");
            }
            result = self.failures.conclude(ending).await;
        }
        match result {
            Ok(()) => {
                if posts {
                    self.posted.notify_one();
                }
                Verdict::Finish
            }
            Err(error) => {
                tracing::error!(request_id = %id, %error, "the end of an event could not be kept; it will be run again");
                Verdict::Retry { after_ms: UNKEPT_PAUSE_MS, tried: ran.tried }
            }
        }
    }

    async fn ending(&self, id: RequestId, ran: &Ran, record: Option<&FunctionRecord>) -> Ending {
        let (event, outcome) = (&*ran.event, &ran.outcome);
        let (ok, now_ms) = (outcome.status.is_ok(), self.clock.now_ms());
        let replay = event.cause.replay_of.map(|_| ReplayEnd { id, ok, status: outcome.status.0, ended_ms: now_ms });
        let no_targets = record.is_none_or(|r| r.targets.is_default());
        // Who terminated an event wants no more of it.
        if (ok && no_targets) || outcome.status == Status::CANCELED {
            return Ending { replay, ..Ending::default() };
        }
        let content = self.content(event).await.unwrap_or_default();
        let mut failure = (!ok).then(|| {
            let parts = Parts {
                id,
                namespace: &event.namespace,
                function: &event.function,
                qualifier: &event.qualifier,
                source: event.cause.source(),
                accepted_ms: event.accepted_ms,
                retries: ran.tried.run_errors.saturating_add(ran.tried.platform_errors),
                routing_key: &event.routing_key,
                origin: event.cause.replay_of,
            };
            self.failure(parts, ran.target.as_deref(), outcome, &content, record)
        });
        let mut messages = Vec::new();
        if let Some(record) = record {
            let told = letters::Told {
                id,
                event,
                content: &content,
                outcome,
                version: ran.target.as_ref().map_or("", |t| t.spec.key.version.as_str()),
                attempts: ran.tried.run_errors.saturating_add(ran.tried.platform_errors).saturating_add(1),
                exhausted: exhausted(outcome.status, ran.tried, &record.events),
                now_ms,
            };
            let targets = &record.targets;
            let wanted = [
                (MessageKind::DeadLetter, targets.dead_letter.as_ref().filter(|_| !ok)),
                (MessageKind::OnSuccess, targets.on_success.as_ref().filter(|_| ok)),
                (MessageKind::OnFailure, targets.on_failure.as_ref().filter(|_| !ok)),
            ];
            for (kind, to) in wanted.into_iter().filter_map(|(kind, to)| Some((kind, to?))) {
                let made = match kind {
                    MessageKind::DeadLetter => letters::dead_letter(&told, self.account),
                    _ => letters::result(&told, to),
                };
                match made {
                    Ok(body) => messages.push(Message {
                        id,
                        kind,
                        target: serde_json::to_vec(&addressed(to, event.cause.lineage().child(id))).unwrap_or_default(),
                        body,
                        created_ms: now_ms,
                        due_ms: now_ms,
                        attempt: 0,
                    }),
                    Err(why) => {
                        let note = format!("Nothing was sent to {to}: {why}.");
                        tracing::warn!(request_id = %id, note, "a message about the end of an event was not made");
                        if let Some(failure) = &mut failure {
                            add_note(&mut failure.head.note, &note);
                        }
                    }
                }
            }
        }
        Ending { failure, replay, messages }
    }

    /// Runs a synchronous request, and keeps its failure if the function's owner wants that.
    pub async fn invoke(
        &self,
        invoker: &dyn Invoker,
        target: &Arc<RouteTarget>,
        mut request: InvokeRequest,
        source: &str,
    ) -> InvokeOutcome {
        let (namespace, function) = (target.spec.namespace.as_str(), target.spec.function.as_str());
        let entry = self.catalogue.function(namespace, function);
        let Some(entry) = entry.filter(|entry| entry.state.record.failures.capture) else {
            return invoker.invoke(target, request).await;
        };
        request.log_failure = true;
        let (id, event, want_log) = (request.request_id, request.event.clone(), request.want_log);
        let (qualifier, accepted_ms) = (request.qualifier.clone(), self.clock.now_ms());
        let mut outcome = invoker.invoke(target, request).await;
        if outcome.status.is_failure() {
            let parts = Parts {
                id,
                namespace,
                function,
                qualifier: &qualifier,
                source,
                accepted_ms,
                retries: 0,
                routing_key: &[],
                origin: None,
            };
            self.keep(self.failure(parts, Some(target), &outcome, &event, Some(&entry.state.record))).await;
            if !want_log {
                outcome.log = None;
            }
        }
        outcome
    }

    /// True when failures of synchronous requests to this version are to be kept.
    pub fn captures(&self, target: &RouteTarget) -> bool {
        let entry = self.catalogue.function(target.spec.namespace.as_str(), target.spec.function.as_str());
        entry.is_some_and(|entry| entry.state.record.failures.capture)
    }

    /// Keeps the failure of a request to an HTTP function.
    pub async fn keep_visit(&self, target: &RouteTarget, visit: FailedVisit) {
        let (namespace, function) = (target.spec.namespace.as_str(), target.spec.function.as_str());
        let entry = self.catalogue.function(namespace, function);
        let parts = Parts {
            id: visit.outcome.request_id,
            namespace,
            function,
            qualifier: &visit.qualifier,
            source: visit.source,
            accepted_ms: visit.accepted_ms,
            retries: 0,
            routing_key: &[],
            origin: None,
        };
        let record = entry.as_ref().map(|entry| &*entry.state.record);
        let mut failure = self.failure(parts, Some(target), &visit.outcome, &visit.request, record);
        add_note(&mut failure.head.note, &visit.note);
        self.keep(failure).await;
    }

    /// A failure of a synchronous request that nobody could keep.
    pub fn count_unkept(&self) {
        self.unkept.fetch_add(1, Ordering::Relaxed);
    }

    async fn keep(&self, failure: Failure) {
        let id = failure.head.id;
        let ending = Ending { failure: Some(failure), ..Ending::default() };
        let why = match tokio::time::timeout(CAPTURE_PATIENCE, self.failures.conclude(ending)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        self.count_unkept();
        tracing::error!(request_id = %id, why, "the failure of a synchronous request could not be kept");
    }

    fn failure(
        &self,
        parts: Parts<'_>,
        target: Option<&RouteTarget>,
        outcome: &InvokeOutcome,
        event: &[u8],
        record: Option<&FunctionRecord>,
    ) -> Failure {
        let failed_ms = self.clock.now_ms();
        let (log, log_cut_bytes) = end_of(outcome.log.as_deref().unwrap_or(""), LOG_BYTES_MAX);
        let result = String::from_utf8_lossy(&outcome.body);
        let (kept, result_cut_bytes) = start_of(&result, RESULT_BYTES_MAX);
        let config = target.map(|t| &t.spec.config);
        let scene = Scene {
            environment: config.map_or_else(Vec::new, |c| c.environment.iter().map(|(name, _)| name.clone()).collect()),
            result: kept.to_owned(),
            result_cut_bytes,
            log: log.to_owned(),
            log_cut_bytes,
            duration_us: outcome.duration_us,
            memory_mb: config.map_or(0, |c| c.memory_mb),
            memory_bytes: outcome.memory_bytes,
            cold_start: outcome.cold_start,
            retries: parts.retries,
            routing_key: parts.routing_key.to_vec(),
        };
        let retention_h = record.map(|r| r.failures).unwrap_or_default().retention_h();
        Failure {
            head: FailureHead {
                id: parts.id,
                namespace: parts.namespace.into(),
                function: parts.function.into(),
                qualifier: parts.qualifier.into(),
                version: target.map_or_else(String::new, |t| t.spec.key.version.clone()),
                source: parts.source.into(),
                status: outcome.status.0,
                error: error_text(&result),
                accepted_ms: parts.accepted_ms,
                failed_ms,
                origin: parts.origin,
                ..FailureHead::default()
            },
            expires_ms: failed_ms.saturating_add(u64::from(retention_h) * 3_600_000),
            scene: serde_json::to_vec(&scene).unwrap_or_default(),
            event: event.to_vec(),
        }
    }
}

/// What is known of a failed request beside its outcome.
struct Parts<'a> {
    id: RequestId,
    namespace: &'a str,
    function: &'a str,
    qualifier: &'a str,
    source: &'a str,
    accepted_ms: u64,
    retries: u32,
    routing_key: &'a [(String, String)],
    origin: Option<RequestId>,
}

fn addressed(to: &Target, Lineage { depth, parent }: Lineage) -> Addressed {
    Addressed { to: to.clone(), depth, parent }
}

/// True when an event failed because it was tried as often as it may; else it grew too old.
fn exhausted(status: Status, tried: Tried, policy: &EventPolicy) -> bool {
    if status.is_run_error() { tried.run_errors >= policy.retries } else { !status.is_platform_error() }
}

fn add_note(note: &mut String, text: &str) {
    if !note.is_empty() && !text.is_empty() {
        note.push('\n');
    }
    note.push_str(text);
}

/// The end of a text, cut at a character, and how much was cut off before it.
fn end_of(text: &str, bytes_max: usize) -> (&str, u64) {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    (&text[start..], start as u64)
}

/// The start of a text, cut at a character, and how much was cut off behind it.
fn start_of(text: &str, bytes_max: usize) -> (&str, u64) {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], (text.len() - end) as u64)
}

/// Message and stack of an error document, or the text as it is.
pub(crate) fn error_text(result: &str) -> String {
    let document: Option<Value> = serde_json::from_str(result).ok();
    let field = |name: &str| document.as_ref().and_then(|d| d.get(name)).and_then(Value::as_str).unwrap_or("");
    let (message, stack) = (field("errorMessage"), field("stackTrace"));
    let text = match (message.is_empty(), stack.is_empty()) {
        (true, true) => result.to_owned(),
        (false, false) if !stack.contains(message) => format!("{message}\n{stack}"),
        (true, false) | (false, false) => stack.to_owned(),
        (false, true) => message.to_owned(),
    };
    start_of(&text, ERROR_BYTES_MAX).0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(end_of("aéé", 3), ("é", 3));
        assert_eq!(start_of("éé", 3), ("é", 2));
        assert_eq!((end_of("ab", 2), start_of("ab", 5)), (("ab", 0), ("ab", 0)));
    }

    #[test]
    fn errors_are_found_in_documents() {
        assert_eq!(error_text(r#"{"errorMessage":"boom","stackTrace":"at x\nboom"}"#), "at x\nboom");
        assert_eq!(error_text(r#"{"errorMessage":"boom","stackTrace":"at x"}"#), "boom\nat x");
        assert_eq!(error_text(r#"{"errorMessage":"boom"}"#), "boom");
        assert_eq!(error_text("no document"), "no document");
        assert_eq!(error_text(&"é".repeat(4000)).len(), 4096);
    }

    #[test]
    fn giving_up_has_two_reasons() {
        let tried = |run_errors| Tried { run_errors, platform_errors: 0 };
        let policy = EventPolicy::default();
        assert!(exhausted(Status::USER_EXCEPTION, tried(2), &policy));
        assert!(!exhausted(Status::USER_EXCEPTION, tried(1), &policy));
        assert!(!exhausted(Status::CONCURRENCY_EXCEEDED, tried(2), &policy));
        assert!(exhausted(Status::FUNCTION_NOT_FOUND, tried(0), &policy));
    }

    #[test]
    fn causes_of_older_events_can_be_read() {
        let cause: Cause = serde_json::from_str("{}").unwrap();
        assert!(cause.is_default() && cause.source() == "event");
        assert_eq!(serde_json::to_string(&Cause::default()).unwrap(), "{}");
    }
}
