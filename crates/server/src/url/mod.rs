//! Function URLs: from a visitor's request to a function of either kind, and back.
//!
//! `/fn/<namespace>/<function>[@<qualifier>]/…` by path, `<function>.<namespace>.<domain>` by host, hosts of users' own
//! by [`domain`]. What happens to headers on the way is
//! in [`headers`], what event functions see and answer in [`event`], what browsers are told in [`cors`]. See `docs/http.md`.

pub mod address;
pub mod cors;
mod domain;
pub mod event;
mod grpc;
pub mod headers;
pub mod kept;

use crate::inside::Asker;
use crate::invoker::NodeInvoker;
use address::Address;
pub use address::is_function_url;
use bytes::Bytes;
use domain::Found;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use mayfly_base::{Clock, SystemClock};
use mayfly_control::{Control, InvokeRequest, TriggeredEvent, UrlRoute, ids};
use mayfly_gateway::{StreamBody, StreamRequest};
use mayfly_model::{ApiError, Lineage, RequestId, Status, UrlAuth, limits};
use mayfly_node::Refusal;
use mayfly_node::service::{self, ServiceCall};
use mayfly_sign::{CredentialSource, RequestView, Verifier};
use std::sync::Arc;
use std::time::Duration;

/// How long the body of a request for an event function may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Answers requests for functions' URLs.
pub struct Urls {
    control: Control,
    invoker: Arc<NodeInvoker>,
    domain: String,
    tls_port: Option<u16>,
}

/// Who may sign, and how that is checked.
pub struct Keys<'a> {
    pub verifier: &'a Verifier,
    pub credentials: &'a dyn CredentialSource,
}

impl Urls {
    /// `domain`: what follows `<function>.<namespace>.` in hosts. `tls_port`: where visitors are sent who should come over TLS.
    pub fn new(control: Control, invoker: Arc<NodeInvoker>, domain: String, tls_port: Option<u16>) -> Self {
        Self { control, invoker, domain: domain.to_ascii_lowercase(), tls_port }
    }

    /// True when a request is for a function's URL, or of gRPC, which nobody else here speaks.
    pub fn takes(&self, head: &http::request::Parts) -> bool {
        is_function_url(head, &self.domain)
            || domain::of(&self.control, head).is_some()
            || grpc::content_type(&head.headers).is_some()
    }

    /// Answers one.
    pub async fn answer(&self, call: StreamRequest, keys: Keys<'_>) -> Response<StreamBody> {
        let id = ids::request_id();
        let grpc = grpc::content_type(call.request.headers());
        let mut response = match self.route(call, id, keys).await {
            Ok(response) => response,
            Err(refused) => {
                let message = refused.message();
                let response = refused.into_response(id);
                match grpc {
                    None => response,
                    Some(asked) => grpc::refusal(asked, response.status(), &message, response.headers()),
                }
            }
        };
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().insert(HeaderName::from_static("x-scf-request-id"), value);
        }
        response
    }

    async fn route(&self, call: StreamRequest, id: RequestId, keys: Keys<'_>) -> Result<Response<StreamBody>, Refused> {
        let StreamRequest { request, peer, secure } = call;
        let (head, body) = request.into_parts();
        if !headers::names_a_host(&head) {
            return Err(Refused::NoHost);
        }
        let address = match domain::of(&self.control, &head) {
            None => Address::of(&head, &self.domain).ok_or(Refused::NoAddress)?,
            Some(entry) => match domain::find(&entry, &head, secure, self.tls_port) {
                Found::Function(address) => address,
                Found::Elsewhere(to) => return Ok(domain::redirect(&to)),
                Found::NotSecure => return Err(Refused::NotSecure),
                Found::NoPath => return Err(Refused::NoPath),
            },
        };
        let route = self
            .control
            .resolve_url(&address.namespace, &address.function, address.qualifier.as_deref())
            .map_err(Refused::NoFunction)?;
        if let Some(cors) = &route.cors
            && let Some(preflight) = cors::preflight(cors, &head)
        {
            return Ok(preflight);
        }
        let origin = head.headers.get(header::ORIGIN).cloned();
        let (head, body) = match route.auth {
            UrlAuth::Open => (head, body),
            UrlAuth::Signed => signed(head, body, &keys).await?,
        };
        let visitor = headers::Visitor { peer, secure };
        let cors = route.cors.clone();
        let mut response = match route.target.spec.config.service {
            Some(_) => self.serve(head, body, &address, &visitor, route, id).await?,
            None => self.invoke(head, body, &address, &visitor, route, id).await?,
        };
        if let (Some(cors), Some(origin)) = (cors, origin) {
            cors::admit(&cors, &origin, response.headers_mut());
        }
        Ok(response)
    }

    /// What the request comes of, if that is not too long a chain.
    fn lineage(&self, head: &http::request::Parts, id: RequestId) -> Result<Lineage, Refused> {
        let lineage = Asker::lineage(head);
        self.control.check_depth(&lineage, id).map_err(Refused::TooDeep)?;
        Ok(lineage)
    }

    /// Passes the request on to a service.
    async fn serve(
        &self,
        mut head: http::request::Parts,
        body: StreamBody,
        address: &Address,
        visitor: &headers::Visitor,
        route: UrlRoute,
        id: RequestId,
    ) -> Result<Response<StreamBody>, Refused> {
        let lineage = self.lineage(&head, id)?;
        let upgrade = headers::asks_for_upgrade(&head).then(|| head.extensions.remove::<OnUpgrade>()).flatten();
        headers::forward(&mut head, visitor, address, id, upgrade.is_some());
        head.uri = address.target.clone();
        let upgrading = upgrade.is_some();
        let body = without_own_trailers(body);
        let (body, ended) = kept::watched(self.control.endings(), &route.target, &head, body, ("url", upgrading));
        let call = ServiceCall {
            request_id: id,
            request: Request::from_parts(head, body),
            upgrade,
            qualifier: route.qualifier.to_string(),
            keep: Box::new(()),
            lineage,
            event: None,
            ended,
        };
        let mut response = self.invoker.serve(&route.target, call).await;
        headers::back(response.headers_mut(), upgrading);
        Ok(response)
    }

    /// Makes an event of the request, and a response of what the function returns.
    async fn invoke(
        &self,
        head: http::request::Parts,
        body: StreamBody,
        address: &Address,
        visitor: &headers::Visitor,
        route: UrlRoute,
        id: RequestId,
    ) -> Result<Response<StreamBody>, Refused> {
        let lineage = self.lineage(&head, id)?;
        let body = collect(body).await?;
        let event = event::from_request(&head, address, visitor, &body);
        if event.len() > limits::EVENT_SYNC_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        if route.target.spec.config.async_run {
            let event = String::from_utf8(event).map_err(|_| Refused::Broken)?;
            return self.accept(event, address, &route, (id, lineage)).await;
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
            qualifier: route.qualifier.to_string(),
            lineage,
        };
        let outcome = self.control.invoke(&route.target, request, "url").await;
        if outcome.status != Status::OK {
            return Ok(service::refused_with(outcome.status, outcome.body));
        }
        Ok(event::to_response(outcome.body))
    }

    /// Takes an event in for an asynchronous-execution function: 202 when it is durable.
    async fn accept(
        &self,
        event: String,
        address: &Address,
        route: &UrlRoute,
        (id, lineage): (RequestId, Lineage),
    ) -> Result<Response<StreamBody>, Refused> {
        let event = TriggeredEvent {
            id,
            namespace: address.namespace.clone(),
            function: address.function.clone(),
            qualifier: route.qualifier.to_string(),
            source: "url".to_owned(),
            event,
            maybe_again: false,
            lineage,
        };
        self.control.accept_event(event).await.map_err(Refused::NotAccepted)?;
        let mut response = Response::new(service::whole(Bytes::from(format!(r#"{{"requestId":"{id}"}}"#))));
        *response.status_mut() = StatusCode::ACCEPTED;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// Reads a whole body, as large as an event may be.
async fn collect(mut body: StreamBody) -> Result<Bytes, Refused> {
    if body.size_hint().lower() > limits::EVENT_SYNC_BYTES_MAX as u64 {
        return Err(Refused::TooLarge);
    }
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            // Trailers carry nothing for us.
            if let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() {
                if bytes.len() + data.len() > limits::EVENT_SYNC_BYTES_MAX {
                    return Err(Refused::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Bytes::from(bytes))
    };
    tokio::time::timeout(BODY_TIME, whole).await.unwrap_or(Err(Refused::Slow))
}

/// A body whose trailers do not speak in the platform's names.
pub fn without_own_trailers(body: StreamBody) -> StreamBody {
    if body.is_end_stream() {
        return body;
    }
    body.map_frame(|frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            let own: Vec<HeaderName> = trailers.keys().filter(|n| headers::is_the_platforms_own(n)).cloned().collect();
            for name in own {
                trailers.remove(name);
            }
            hyper::body::Frame::trailers(trailers)
        }
        Err(frame) => frame,
    })
    .boxed_unsync()
}

/// Checks the signature of a request for a URL that wants one. The signature covers the body, which is therefore read first.
///
/// Signed is what SCF's function URLs ask for: TC3 over path `/`, an empty query and the body, with `X-Scf-Cam-Timestamp` in the place of
/// `X-TC-Timestamp`. Requests signed as for the API, with `X-TC-Timestamp`, are good too.
async fn signed(
    head: http::request::Parts,
    body: StreamBody,
    keys: &Keys<'_>,
) -> Result<(http::request::Parts, StreamBody), Refused> {
    if !head.headers.contains_key(header::AUTHORIZATION) {
        return Err(Refused::Unsigned("This URL wants signed requests; see docs/http.md.".into()));
    }
    let body = collect(body).await?;
    let lookup = |name: &str| -> Option<&[u8]> {
        match name {
            "x-tc-action" => Some(b"InvokeFunctionUrl"),
            "x-tc-version" => Some(mayfly_control::API_VERSION.as_bytes()),
            "x-tc-timestamp" => {
                let own = head.headers.get("x-scf-cam-timestamp").or_else(|| head.headers.get(name));
                own.map(HeaderValue::as_bytes)
            }
            _ => head.headers.get(name).map(HeaderValue::as_bytes),
        }
    };
    let view = RequestView { method: head.method.as_str(), path: "/", query: "", header: &lookup, body: &body };
    keys.verifier
        .verify(&view, keys.credentials, SystemClock.now_ms())
        .map_err(|e| Refused::Unsigned(ApiError::from(e).message.to_string()))?;
    Ok((head, service::whole(body)))
}

/// Why a visitor gets no answer of a function.
enum Refused {
    NoHost,
    NoAddress,
    NoPath,
    NotSecure,
    NoFunction(ApiError),
    NotAccepted(ApiError),
    TooDeep(ApiError),
    Unsigned(String),
    TooLarge,
    Slow,
    Broken,
}

/// True when the function is there and takes no requests yet, or no more.
fn is_deploying(error: &ApiError) -> bool {
    error.code == "FailedOperation.FunctionStatusError"
}

impl Refused {
    /// The sentence that a visitor is told.
    fn message(&self) -> String {
        match self {
            Self::NoHost => "A request names one host, in one Host header".to_owned(),
            Self::NoAddress => "A function's URL is /fn/<namespace>/<function>/".to_owned(),
            Self::NoPath => "No path of this domain matches".to_owned(),
            Self::NotSecure => "This domain is served without TLS only; ask by http://".to_owned(),
            // A visitor learns no more than that.
            Self::NoFunction(error) if is_deploying(error) => {
                "The function is being deployed, or could not be".to_owned()
            }
            Self::NoFunction(error) | Self::NotAccepted(error) | Self::TooDeep(error) => error.message.to_string(),
            Self::Unsigned(why) => why.clone(),
            Self::TooLarge => format!("The request is larger than {} bytes", limits::EVENT_SYNC_BYTES_MAX),
            Self::Slow => "The body arrived too slowly".to_owned(),
            Self::Broken => "The body was cut short".to_owned(),
        }
    }

    fn http(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoFunction(error) if is_deploying(error) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoAddress | Self::NoPath | Self::NotSecure | Self::NoFunction(_) => StatusCode::NOT_FOUND,
            Self::NotAccepted(error) => match error.code {
                "RequestLimitExceeded" => StatusCode::TOO_MANY_REQUESTS,
                "InvalidParameter.RequestTooLarge" => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::TooDeep(_) => StatusCode::LOOP_DETECTED,
            Self::Unsigned(_) => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::NoHost | Self::Slow | Self::Broken => Status::INVALID_EVENT,
            Self::NoFunction(error) if is_deploying(error) => Status::FUNCTION_STATUS,
            Self::NoAddress | Self::NoPath | Self::NotSecure | Self::NoFunction(_) => Status::FUNCTION_NOT_FOUND,
            Self::NotAccepted(error) => match error.code {
                "RequestLimitExceeded" => Status::RESOURCE_LIMIT,
                "InvalidParameter.RequestTooLarge" => Status::REQUEST_TOO_LARGE,
                _ => Status::INTERNAL,
            },
            Self::TooDeep(_) => Status::CALL_DEPTH,
            Self::Unsigned(_) => Status(401),
            Self::TooLarge => Status::REQUEST_TOO_LARGE,
        }
    }

    fn into_response(self, id: RequestId) -> Response<StreamBody> {
        let close = matches!(self, Self::NoHost | Self::Broken);
        let (http, status, message) = (self.http(), self.status(), self.message());
        let mut response = service::refused(&Refusal::new(status, message), id);
        *response.status_mut() = http;
        if close {
            // Who says one thing so badly may mean the next one badly too.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
