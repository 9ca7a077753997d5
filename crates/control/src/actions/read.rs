//! Reading functions: GetFunction, ListFunctions, GetFunctionAddress.

use super::common::{Page, ascending, contains, filled, find, namespace, order_by, show_tags, switch};
use super::{Answer, Cx, Run, installs, packages, service, triggers};
use crate::api::requests::{Filter, GetFunction, GetFunctionAddress, ListFunctions};
use crate::api::time;
use crate::catalogue::{FunctionEntry, clip, no_namespace, no_version};
use async_trait::async_trait;
use mayfly_model::{ApiError, Forecast, FunctionRecord, Qualifier, VersionConfig};
use serde_json::{Value, json};
use std::sync::Arc;

/// A version as a read action sees it.
struct Shown<'a> {
    version: String,
    description: &'a str,
    config: &'a VersionConfig,
    mod_time_ms: u64,
}

/// The version that a qualifier leads to; an alias shows its main version. `None`: there is none.
fn shown<'a>(entry: &'a FunctionEntry, qualifier: &str) -> Option<Shown<'a>> {
    let state = &entry.state;
    let version = match Qualifier::parse(qualifier).ok()? {
        Qualifier::Alias(name) => state.aliases.get(&name)?.version.clone(),
        version => version.to_string(),
    };
    if version == "$LATEST" {
        let latest = &state.record.latest;
        let (description, mod_time_ms) = (latest.description.as_str(), state.record.mod_time_ms);
        return Some(Shown { version, description, config: latest, mod_time_ms });
    }
    let record = state.versions.get(&version.parse().ok()?)?;
    Some(Shown { version, description: &record.description, config: &record.config, mod_time_ms: record.add_time_ms })
}

#[async_trait]
impl Run for GetFunction {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, name, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let qualifier = filled(&self.qualifier).unwrap_or("$LATEST");
        let show_code = switch(&self.show_code, "ShowCode")?;
        let shown =
            shown(&entry, qualifier).ok_or_else(|| no_version("ResourceNotFound.Version", name.as_str(), qualifier))?;
        let config = shown.config;
        let code_info = match show_code {
            true => packages::entry_file(cx.control, config).await?,
            false => None,
        };
        let record = &entry.state.record;
        let shown_triggers: Value = match filled(&self.show_triggers).is_some()
            && !super::common::switch(&self.show_triggers, "ShowTriggers")?
        {
            true => json!([]),
            false => triggers::show_all(cx, record, filled(&self.qualifier)),
        };
        let kept = |field: &str, default: &str| config.shown_only.get(field).cloned().unwrap_or_else(|| json!(default));
        let switch = |on: bool| if on { "ENABLE" } else { "DISABLE" };
        let variables: Value = config.environment.iter().map(|(k, v)| json!({"Key": k, "Value": v})).collect();
        let fields = json!({
            "FunctionName": name,
            "FunctionId": record.id,
            "Namespace": namespace,
            "Qualifier": qualifier,
            "FunctionVersion": shown.version,
            "Description": shown.description,
            "Handler": config.handler,
            "Runtime": config.runtime_name,
            "MemorySize": config.memory_mb,
            "Timeout": config.timeout_s,
            "InitTimeout": config.init_timeout_s,
            "Environment": {"Variables": variables},
            "Layers": layers(cx, config),
            "Tags": show_tags(&record.tags),
            "AddTime": time::show(record.add_time_ms),
            "ModTime": time::show(shown.mod_time_ms),
            "CodeSize": config.code.zip_bytes,
            "CodeInfo": code_info.unwrap_or_default(),
            "PublicNetConfig": {
                "PublicNetStatus": switch(config.public_net),
                "EipConfig": {"EipStatus": "DISABLE", "EipAddress": []},
            },
            "Role": kept("Role", ""),
            "InstallDependency": kept("InstallDependency", "FALSE"),
            "ClsLogsetId": kept("ClsLogsetId", ""),
            "ClsTopicId": kept("ClsTopicId", ""),
            "DnsCache": kept("DnsCache", "FALSE"),
            "ForkMode": config.fork,
            "MinInstances": record.scaling.min_instances,
            "MaxInstances": record.scaling.max_instances.unwrap_or(0),
            "Forecast": record.scaling.forecast.map_or("", Forecast::as_str),
            "Type": service::type_name(config.service.as_ref()),
            "ProtocolType": "",
            "Triggers": shown_triggers,
        });
        match (fields, constant_fields()) {
            (Value::Object(mut fields), Value::Object(constant)) => {
                fields.extend(constant);
                fields.extend(installs::status_fields(record));
                let code = installs::status(record).1;
                fields.insert("CodeResult".into(), json!(if code.is_empty() { "success" } else { "failed" }));
                fields.insert("CodeError".into(), json!(code));
                fields.extend(config.service.iter().flat_map(service::show));
                Ok(fields)
            }
            _ => Err(ApiError::internal("The function could not be shown.")),
        }
    }
}

/// Fields that are the same for every function: it has nothing of what is not built.
fn constant_fields() -> Value {
    json!({
        "AvailableStatus": "Available",
        "ErrNo": 0,
        "IntranetConfig": {"IpFixed": "DISABLE", "IpAddress": []},
        "EipConfig": {"EipFixed": "FALSE", "Eips": []},
        "VpcConfig": {"VpcId": "", "SubnetId": ""},
        "AccessInfo": {"Host": "", "Vip": ""},
        "CfsConfig": {"CfsInsList": []},
        "DeadLetterConfig": {"Type": "", "Name": "", "FilterType": ""},
        "UseGpu": "FALSE",
        "L5Enable": "FALSE",
        "OnsEnable": "FALSE",
        "AsyncRunEnable": "FALSE",
        "TraceEnable": "FALSE",
    })
}

fn layers(cx: Cx<'_>, config: &VersionConfig) -> Value {
    let known = cx.control.catalogue.layers();
    let show = |binding: &mayfly_model::LayerBinding| {
        let record = known.get(&binding.name).and_then(|layer| layer.versions.get(&binding.version));
        match record {
            Some(record) => super::layers::show(record, "Active"),
            None => json!({
                "LayerName": binding.name,
                "LayerVersion": binding.version,
                "CompatibleRuntimes": [],
                "AddTime": "",
                "Description": "",
                "LicenseInfo": "",
                "Status": "Deleted",
                "Stamp": "",
                "Tags": [],
            }),
        }
    };
    config.layers.iter().map(show).collect()
}

/// True when a function passes a filter. Errors: `InvalidParameterValue.Filters` for a name that is not known.
fn passes(record: &FunctionRecord, filter: &Filter) -> Result<bool, ApiError> {
    let any = |value: &str| filter.values.iter().any(|v| v.eq_ignore_ascii_case(value));
    Ok(match filter.name.as_str() {
        "Status" => any(installs::status(record).0),
        "Type" => any(service::type_name(record.latest.service.as_ref())),
        "Runtime" => any(&record.latest.runtime_name),
        "FunctionName" => filter.values.iter().any(|v| contains(record.name.as_str(), Some(v))),
        "Description" => filter.values.iter().any(|v| contains(&record.latest.description, Some(v))),
        other => match other.strip_prefix("tag-") {
            Some(key) => record.tags.iter().any(|(k, v)| k == key && filter.values.contains(v)),
            None => {
                let message = format!(
                    "Functions cannot be filtered by `{}`; they can by Status, Type, Runtime, FunctionName, Description and tag-<key>.",
                    clip(other)
                );
                return Err(ApiError::new("InvalidParameterValue.Filters", message));
            }
        },
    })
}

#[async_trait]
impl Run for ListFunctions {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let page = Page::read(self.offset, self.limit)?;
        let up = ascending(&self.order, false)?;
        let by = order_by(&self.order_by, &["AddTime", "ModTime", "FunctionName"], "ModTime")?;
        let filters = self.filters.unwrap_or_default();
        let http = filled(&self.kind).map(service::is_http).transpose()?;
        if !catalogue.namespaces().contains_key(&namespace) {
            return Err(no_namespace(namespace.as_str()));
        }
        let mut found = Vec::new();
        for entry in catalogue.functions(&namespace) {
            let record = &entry.state.record;
            let mut wanted = contains(record.name.as_str(), filled(&self.search_key))
                && contains(&record.latest.description, filled(&self.description))
                && http.is_none_or(|http| http == record.latest.service.is_some());
            for filter in &filters {
                wanted = passes(record, filter)? && wanted;
            }
            if wanted {
                found.push(entry.clone());
            }
        }
        // The name breaks ties, so that pages neither repeat nor skip a function.
        found.sort_by(|a, b| {
            let (a, b) = (&a.state.record, &b.state.record);
            let order = match by {
                "AddTime" => a.add_time_ms.cmp(&b.add_time_ms),
                "ModTime" => a.mod_time_ms.cmp(&b.mod_time_ms),
                _ => std::cmp::Ordering::Equal,
            };
            let order = order.then_with(|| a.name.cmp(&b.name));
            if up { order } else { order.reverse() }
        });
        let total = found.len();
        let functions: Value = found[page.of(total)].iter().map(summary).collect();
        Ok(Answer::from_iter([("Functions".to_owned(), functions), ("TotalCount".to_owned(), json!(total))]))
    }
}

fn summary(entry: &Arc<FunctionEntry>) -> Value {
    let record = &entry.state.record;
    let mut summary = json!({
        "FunctionName": record.name,
        "FunctionId": record.id,
        "Namespace": record.namespace,
        "Runtime": record.latest.runtime_name,
        "Description": record.latest.description,
        "AddTime": time::show(record.add_time_ms),
        "ModTime": time::show(record.mod_time_ms),
        "Tags": show_tags(&record.tags),
        "Type": service::type_name(record.latest.service.as_ref()),
        "TotalProvisionedConcurrencyMem": entry.state.provisioned_mb(),
        "ReservedConcurrencyMem": record.reserved_mb.unwrap_or(0),
        "AsyncRunEnable": "FALSE",
        "TraceEnable": "FALSE",
    });
    if let Some(fields) = summary.as_object_mut() {
        fields.extend(installs::status_fields(record));
    }
    summary
}

#[async_trait]
impl Run for GetFunctionAddress {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, name, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let qualifier = filled(&self.qualifier).unwrap_or("$LATEST");
        let shown =
            shown(&entry, qualifier).ok_or_else(|| no_version("ResourceNotFound.Version", name.as_str(), qualifier))?;
        let digest = &shown.config.code.digest;
        Ok(Answer::from_iter([
            ("Url".to_owned(), json!(cx.control.links.url(cx.host, digest, cx.now_ms))),
            ("CodeSha256".to_owned(), json!(digest)),
            ("SourceSha256".to_owned(), json!(shown.config.source.as_ref().map_or(digest, |source| &source.digest))),
        ]))
    }
}
