//! What becomes of a function's asynchronous events that fail.

use super::common::{filled, find, function_name, namespace};
use super::{Answer, Cx, Run};
use crate::api::requests::{AsyncTriggerConfig, GetFunctionEventInvokeConfig, UpdateFunctionEventInvokeConfig};
use crate::catalogue::{Next, no_version};
use async_trait::async_trait;
use mayfly_model::{ApiError, EventPolicy, limits};
use serde_json::json;
use std::sync::Arc;

/// Errors: `InvalidParameterValue.AsyncTriggerConfig`, `LimitExceeded.RetryNum`, `LimitExceeded.MsgTTL`.
fn policy(config: &AsyncTriggerConfig) -> Result<EventPolicy, ApiError> {
    let [retry] = &config.retry_config[..] else {
        return Err(ApiError::new(
            "InvalidParameterValue.AsyncTriggerConfig",
            format!("`RetryConfig` has {} entries; it has one, with `RetryNum`.", config.retry_config.len()),
        ));
    };
    let (retries_max, ages) = (limits::EVENT_RETRIES_MAX, limits::EVENT_AGE_S_MIN..=limits::EVENT_AGE_S_MAX);
    let retries = u32::try_from(retry.retry_num).ok().filter(|n| *n <= retries_max).ok_or_else(|| {
        let message = format!("`RetryNum` is {}; it is 0 to {retries_max}.", retry.retry_num);
        ApiError::new("LimitExceeded.RetryNum", message)
    })?;
    let age_max_s = u32::try_from(config.msg_ttl).ok().filter(|s| ages.contains(s)).ok_or_else(|| {
        let message = format!("`MsgTTL` is {}; it is {} to {} seconds.", config.msg_ttl, ages.start(), ages.end());
        ApiError::new("LimitExceeded.MsgTTL", message)
    })?;
    Ok(EventPolicy { retries, age_max_s })
}

#[async_trait]
impl Run for UpdateFunctionEventInvokeConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, function) = (namespace(&self.namespace)?, function_name(&self.function_name)?);
        let events = policy(&self.async_trigger_config)?;
        let decide = |state: &crate::catalogue::FunctionState| {
            let mut next = state.clone();
            Arc::make_mut(&mut next.record).events = events;
            Ok(Next::state(next, ()))
        };
        cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetFunctionEventInvokeConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, name, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        if let Some(qualifier) = filled(&self.qualifier)
            && entry.route(qualifier, &[], 0.0).is_none()
        {
            return Err(no_version("ResourceNotFound.FunctionVersion", name.as_str(), qualifier));
        }
        let EventPolicy { retries, age_max_s } = entry.state.record.events;
        let shown = json!({ "RetryConfig": [{ "RetryNum": retries }], "MsgTTL": age_max_s });
        Ok(Answer::from_iter([("AsyncTriggerConfig".to_owned(), shown)]))
    }
}
