//! Layers.

use super::common::{Page, contains, description, filled, limited, show_tags};
use super::{Answer, Cx, Run, config, packages};
use crate::api::requests::{DeleteLayerVersion, GetLayerVersion, ListLayerVersions, ListLayers, PublishLayerVersion};
use crate::api::time;
use crate::catalogue::{LayerEntry, LayerRecord, clip};
use async_trait::async_trait;
use mayfly_model::runtime::find_runtime;
use mayfly_model::{ApiError, LayerName, LayerVersionRecord, limits};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most runtimes that a layer version may name. Ours; there are 26 names, of which a layer fits a few.
const RUNTIMES_MAX: usize = 15;

/// A layer version as lists show it.
pub fn show(record: &LayerVersionRecord, status: &str) -> Value {
    json!({
        "LayerName": record.name,
        "LayerVersion": record.version,
        "CompatibleRuntimes": record.compatible_runtimes,
        "AddTime": time::show(record.add_time_ms),
        "Description": record.description,
        "LicenseInfo": record.license_info,
        "Status": status,
        "Stamp": "",
        "Tags": show_tags(&record.tags),
    })
}

/// Runtime names in their usual case. Errors: `InvalidParameterValue.CompatibleRuntimes`.
fn runtimes(names: Vec<String>) -> Result<Vec<String>, ApiError> {
    let bad = |message| ApiError::new("InvalidParameterValue.CompatibleRuntimes", message);
    if names.is_empty() || names.len() > RUNTIMES_MAX {
        return Err(bad(format!("`CompatibleRuntimes` names 1 to {RUNTIMES_MAX} runtimes.")));
    }
    let known = |name: &String| match find_runtime(name) {
        Some(runtime) => Ok(runtime.name.to_owned()),
        None => Err(bad(format!("`CompatibleRuntimes`: there is no runtime `{}`.", clip(name)))),
    };
    names.iter().map(known).collect()
}

fn no_version(name: &str, version: i64) -> ApiError {
    let message = format!("Layer `{}` has no version {version}.", clip(name));
    ApiError::new("ResourceNotFound.LayerVersion", message)
}

#[async_trait]
impl Run for PublishLayerVersion {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let name = LayerName::parse(&self.layer_name)
            .map_err(|e| ApiError::new("InvalidParameterValue.LayerName", format!("`LayerName` is not valid: {e}.")))?;
        let compatible_runtimes = runtimes(self.compatible_runtimes)?;
        let description = description(self.description)?.unwrap_or_default();
        let chars = limits::DESCRIPTION_CHARS_MAX;
        let license_info =
            limited(self.license_info, "LicenseInfo", "InvalidParameterValue", chars)?.unwrap_or_default();
        let tags = config::tags(self.tags)?;
        let zip = packages::zip_of(self.content).map_err(|_| {
            let message = "No content was given: put a base64 zip into `Content.ZipFile`.";
            ApiError::new("InvalidParameterValue.Content", message)
        })?;
        let (code, _upload) = packages::receive(cx.control, zip, "InvalidParameterValue.Content").await?;
        let number = catalogue
            .change_layer(|all| {
                let mut layer = match all.get(&name) {
                    Some(layer) => LayerEntry::clone(layer),
                    None if all.values().filter(|l| !l.versions.is_empty()).count() >= limits::LAYERS_MAX => {
                        let message = format!("There are {} layers, which is the limit.", limits::LAYERS_MAX);
                        return Err(ApiError::new("LimitExceeded.Layers", message));
                    }
                    None => LayerEntry {
                        record: LayerRecord { name: name.clone(), next_version: 1 },
                        versions: BTreeMap::new(),
                    },
                };
                if layer.versions.len() >= limits::LAYER_VERSIONS_MAX {
                    let max = limits::LAYER_VERSIONS_MAX;
                    let message = format!("Layer `{name}` has {max} versions, which is the limit.");
                    return Err(ApiError::new("LimitExceeded.LayerVersions", message));
                }
                let version = layer.record.next_version;
                layer.record.next_version += 1;
                let record = LayerVersionRecord {
                    name,
                    version,
                    compatible_runtimes,
                    description,
                    license_info,
                    code,
                    tags,
                    add_time_ms: cx.now_ms,
                };
                layer.versions.insert(version, Arc::new(record));
                Ok((layer, version))
            })
            .await?;
        Ok(Answer::from_iter([("LayerVersion".to_owned(), json!(number))]))
    }
}

#[async_trait]
impl Run for GetLayerVersion {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let layers = cx.control.catalogue.layers();
        let missing = || no_version(&self.layer_name, self.layer_version);
        let name = LayerName::parse(&self.layer_name).map_err(|_| missing())?;
        let number = u32::try_from(self.layer_version).map_err(|_| missing())?;
        let record = layers.get(&name).and_then(|l| l.versions.get(&number)).ok_or_else(missing)?;
        let Value::Object(mut fields) = show(record, "Active") else { return Err(missing()) };
        let digest = &record.code.digest;
        fields.insert("CodeSha256".into(), json!(digest));
        fields.insert("Location".into(), json!(cx.control.links.url(cx.host, digest, cx.now_ms)));
        Ok(fields)
    }
}

#[async_trait]
impl Run for DeleteLayerVersion {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let missing = || no_version(&self.layer_name, self.layer_version);
        let name = LayerName::parse(&self.layer_name).map_err(|_| missing())?;
        let number = u32::try_from(self.layer_version).map_err(|_| missing())?;
        cx.control
            .catalogue
            .change_layer(|all| {
                let mut layer = LayerEntry::clone(all.get(&name).ok_or_else(missing)?);
                layer.versions.remove(&number).ok_or_else(missing)?;
                Ok((layer, ()))
            })
            .await?;
        Ok(Answer::new())
    }
}

fn fits(record: &LayerVersionRecord, runtime: &str) -> bool {
    record.compatible_runtimes.iter().any(|r| r.eq_ignore_ascii_case(runtime))
}

#[async_trait]
impl Run for ListLayers {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let runtime = filled(&self.compatible_runtime);
        if let Some(runtime) = runtime
            && find_runtime(runtime).is_none()
        {
            let message = format!("There is no runtime `{}`.", clip(runtime));
            return Err(ApiError::new("InvalidParameterValue.Runtime", message));
        }
        let layers = cx.control.catalogue.layers();
        let found: Vec<_> = layers
            .values()
            .filter_map(|layer| layer.versions.values().next_back())
            .filter(|record| contains(record.name.as_str(), filled(&self.search_key)))
            .filter(|record| runtime.is_none_or(|runtime| fits(record, runtime)))
            .collect();
        let shown: Value = found[page.of(found.len())].iter().map(|record| show(record, "Active")).collect();
        Ok(Answer::from_iter([("Layers".to_owned(), shown), ("TotalCount".to_owned(), json!(found.len()))]))
    }
}

#[async_trait]
impl Run for ListLayerVersions {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let layers = cx.control.catalogue.layers();
        let layer = LayerName::parse(&self.layer_name).ok().and_then(|name| layers.get(&name).cloned());
        let Some(layer) = layer.filter(|layer| !layer.versions.is_empty()) else {
            let message = format!("There is no layer `{}`.", clip(&self.layer_name));
            return Err(ApiError::new("ResourceNotFound.Layer", message));
        };
        let runtimes = self.compatible_runtime.unwrap_or_default();
        let wanted = |record: &LayerVersionRecord| runtimes.is_empty() || runtimes.iter().any(|r| fits(record, r));
        let versions: Value =
            layer.versions.values().rev().filter(|r| wanted(r)).map(|record| show(record, "Active")).collect();
        Ok(Answer::from_iter([("LayerVersions".to_owned(), versions)]))
    }
}
