//! The event that SCF gives a function for a change in a bucket.

use crate::entry::shown_version;
use crate::outbox::Notice;
use serde_json::{Value, json};

/// Whom a notice is for, and what the platform calls itself.
#[derive(Clone, Debug)]
pub struct EventTarget<'a> {
    /// Region: `ap-guangzhou`.
    pub region: &'a str,
    /// Account number (APPID), for buckets whose name does not end in one.
    pub app_id: &'a str,
    /// Namespace of the function.
    pub namespace: &'a str,
    /// Name of the function.
    pub function: &'a str,
    /// Version or alias that is called.
    pub qualifier: &'a str,
}

/// SCF's COS event. Source: "COS trigger" in SCF's documents.
pub fn cos_event(notice: &Notice, target: &EventTarget<'_>) -> Value {
    let EventTarget { region, namespace, function, qualifier, .. } = *target;
    let own = notice.bucket.rsplit_once('-').filter(|(n, id)| !n.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
    let (bucket, app_id) = own.unwrap_or((&notice.bucket, target.app_id));
    let mut meta = serde_json::Map::new();
    meta.insert("x-cos-request-id".into(), notice.cause.request_id.clone().into());
    meta.insert("Content-Type".into(), notice.content_type.clone().into());
    for (name, value) in &notice.meta {
        meta.insert(format!("x-cos-meta-{name}"), value.clone().into());
    }
    json!({"Records": [{
        "cos": {
            "cosSchemaVersion": "1.0",
            "cosObject": {
                "url": format!("http://{}.cos.{region}.myqcloud.com/{}", notice.bucket, notice.key),
                "meta": meta,
                "vid": notice.version.as_deref().map_or("", shown_version),
                "key": format!("/{app_id}/{bucket}/{}", notice.key),
                "size": notice.size,
            },
            "cosBucket": { "region": region, "name": bucket, "appid": app_id },
            "cosNotificationId": "unkown",
        },
        "event": {
            "eventName": notice.kind.name(),
            "eventVersion": "1.0",
            "eventTime": notice.time_ms.div_euclid(1000),
            "eventSource": "qcs::cos",
            "requestParameters": {
                "requestSourceIP": notice.cause.source_ip,
                "requestHeaders": notice.cause.headers,
            },
            "eventQueue": format!("qcs:0:scf:{region}:appid/{app_id}:{namespace}.{function}.{qualifier}"),
            "reservedInfo": "",
            "reqid": notice.id,
        },
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Cause;
    use crate::rules::EventKind;

    #[test]
    fn an_event_has_what_functions_read() {
        let notice = Notice {
            id: 7,
            rule: "r".into(),
            kind: EventKind::Put,
            bucket: "photos-1250000000".into(),
            key: "in/a b.jpg".into(),
            version: None,
            size: 12,
            etag: "e".into(),
            content_type: "image/jpeg".into(),
            meta: [("who".to_owned(), "me".to_owned())].into(),
            time_ms: 1_501_000_000_123,
            cause: Cause { request_id: "rid".into(), source_ip: "127.0.0.1".into(), ..Cause::default() },
        };
        let target =
            EventTarget { region: "ap-x", app_id: "99", namespace: "default", function: "fn", qualifier: "$LATEST" };
        let event = cos_event(&notice, &target);
        let (cos, about) = (&event["Records"][0]["cos"], &event["Records"][0]["event"]);
        assert_eq!(cos["cosObject"]["key"], "/1250000000/photos/in/a b.jpg");
        assert_eq!(cos["cosObject"]["size"], 12);
        assert_eq!(cos["cosObject"]["meta"]["x-cos-meta-who"], "me");
        assert_eq!(cos["cosBucket"], json!({"region": "ap-x", "name": "photos", "appid": "1250000000"}));
        assert_eq!(about["eventName"], "cos:ObjectCreated:Put");
        assert_eq!(about["eventTime"], 1_501_000_000);
        assert_eq!(about["eventQueue"], "qcs:0:scf:ap-x:appid/1250000000:default.fn.$LATEST");
        let plain = Notice { bucket: "photos".into(), ..notice };
        assert_eq!(cos_event(&plain, &target)["Records"][0]["cos"]["cosObject"]["key"], "/99/photos/in/a b.jpg");
    }
}
