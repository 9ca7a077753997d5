//! A visitor asks for a WebSocket: its register function decides, and its connection becomes the gateway's.

use super::backend::{Incoming, failed};
use super::{Apis, empty};
use crate::url::headers;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mayfly_apigw::api::push_url;
use mayfly_apigw::door::{Admitted, Refused};
use mayfly_apigw::event::{Request as Told, context};
use mayfly_apigw::records::{ConnectionRecord, SocketFunctions};
use mayfly_apigw::socket::{Caller, Carrier, accept_key, carry, registered, state_event};
use mayfly_gateway::StreamBody;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a connection may take to become one after it was accepted.
const UPGRADE_TIME: Duration = Duration::from_secs(10);

fn text(head: &http::request::Parts, name: header::HeaderName) -> &str {
    head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

impl Apis {
    /// Accepts a WebSocket, or says why not.
    pub async fn connect(
        &self,
        admitted: &Admitted,
        asked: Incoming,
        functions: &SocketFunctions,
    ) -> Result<Response<StreamBody>, Refused> {
        let Incoming { mut head, address, visitor, id, .. } = asked;
        let upgrade = headers::asks_for_upgrade(&head).then(|| head.extensions.remove::<OnUpgrade>()).flatten();
        let key = head.headers.get(header::SEC_WEBSOCKET_KEY).map(|v| v.as_bytes().to_vec());
        let asks = text(&head, header::UPGRADE).eq_ignore_ascii_case("websocket");
        let (Some(upgrade), Some(key), true) = (upgrade, key, asks) else {
            let mut response = failed(426, "This API is a WebSocket: ask for an upgrade, over HTTP/1.1");
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return Ok(response);
        };
        if text(&head, header::SEC_WEBSOCKET_VERSION) != "13" {
            let mut response = failed(426, "The version of WebSocket is 13");
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return Ok(response);
        }
        let Some(place) = self.sockets.place(&admitted.api.id) else {
            let mut response = failed(503, "There are too many WebSockets");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            return Ok(response);
        };
        let request_id = id.to_string();
        headers::drop_own(&mut head.headers);
        let told =
            Told { head: &head, path: &address.path, body: &[], request_id: &request_id, source: visitor.peer.ip() };
        let mut context = context(admitted, &told);
        context["websocketEnable"] = true.into();
        // What functions push to. Never at the host that the visitor named: it would be sent what is for others.
        context["pushUrl"] = push_url(&admitted.api, &self.push_host(&functions.transport)).into();
        let offered = text(&head, header::SEC_WEBSOCKET_PROTOCOL).to_owned();
        let protocol = match &functions.register {
            None => None,
            Some(register) => {
                let mut websocket = json!({ "action": "connecting", "secConnectionID": place.id });
                let extensions = text(&head, header::SEC_WEBSOCKET_EXTENSIONS);
                for (name, value) in
                    [("secWebSocketProtocol", offered.as_str()), ("secWebSocketExtensions", extensions)]
                {
                    if !value.is_empty() {
                        websocket[name] = value.into();
                    }
                }
                let mut event = json!({ "requestContext": context, "websocket": websocket });
                event["headers"] = mayfly_apigw::event::headers(&head.headers).into();
                event["pathParameters"] = json!(admitted.path_parameters);
                event["queryStringParameters"] = json!(admitted.query_parameters);
                event["queryString"] = mayfly_apigw::event::query(head.uri.query().unwrap_or("")).into();
                event["path"] = address.path.as_str().into();
                let patience = Duration::from_secs(admitted.api.timeout_s.into());
                let called = tokio::time::timeout(patience, self.caller.call(register, event.to_string())).await;
                let refuse = |status: u16, why: &str| {
                    self.sockets.counts.refused.fetch_add(1, Ordering::Relaxed);
                    Ok(failed(status, why))
                };
                match called {
                    Err(_) => return refuse(504, "The register function did not answer in time"),
                    Ok(Err(why)) => return refuse(502, &format!("The register function failed: {why}")),
                    Ok(Ok(value)) => match registered(&value) {
                        Err(why) => return refuse(403, &why),
                        Ok(protocol) => protocol,
                    },
                }
            }
        };
        let record = functions.cleanup.as_ref().map(|cleanup| ConnectionRecord {
            id: place.id.clone(),
            api: admitted.api.id.clone(),
            cleanup: cleanup.clone(),
            event: state_event(&context, json!({ "action": "closing", "secConnectionID": place.id })),
        });
        if let Some(record) = &record
            && let Err(error) = self.parts.gateway.connection_opened(record).await
        {
            tracing::error!(%error, "a WebSocket could not be noted");
            return Ok(failed(503, "The platform could not note the connection; try again later"));
        }
        let carrier = Carrier {
            gateway: Arc::clone(&self.parts.gateway),
            caller: Arc::clone(&self.caller) as _,
            transport: functions.transport.clone(),
            context,
            record,
        };
        tokio::spawn(async move {
            let stream = match tokio::time::timeout(UPGRADE_TIME, upgrade).await {
                Ok(Ok(stream)) => Some(TokioIo::new(stream)),
                _ => None,
            };
            carry(place, stream, carrier).await;
        });
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(value) = HeaderValue::from_str(&accept_key(&key)) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
        }
        // A protocol that the visitor did not offer would make it hang up.
        let chosen = protocol.filter(|p| offered.split(',').any(|o| o.trim() == p));
        if let Some(Ok(value)) = chosen.map(HeaderValue::try_from) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        Ok(response)
    }
}
