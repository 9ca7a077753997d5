//! Dependencies that the platform installs: the status of a function meanwhile, and what the installer prints.

use super::common::find;
use super::{Answer, Cx, Run};
use crate::api::requests::GetInstallLog;
use async_trait::async_trait;
use mayfly_model::{ApiError, FunctionRecord};
use serde_json::{Value, json};

/// Lines in one answer.
const LINES_MAX: usize = 500;

/// `Status`, and why it is a failure (empty when it is none).
pub(crate) fn status(record: &FunctionRecord) -> (&'static str, &str) {
    match &record.install {
        None => ("Active", ""),
        Some(install) => match (&install.failed, install.serving) {
            (None, false) => ("Creating", ""),
            (None, true) => ("Updating", ""),
            (Some(why), false) => ("CreateFailed", why),
            (Some(why), true) => ("UpdateFailed", why),
        },
    }
}

/// `Status`, `StatusDesc` and `StatusReasons`.
pub(crate) fn status_fields(record: &FunctionRecord) -> [(String, Value); 3] {
    let (status, why) = status(record);
    let running = record.install.as_ref().is_some_and(|install| install.is_running());
    let desc = if running { "the dependencies are being installed" } else { why.lines().next().unwrap_or_default() };
    let reasons = match why {
        "" => json!([]),
        why => json!([{"ErrorCode": "InstallDependencyFailed", "ErrorMessage": why}]),
    };
    [("Status".into(), json!(status)), ("StatusDesc".into(), json!(desc)), ("StatusReasons".into(), reasons)]
}

#[async_trait]
impl Run for GetInstallLog {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let offset = u64::try_from(self.offset.unwrap_or(0))
            .map_err(|_| ApiError::new("InvalidParameterValue.Offset", "`Offset` is negative."))?;
        let record = &entry.state.record;
        let page = cx.control.installs.log(&record.id, offset, LINES_MAX, cx.now_ms);
        let mut answer = Answer::from_iter(status_fields(record));
        answer.insert("Lines".into(), json!(page.lines));
        answer.insert("NextOffset".into(), json!(page.next));
        answer.insert("Cached".into(), json!(page.cached));
        answer.insert("DurationMs".into(), json!(page.duration_ms));
        Ok(answer)
    }
}
