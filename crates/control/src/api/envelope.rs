//! Answers: `{"Response":{…,"RequestId":"…"}}`, HTTP status 200 for errors too.

use bytes::Bytes;
use mayfly_model::{ApiError, RequestId};
use serde::Serialize;
use serde_json::{Map, Value};

/// The content type of every answer. With anything more, such as a charset, published SDKs take an error for a success without content.
pub const CONTENT_TYPE: &str = "application/json";

/// An answer of the API: HTTP status 200, [`CONTENT_TYPE`], and this body.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// Id of the request, as it stands in the body.
    pub request_id: RequestId,
    /// The body.
    pub body: Bytes,
    /// The error code in it, for logs and metrics.
    pub error_code: Option<&'static str>,
}

impl ApiResponse {
    /// An answer with these fields.
    pub fn ok(request_id: RequestId, mut fields: Map<String, Value>) -> Self {
        fields.insert("RequestId".into(), Value::String(request_id.to_string()));
        Self { request_id, body: envelope(&fields), error_code: None }
    }

    /// An error.
    pub fn error(request_id: RequestId, error: &ApiError) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            error: Error<'a>,
            request_id: RequestId,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Error<'a> {
            code: &'a str,
            message: &'a str,
        }
        let body = Body { error: Error { code: error.code, message: &error.message }, request_id };
        Self { request_id, body: envelope(&body), error_code: Some(error.code) }
    }
}

fn envelope(fields: &impl Serialize) -> Bytes {
    let mut body = b"{\"Response\":".to_vec();
    serde_json::to_writer(&mut body, fields).expect("maps with text keys serialise into memory");
    body.push(b'}');
    body.into()
}

/// Appends `text` as a JSON string, quotes and all.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text serialises into memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_and_answers_carry_the_request_id_inside_response() {
        let id = RequestId::from_random([1; 16]);
        let error = ApiResponse::error(id, &ApiError::missing("Name"));
        let body: Value = serde_json::from_slice(&error.body).unwrap();
        assert_eq!(
            body,
            json!({"Response": {"Error": {"Code": "MissingParameter", "Message": "The request is missing a required parameter `Name`."}, "RequestId": id.to_string()}})
        );
        let answer = ApiResponse::ok(id, Map::from_iter([("TotalCount".to_owned(), json!(0))]));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body, json!({"Response": {"TotalCount": 0, "RequestId": id.to_string()}}));
    }
}
