//! Invoke and InvokeFunction: the hot path. The body is parsed once into borrowed strings, the event is moved and
//! not copied, and the answer is written by hand into one buffer.

use super::CallCx;
use crate::api::envelope::{ApiResponse, write_text};
use crate::api::requests;
use crate::catalogue::clip;
use crate::endings::Cause;
use crate::events::Event;
use crate::ports::InvokeRequest;
use bytes::Bytes;
use mayfly_model::{ApiError, InvokeOutcome, RequestId, limits};
use mayfly_sign::Params;
use serde::de::{Deserialize, Deserializer, IgnoredAny, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;

/// Text borrowed from the body where it has no escapes.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The fields of both actions, as they stand in a JSON body. What each declares is in [`requests`].
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(borrow)]
    function_name: Text<'a>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(borrow, default)]
    qualifier: Option<Text<'a>>,
    #[serde(borrow, default)]
    invocation_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    log_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    routing_key: Option<Text<'a>>,
    #[serde(default)]
    client_context: Option<String>,
    #[serde(default)]
    event: Option<String>,
}

/// Which of the two actions is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Invoke`.
    Invoke,
    /// `InvokeFunction`.
    InvokeFunction,
}

impl Kind {
    /// The kind of an action's name.
    pub fn of(action: &str) -> Option<Self> {
        match action {
            "Invoke" => Some(Self::Invoke),
            "InvokeFunction" => Some(Self::InvokeFunction),
            _ => None,
        }
    }
}

/// A checked invocation.
struct Input<'a> {
    namespace: Cow<'a, str>,
    function: Cow<'a, str>,
    qualifier: Cow<'a, str>,
    asynchronous: bool,
    tail: bool,
    routing_key: Vec<(String, String)>,
    event: String,
}

/// The fields before they are checked.
struct Fields<'a> {
    function: Cow<'a, str>,
    namespace: Option<Cow<'a, str>>,
    qualifier: Option<Cow<'a, str>>,
    invocation_type: Option<Cow<'a, str>>,
    log_type: Option<Cow<'a, str>>,
    routing_key: Option<Cow<'a, str>>,
    event: Option<String>,
}

impl<'a> Fields<'a> {
    /// Reads a JSON body. `None` when it does not have the declared shape: the table then says what is wrong.
    fn fast(kind: Kind, body: &'a [u8]) -> Option<Self> {
        let body: Body<'a> = serde_json::from_slice(body).ok()?;
        let text = |text: Option<Text<'a>>| text.map(|t| t.0);
        Some(Self {
            function: body.function_name.0,
            namespace: text(body.namespace),
            qualifier: text(body.qualifier),
            invocation_type: text(body.invocation_type).filter(|_| kind == Kind::Invoke),
            log_type: text(body.log_type),
            routing_key: text(body.routing_key),
            event: if kind == Kind::Invoke { body.client_context } else { body.event },
        })
    }

    /// Reads parameters of any form by the action's declaration.
    fn by_table(kind: Kind, params: Params) -> Result<Self, ApiError> {
        let own = |text: Option<String>| text.map(Cow::Owned);
        Ok(match kind {
            Kind::Invoke => {
                let (r, _) = super::read::<requests::Invoke>(params)?;
                Self {
                    function: Cow::Owned(r.function_name),
                    namespace: own(r.namespace),
                    qualifier: own(r.qualifier),
                    invocation_type: own(r.invocation_type),
                    log_type: own(r.log_type),
                    routing_key: own(r.routing_key),
                    event: r.client_context,
                }
            }
            Kind::InvokeFunction => {
                let (r, _) = super::read::<requests::InvokeFunction>(params)?;
                Self {
                    function: Cow::Owned(r.function_name),
                    namespace: own(r.namespace),
                    qualifier: own(r.qualifier),
                    invocation_type: None,
                    log_type: own(r.log_type),
                    routing_key: own(r.routing_key),
                    event: r.event,
                }
            }
        })
    }

    /// Checks the values. Errors: `InvalidParameter.FunctionName`, `InvalidParameterValue.{InvokeType, Param}`, `InvalidParameterValue`,
    /// `InvalidParameter.RequestTooLarge`.
    fn check(self, kind: Kind, event_bytes_max: usize) -> Result<Input<'a>, ApiError> {
        let filled = |text: Option<Cow<'a, str>>| text.filter(|t| !t.is_empty());
        if self.function.is_empty() {
            return Err(ApiError::new("InvalidParameter.FunctionName", "`FunctionName` is empty."));
        }
        let asynchronous = match filled(self.invocation_type).as_deref() {
            None | Some("RequestResponse") => false,
            Some("Event") => true,
            Some(other) => {
                let message = format!("`InvocationType` is `{}`; it is RequestResponse or Event.", clip(other));
                return Err(ApiError::new("InvalidParameterValue.InvokeType", message));
            }
        };
        let tail = match filled(self.log_type).as_deref() {
            None => false,
            Some(t) if t.eq_ignore_ascii_case("none") => false,
            Some(t) if t.eq_ignore_ascii_case("tail") => true,
            Some(other) => {
                return Err(ApiError::invalid(format!("`LogType` is `{}`; it is None or Tail.", clip(other))));
            }
        };
        let default = if kind == Kind::Invoke { "$LATEST" } else { "$DEFAULT" };
        let event = event(self.event, asynchronous, event_bytes_max)?;
        Ok(Input {
            namespace: filled(self.namespace).unwrap_or(Cow::Borrowed("default")),
            function: self.function,
            qualifier: filled(self.qualifier).unwrap_or(Cow::Borrowed(default)),
            asynchronous,
            tail,
            routing_key: filled(self.routing_key).map(|t| routing_key(&t)).transpose()?.unwrap_or_default(),
            event,
        })
    }
}

/// The event's text: checked JSON, `{}` when there is none.
fn event(text: Option<String>, asynchronous: bool, event_bytes_max: usize) -> Result<String, ApiError> {
    let text = match text {
        Some(text) if !text.trim_ascii().is_empty() => text,
        _ => return Ok("{}".into()),
    };
    let max = if asynchronous { event_bytes_max } else { limits::EVENT_SYNC_BYTES_MAX };
    if text.len() > max {
        return Err(too_large(text.len(), asynchronous, max));
    }
    match serde_json::from_str::<IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(e) => Err(ApiError::new("InvalidParameterValue.Param", format!("The event is not valid JSON: {e}."))),
    }
}

fn too_large(bytes: usize, asynchronous: bool, max: usize) -> ApiError {
    let kind = if asynchronous { "an asynchronous" } else { "a synchronous" };
    let message = format!("The event has {bytes} bytes; the limit of {kind} invocation is {max} bytes.");
    ApiError::new("InvalidParameter.RequestTooLarge", message)
}

/// The pairs of a `RoutingKey`.
fn routing_key(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    if text.len() > limits::ROUTING_KEY_BYTES_MAX {
        let max = limits::ROUTING_KEY_BYTES_MAX;
        return Err(ApiError::invalid(format!("`RoutingKey` has {} bytes; the limit is {max}.", text.len())));
    }
    let map: std::collections::BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|_| ApiError::invalid("`RoutingKey` is not a JSON object whose values are strings."))?;
    Ok(map.into_iter().collect())
}

/// Runs either action.
pub async fn invoke(cx: CallCx<'_>, kind: Kind, params: Params) -> Result<ApiResponse, ApiError> {
    let body = match &params {
        Params::Json(body) => Some(body.clone()),
        Params::Tree(_) => None,
    };
    let fields = match body.as_deref().and_then(|body| Fields::fast(kind, body)) {
        Some(fields) => fields,
        None => Fields::by_table(kind, params)?,
    };
    let event_bytes_max = cx.control.options.event_bytes_max;
    let input = fields.check(kind, event_bytes_max)?;
    let random = crate::ids::random_unit();
    let catalogue = &cx.control.catalogue;
    let target = catalogue.resolve(&input.namespace, &input.function, &input.qualifier, &input.routing_key, random)?;
    if target.spec.config.service.is_some() {
        return Err(not_invocable(cx.host, &input));
    }
    let request_id = cx.request_id;
    let lineage = cx.caller.lineage;
    if input.asynchronous || target.spec.config.async_run {
        // Only now is it known that a call that asked for its result gets none.
        if input.event.len() > event_bytes_max {
            return Err(too_large(input.event.len(), true, event_bytes_max));
        }
        let event = Event {
            namespace: input.namespace.into_owned(),
            function: input.function.into_owned(),
            qualifier: input.qualifier.into_owned(),
            routing_key: input.routing_key,
            event: input.event,
            accepted_ms: cx.control.clock.now_ms(),
            // One in too long a chain is accepted too: its end as a failure can be looked at, and run again.
            cause: Cause::of("", lineage),
        };
        cx.control.events.accept(request_id, event).await?;
        return Ok(answer(&Shown { request_id, log: "", ret: "", error: "", memory: 0, duration_us: 0, code: 0 }));
    }
    cx.control.chains.check(&lineage, request_id)?;
    let request = InvokeRequest {
        request_id,
        event: Bytes::from(input.event),
        want_log: input.tail,
        log_failure: false,
        retry: 0,
        event_mark: None,
        abort: None,
        origin: None,
        qualifier: input.qualifier.into_owned(),
        lineage,
    };
    let outcome = cx.control.endings.invoke(&*cx.control.invoker, &target, request, "invoke").await;
    Ok(finished(&outcome))
}

/// HTTP functions take requests at their URL only.
fn not_invocable(host: &str, input: &Input<'_>) -> ApiError {
    let url = super::triggers::url("http", host, &input.namespace, &input.function, &input.qualifier);
    let message =
        format!("`{}` is an HTTP function, which takes requests at {url} and cannot be invoked.", input.function);
    ApiError::new("InvalidParameterValue.FunctionType", message)
}

/// `Result` of the answer, before it is written.
struct Shown<'a> {
    request_id: RequestId,
    log: &'a str,
    ret: &'a str,
    error: &'a str,
    memory: u64,
    duration_us: u64,
    code: i8,
}

fn finished(outcome: &InvokeOutcome) -> ApiResponse {
    let text = String::from_utf8_lossy(&outcome.body);
    let ok = outcome.status.is_ok();
    answer(&Shown {
        request_id: outcome.request_id,
        log: tail(outcome.log.as_deref().unwrap_or("")),
        ret: &text,
        error: if ok { "" } else { &text },
        memory: outcome.memory_bytes,
        duration_us: outcome.duration_us,
        code: if ok { 0 } else { -1 },
    })
}

/// The last 4096 bytes of a log, cut at a character.
fn tail(log: &str) -> &str {
    let mut start = log.len().saturating_sub(limits::LOG_TAIL_BYTES);
    while !log.is_char_boundary(start) {
        start += 1;
    }
    &log[start..]
}

fn answer(result: &Shown<'_>) -> ApiResponse {
    let Shown { request_id, log, ret, error, memory, duration_us, code } = result;
    // Quotes in the JSON text are escaped: an eighth more is usually enough.
    let mut out = Vec::with_capacity(320 + log.len() + (ret.len() + error.len()) * 9 / 8);
    out.extend_from_slice(b"{\"Response\":{\"Result\":{\"Log\":");
    write_text(&mut out, log);
    out.extend_from_slice(b",\"RetMsg\":");
    write_text(&mut out, ret);
    out.extend_from_slice(b",\"ErrMsg\":");
    write_text(&mut out, error);
    let _ = write!(
        out,
        ",\"MemUsage\":{memory},\"Duration\":{}.{:03},\"BillDuration\":{},\"FunctionRequestId\":\"{request_id}\",\"InvokeResult\":{code}}},\"RequestId\":\"{request_id}\"}}}}",
        duration_us / 1000,
        duration_us % 1000,
        duration_us.div_ceil(1000),
    );
    ApiResponse { request_id: *request_id, body: out.into(), error_code: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_model::Status;
    use serde_json::{Value, json};

    fn outcome(status: Status, body: &str, log: Option<String>) -> InvokeOutcome {
        InvokeOutcome {
            request_id: RequestId::from_random([3; 16]),
            status,
            body: body.as_bytes().to_vec(),
            duration_us: 1005,
            memory_bytes: 4096,
            cold_start: None,
            log,
        }
    }

    #[test]
    fn answers_are_what_clients_read() {
        let ok = finished(&outcome(Status::OK, "{\"a\":\"\\u4e2d\\n\"}", Some("line\n".into())));
        let id = RequestId::from_random([3; 16]).to_string();
        let body: Value = serde_json::from_slice(&ok.body).unwrap();
        assert_eq!(
            body,
            json!({"Response": {"RequestId": id, "Result": {
                "Log": "line\n", "RetMsg": "{\"a\":\"\\u4e2d\\n\"}", "ErrMsg": "", "MemUsage": 4096, "Duration": 1.005,
                "BillDuration": 2, "FunctionRequestId": id, "InvokeResult": 0}}})
        );
        let error = "{\"errorCode\":-1,\"statusCode\":430}";
        let failed = finished(&outcome(Status::USER_EXCEPTION, error, None));
        let body: Value = serde_json::from_slice(&failed.body).unwrap();
        let result = &body["Response"]["Result"];
        assert_eq!((&result["InvokeResult"], &result["ErrMsg"]), (&json!(-1), &json!(error)));
        assert_eq!(result["RetMsg"], json!(error));
        assert!(body["Response"].get("Error").is_none());
    }

    #[test]
    fn tails_are_cut_at_characters() {
        let log = format!("x{}", "é".repeat(3000));
        let cut = tail(&log);
        assert!(cut.len() <= 4096 && cut.len() > 4090 && log.ends_with(cut));
        assert_eq!(tail("short"), "short");
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let body = br#"{"FunctionName":"hello","Namespace":"a\u0062","ClientContext":"{}","Other":[1,{"x":null}]}"#;
        let fields = Fields::fast(Kind::Invoke, body).unwrap();
        assert!(matches!(fields.function, Cow::Borrowed("hello")));
        assert!(matches!(&fields.namespace, Some(Cow::Owned(n)) if n == "ab"));
        assert!(Fields::fast(Kind::Invoke, br#"{"FunctionName":7}"#).is_none());
        let fields =
            Fields::fast(Kind::InvokeFunction, br#"{"FunctionName":"h","InvocationType":"Event","Event":"1"}"#);
        assert_eq!(fields.unwrap().invocation_type, None, "InvokeFunction has no such field");
    }
}
