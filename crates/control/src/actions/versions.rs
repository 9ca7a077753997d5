//! Published versions.

use super::common::{Page, ascending, description, find, function_name, namespace, order_by};
use super::triggers::leading_here;
use super::{Answer, Cx, Run};
use crate::api::requests::{DeleteFunctionVersion, ListVersionByFunction, PublishVersion};
use crate::api::time;
use crate::catalogue::{FunctionState, Next, clip, no_version, versions_of};
use async_trait::async_trait;
use mayfly_model::{ApiError, FunctionName, NamespaceName, Qualifier, VersionRecord, limits};
use serde_json::{Value, json};
use std::sync::Arc;

/// `state` with `$LATEST` published as the next version. Errors: `LimitExceeded.FunctionVersions`, `FailedOperation.FunctionStatusError`.
pub fn publish(
    state: &FunctionState,
    description: Option<String>,
    now_ms: u64,
) -> Result<(FunctionState, Arc<VersionRecord>), ApiError> {
    state.check_idle()?;
    state.check_serving()?;
    if state.versions.len() >= limits::VERSIONS_MAX {
        let message = format!("The function has {} published versions, which is the limit.", limits::VERSIONS_MAX);
        return Err(ApiError::new("LimitExceeded.FunctionVersions", message));
    }
    let mut next = state.clone();
    let record = Arc::make_mut(&mut next.record);
    let number = record.next_version;
    record.next_version += 1;
    let version = Arc::new(VersionRecord {
        function_id: record.id.clone(),
        number,
        description: description.unwrap_or_default(),
        config: record.latest.clone(),
        add_time_ms: now_ms,
    });
    next.versions.insert(number, version.clone());
    Ok((next, version))
}

/// Deletes a version that no alias leads to. `missing` is the code for a version that is not there.
pub async fn delete(
    cx: Cx<'_>,
    namespace: &NamespaceName,
    name: &FunctionName,
    number: u32,
    force: bool,
    missing: &'static str,
) -> Result<Answer, ApiError> {
    let decide = |state: &FunctionState| {
        let text = number.to_string();
        let mut next = state.clone();
        if next.versions.remove(&number).is_none() {
            return Err(no_version(missing, name.as_str(), &text));
        }
        if let Some(alias) = state.aliases.values().find(|alias| versions_of(alias).any(|v| v == text)) {
            return Err(ApiError::new(
                "UnsupportedOperation.AliasBind",
                format!("Version {number} cannot be deleted: the alias `{}` leads to it.", alias.name),
            ));
        }
        if let Some(trigger) = leading_here(cx, &state.record, &text) {
            return Err(ApiError::new(
                "FailedOperation.DeleteFunction",
                format!("Version {number} cannot be deleted: the trigger {trigger} leads to it. Delete that first."),
            ));
        }
        // What was ordered to be kept ready goes with the version.
        if next.record.provisioned.iter().any(|p| p.version == number) {
            Arc::make_mut(&mut next.record).provisioned.retain(|p| p.version != number);
        }
        Ok(Next { state: Some(next), force, result: () })
    };
    cx.control.catalogue.change_existing(namespace, name, decide).await?;
    Ok(Answer::new())
}

#[async_trait]
impl Run for PublishVersion {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let description = description(self.description)?;
        let version = catalogue
            .change_existing(&namespace, &name, |state| {
                let (next, version) = publish(state, description, cx.now_ms)?;
                Ok(Next::state(next, version))
            })
            .await?;
        let config = &version.config;
        Ok(Answer::from_iter([
            ("FunctionVersion".to_owned(), json!(version.number.to_string())),
            ("CodeSize".to_owned(), json!(config.code.zip_bytes)),
            ("MemorySize".to_owned(), json!(config.memory_mb)),
            ("Description".to_owned(), json!(version.description)),
            ("Handler".to_owned(), json!(config.handler)),
            ("Timeout".to_owned(), json!(config.timeout_s)),
            ("Runtime".to_owned(), json!(config.runtime_name)),
            ("Namespace".to_owned(), json!(namespace)),
        ]))
    }
}

#[async_trait]
impl Run for ListVersionByFunction {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        struct Item {
            version: String,
            description: String,
            add_ms: u64,
            mod_ms: u64,
        }
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let page = Page::read(self.offset, self.limit)?;
        let by = order_by(&self.order_by, &["AddTime", "ModTime"], "")?;
        let up = ascending(&self.order, false)?;
        let record = &entry.state.record;
        let mut items = vec![Item {
            version: "$LATEST".into(),
            description: record.latest.description.clone(),
            add_ms: record.add_time_ms,
            mod_ms: record.mod_time_ms,
        }];
        items.extend(entry.state.versions.values().rev().map(|v| Item {
            version: v.number.to_string(),
            description: v.description.clone(),
            add_ms: v.add_time_ms,
            mod_ms: v.add_time_ms,
        }));
        match (by, super::common::filled(&self.order)) {
            // SCF's console order: `$LATEST`, then the newest version first.
            ("", None) => {}
            ("ModTime", _) if up => items.sort_by_key(|i| i.mod_ms),
            ("ModTime", _) => items.sort_by_key(|i| std::cmp::Reverse(i.mod_ms)),
            _ if up => items.sort_by_key(|i| i.add_ms),
            _ => items.sort_by_key(|i| std::cmp::Reverse(i.add_ms)),
        }
        let total = items.len();
        let items = &items[page.of(total)];
        let names: Value = items.iter().map(|i| json!(i.version)).collect();
        let versions: Value = items
            .iter()
            .map(|i| {
                json!({
                    "Version": i.version,
                    "Description": i.description,
                    "AddTime": time::show(i.add_ms),
                    "ModTime": time::show(i.mod_ms),
                    "Status": "Active",
                })
            })
            .collect();
        Ok(Answer::from_iter([
            ("FunctionVersion".to_owned(), names),
            ("Versions".to_owned(), versions),
            ("TotalCount".to_owned(), json!(total)),
        ]))
    }
}

#[async_trait]
impl Run for DeleteFunctionVersion {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let force = super::common::switch(&self.force_delete, "ForceDelete")?;
        let Ok(Qualifier::Version(number)) = Qualifier::parse(&self.qualifier) else {
            let message =
                format!("`Qualifier` is `{}`; it is the number of a published version.", clip(&self.qualifier));
            return Err(ApiError::new("InvalidParameterValue.Qualifier", message));
        };
        delete(cx, &namespace, &name, number, force, "ResourceNotFound.Version").await
    }
}
