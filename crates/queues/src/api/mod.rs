//! The two ways in which clients speak to the queues: CMQ's own ([`cmq`]), and TDMQ's for CMQ ([`tdmq`]).

mod cmq;
mod fields;
mod tdmq;

use crate::error::{ErrorKind, QueueError};
use crate::service::{Queues, random};
use bytes::Bytes;
use mayfly_model::{ApiError, Lineage, RequestId};
use mayfly_sign::{CredentialSource, Params, RequestView, SignError, Verified, Verifier};
use serde_json::{Map, Value, json};

/// Path of CMQ's API.
pub const CMQ_PATH: &str = "/v2/index.php";
/// Version of TDMQ's API.
pub const TDMQ_VERSION: &str = "2020-02-17";
/// Service of TDMQ's API, as requests are signed for it.
pub const TDMQ_SERVICE: &str = "tdmq";

/// Whose queues they are.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The account's number (APPID).
    pub app_id: u64,
    /// The account's id (UIN).
    pub uin: u64,
}

/// The API.
pub struct Api {
    queues: Queues,
    account: Account,
    verifier: Verifier,
}

/// A request whose signature is right.
pub struct Request {
    cmq: bool,
    verified: Verified,
}

impl Request {
    /// Whose keys signed it.
    pub fn secret_id(&self) -> &str {
        &self.verified.secret_id
    }
}

/// An answer: HTTP status 200, `application/json`.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The body.
    pub body: Bytes,
    /// The action; empty when it is not known.
    pub action: String,
    /// `OK`, or the error's code.
    pub code: String,
}

/// What an action of CMQ's answers.
struct Outcome {
    /// For errors within a batch; else `None`.
    error: Option<(u16, u16, &'static str)>,
    fields: Map<String, Value>,
}

impl Api {
    /// The API over `queues`.
    pub fn new(queues: Queues, account: Account) -> Self {
        Self { queues, account, verifier: Verifier::new(&[TDMQ_SERVICE]) }
    }

    /// Checks who asks. CMQ's API is at [`CMQ_PATH`], TDMQ's everywhere else.
    ///
    /// # Errors
    /// The answer for who may not ask.
    pub fn read(
        &self,
        view: &RequestView<'_>,
        credentials: &dyn CredentialSource,
        now_ms: u64,
    ) -> Result<Request, Reply> {
        let cmq = view.path == CMQ_PATH;
        let verified = if cmq {
            self.verifier.verify_cmq(view, credentials, now_ms)
        } else {
            self.verifier.verify(view, credentials, now_ms)
        };
        match verified {
            Ok(verified) => Ok(Request { cmq, verified }),
            Err(error) if cmq => Err(cmq_refusal(String::new(), &refused(error))),
            Err(error) => Err(envelope(String::new(), Err(error.into()))),
        }
    }

    /// Answers. `lineage`: what the request comes of, when that is an invocation of a function.
    pub async fn answer(&self, request: Request, lineage: Lineage) -> Reply {
        if !request.cmq {
            return self.tdmq(request.verified, lineage).await;
        }
        let action = request.verified.action;
        let params = match request.verified.params {
            Params::Tree(Value::Object(map)) => map,
            _ => Map::new(),
        };
        match cmq::handle(&self.queues.calling(lineage), &self.account, &action, &params).await {
            Ok(outcome) => cmq_answer(action, outcome),
            Err(error) => cmq_refusal(action, &error),
        }
    }

    /// Answers a request for TDMQ's API that somebody else has verified.
    pub async fn tdmq(&self, verified: Verified, lineage: Lineage) -> Reply {
        let Verified { action, version, params, .. } = verified;
        if version != TDMQ_VERSION {
            let message = format!("The version of the queues' API is {TDMQ_VERSION}.");
            return envelope(action, Err(ApiError::new("NoSuchVersion", message)));
        }
        let params = match params {
            Params::Tree(Value::Object(map)) => map,
            Params::Json(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
            Params::Json(bytes) => match serde_json::from_slice(&bytes) {
                Ok(map) => map,
                Err(error) => {
                    let message = format!("The request's body is not a JSON object: {error}.");
                    return envelope(action, Err(ApiError::new("InvalidParameter", message)));
                }
            },
            Params::Tree(_) => Map::new(),
        };
        let answer = tdmq::handle(&self.queues.calling(lineage), &self.account, &action, &params).await;
        envelope(action, answer.map_err(ApiError::from))
    }
}

fn refused(error: SignError) -> QueueError {
    let kind = match &error {
        SignError::SecretIdNotFound => ErrorKind::SecretId,
        SignError::InvalidParameter(_) | SignError::InvalidRequest(_) => ErrorKind::Invalid,
        SignError::Missing(_) => ErrorKind::Missing,
        _ => ErrorKind::Authentication,
    };
    kind.says(error.to_string())
}

fn request_id() -> String {
    RequestId::from_random(random()).to_string()
}

fn cmq_answer(action: String, Outcome { error, mut fields }: Outcome) -> Reply {
    let (code, message) = match error {
        None => (0, String::new()),
        Some((code, module, text)) => (code, format!("({module}){text}")),
    };
    fields.insert("code".into(), json!(code));
    fields.insert("message".into(), json!(message));
    fields.insert("requestId".into(), json!(request_id()));
    let told = if code == 0 { "OK".to_owned() } else { code.to_string() };
    Reply { body: Value::Object(fields).to_string().into(), action, code: told }
}

fn cmq_refusal(action: String, error: &QueueError) -> Reply {
    let (code, module, text) = error.kind.cmq();
    let message = format!("({module}){text}: {}", error.message);
    let body = json!({"code": code, "message": message, "requestId": request_id()});
    Reply { body: body.to_string().into(), action, code: code.to_string() }
}

fn envelope(action: String, answer: Result<Map<String, Value>, ApiError>) -> Reply {
    let (mut fields, code) = match answer {
        Ok(fields) => (fields, "OK"),
        Err(error) => {
            let error_object = json!({"Code": error.code, "Message": error.message});
            (Map::from_iter([("Error".to_owned(), error_object)]), error.code)
        }
    };
    fields.insert("RequestId".into(), json!(request_id()));
    Reply { body: json!({"Response": fields}).to_string().into(), action, code: code.to_owned() }
}
