//! The messages about ends of events: SCF's dead letter, and the record that AWS Lambda sends to its destinations.

use crate::endings::Account;
use crate::events::Event;
use chrono::{DateTime, Local, SecondsFormat, Utc};
use mayfly_model::failures::DESTINATION_DEPTH_MAX;
use mayfly_model::{InvokeOutcome, RequestId, Target, limits};
use mayfly_store::failures::MESSAGE_BYTES_MAX;
use serde_json::{Value, json};

/// The end that a message tells of.
pub(crate) struct Told<'a> {
    pub id: RequestId,
    pub event: &'a Event,
    /// The event's text.
    pub content: &'a [u8],
    pub outcome: &'a InvokeOutcome,
    /// The version that ran; empty when none did.
    pub version: &'a str,
    pub attempts: u32,
    /// True: tried as often as it may be; false: too old.
    pub exhausted: bool,
    pub now_ms: u64,
}

fn moment(ms: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or_default()
}

/// The dead letter. Source of its form: SCF, "Dead Letter Queue". Error: why there is none.
pub(crate) fn dead_letter(told: &Told<'_>, account: Account) -> Result<Vec<u8>, &'static str> {
    let event = told.event;
    let source = match event.cause.source.as_str() {
        "" | "event" | "invoke" | "url" | "destination" => "API".to_owned(),
        trigger => format!("TRIGGER_{}", trigger.to_ascii_uppercase()),
    };
    let letter = json!({
        "RequestId": told.id,
        "ErrorCode": -1,
        "ErrorMessage": crate::endings::error_text(&String::from_utf8_lossy(&told.outcome.body)),
        "Body": {
            "AppId": account.app_id,
            "Uin": account.uin.to_string(),
            "SubAccountUin": account.uin.to_string(),
            "RequestSource": source,
            "FunctionName": event.function,
            "Namespace": event.namespace,
            "Qualifier": event.qualifier,
            "InvocationType": "Event",
            "ClientContext": String::from_utf8_lossy(told.content),
            "LogType": "",
            "TimeStampForInvoker": event.accepted_ms.to_string(),
            "RequestId": told.id,
            "PushTime": moment(told.now_ms).with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Millis, false),
            "RetryNum": told.attempts.saturating_sub(1),
            "Ttl": 0,
        },
    });
    let bytes = letter.to_string().into_bytes();
    if bytes.len() > MESSAGE_BYTES_MAX { Err("the event is too large for a message") } else { Ok(bytes) }
}

/// The record of a result. Source of its form: AWS Lambda, "Capturing records of asynchronous invocations". Error: why there is none.
pub(crate) fn result(told: &Told<'_>, to: &Target) -> Result<Vec<u8>, &'static str> {
    if matches!(to, Target::Function { .. }) && told.event.cause.depth >= DESTINATION_DEPTH_MAX {
        return Err("it is the end of a chain of 16 destinations, which looks like a loop");
    }
    let (event, outcome) = (told.event, told.outcome);
    let ok = outcome.status.is_ok();
    let condition = match (ok, told.exhausted) {
        (true, _) => "Success",
        (false, true) => "RetriesExhausted",
        (false, false) => "EventAgeExceeded",
    };
    let payload = |bytes: &[u8]| {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
    };
    let mut record = json!({
        "version": "1.0",
        "timestamp": moment(told.now_ms).to_rfc3339_opts(SecondsFormat::Millis, true),
        "requestContext": {
            "requestId": told.id,
            "functionArn": format!("mayfly:{}:{}:{}", event.namespace, event.function, event.qualifier),
            "condition": condition,
            "approximateInvokeCount": told.attempts,
        },
        "requestPayload": payload(told.content),
        "responseContext": {"statusCode": outcome.status.0, "executedVersion": told.version},
        "responsePayload": payload(&outcome.body),
    });
    if !ok {
        record["responseContext"]["functionError"] = "Unhandled".into();
    }
    for part in ["responsePayload", "requestPayload"] {
        let bytes = record.to_string().into_bytes();
        if bytes.len() <= limits::EVENT_ASYNC_BYTES_MAX {
            return Ok(bytes);
        }
        record[part] = Value::Null;
        record[format!("{part}Omitted")] = true.into();
    }
    Ok(record.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endings::Cause;
    use mayfly_model::Status;

    fn event(depth: u32) -> Event {
        Event {
            namespace: "default".into(),
            function: "f".into(),
            qualifier: "$LATEST".into(),
            routing_key: Vec::new(),
            event: r#"{"a":"b"}"#.into(),
            accepted_ms: 1_600_000_000_000,
            cause: Cause { depth, source: "timer".into(), ..Cause::default() },
        }
    }

    fn outcome(status: Status, body: Vec<u8>) -> InvokeOutcome {
        let request_id = RequestId(1);
        InvokeOutcome { request_id, status, body, duration_us: 1, memory_bytes: 1, cold_start: None, log: None }
    }

    fn told<'a>(event: &'a Event, outcome: &'a InvokeOutcome) -> Told<'a> {
        let content = event.event.as_bytes();
        Told {
            id: RequestId(1),
            event,
            content,
            outcome,
            version: "3",
            attempts: 3,
            exhausted: true,
            now_ms: 1_600_000_060_000,
        }
    }

    #[test]
    fn dead_letters_have_the_form_of_scf() {
        let (event, outcome) = (event(0), outcome(Status::USER_EXCEPTION, br#"{"errorMessage":"boom"}"#.to_vec()));
        let letter = dead_letter(&told(&event, &outcome), Account { app_id: 1, uin: 2 }).unwrap();
        let mut letter: Value = serde_json::from_slice(&letter).unwrap();
        assert!(letter["Body"]["PushTime"].take().as_str().unwrap().starts_with("2020-09-1"));
        let id = RequestId(1).to_string();
        assert_eq!(
            letter,
            json!({"RequestId": id, "ErrorCode": -1, "ErrorMessage": "boom", "Body": {
                "AppId": 1, "Uin": "2", "SubAccountUin": "2", "RequestSource": "TRIGGER_TIMER", "FunctionName": "f",
                "Namespace": "default", "Qualifier": "$LATEST", "InvocationType": "Event",
                "ClientContext": "{\"a\":\"b\"}", "LogType": "", "TimeStampForInvoker": "1600000000000",
                "RequestId": id, "PushTime": null, "RetryNum": 2, "Ttl": 0}})
        );
    }

    #[test]
    fn results_say_what_was_asked_and_answered() {
        let (event, outcome) = (event(0), outcome(Status::OK, b"[1]".to_vec()));
        let to = Target::Queue { name: "q".into() };
        let record: Value = serde_json::from_slice(&result(&told(&event, &outcome), &to).unwrap()).unwrap();
        assert_eq!(
            record,
            json!({"version": "1.0", "timestamp": "2020-09-13T12:27:40.000Z",
                "requestContext": {"requestId": RequestId(1).to_string(), "functionArn": "mayfly:default:f:$LATEST",
                    "condition": "Success", "approximateInvokeCount": 3},
                "requestPayload": {"a": "b"}, "responseContext": {"statusCode": 200, "executedVersion": "3"},
                "responsePayload": [1]})
        );
    }

    #[test]
    fn large_parts_are_left_out_and_loops_end() {
        let (mut event, outcome) = (event(0), outcome(Status::OK, vec![b'1'; 200_000]));
        let to = Target::Queue { name: "q".into() };
        let record: Value = serde_json::from_slice(&result(&told(&event, &outcome), &to).unwrap()).unwrap();
        assert_eq!((&record["responsePayload"], &record["responsePayloadOmitted"]), (&Value::Null, &json!(true)));
        assert_eq!(record["requestPayload"], json!({"a": "b"}));
        event.cause.depth = DESTINATION_DEPTH_MAX;
        assert!(result(&told(&event, &outcome), &to).is_ok(), "a queue ends a chain by itself");
        let function = Target::Function {
            namespace: mayfly_model::NamespaceName::default_namespace(),
            name: mayfly_model::FunctionName::parse("other").unwrap(),
            qualifier: "$LATEST".into(),
        };
        assert!(result(&told(&event, &outcome), &function).unwrap_err().contains("loop"));
    }
}
