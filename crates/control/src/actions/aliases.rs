//! Aliases: names that lead to one version, or to several by weight and rule.

use super::common::{Page, description, filled, find, function_name, namespace, version_text};
use super::triggers::leading_here;
use super::{Answer, Cx, Run};
use crate::api::requests::{CreateAlias, DeleteAlias, GetAlias, ListAliases, RoutingConfig, UpdateAlias};
use crate::api::time;
use crate::catalogue::{FunctionEntry, FunctionState, Next, clip, versions_of};
use async_trait::async_trait;
use mayfly_model::{AliasName, AliasRecord, ApiError, FunctionName, VersionMatch, limits};
use mayfly_plan::route::check_match;
use serde_json::{Value, json};
use std::sync::Arc;

/// Most weights, and most rules, of one alias. Ours.
const ROUTES_MAX: usize = 10;

fn alias_name(text: &str) -> Result<AliasName, ApiError> {
    AliasName::parse(text)
        .map_err(|e| ApiError::new("InvalidParameterValue.Name", format!("`Name` is not a valid alias: {e}.")))
}

fn no_alias(function: &FunctionName, name: &AliasName) -> ApiError {
    ApiError::new("ResourceNotFound.Alias", format!("Function `{function}` has no alias `{name}`."))
}

/// What an alias leads to, checked as far as it can be without the function.
struct Routes {
    version: String,
    weights: Vec<(String, f64)>,
    matches: Vec<VersionMatch>,
}

impl Routes {
    /// Errors: `InvalidParameterValue.AdditionalVersionWeights`, `InvalidParameterValue.RoutingConfig`.
    fn read(version: String, routing: Option<RoutingConfig>) -> Result<Self, ApiError> {
        let routing = routing.unwrap_or_default();
        let bad_weights = |message: String| ApiError::new("InvalidParameterValue.AdditionalVersionWeights", message);
        let bad_rules = |message: String| ApiError::new("InvalidParameterValue.RoutingConfig", message);
        let weights = routing.additional_version_weights.unwrap_or_default();
        let rules = routing.addtion_version_matchs.unwrap_or_default();
        if weights.len() > ROUTES_MAX {
            return Err(bad_weights(format!("An alias has at most {ROUTES_MAX} additional versions.")));
        }
        if rules.len() > ROUTES_MAX {
            return Err(bad_rules(format!("An alias has at most {ROUTES_MAX} rules.")));
        }
        let mut sum = 0.0;
        for (i, weight) in weights.iter().enumerate() {
            if !(0.0..=1.0).contains(&weight.weight) {
                return Err(bad_weights(format!(
                    "The weight of version {} is not between 0 and 1.",
                    clip(&weight.version)
                )));
            }
            let twice = weights[..i].iter().any(|w| w.version == weight.version);
            if twice || weight.version == version {
                let message = "An additional version is neither the main version nor named twice.";
                return Err(bad_weights(message.into()));
            }
            sum += weight.weight;
        }
        if sum > 1.0 + 1e-9 {
            return Err(bad_weights(format!("The weights are {sum} together; the limit is 1.")));
        }
        let mut matches = Vec::with_capacity(rules.len());
        for rule in rules {
            if rule.key.len() > 256 || rule.expression.len() > 1024 {
                return Err(bad_rules(
                    "A rule has a Key of at most 256 bytes and an Expression of at most 1024.".into(),
                ));
            }
            let rule =
                VersionMatch { version: rule.version, key: rule.key, method: rule.method, expression: rule.expression };
            check_match(&rule).map_err(|why| bad_rules(format!("{why}.")))?;
            matches.push(rule);
        }
        let weights = weights.into_iter().map(|w| (w.version, w.weight)).collect();
        Ok(Self { version, weights, matches })
    }

    /// `state` with `alias` in it, which leads where these routes do. Errors: `ResourceNotFound.FunctionVersion` for a version that is
    /// not there.
    fn into_alias(self, state: &FunctionState, mut alias: AliasRecord) -> Result<Next<()>, ApiError> {
        alias.version = self.version;
        alias.weights = self.weights;
        alias.matches = self.matches;
        if let Some(version) = state.dangling_version(&alias) {
            return Err(ApiError::new(
                "ResourceNotFound.FunctionVersion",
                format!("Function `{}` has no version `{}`.", state.record.name, clip(version)),
            ));
        }
        let mut next = state.clone();
        next.aliases.insert(alias.name.clone(), Arc::new(alias));
        Ok(Next::state(next, ()))
    }
}

fn show(alias: &AliasRecord) -> Answer {
    let weights: Value = alias.weights.iter().map(|(v, w)| json!({"Version": v, "Weight": w})).collect();
    let rules: Value = alias
        .matches
        .iter()
        .map(|m| json!({"Version": m.version, "Key": m.key, "Method": m.method, "Expression": m.expression}))
        .collect();
    Answer::from_iter([
        ("FunctionVersion".to_owned(), json!(alias.version)),
        ("Name".to_owned(), json!(alias.name)),
        ("RoutingConfig".to_owned(), json!({"AdditionalVersionWeights": weights, "AddtionVersionMatchs": rules})),
        ("Description".to_owned(), json!(alias.description)),
        ("AddTime".to_owned(), json!(time::show(alias.add_time_ms))),
        ("ModTime".to_owned(), json!(time::show(alias.mod_time_ms))),
    ])
}

#[async_trait]
impl Run for CreateAlias {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let function = function_name(&self.function_name)?;
        let name = alias_name(&self.name)?;
        let description = description(self.description)?.unwrap_or_default();
        let routes = Routes::read(self.function_version, self.routing_config)?;
        catalogue
            .change_existing(&namespace, &function, |state| {
                if state.aliases.contains_key(&name) {
                    let message = format!("Function `{function}` has an alias `{name}` already.");
                    return Err(ApiError::new("ResourceInUse.Alias", message));
                }
                if state.aliases.len() >= limits::ALIASES_MAX {
                    let message =
                        format!("Function `{function}` has {} aliases, which is the limit.", limits::ALIASES_MAX);
                    return Err(ApiError::new("LimitExceeded.Alias", message));
                }
                let alias = AliasRecord {
                    function_id: state.record.id.clone(),
                    name: name.clone(),
                    version: String::new(),
                    weights: Vec::new(),
                    matches: Vec::new(),
                    description,
                    add_time_ms: cx.now_ms,
                    mod_time_ms: cx.now_ms,
                };
                routes.into_alias(state, alias)
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for UpdateAlias {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let function = function_name(&self.function_name)?;
        let name = alias_name(&self.name)?;
        let description = description(self.description)?;
        let routes = Routes::read(self.function_version, self.routing_config)?;
        catalogue
            .change_existing(&namespace, &function, |state| {
                let old = state.aliases.get(&name).ok_or_else(|| no_alias(&function, &name))?;
                let mut alias = AliasRecord::clone(old);
                alias.description = description.unwrap_or(alias.description);
                alias.mod_time_ms = cx.now_ms;
                routes.into_alias(state, alias)
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for DeleteAlias {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let function = function_name(&self.function_name)?;
        let name = alias_name(&self.name)?;
        if name.is_default() {
            let message = "The alias `$DEFAULT` cannot be deleted; it can be pointed elsewhere with UpdateAlias.";
            return Err(ApiError::new("InvalidParameterValue.Alias", message));
        }
        catalogue
            .change_existing(&namespace, &function, |state| {
                if let Some(trigger) = leading_here(cx, &state.record, name.as_str()) {
                    let message = format!(
                        "The alias `{name}` cannot be deleted: the trigger {trigger} leads to it. Delete that first."
                    );
                    return Err(ApiError::new("FailedOperation.DeleteAlias", message));
                }
                let mut next = state.clone();
                match next.aliases.remove(&name) {
                    Some(_) => Ok(Next::state(next, ())),
                    None => Err(no_alias(&function, &name)),
                }
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for GetAlias {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, function, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let name = alias_name(&self.name)?;
        entry.state.aliases.get(&name).map(|alias| show(alias)).ok_or_else(|| no_alias(&function, &name))
    }
}

/// `Offset` and `Limit` of ListAliases, which are texts.
fn number(text: &Option<String>, field: &str, code: &'static str) -> Result<Option<i64>, ApiError> {
    let parse = |text: &str| text.trim().parse::<i64>();
    filled(text).map(parse).transpose().map_err(|_| ApiError::new(code, format!("`{field}` is not a number.")))
}

fn leads_to(entry: &FunctionEntry, alias: &AliasRecord, version: Option<&str>) -> bool {
    let Some(version) = version else { return true };
    let version = version_text(entry, version);
    version.is_some_and(|version| versions_of(alias).any(|v| v == version))
}

#[async_trait]
impl Run for ListAliases {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let offset = number(&self.offset, "Offset", "InvalidParameterValue.Offset")?;
        let limit = number(&self.limit, "Limit", "InvalidParameterValue.Limit")?;
        let page = Page::read(offset, limit)?;
        let version = filled(&self.function_version);
        let found: Vec<_> = entry.state.aliases.values().filter(|alias| leads_to(&entry, alias, version)).collect();
        let aliases: Value = found[page.of(found.len())].iter().map(|alias| Value::Object(show(alias))).collect();
        Ok(Answer::from_iter([("Aliases".to_owned(), aliases), ("TotalCount".to_owned(), json!(found.len()))]))
    }
}
