//! Reserved concurrency and the account.

use super::common::{existing, find, function_name, namespace};
use super::{Answer, Cx, Run};
use crate::api::requests::{
    DeleteReservedConcurrencyConfig, GetAccount, GetReservedConcurrencyConfig, PutReservedConcurrencyConfig,
};
use async_trait::async_trait;
use mayfly_model::{ApiError, limits};
use serde_json::{Value, json};

#[async_trait]
impl Run for PutReservedConcurrencyConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let mb = u64::try_from(self.reserved_concurrency_mem)
            .map_err(|_| ApiError::invalid("`ReservedConcurrencyMem` is negative; it is a number of MB."))?;
        existing(catalogue, &namespace, &name)?;
        let limit_mb = cx.control.options.account_mb.saturating_sub(limits::CONCURRENCY_UNRESERVABLE_MB);
        catalogue.reserve(&namespace, &name, Some(mb), limit_mb).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetReservedConcurrencyConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        Ok(Answer::from_iter([("ReservedMem".to_owned(), json!(entry.state.record.reserved_mb))]))
    }
}

#[async_trait]
impl Run for DeleteReservedConcurrencyConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        existing(catalogue, &namespace, &name)?;
        catalogue.reserve(&namespace, &name, None, u64::MAX).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetAccount {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let options = &cx.control.options;
        let namespaces = cx.control.catalogue.namespaces();
        let usage: Value = namespaces
            .keys()
            .map(|name| {
                let mut functions = cx.control.catalogue.functions(name);
                functions.sort_by(|a, b| a.state.record.name.cmp(&b.state.record.name));
                let reserved: u64 = functions.iter().filter_map(|f| f.state.record.reserved_mb).sum();
                let provisioned: u64 = functions.iter().map(|f| f.state.provisioned_mb()).sum();
                let names: Vec<_> = functions.iter().map(|f| f.state.record.name.as_str()).collect();
                json!({
                    "Namespace": name,
                    "Functions": names,
                    "FunctionsCount": names.len(),
                    "TotalConcurrencyMem": options.account_mb,
                    "TotalAllocatedConcurrencyMem": reserved,
                    "TotalAllocatedProvisionedMem": provisioned,
                })
            })
            .collect();
        let limits: Value = namespaces
            .keys()
            .map(|name| {
                json!({
                    "Namespace": name,
                    "FunctionsCount": options.functions_per_namespace_max,
                    "ConcurrentExecutions": options.account_mb / u64::from(limits::MEMORY_MB_DEFAULT),
                    "TimeoutLimit": limits::TIMEOUT_S_MAX,
                    "InitTimeoutLimit": limits::INIT_TIMEOUT_S_MAX,
                    "RetryNumLimit": limits::EVENT_RETRIES_MAX,
                    "MaxMsgTTL": limits::EVENT_AGE_S_MAX,
                    "MinMsgTTL": limits::EVENT_AGE_S_MIN,
                    "TestModelLimit": 0,
                    "Trigger": {"Total": super::triggers::URLS_MAX},
                })
            })
            .collect();
        Ok(Answer::from_iter([
            (
                "AccountUsage".to_owned(),
                json!({
                    "NamespacesCount": namespaces.len(),
                    "Namespace": usage,
                    "TotalConcurrencyMem": options.account_mb,
                    "TotalAllocatedConcurrencyMem": cx.control.catalogue.reserved_mb(),
                    "UserConcurrencyMemLimit": options.account_mb,
                }),
            ),
            ("AccountLimit".to_owned(), json!({"NamespacesCount": options.namespaces_max, "Namespace": limits})),
        ]))
    }
}
