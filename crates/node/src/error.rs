//! Why an invocation ended without a return value.

use mayfly_guest::Failure;
use mayfly_model::{InvokeOutcome, RequestId, Status};
use serde_json::json;

/// An end other than a return value.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The status.
    pub status: Status,
    /// For people; it reaches the client.
    pub message: String,
    /// Class of the user's exception, if there was one.
    pub error_type: String,
    /// The user's stack, if there was one.
    pub stack: String,
}

impl Refusal {
    /// A refusal without a stack.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), error_type: String::new(), stack: String::new() }
    }

    /// What the shim said. A status it has no business giving becomes 430.
    pub fn from_shim(failure: Failure) -> Self {
        let status = match failure.status_code {
            code @ (407 | 430 | 437 | 443 | 445) => Status(code),
            _ => Status::USER_EXCEPTION,
        };
        Self { status, message: failure.error_message, error_type: failure.error_type, stack: failure.stack_trace }
    }

    /// The platform's own failure; details go to its log, not to the client.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "an instance could not be started");
        Self::new(Status::INTERNAL, "The platform could not start an instance. Its log says why.")
    }

    /// The outcome of a request that nothing ran for.
    pub fn outcome(&self, request_id: RequestId) -> InvokeOutcome {
        InvokeOutcome {
            request_id,
            status: self.status,
            body: self.to_json(request_id),
            duration_us: 0,
            memory_bytes: 0,
            cold_start: None,
            log: None,
        }
    }

    /// The error JSON that clients get, in SCF's form.
    pub fn to_json(&self, request_id: RequestId) -> Vec<u8> {
        let mut value = json!({
            "errorCode": -1,
            "errorMessage": self.message,
            "requestId": request_id,
            "statusCode": self.status.0,
        });
        if !self.stack.is_empty() {
            value["stackTrace"] = self.stack.clone().into();
        }
        if !self.error_type.is_empty() {
            value["errorType"] = self.error_type.clone().into();
        }
        value.to_string().into_bytes()
    }
}
