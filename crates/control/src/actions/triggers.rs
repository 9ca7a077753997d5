//! Triggers: the URLs of versions and aliases (type `http`), and, in [`bound`](super::bound), what hands events to functions.

use super::common::{Page, ascending, contains, description, filled, find, function_name, namespace, order_by};
use super::domains::leading_to;
use super::{Answer, Cx, Run, api_triggers, bound, trigger_desc};
use crate::api::requests::{
    CreateTrigger, DeleteTrigger, Filter, GetTrigger, ListTriggers, UpdateTrigger, UpdateTriggerStatus,
};
use crate::api::time;
use crate::catalogue::{FunctionState, Next, clip, no_version};
use crate::ports::ApiTrigger;
use async_trait::async_trait;
use mayfly_model::{ApiError, FunctionName, FunctionRecord, Qualifier, TriggerConfig, TriggerKind, UrlConfig};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Most URLs of one function. Source: "Quota Limits", 10 triggers per type.
pub const URLS_MAX: usize = 10;
/// Longest name of a trigger, in characters.
const NAME_CHARS_MAX: usize = 100;
/// Longest `CustomArgument`, in bytes.
const ARGUMENT_BYTES_MAX: usize = 4096;
/// Types of triggers that SCF has and this platform does not.
const NOT_BUILT: [&str; 8] = ["cls", "clb", "mps", "cm", "vod", "eb", "cdn", "tdmq"];

/// A function's URL on `host`; `$DEFAULT` needs no mention.
pub fn url(scheme: &str, host: &str, namespace: &str, function: &str, qualifier: &str) -> String {
    format!("{scheme}://{}", address(host, namespace, function, qualifier))
}

fn address(host: &str, namespace: &str, function: &str, qualifier: &str) -> String {
    match qualifier {
        "$DEFAULT" => format!("{host}/fn/{namespace}/{function}/"),
        other => format!("{host}/fn/{namespace}/{function}@{other}/"),
    }
}

/// A trigger as the read actions show it.
pub fn show(cx: Cx<'_>, record: &FunctionRecord, config: &UrlConfig) -> Value {
    let address = address(cx.host, record.namespace.as_str(), record.name.as_str(), &config.qualifier);
    // What tells this URL from one that the function had before under the same qualifier.
    let identity = format!("{} {} {}", record.id, config.qualifier, config.add_time_ms);
    let url_id = &hex::encode(Sha256::digest(identity))[..10];
    json!({
        "TriggerName": config.trigger,
        "Type": "http",
        "TriggerDesc": trigger_desc::show(config, &address, record.latest.service.is_some()),
        "Qualifier": config.qualifier,
        "Enable": u8::from(config.enabled),
        "AvailableStatus": "Available",
        "BindStatus": "on",
        "TriggerAttribute": "",
        "CustomArgument": config.argument,
        "Description": config.description,
        "AddTime": time::show(config.add_time_ms),
        "ModTime": time::show(config.mod_time_ms),
        "BoundResources": "",
        "ResourceId": format!(
            "qcs::scf:{}::url/{}/{}/{url_id}",
            cx.control.options.region, record.namespace, record.name
        ),
    })
}

/// What a `Type` means here.
enum Kind {
    /// `http`.
    Url,
    /// `apigw`.
    Api,
    /// One that hands over events.
    Bound(TriggerKind),
}

/// `Type`. Errors: `UnsupportedOperation.Trigger` for types that are not built, `InvalidParameterValue.Type` for others.
fn kind(text: &str) -> Result<Kind, ApiError> {
    if text.eq_ignore_ascii_case("http") {
        return Ok(Kind::Url);
    }
    if text.eq_ignore_ascii_case(api_triggers::TYPE) {
        return Ok(Kind::Api);
    }
    if let Some(kind) = TriggerKind::parse(text) {
        return Ok(Kind::Bound(kind));
    }
    let built = || TriggerKind::ALL.iter().map(|kind| format!(", `{kind}`")).collect::<String>();
    match NOT_BUILT.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) => Err(ApiError::new(
            "UnsupportedOperation.Trigger",
            format!("Triggers of type `{name}` are not built yet; this platform has `http`, `apigw`{}.", built()),
        )),
        None => {
            let message = format!("There is no trigger type `{}`; there are `http`, `apigw`{}.", clip(text), built());
            Err(ApiError::new("InvalidParameterValue.Type", message))
        }
    }
}

/// `TriggerName`. Errors: `InvalidParameterValue.TriggerName`.
pub fn trigger_name(text: String) -> Result<String, ApiError> {
    if text.trim().is_empty() || text.chars().nth(NAME_CHARS_MAX).is_some() || text.chars().any(char::is_control) {
        let message = format!("`TriggerName` has 1 to {NAME_CHARS_MAX} characters, and no control characters.");
        return Err(ApiError::new("InvalidParameterValue.TriggerName", message));
    }
    Ok(text)
}

/// `Enable`. Errors: `InvalidParameterValue.Enable`.
pub fn enable(text: &str) -> Result<bool, ApiError> {
    match text {
        t if t.eq_ignore_ascii_case("open") => Ok(true),
        t if t.eq_ignore_ascii_case("close") => Ok(false),
        other => Err(ApiError::new(
            "InvalidParameterValue.Enable",
            format!("`Enable` is `{}`; it is OPEN or CLOSE.", clip(other)),
        )),
    }
}

/// `CustomArgument`. Errors: `InvalidParameterValue.CustomArgument`.
pub fn argument(text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.len() > ARGUMENT_BYTES_MAX => Err(ApiError::new(
            "InvalidParameterValue.CustomArgument",
            format!("`CustomArgument` has {} bytes; the limit is {ARGUMENT_BYTES_MAX}.", text.len()),
        )),
        text => Ok(text),
    }
}

/// The place of a trigger in its function. Errors: `ResourceNotFound.Trigger`.
fn place(state: &FunctionState, name: &str, qualifier: Option<&str>) -> Result<usize, ApiError> {
    let found =
        state.record.urls.iter().position(|url| url.trigger == name && qualifier.is_none_or(|q| url.qualifier == q));
    found.ok_or_else(|| {
        let function = &state.record.name;
        let message = match qualifier {
            Some(q) => format!("Function `{function}` has no trigger `{}` for `{}`.", clip(name), clip(q)),
            None => format!("Function `{function}` has no trigger `{}`.", clip(name)),
        };
        ApiError::new("ResourceNotFound.Trigger", message)
    })
}

/// The version or alias of a new trigger, as text that can be compared. Errors: `ResourceNotFound.Qualifier`.
pub fn existing_qualifier(state: &FunctionState, function: &FunctionName, text: &str) -> Result<String, ApiError> {
    let missing = || no_version("ResourceNotFound.Qualifier", function.as_str(), text);
    let qualifier = Qualifier::parse(text).map_err(|_| missing())?;
    let exists = match &qualifier {
        Qualifier::Alias(name) => state.aliases.contains_key(name),
        version => state.config(&version.to_string()).is_some(),
    };
    if exists { Ok(qualifier.to_string()) } else { Err(missing()) }
}

/// Changes one trigger of a function.
async fn change(
    cx: Cx<'_>,
    (namespace, function): (&Option<String>, &str),
    (name, qualifier): (&str, &Option<String>),
    edit: impl FnOnce(&mut UrlConfig) -> Result<(), ApiError> + Send,
) -> Result<Answer, ApiError> {
    let (namespace, function) = (self::namespace(namespace)?, function_name(function)?);
    let decide = |state: &FunctionState| {
        let at = place(state, name, filled(qualifier))?;
        let mut next = state.clone();
        let url = &mut Arc::make_mut(&mut next.record).urls[at];
        edit(url)?;
        url.mod_time_ms = cx.now_ms;
        Ok(Next::state(next, ()))
    };
    cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
    Ok(Answer::new())
}

#[async_trait]
impl Run for CreateTrigger {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, function) = (namespace(&self.namespace)?, function_name(&self.function_name)?);
        match kind(&self.kind)? {
            Kind::Url => {}
            Kind::Api => return api_triggers::create(cx, self).await,
            Kind::Bound(kind) => return bound::create(cx, kind, self).await,
        }
        let name = trigger_name(self.trigger_name)?;
        let terms = trigger_desc::read(self.trigger_desc.as_deref().unwrap_or_default())?;
        let enabled = filled(&self.enable).map(enable).transpose()?.unwrap_or(true);
        let argument = argument(self.custom_argument)?.unwrap_or_default();
        let description = description(self.description)?.unwrap_or_default();
        let qualifier = filled(&self.qualifier).unwrap_or("$LATEST");
        let decide = |state: &FunctionState| {
            let qualifier = existing_qualifier(state, &function, qualifier)?;
            let urls = &state.record.urls;
            if urls.iter().any(|url| url.trigger == name) {
                let message = format!("Function `{function}` has a trigger `{}` already.", clip(&name));
                return Err(ApiError::new("ResourceInUse.TriggerName", message));
            }
            if let Some(url) = urls.iter().find(|url| url.qualifier == qualifier) {
                let message = format!(
                    "`{qualifier}` of `{function}` has a URL already, by the trigger `{}`.",
                    clip(&url.trigger)
                );
                return Err(ApiError::new("ResourceInUse.Trigger", message));
            }
            if urls.len() >= URLS_MAX {
                let message =
                    format!("Function `{function}` has {URLS_MAX} triggers of type http, which is the limit.");
                return Err(ApiError::new("LimitExceeded.Trigger", message));
            }
            let url = UrlConfig {
                trigger: name,
                qualifier,
                enabled,
                auth: terms.auth,
                cors: terms.cors,
                intranet: terms.intranet,
                description,
                argument,
                add_time_ms: cx.now_ms,
                mod_time_ms: cx.now_ms,
            };
            let mut next = state.clone();
            Arc::make_mut(&mut next.record).urls.push(url.clone());
            let shown = show(cx, &next.record, &url);
            Ok(Next::state(next, shown))
        };
        let shown = cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
        Ok(Answer::from_iter([("TriggerInfo".to_owned(), shown)]))
    }
}

#[async_trait]
impl Run for DeleteTrigger {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, function) = (namespace(&self.namespace)?, function_name(&self.function_name)?);
        match kind(&self.kind)? {
            Kind::Url => {}
            Kind::Api => return api_triggers::delete(cx, self).await,
            Kind::Bound(kind) => return bound::delete(cx, kind, self).await,
        }
        let decide = |state: &FunctionState| {
            let at = place(state, &self.trigger_name, filled(&self.qualifier))?;
            let (domains, qualifier) = (cx.control.catalogue.domains(), &state.record.urls[at].qualifier);
            if let Some(domain) = leading_to(&domains, namespace.as_str(), function.as_str(), qualifier) {
                let message = format!(
                    "The custom domain `{domain}` leads to this URL; take it out of the domain first (`mayfly domain set`), or close the trigger."
                );
                return Err(ApiError::new("FailedOperation.DeleteTrigger.UrlUsed", message));
            }
            let mut next = state.clone();
            Arc::make_mut(&mut next.record).urls.remove(at);
            Ok(Next::state(next, ()))
        };
        cx.control.catalogue.change_existing(&namespace, &function, decide).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for UpdateTrigger {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        match kind(&self.kind)? {
            Kind::Url => {}
            Kind::Api => return Err(api_triggers::unchangeable()),
            Kind::Bound(kind) => return bound::update(cx, kind, self).await,
        }
        let terms = filled(&self.trigger_desc).map(trigger_desc::read).transpose()?;
        let enabled = filled(&self.enable).map(enable).transpose()?;
        let argument = argument(self.custom_argument)?;
        let description = description(self.description)?;
        let function = (&self.namespace, self.function_name.as_str());
        change(cx, function, (&self.trigger_name, &self.qualifier), |url| {
            if let Some(terms) = terms {
                (url.auth, url.intranet, url.cors) = (terms.auth, terms.intranet, terms.cors);
            }
            url.enabled = enabled.unwrap_or(url.enabled);
            url.argument = argument.unwrap_or(std::mem::take(&mut url.argument));
            url.description = description.unwrap_or(std::mem::take(&mut url.description));
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Run for UpdateTriggerStatus {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        match kind(&self.kind)? {
            Kind::Url => {}
            Kind::Api => return Err(api_triggers::unchangeable()),
            Kind::Bound(kind) => return bound::update_status(cx, kind, self).await,
        }
        let enabled = enable(&self.enable)?;
        let function = (&self.namespace, self.function_name.as_str());
        change(cx, function, (&self.trigger_name, &self.qualifier), |url| {
            if url.enabled == enabled {
                let state = if enabled { "open" } else { "closed" };
                let message = format!("The trigger `{}` is {state} already.", clip(&url.trigger));
                return Err(ApiError::new("FailedOperation.UpdateTriggerStatus", message));
            }
            url.enabled = enabled;
            Ok(())
        })
        .await
    }
}

/// A trigger of either sort.
enum Any<'a> {
    Url(&'a UrlConfig),
    Bound(&'a TriggerConfig),
    Api(ApiTrigger),
}

impl Any<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Url(url) => &url.trigger,
            Self::Bound(trigger) => &trigger.name,
            Self::Api(trigger) => &trigger.name,
        }
    }

    fn kind(&self) -> &str {
        match self {
            Self::Url(_) => "http",
            Self::Bound(trigger) => trigger.kind().as_str(),
            Self::Api(_) => api_triggers::TYPE,
        }
    }

    fn qualifier(&self) -> &str {
        match self {
            Self::Url(url) => &url.qualifier,
            Self::Bound(trigger) => &trigger.qualifier,
            Self::Api(trigger) => &trigger.qualifier,
        }
    }

    fn description(&self) -> &str {
        match self {
            Self::Url(url) => &url.description,
            Self::Bound(trigger) => &trigger.description,
            Self::Api(trigger) => &trigger.description,
        }
    }

    /// When it was created and when it was last changed.
    fn times(&self) -> (u64, u64) {
        match self {
            Self::Url(url) => (url.add_time_ms, url.mod_time_ms),
            Self::Bound(trigger) => (trigger.add_time_ms, trigger.mod_time_ms),
            Self::Api(trigger) => (trigger.add_time_ms, trigger.mod_time_ms),
        }
    }

    fn show(&self, cx: Cx<'_>, record: &FunctionRecord) -> Value {
        match self {
            Self::Url(url) => show(cx, record, url),
            Self::Bound(trigger) => bound::show(cx, record, trigger),
            Self::Api(trigger) => api_triggers::show(cx, trigger),
        }
    }

    /// True when it passes a filter of a name in [`FILTERS`].
    fn passes(&self, filter: &Filter) -> bool {
        let any = |value: &str| filter.values.iter().any(|v| v == value);
        match filter.name.as_str() {
            "Qualifier" => any(self.qualifier()),
            "TriggerName" => any(self.name()),
            "Description" => filter.values.iter().any(|v| contains(self.description(), Some(v))),
            _ => filter.values.iter().any(|v| v.eq_ignore_ascii_case(self.kind())),
        }
    }
}

/// Every trigger of a function.
fn all<'a>(cx: Cx<'_>, record: &'a FunctionRecord) -> impl Iterator<Item = Any<'a>> {
    let apis = api_triggers::list(cx, record);
    record.urls.iter().map(Any::Url).chain(record.triggers.iter().map(Any::Bound)).chain(apis.into_iter().map(Any::Api))
}

/// The triggers of a function as GetFunction shows them; `qualifier`: only those of this version or alias.
pub fn show_all(cx: Cx<'_>, record: &FunctionRecord, qualifier: Option<&str>) -> Value {
    let wanted = all(cx, record).filter(|trigger| qualifier.is_none_or(|q| trigger.qualifier() == q));
    wanted.map(|trigger| trigger.show(cx, record)).collect()
}

/// The first trigger that leads to `qualifier`, in words: what keeps it from being deleted.
pub fn leading_here(cx: Cx<'_>, record: &FunctionRecord, qualifier: &str) -> Option<String> {
    let found = all(cx, record).find(|trigger| trigger.qualifier() == qualifier)?;
    Some(format!("`{}` (type {})", clip(found.name()), found.kind()))
}

/// Names that triggers are filtered by.
const FILTERS: [&str; 4] = ["Qualifier", "TriggerName", "Description", "Type"];

#[async_trait]
impl Run for GetTrigger {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let kind = match kind(&self.kind)? {
            Kind::Url => "http",
            Kind::Api => api_triggers::TYPE,
            Kind::Bound(kind) => kind.as_str(),
        };
        let (_, name, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let record = &entry.state.record;
        let (qualifier, desc) = (filled(&self.qualifier), filled(&self.trigger_desc));
        let same_desc = |any: &Any<'_>| match (any, desc) {
            (Any::Bound(trigger), Some(text)) => bound::is_desc(trigger, text),
            (Any::Api(trigger), Some(text)) => trigger.desc == text,
            _ => true,
        };
        let found = all(cx, record).find(|any| {
            any.kind() == kind
                && any.name() == self.trigger_name
                && qualifier.is_none_or(|q| any.qualifier() == q)
                && same_desc(any)
        });
        let found = found.ok_or_else(|| {
            let message = format!("Function `{name}` has no trigger `{}` of type {kind}.", clip(&self.trigger_name));
            ApiError::new("ResourceNotFound.Trigger", message)
        })?;
        Ok(Answer::from_iter([("TriggerInfo".to_owned(), found.show(cx, record))]))
    }
}

#[async_trait]
impl Run for ListTriggers {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let by = order_by(&self.order_by, &["add_time", "mod_time"], "mod_time")?;
        let up = ascending(&self.order, false)?;
        let filters = self.filters.unwrap_or_default();
        if let Some(filter) = filters.iter().find(|f| !FILTERS.contains(&f.name.as_str())) {
            let message = format!(
                "Triggers cannot be filtered by `{}`; they can by: {}.",
                clip(&filter.name),
                FILTERS.join(", ")
            );
            return Err(ApiError::new("InvalidParameterValue.Filters", message));
        }
        let (_, _, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let record = &entry.state.record;
        let mut found: Vec<_> = all(cx, record).filter(|any| filters.iter().all(|f| any.passes(f))).collect();
        // The name breaks ties, so that pages neither repeat nor skip a trigger.
        found.sort_by(|a, b| {
            let time = |any: &Any<'_>| if by == "add_time" { any.times().0 } else { any.times().1 };
            let order = time(a).cmp(&time(b)).then_with(|| (a.name(), a.kind()).cmp(&(b.name(), b.kind())));
            if up { order } else { order.reverse() }
        });
        let total = found.len();
        let triggers: Value = found[page.of(total)].iter().map(|any| any.show(cx, record)).collect();
        Ok(Answer::from_iter([("Triggers".to_owned(), triggers), ("TotalCount".to_owned(), json!(total))]))
    }
}
