//! Provisioned concurrency: orders to keep instances of published versions ready.

use super::common::{existing, filled, find, function_name, namespace};
use super::{Answer, Cx, Run};
use crate::api::requests::{
    DeleteProvisionedConcurrencyConfig, GetProvisionedConcurrencyConfig, PutProvisionedConcurrencyConfig, TriggerAction,
};
use crate::catalogue::{FunctionEntry, FunctionState, clip, no_version};
use crate::ports::ProvisionedState;
use crate::provisioned::{ProvisionedOrder, parse_schedule};
use async_trait::async_trait;
use mayfly_base::schedule::ScheduleError;
use mayfly_model::{ApiError, ProvisionedAction, ProvisionedAmount, ProvisionedConfig, Qualifier};
use mayfly_plan::scale::provisioned;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// Most timed changes of one order. Ours: SCF names the error (`LimitExceeded.ProvisionTriggerAction`) but not the number.
const ACTIONS_MAX: usize = 10;
/// Longest name of a timed change, in characters.
const ACTION_NAME_CHARS_MAX: usize = 60;
/// Most instances of one order. Memory is what limits first; this keeps sums from overflowing.
const INSTANCES_MAX: u32 = 100_000;

/// The number of a published version. Errors: `InvalidParameterValue.Qualifier`.
fn version(qualifier: &str) -> Result<u32, ApiError> {
    match Qualifier::parse(qualifier) {
        Ok(Qualifier::Version(number)) => Ok(number),
        _ => Err(ApiError::new(
            "InvalidParameterValue.Qualifier",
            format!(
                "`Qualifier` is `{}`; instances are kept ready of published versions only, by their number.",
                clip(qualifier)
            ),
        )),
    }
}

fn count(n: i64, field: &str, code: &'static str) -> Result<u32, ApiError> {
    match u32::try_from(n) {
        Ok(n) if n <= INSTANCES_MAX => Ok(n),
        _ => Err(ApiError::new(
            code,
            format!("`{field}` is {n}; it is a number of instances from 0 to {INSTANCES_MAX}."),
        )),
    }
}

/// True for `Default`, the fixed number. Errors: `InvalidParameterValue.ProvisionType`.
fn is_fixed(text: &Option<String>) -> Result<bool, ApiError> {
    match filled(text) {
        None => Ok(true),
        Some(t) if t.eq_ignore_ascii_case("default") => Ok(true),
        Some(t) if t.eq_ignore_ascii_case("concurrencyutilizationtracking") => Ok(false),
        Some(other) => Err(ApiError::new(
            "InvalidParameterValue.ProvisionType",
            format!("`ProvisionedType` is `{}`; it is Default or ConcurrencyUtilizationTracking.", clip(other)),
        )),
    }
}

/// What is tracked. Errors: `InvalidParameterValue.{TrackingTarget, MinCapacity}`, `LimitExceeded.MaxCapacity`, `MissingParameter`.
fn tracking(request: &PutProvisionedConcurrencyConfig) -> Result<ProvisionedAmount, ApiError> {
    let target = request.tracking_target.ok_or_else(|| ApiError::missing("TrackingTarget"))?;
    if !(target > 0.0 && target < 1.0) {
        let message = format!("`TrackingTarget` is {target}; it is between 0 and 1, both excluded.");
        return Err(ApiError::new("InvalidParameterValue.TrackingTarget", message));
    }
    let min = count(request.min_capacity.unwrap_or(1), "MinCapacity", "InvalidParameterValue.MinCapacity")?;
    let max = request.max_capacity.ok_or_else(|| ApiError::missing("MaxCapacity"))?;
    let max = count(max, "MaxCapacity", "LimitExceeded.MaxCapacity")?;
    if min == 0 || min > max {
        let message = format!(
            "`MinCapacity` is {min} and `MaxCapacity` {max}; the first is at least 1, and not above the second."
        );
        return Err(ApiError::new("InvalidParameterValue.MinCapacity", message));
    }
    if request.version_provisioned_concurrency_num != 0 {
        let message = "`VersionProvisionedConcurrencyNum` is 0 with ConcurrencyUtilizationTracking; `MinCapacity` and `MaxCapacity` bound the number.";
        return Err(ApiError::invalid(message));
    }
    Ok(ProvisionedAmount::Tracking { target, min, max })
}

/// The timed changes. Errors: `LimitExceeded.ProvisionTriggerAction` and `InvalidParameterValue.{ProvisionTriggerName,
/// ProvisionTriggerNameDuplicate, TriggerProvisionedConcurrencyNum, TriggerCronConfig, TriggerCronConfigTimeInterval,
/// ProvisionTriggerCronConfigDuplicate, ProvisionType}`.
fn actions(given: Vec<TriggerAction>, now_ms: u64) -> Result<Vec<ProvisionedAction>, ApiError> {
    if given.len() > ACTIONS_MAX {
        let message = format!("`TriggerActions` has {} timed changes; the limit is {ACTIONS_MAX}.", given.len());
        return Err(ApiError::new("LimitExceeded.ProvisionTriggerAction", message));
    }
    let (mut names, mut schedules) = (HashSet::new(), HashSet::new());
    let mut read = Vec::with_capacity(given.len());
    for action in given {
        let name = action.trigger_name;
        if name.is_empty() || name.chars().nth(ACTION_NAME_CHARS_MAX).is_some() || name.chars().any(char::is_control) {
            let message = format!("A `TriggerName` of `TriggerActions` has 1 to {ACTION_NAME_CHARS_MAX} characters.");
            return Err(ApiError::new("InvalidParameterValue.ProvisionTriggerName", message));
        }
        if !names.insert(name.clone()) {
            let message = format!("`TriggerActions` has the name `{name}` twice.");
            return Err(ApiError::new("InvalidParameterValue.ProvisionTriggerNameDuplicate", message));
        }
        if !is_fixed(&action.provisioned_type)? {
            let message = "A timed change has the `ProvisionedType` Default.";
            return Err(ApiError::new("InvalidParameterValue.ProvisionType", message));
        }
        let count = count(
            action.trigger_provisioned_concurrency_num,
            "TriggerProvisionedConcurrencyNum",
            "InvalidParameterValue.TriggerProvisionedConcurrencyNum",
        )?;
        let cron = action.trigger_cron_config.split_whitespace().collect::<Vec<_>>().join(" ");
        check_schedule(&cron, now_ms)?;
        if !schedules.insert(cron.clone()) {
            let message = format!("`TriggerActions` has the schedule `{cron}` twice.");
            return Err(ApiError::new("InvalidParameterValue.ProvisionTriggerCronConfigDuplicate", message));
        }
        read.push(ProvisionedAction { name, cron, count });
    }
    Ok(read)
}

fn check_schedule(text: &str, now_ms: u64) -> Result<(), ApiError> {
    let checked = parse_schedule(text).and_then(|cron| cron.next_after_ms(now_ms).ok_or(ScheduleError::Past));
    checked.map(drop).map_err(|error| {
        let code = match error {
            ScheduleError::TooOften => "InvalidParameterValue.TriggerCronConfigTimeInterval",
            _ => "InvalidParameterValue.TriggerCronConfig",
        };
        ApiError::new(code, format!("`TriggerCronConfig` `{}` {error}.", clip(text)))
    })
}

/// The memory that orders of a function may take, in MB: its own quota, or the account's.
fn limit_mb(cx: Cx<'_>, state: &FunctionState) -> u64 {
    state.record.reserved_mb.unwrap_or(cx.control.options.account_mb)
}

#[async_trait]
impl Run for PutProvisionedConcurrencyConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let (namespace, name) = (namespace(&self.namespace)?, function_name(&self.function_name)?);
        let version = version(&self.qualifier)?;
        let fixed = is_fixed(&self.provisioned_type)?;
        let amount = match fixed {
            false => tracking(&self)?,
            true => ProvisionedAmount::Fixed(count(
                self.version_provisioned_concurrency_num,
                "VersionProvisionedConcurrencyNum",
                "InvalidParameterValue",
            )?),
        };
        let actions = actions(self.trigger_actions.unwrap_or_default(), cx.now_ms)?;
        if !fixed && !actions.is_empty() {
            let message = "`TriggerActions` go with the `ProvisionedType` Default.";
            return Err(ApiError::new("InvalidParameterValue.ProvisionType", message));
        }
        existing(catalogue, &namespace, &name)?;
        let config = ProvisionedConfig { version, amount, actions, since_ms: cx.now_ms };
        let decide = |state: &FunctionState, others_mb: u64| {
            if !state.versions.contains_key(&version) {
                return Err(no_version("ResourceNotFound.FunctionVersion", name.as_str(), &version.to_string()));
            }
            let mut next = state.clone();
            let orders = &mut Arc::make_mut(&mut next.record).provisioned;
            orders.retain(|order| order.version != version);
            orders.push(config);
            orders.sort_by_key(|order| order.version);
            let (mb, limit_mb) = (next.provisioned_mb(), limit_mb(cx, state));
            if mb > limit_mb {
                let message = format!(
                    "The instances kept ready of `{name}` could take {mb} MB together; the limit is {limit_mb} MB."
                );
                return Err(ApiError::new("LimitExceeded.FunctionProvisionedConcurrencyMemory", message));
            }
            let account_mb = cx.control.options.account_mb;
            if mb.saturating_add(others_mb) > account_mb {
                let message = format!(
                    "The instances kept ready of all functions could take {} MB together; the limit is {account_mb} MB.",
                    mb.saturating_add(others_mb)
                );
                return Err(ApiError::new("LimitExceeded.FunctionTotalProvisionedConcurrencyMemory", message));
            }
            Ok(next)
        };
        catalogue.order_provisioned(&namespace, &name, decide).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for DeleteProvisionedConcurrencyConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let (namespace, name) = (namespace(&self.namespace)?, function_name(&self.function_name)?);
        let version = version(&self.qualifier)?;
        existing(catalogue, &namespace, &name)?;
        let decide = |state: &FunctionState, _: u64| {
            if !state.versions.contains_key(&version) {
                return Err(no_version("ResourceNotFound.FunctionVersion", name.as_str(), &version.to_string()));
            }
            let mut next = state.clone();
            Arc::make_mut(&mut next.record).provisioned.retain(|order| order.version != version);
            Ok(next)
        };
        catalogue.order_provisioned(&namespace, &name, decide).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetProvisionedConcurrencyConfig {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let wanted = filled(&self.qualifier).map(version).transpose()?;
        let (_, name, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let state = &entry.state;
        if let Some(number) = wanted.filter(|number| !state.versions.contains_key(number)) {
            return Err(no_version("ResourceNotFound.FunctionVersion", name.as_str(), &number.to_string()));
        }
        let orders =
            state.record.provisioned.iter().filter(|order| wanted.is_none_or(|number| order.version == number));
        let allocated: Value = orders.map(|order| show(cx, &entry, order)).collect();
        let config = wanted.and_then(|number| state.versions.get(&number)).map_or(&state.record.latest, |v| &v.config);
        let others: u64 = cx
            .control
            .catalogue
            .namespaces()
            .keys()
            .flat_map(|n| cx.control.catalogue.functions(n))
            .map(|e| e.state.provisioned_mb())
            .sum();
        let mine_mb = limit_mb(cx, state).saturating_sub(state.provisioned_mb());
        let free_mb = mine_mb.min(cx.control.options.account_mb.saturating_sub(others));
        Ok(Answer::from_iter([
            ("UnallocatedConcurrencyNum".to_owned(), json!(free_mb / u64::from(config.memory_mb.max(1)))),
            ("Allocated".to_owned(), allocated),
        ]))
    }
}

fn show(cx: Cx<'_>, entry: &FunctionEntry, config: &ProvisionedConfig) -> Value {
    let order = ProvisionedOrder::new(config.clone());
    let state = entry.published(config.version).and_then(|target| cx.control.invoker.provisioned(target));
    let state = state.unwrap_or_else(|| ProvisionedState {
        wanted: order.wanted(cx.now_ms),
        ready: 0,
        blocked: Some("Nothing keeps instances of this version ready.".into()),
    });
    let status = provisioned::status(state.wanted, state.ready, state.blocked.is_some());
    let reason = state.blocked.filter(|_| status == provisioned::OrderStatus::Failed).unwrap_or_default();
    let actions: Value = config
        .actions
        .iter()
        .map(|action| {
            json!({
                "TriggerName": action.name,
                "TriggerProvisionedConcurrencyNum": action.count,
                "TriggerCronConfig": action.cron,
                "ProvisionedType": "Default",
            })
        })
        .collect();
    let mut shown = json!({
        "Qualifier": config.version.to_string(),
        "AllocatedProvisionedConcurrencyNum": state.wanted,
        "AvailableProvisionedConcurrencyNum": state.ready,
        "Status": status.as_str(),
        "StatusReason": reason,
        "TriggerActions": actions,
        "ProvisionedType": "Default",
    });
    if let ProvisionedAmount::Tracking { target, min, max } = config.amount {
        shown["ProvisionedType"] = json!("ConcurrencyUtilizationTracking");
        shown["TrackingTarget"] = json!(target);
        shown["MinCapacity"] = json!(min);
        shown["MaxCapacity"] = json!(max);
    }
    shown
}
