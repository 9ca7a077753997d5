//! Namespaces.

use super::common::{Page, ascending, contains, description, order_by};
use super::{Answer, Cx, Run};
use crate::api::requests::{CreateNamespace, DeleteNamespace, ListNamespaces, UpdateNamespace};
use crate::api::time;
use crate::catalogue::{NamespaceChange, clip, no_namespace};
use async_trait::async_trait;
use mayfly_model::{ApiError, NamespaceName, NamespaceRecord};
use serde_json::{Value, json};

fn name(text: &str, code: &'static str) -> Result<NamespaceName, ApiError> {
    NamespaceName::parse(text).map_err(|e| ApiError::new(code, format!("`Namespace` is not valid: {e}.")))
}

#[async_trait]
impl Run for CreateNamespace {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let name = name(&self.namespace, "InvalidParameterValue.NamespaceInvalid")?;
        let description = description(self.description)?.unwrap_or_default();
        if name == NamespaceName::default_namespace() {
            let message = "The namespace `default` exists always and cannot be created.";
            return Err(ApiError::new("InvalidParameterValue.DefaultNamespace", message));
        }
        let max = cx.control.options.namespaces_max;
        cx.control
            .catalogue
            .change_namespace(|all| {
                if all.contains_key(&name) {
                    let message = format!("Namespace `{name}` exists already.");
                    return Err(ApiError::new("ResourceInUse.Namespace", message));
                }
                if all.len() >= max {
                    let message = format!("There are {max} namespaces, which is the limit.");
                    return Err(ApiError::new("LimitExceeded.Namespace", message));
                }
                Ok(NamespaceChange::Put(NamespaceRecord {
                    name,
                    description,
                    add_time_ms: cx.now_ms,
                    mod_time_ms: cx.now_ms,
                }))
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for UpdateNamespace {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let name = name(&self.namespace, "InvalidParameterValue.NamespaceInvalid")?;
        let description = description(Some(self.description))?.unwrap_or_default();
        cx.control
            .catalogue
            .change_namespace(|all| {
                let old = all.get(&name).ok_or_else(|| no_namespace(name.as_str()))?;
                let add_time_ms = old.record.add_time_ms;
                Ok(NamespaceChange::Put(NamespaceRecord { name, description, add_time_ms, mod_time_ms: cx.now_ms }))
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for DeleteNamespace {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let name = name(&self.namespace, "InvalidParameterValue.NamespaceInvalid")?;
        if name == NamespaceName::default_namespace() {
            let message = "The namespace `default` cannot be deleted.";
            return Err(ApiError::new("FailedOperation.DeleteNamespace", message));
        }
        cx.control
            .catalogue
            .change_namespace(|all| {
                let entry = all.get(&name).ok_or_else(|| no_namespace(name.as_str()))?;
                match entry.functions() {
                    0 => Ok(NamespaceChange::Delete(name)),
                    n => {
                        let message = format!("Namespace `{name}` still has {n} functions; delete them first.");
                        Err(ApiError::new("ResourceInUse.Namespace", message))
                    }
                }
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for ListNamespaces {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let up = ascending(&self.order, false)?;
        let by = order_by(&self.order_by, &["Name", "Updatetime"], "Updatetime")?;
        let keys = self.search_key.unwrap_or_default();
        if let Some(key) = keys.iter().find(|k| !matches!(k.key.as_str(), "Namespace" | "Description")) {
            let message = format!("`SearchKey` has the key `{}`; it is Namespace or Description.", clip(&key.key));
            return Err(ApiError::new("InvalidParameterValue.SearchKey", message));
        }
        let all = cx.control.catalogue.namespaces();
        let wanted = |record: &NamespaceRecord| {
            keys.iter().all(|key| match key.key.as_str() {
                "Namespace" => contains(record.name.as_str(), Some(&key.value)),
                _ => contains(&record.description, Some(&key.value)),
            })
        };
        let mut found: Vec<&NamespaceRecord> = all.values().map(|entry| &entry.record).filter(|r| wanted(r)).collect();
        found.sort_by(|a, b| {
            let order = if by == "Name" { a.name.cmp(&b.name) } else { a.mod_time_ms.cmp(&b.mod_time_ms) };
            let order = order.then_with(|| a.name.cmp(&b.name));
            if up { order } else { order.reverse() }
        });
        let total = found.len();
        let namespaces: Value = found[page.of(total)]
            .iter()
            .map(|r| {
                json!({
                    "Name": r.name,
                    "Description": r.description,
                    "AddTime": time::show(r.add_time_ms),
                    "ModTime": time::show(r.mod_time_ms),
                    "Type": "default",
                })
            })
            .collect();
        Ok(Answer::from_iter([("Namespaces".to_owned(), namespaces), ("TotalCount".to_owned(), json!(total))]))
    }
}
