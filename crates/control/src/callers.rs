//! Who asks the control API, what they may, and how long chains of functions that call each other may grow.

use mayfly_model::{ApiError, Lineage, RequestId};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The role whose temporary keys signed; `None`: the root keys did.
    pub role: Option<String>,
    /// What a call comes of, when it comes from inside a function.
    pub lineage: Lineage,
}

impl Caller {
    /// Whether an action is allowed. Until roles have policies, each may invoke functions and look at everything; what changes the platform
    /// takes the root keys.
    ///
    /// # Errors
    /// `UnauthorizedOperation.CAM`.
    pub fn may(&self, action: &str) -> Result<(), ApiError> {
        let Some(role) = &self.role else { return Ok(()) };
        if matches!(action, "Invoke" | "InvokeFunction") || action.starts_with("Get") || action.starts_with("List") {
            return Ok(());
        }
        let message = format!(
            "The role `{role}` may not do `{action}`: a function's role may invoke functions, read (Get…, List…), and use buckets and queues. Sign with the platform's own key pair for anything else."
        );
        Err(ApiError::new("UnauthorizedOperation.CAM", message))
    }
}

/// Bounds chains of invocations.
#[derive(Debug)]
pub struct Chains {
    max: u32,
    ended: AtomicU64,
}

impl Chains {
    /// `max`: invocations that may be before another in a row; 0: any number.
    pub fn new(max: u32) -> Self {
        Self { max, ended: AtomicU64::new(0) }
    }

    /// Refuses what is too deep, and counts it. Error: `LimitExceeded.CallDepth`.
    pub(crate) fn check(&self, lineage: &Lineage, request_id: RequestId) -> Result<(), ApiError> {
        if self.max == 0 || lineage.depth <= self.max {
            return Ok(());
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
        let parent = lineage.parent.map_or_else(|| "none known".to_owned(), |id| id.to_string());
        tracing::warn!(%request_id, %parent, depth = lineage.depth, "a chain of invocations is ended");
        let message = format!(
            "{} invocations that called each other are before this one, by calls, by what they wrote to buckets and topics, or as destinations; at most {} may be (`call_depth_max`), since it looks like a loop. The last of them is request {parent}: follow `CalledBy` in its log, and end the loop in the functions' code or triggers before this is called again.",
            lineage.depth, self.max
        );
        Err(ApiError::new("LimitExceeded.CallDepth", message))
    }

    /// How many calls and events were refused, since the start.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_end() {
        let at = |depth| Lineage { depth, parent: Some(RequestId(7)) };
        let chains = Chains::new(16);
        assert!(chains.check(&at(0), RequestId(1)).is_ok() && chains.check(&at(16), RequestId(1)).is_ok());
        let error = chains.check(&at(17), RequestId(1)).unwrap_err();
        assert_eq!((error.code, chains.ended()), ("LimitExceeded.CallDepth", 1));
        assert!(error.message.contains(&RequestId(7).to_string()), "{}", error.message);
        assert!(Chains::new(0).check(&at(1_000_000), RequestId(1)).is_ok());
    }

    #[test]
    fn roles_read_and_invoke() {
        let role = Caller { role: Some("r".into()), ..Caller::default() };
        for action in ["Invoke", "InvokeFunction", "GetFunction", "ListFunctions"] {
            assert!(role.may(action).is_ok(), "{action}");
        }
        for action in ["DeleteFunction", "CreateFunction", "UpdateFunctionCode", "PutCertificate", "ReplayFailures"] {
            assert_eq!(role.may(action).unwrap_err().code, "UnauthorizedOperation.CAM", "{action}");
            assert!(Caller::default().may(action).is_ok());
        }
    }
}
