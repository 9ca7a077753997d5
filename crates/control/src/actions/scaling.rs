//! Mayfly's own actions about scaling: bounds, forecasts, demand.

use super::common::{Page, existing, filled, find, function_name, namespace};
use super::{Answer, Cx, Run};
use crate::api::requests::{GetForecast, ListDemand, PutFunctionScaling};
use crate::catalogue::Next;
use crate::ports::{DemandQuery, DemandRow, ForecastReport};
use async_trait::async_trait;
use mayfly_model::{ApiError, Forecast};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most instances that a minimum may ask for.
const MIN_MAX: u32 = 1000;
/// Largest maximum.
const MAX_MAX: u32 = 100_000;
/// Most rows of demand in an answer.
const ROWS_MAX: i64 = 10_000;

fn count(value: i64, field: &str, most: u32) -> Result<u32, ApiError> {
    let count = u32::try_from(value).ok().filter(|n| *n <= most);
    count.ok_or_else(|| {
        ApiError::invalid(format!("`{field}` is {value}; it is a number of instances from 0 to {most}."))
    })
}

#[async_trait]
impl Run for PutFunctionScaling {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let min = self.min_instances.map(|n| count(n, "MinInstances", MIN_MAX)).transpose()?;
        let max = self.max_instances.map(|n| count(n, "MaxInstances", MAX_MAX)).transpose()?;
        let forecast = match self.forecast.as_deref() {
            None => None,
            Some("") => Some(None),
            Some(text) => {
                let mode = text.to_ascii_lowercase().parse::<Forecast>();
                Some(Some(mode.map_err(|why| ApiError::invalid(format!("`Forecast`: {why}.")))?))
            }
        };
        existing(catalogue, &namespace, &name)?;
        let account_mb = cx.control.options.account_mb;
        catalogue
            .change_existing(&namespace, &name, |state| {
                let mut next = state.clone();
                let record = Arc::make_mut(&mut next.record);
                let scaling = &mut record.scaling;
                scaling.min_instances = min.unwrap_or(scaling.min_instances);
                scaling.max_instances = max.map_or(scaling.max_instances, |max| (max > 0).then_some(max));
                scaling.forecast = forecast.unwrap_or(scaling.forecast);
                let (fewest, most) = (scaling.min_instances, scaling.max_instances);
                if most.is_some_and(|most| fewest > most) {
                    return Err(ApiError::invalid(format!(
                        "`MinInstances` is {fewest} and `MaxInstances` {}; the first is not above the second.",
                        most.unwrap_or_default()
                    )));
                }
                let limit_mb = record.reserved_mb.unwrap_or(account_mb);
                let needed_mb = u64::from(fewest) * u64::from(record.latest.memory_mb);
                if needed_mb > limit_mb {
                    return Err(ApiError::invalid(format!(
                        "`MinInstances` {fewest} takes {needed_mb} MB; the function may have {limit_mb} MB."
                    )));
                }
                Ok(Next::state(next, ()))
            })
            .await?;
        Ok(Answer::new())
    }
}

fn show(report: &ForecastReport) -> Value {
    let costs: Value = report
        .costs
        .iter()
        .map(|cost| {
            json!({
                "Mode": cost.mode.as_str(),
                "Hits": cost.hits,
                "Misses": cost.misses,
                "StartsAhead": cost.starts_ahead,
                "UsedGBSeconds": round(cost.used_gb_seconds),
                "IdleGBSeconds": round(cost.idle_gb_seconds),
            })
        })
        .collect();
    json!({
        "Namespace": report.namespace,
        "FunctionName": report.function,
        "Version": report.version,
        "MemorySize": report.memory_mb,
        "Mode": report.mode.as_str(),
        "WarmTarget": report.warm,
        "Minutes": report.minutes,
        "Costs": costs,
    })
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[async_trait]
impl Run for GetForecast {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let function = filled(&self.function_name);
        if let Some(name) = function {
            find(cx.control, &self.namespace, name)?;
        }
        let wanted = match (filled(&self.namespace), function) {
            (None, None) => None,
            _ => Some(namespace(&self.namespace)?),
        };
        let mut reports = cx.control.invoker.forecasts();
        reports.retain(|report| {
            wanted.as_ref().is_none_or(|n| n.as_str() == report.namespace)
                && function.is_none_or(|f| f == report.function)
        });
        let shown: Vec<Value> = reports[page.of(reports.len())].iter().map(show).collect();
        Ok(Answer::from_iter([("Forecasts".to_owned(), json!(shown)), ("TotalCount".to_owned(), json!(reports.len()))]))
    }
}

#[async_trait]
impl Run for ListDemand {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let whole = |value: Option<i64>, field: &str, default: u64| match value {
            None => Ok(default),
            Some(n) => u64::try_from(n).map_err(|_| ApiError::invalid(format!("`{field}` is negative."))),
        };
        let limit = self.limit.unwrap_or(ROWS_MAX);
        if !(1..=ROWS_MAX).contains(&limit) {
            return Err(ApiError::invalid(format!("`Limit` is {limit}; it is a number from 1 to {ROWS_MAX}.")));
        }
        let query = DemandQuery {
            from: whole(self.start_time, "StartTime", 0)? / 60,
            to: whole(self.end_time, "EndTime", cx.now_ms / 1000)? / 60,
            offset: whole(self.offset, "Offset", 0)?,
            limit: limit.unsigned_abs(),
        };
        let (total, rows) = cx.control.invoker.demand(query).await.map_err(|error| {
            tracing::error!(%error, "the demand could not be read");
            ApiError::new("InternalError.System", "The platform could not read its history; see the server's log.")
        })?;
        let show = |row: &DemandRow| {
            json!({
                "Time": row.minute * 60,
                "Namespace": row.namespace,
                "FunctionName": row.function,
                "Version": row.version,
                "Runtime": row.runtime,
                "MemorySize": row.memory_mb,
                "Instances": row.demand,
                "Invocations": row.invocations,
            })
        };
        let rows: Vec<Value> = rows.iter().map(show).collect();
        Ok(Answer::from_iter([("Demand".to_owned(), json!(rows)), ("TotalCount".to_owned(), json!(total))]))
    }
}
