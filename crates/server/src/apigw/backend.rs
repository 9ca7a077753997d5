//! Requests to APIs become events of functions, or are passed on to HTTP functions.

use super::Apis;
use crate::inside::Asker;
use crate::url::address::{self, origin_form};
use crate::url::{event, headers, kept, without_own_trailers};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use mayfly_apigw::door::{Address, Admitted, Refused};
use mayfly_apigw::event::{self as api_event, Request as Told, content_type};
use mayfly_apigw::records::FunctionRef;
use mayfly_control::{InvokeRequest, RouteTarget, ids};
use mayfly_gateway::StreamBody;
use mayfly_model::{Lineage, RequestId, Status, limits};
use mayfly_node::service::{ServiceCall, refused_with, whole};
use mayfly_sandbox::wire::SERVICES_DOMAIN;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A request that was let in.
pub struct Incoming {
    pub head: http::request::Parts,
    pub body: StreamBody,
    pub address: Address,
    pub visitor: headers::Visitor,
    pub id: RequestId,
}

/// An answer of JSON text.
pub fn json(status: u16, body: impl Into<Bytes>) -> Response<StreamBody> {
    text(status, "JSON", body)
}

/// An answer of this response type.
pub fn text(status: u16, response_type: &str, body: impl Into<Bytes>) -> Response<StreamBody> {
    let mut response = Response::new(whole(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(response_type)));
    response
}

/// Reads a whole body. Errors: it is larger, too slow, or breaks off.
pub async fn collect(mut body: StreamBody, bytes_max: usize) -> Result<Bytes, Refused> {
    let too_large = || Refused::Parameter(format!("the body is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refused::Parameter("the body was cut short".into()))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > bytes_max {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Bytes::from(bytes))
    };
    let slow = Err(Refused::Parameter("the body arrived too slowly".into()));
    tokio::time::timeout(BODY_TIME, whole).await.unwrap_or(slow)
}

/// An answer of the gateway's own about its function.
pub fn failed(status: u16, message: &str) -> Response<StreamBody> {
    json(status, json!({ "message": message }).to_string())
}

impl Apis {
    /// The version that answers. Errors: the answer when there is none.
    pub fn target(&self, function: &FunctionRef) -> Result<Arc<RouteTarget>, Box<Response<StreamBody>>> {
        let FunctionRef { namespace, name, qualifier } = function;
        let found = self.control.catalogue().resolve(namespace, name, qualifier, &[], ids::random_unit());
        found.map_err(|error| {
            let deploying = error.code == "FailedOperation.FunctionStatusError";
            Box::new(match deploying {
                true => failed(503, "The function is being deployed, or could not be"),
                false => failed(404, &error.message),
            })
        })
    }

    /// Where a function reaches the platform: with a role from inside its sandbox, else by the network, as far as it has any.
    pub fn push_host(&self, function: &FunctionRef) -> String {
        match self.target(function) {
            Ok(target) if target.spec.config.role().is_some() => format!("scf.{SERVICES_DOMAIN}"),
            _ => self.own_host.clone(),
        }
    }

    /// What a request comes of, when that is an invocation. Errors: the answer when too many are before it.
    fn lineage(&self, head: &http::request::Parts, id: RequestId) -> Result<Lineage, Box<Response<StreamBody>>> {
        let lineage = Asker::lineage(head);
        match self.control.check_depth(&lineage, id) {
            Ok(()) => Ok(lineage),
            Err(error) => Err(Box::new(failed(StatusCode::LOOP_DETECTED.as_u16(), &error.message))),
        }
    }

    /// Makes an event of the request, and a response of what the function returns.
    pub async fn invoke(
        &self,
        admitted: &Admitted,
        asked: Incoming,
        function: &FunctionRef,
        integrated: bool,
    ) -> Result<Response<StreamBody>, Refused> {
        let Incoming { mut head, body, address, visitor, id } = asked;
        let target = match self.target(function) {
            Ok(target) if target.spec.config.service.is_none() => target,
            Ok(_) => return Ok(failed(502, "The function has become an HTTP function; change the API")),
            Err(response) => return Ok(*response),
        };
        let lineage = match self.lineage(&head, id) {
            Ok(lineage) => lineage,
            Err(response) => return Ok(*response),
        };
        let body = collect(body, limits::EVENT_SYNC_BYTES_MAX).await?;
        headers::drop_own(&mut head.headers);
        let request_id = id.to_string();
        let told =
            Told { head: &head, path: &address.path, body: &body, request_id: &request_id, source: visitor.peer.ip() };
        let event = api_event::of_request(admitted, &told);
        if event.len() > limits::EVENT_SYNC_BYTES_MAX {
            return Err(Refused::Parameter(format!(
                "the request is larger than {} bytes",
                limits::EVENT_SYNC_BYTES_MAX
            )));
        }
        let request = InvokeRequest {
            request_id: id,
            event: Bytes::from(event),
            want_log: false,
            log_failure: false,
            retry: 0,
            event_mark: None,
            abort: None,
            origin: None,
            qualifier: function.qualifier.clone(),
            lineage,
        };
        let patience = Duration::from_secs(admitted.api.timeout_s.into());
        let running = self.control.invoke(&target, request, "apigw");
        let Ok(outcome) = tokio::time::timeout(patience, running).await else {
            return Ok(failed(504, &format!("The function did not answer within {} seconds", patience.as_secs())));
        };
        if outcome.status != Status::OK {
            return Ok(refused_with(outcome.status, outcome.body));
        }
        if !integrated {
            return Ok(text(200, &admitted.api.response_type, outcome.body));
        }
        if !api_event::is_integrated(&outcome.body) {
            let why =
                json!({ "errno": 403, "error": "Invalid scf response format. please check your scf response format." });
            return Ok(json(403, why.to_string()));
        }
        let typed = api_event::says_content_type(&outcome.body);
        let mut response = event::to_response(outcome.body);
        if !typed && !admitted.api.response_type.is_empty() && response.status() != StatusCode::BAD_GATEWAY {
            let kind = HeaderValue::from_static(content_type(&admitted.api.response_type));
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(response)
    }

    /// Passes the request on to an HTTP function.
    pub async fn serve(
        &self,
        admitted: &Admitted,
        asked: Incoming,
        function: &FunctionRef,
    ) -> Result<Response<StreamBody>, Refused> {
        let Incoming { mut head, body, address, visitor, id } = asked;
        let target = match self.target(function) {
            Ok(target) if target.spec.config.service.is_some() => target,
            Ok(_) => return Ok(failed(502, "The function has become an event function; change the API")),
            Err(response) => return Ok(*response),
        };
        let lineage = match self.lineage(&head, id) {
            Ok(lineage) => lineage,
            Err(response) => return Ok(*response),
        };
        let Some(uri) = origin_form(&address.path, head.uri.query()) else { return Err(Refused::NoAddress) };
        let upgrade = headers::asks_for_upgrade(&head).then(|| head.extensions.remove::<OnUpgrade>()).flatten();
        let seen = address::Address {
            namespace: function.namespace.clone(),
            function: function.name.clone(),
            qualifier: Some(function.qualifier.clone()),
            prefix: address.prefix.clone(),
            target: uri.clone(),
        };
        headers::forward(&mut head, &visitor, &seen, id, upgrade.is_some());
        head.uri = uri;
        // The platform's own names are stripped from what visitors send, so that this cannot be somebody else's word.
        if admitted.identity.as_object().is_some_and(|identity| !identity.is_empty())
            && let Ok(value) = HeaderValue::try_from(ascii(&admitted.identity))
        {
            head.headers.insert(HeaderName::from_static("x-scf-api-identity"), value);
        }
        let upgrading = upgrade.is_some();
        let body = without_own_trailers(body);
        let (body, ended) = kept::watched(self.control.endings(), &target, &head, body, ("apigw", upgrading));
        let call = ServiceCall {
            request_id: id,
            request: Request::from_parts(head, body),
            upgrade,
            qualifier: function.qualifier.clone(),
            keep: Box::new(()),
            lineage,
            event: None,
            ended,
        };
        let patience = Duration::from_secs(admitted.api.timeout_s.into());
        let Ok(mut response) = tokio::time::timeout(patience, self.invoker.serve(&target, call)).await else {
            return Ok(failed(504, &format!("The function did not answer within {} seconds", patience.as_secs())));
        };
        headers::back(response.headers_mut(), upgrading);
        Ok(response)
    }
}

/// JSON text in ASCII, as a header can carry it.
fn ascii(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            c if c.is_ascii() => text.push(c),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text
}
