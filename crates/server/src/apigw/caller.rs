//! The gateway's way to functions.

use async_trait::async_trait;
use bytes::Bytes;
use mayfly_apigw::api::{FunctionKind, Functions};
use mayfly_apigw::records::{ConnectionRecord, FunctionRef};
use mayfly_apigw::socket::{Caller, Untold};
use mayfly_control::{Control, InvokeRequest, TriggeredEvent, WeakControl, ids};
use mayfly_model::{Lineage, RequestId, Status, limits};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// What functions there are, once the control API is.
#[derive(Default)]
pub struct FunctionsOf(OnceLock<WeakControl>);

impl FunctionsOf {
    /// From now on it is known.
    pub fn set(&self, control: &Control) {
        let _ = self.0.set(control.downgrade());
    }
}

impl Functions for FunctionsOf {
    fn kind(&self, function: &FunctionRef) -> Result<FunctionKind, String> {
        let control = self.0.get().and_then(WeakControl::upgrade).ok_or("The platform is starting or stopping.")?;
        let FunctionRef { namespace, name, qualifier } = function;
        let entry = control.catalogue().function(namespace, name);
        let entry = entry.ok_or_else(|| control.catalogue().no_function(namespace, name).message)?;
        let is_service = match control.catalogue().resolve(namespace, name, qualifier, &[], 0.0) {
            Ok(target) => target.spec.config.service.is_some(),
            // It is there, and will answer.
            Err(error) if error.code == "FailedOperation.FunctionStatusError" => {
                entry.state.record.latest.service.is_some()
            }
            Err(error) => return Err(error.message),
        };
        Ok(if is_service { FunctionKind::Http } else { FunctionKind::Event })
    }
}

/// Calls the functions behind WebSockets.
pub struct SocketCaller {
    control: Control,
}

impl SocketCaller {
    /// Over the control API.
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

/// The id of a connection's end: the same each time that it is told.
fn end_id(connection: &str) -> RequestId {
    let digest = Sha256::digest(connection.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    RequestId::from_random(bytes)
}

#[async_trait]
impl Caller for SocketCaller {
    async fn call(&self, function: &FunctionRef, event: String) -> Result<Vec<u8>, String> {
        let FunctionRef { namespace, name, qualifier } = function;
        if event.len() > limits::EVENT_SYNC_BYTES_MAX {
            return Err(format!("the event has {} bytes; the limit is {}", event.len(), limits::EVENT_SYNC_BYTES_MAX));
        }
        let target = self.control.catalogue().resolve(namespace, name, qualifier, &[], ids::random_unit());
        let target = target.map_err(|error| error.message)?;
        if target.spec.config.service.is_some() {
            return Err(format!("`{name}` is an HTTP function, which takes no events"));
        }
        let request = InvokeRequest {
            request_id: ids::request_id(),
            event: Bytes::from(event),
            want_log: false,
            log_failure: false,
            retry: 0,
            event_mark: None,
            abort: None,
            origin: None,
            qualifier: qualifier.clone(),
            lineage: Lineage::default(),
        };
        let outcome = self.control.invoke(&target, request, "apigw").await;
        if outcome.status != Status::OK {
            return Err(format!("status {}", outcome.status.0));
        }
        Ok(outcome.body)
    }

    async fn tell(&self, record: &ConnectionRecord, again: bool) -> Result<(), Untold> {
        let event = TriggeredEvent {
            id: end_id(&record.id),
            namespace: record.cleanup.namespace.clone(),
            function: record.cleanup.name.clone(),
            qualifier: record.cleanup.qualifier.clone(),
            source: "apigw".to_owned(),
            event: record.event.clone(),
            maybe_again: again,
            lineage: Lineage::default(),
        };
        self.control.accept_event(event).await.map_err(|error| match crate::triggers::is_final(&error) {
            true => Untold::Never(error.message),
            false => Untold::Later(error.message),
        })
    }
}
