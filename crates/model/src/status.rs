//! Status codes of an invocation, as SCF publishes them (product 583, "Function Status Code").

use serde::{Deserialize, Serialize};

/// How an invocation ended. The number is what `errorJson.statusCode`, logs and metrics carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(pub u16);

impl Status {
    /// The handler returned a value.
    pub const OK: Self = Self(200);
    /// Still running (only in logs and `GetRequestStatus`).
    pub const RUNNING: Self = Self(202);
    /// The event is not JSON.
    pub const INVALID_EVENT: Self = Self(400);
    /// The event is larger than the limit.
    pub const REQUEST_TOO_LARGE: Self = Self(406);
    /// The return value is larger than 6 MB.
    pub const RESPONSE_TOO_LARGE: Self = Self(407);
    /// The platform cannot start another instance now.
    pub const RESOURCE_LIMIT: Self = Self(429);
    /// User code threw, or its promise was rejected.
    pub const USER_EXCEPTION: Self = Self(430);
    /// The function's reserved quota, or the account's, is used up.
    pub const CONCURRENCY_EXCEEDED: Self = Self(432);
    /// The invocation ran longer than `Timeout`; the instance is discarded.
    pub const TIME_LIMIT: Self = Self(433);
    /// The instance used more than `MemorySize`; it is discarded.
    pub const MEMORY_LIMIT: Self = Self(434);
    /// No such function.
    pub const FUNCTION_NOT_FOUND: Self = Self(435);
    /// The file or the function that `Handler` names is not in the package.
    pub const HANDLER_NOT_FOUND: Self = Self(437);
    /// The function is in a state that forbids invoking it.
    pub const FUNCTION_STATUS: Self = Self(438);
    /// The runtime process ended during the invocation; the instance is discarded.
    pub const PROCESS_EXIT: Self = Self(439);
    /// No such version or alias.
    pub const QUALIFIER_NOT_FOUND: Self = Self(442);
    /// User code failed while it was loaded (an import or syntax error).
    pub const USER_CODE_ERROR: Self = Self(443);
    /// The runtime could not be started or ended during initialisation.
    pub const INIT_ERROR: Self = Self(445);
    /// No machine resources are left.
    pub const INSUFFICIENT_RESOURCES: Self = Self(449);
    /// Initialisation took longer than `InitTimeout`.
    pub const INIT_TIMEOUT: Self = Self(450);
    /// A WebSocket was silent for longer than it may be.
    pub const WEBSOCKET_IDLE: Self = Self(455);
    /// A WebSocket's visitor went away without closing it.
    pub const WEBSOCKET_CLIENT_BROKE: Self = Self(456);
    /// The request was taken back by its caller.
    pub const CANCELED: Self = Self(499);
    /// The platform failed.
    pub const INTERNAL: Self = Self(500);
    /// Functions call each other in too long a chain: it was not run. Ours, after HTTP's "Loop Detected"; SCF has none.
    pub const CALL_DEPTH: Self = Self(508);

    /// The published name of the code.
    pub fn name(self) -> &'static str {
        match self.0 {
            200 => "Success",
            202 => "Running",
            400 => "InvalidParameterValue",
            406 => "RequestTooLarge",
            407 => "ResponseTooLarge",
            429 => "ResourceLimit",
            430 => "UserCodeException",
            432 => "ResourceLimitReached",
            433 => "TimeLimitReached",
            434 => "MemoryLimitReached",
            435 => "FunctionNotFound",
            437 => "HandlerNotFound",
            438 => "FunctionStatusError",
            439 => "UserProcessExit",
            442 => "QualifierNotFound",
            443 => "UserCodeError",
            445 => "ContainerInitError",
            449 => "InsufficientResources",
            450 => "InitContainerTimeout",
            455 => "WebSocketIdle",
            456 => "WebSocketClientBroke",
            499 => "RequestCanceled",
            500 => "InternalError",
            508 => "CallDepthExceeded",
            _ => "Unknown",
        }
    }

    /// True when the handler returned a value.
    pub fn is_ok(self) -> bool {
        self == Self::OK
    }

    /// True when something went wrong; what is still running has not.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::OK | Self::RUNNING)
    }

    /// True when the instance may not be used again: after any of these it is discarded, never repaired.
    pub fn ends_instance(self) -> bool {
        matches!(self.0, 433 | 434 | 437 | 439 | 443 | 445 | 450 | 499 | 500)
    }

    /// True when an asynchronous event may be tried again by the rule for *run errors* (a bounded number of retries).
    pub fn is_run_error(self) -> bool {
        matches!(self.0, 407 | 430 | 433 | 434 | 437 | 439 | 443 | 445 | 450)
    }

    /// True when the platform, not the function, turned the event away: retried until the event is too old.
    pub fn is_platform_error(self) -> bool {
        matches!(self.0, 429 | 432 | 449 | 500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_either_retried_or_the_callers_fault() {
        for code in
            [400u16, 406, 407, 429, 430, 432, 433, 434, 435, 437, 438, 439, 442, 443, 445, 449, 450, 499, 500, 508]
        {
            let status = Status(code);
            assert_ne!(status.name(), "Unknown", "{code}");
            assert!(!(status.is_run_error() && status.is_platform_error()), "{code}");
            assert!(!status.is_ok());
        }
    }
}
