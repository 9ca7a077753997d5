//! Creating, changing, copying and deleting functions.

use super::common::{description, existing, filled, function_name, named_function, namespace, switch};
use super::service::{ServiceRequest, is_http, type_name};
use super::versions::publish;
use super::{Answer, Cx, Run, config, packages, targets};
use crate::api::requests::{
    CopyFunction, CreateFunction, DeleteFunction, UpdateFunctionCode, UpdateFunctionConfiguration,
};
use crate::catalogue::{FunctionState, Next, clip, digests_of};
use async_trait::async_trait;
use mayfly_model::{
    AliasName, AliasRecord, ApiError, EventPolicy, EventTargets, FailurePolicy, FunctionName, FunctionRecord,
    NamespaceName, Qualifier, ScalingConfig, ServiceConfig, Target, VersionConfig,
};
use std::sync::Arc;

/// A new function with its alias `$DEFAULT`.
fn new_function(
    id: String,
    namespace: NamespaceName,
    name: FunctionName,
    latest: VersionConfig,
    tags: Vec<(String, String)>,
    now_ms: u64,
) -> FunctionState {
    let alias = AliasRecord {
        function_id: id.clone(),
        name: AliasName::default_alias(),
        version: "$LATEST".into(),
        weights: Vec::new(),
        matches: Vec::new(),
        description: String::new(),
        add_time_ms: now_ms,
        mod_time_ms: now_ms,
    };
    let mut state = FunctionState::new(FunctionRecord {
        id,
        namespace,
        name,
        latest,
        install: None,
        next_version: 1,
        reserved_mb: None,
        tags,
        urls: Vec::new(),
        triggers: Vec::new(),
        provisioned: Vec::new(),
        events: EventPolicy::default(),
        failures: FailurePolicy::default(),
        targets: EventTargets::default(),
        scaling: ScalingConfig::default(),
        add_time_ms: now_ms,
        mod_time_ms: now_ms,
    });
    state.aliases.insert(alias.name.clone(), Arc::new(alias));
    state
}

/// `state` with new settings of `$LATEST`.
pub(crate) fn with_latest(state: &FunctionState, mut latest: VersionConfig, now_ms: u64) -> FunctionState {
    let old = &state.record.latest;
    latest.revision = old.revision + u64::from(config::matters_to_instances(old, &latest));
    latest.mod_time_ms = now_ms;
    let mut next = state.clone();
    let record = Arc::make_mut(&mut next.record);
    record.latest = latest;
    record.mod_time_ms = now_ms;
    next
}

/// What a change of `$LATEST` is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Code,
    Settings,
}

/// Notes whether dependencies are installed, for read actions and for the next code.
fn set_install(latest: &mut VersionConfig, told: Option<bool>) {
    if let Some(on) = told {
        latest.shown_only.insert("InstallDependency".into(), if on { "TRUE" } else { "FALSE" }.into());
    }
}

/// Puts what was given in its place.
fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

/// Changes the settings of `$LATEST` by `edit`, and publishes the outcome if `and_publish`.
async fn change_latest(
    cx: Cx<'_>,
    namespace: &NamespaceName,
    name: &FunctionName,
    and_publish: bool,
    change: Change,
    dead_letter: Option<Option<Target>>,
    edit: impl FnOnce(&mut VersionConfig) -> Result<(), ApiError> + Send,
) -> Result<Answer, ApiError> {
    let decide = |state: &FunctionState| {
        state.check_idle()?;
        let mut latest = state.record.latest.clone();
        edit(&mut latest)?;
        config::check_size(&latest.code, &latest.layers)?;
        latest.shown_only.extend(cx.shown.clone());
        let mut next = with_latest(state, latest, cx.now_ms);
        set(&mut Arc::make_mut(&mut next.record).targets.dead_letter, dead_letter);
        // A failed update is over with the next change; a failed creation only with code that works.
        if change == Change::Code || state.check_serving().is_ok() {
            Arc::make_mut(&mut next.record).install = None;
        }
        let next = if and_publish { publish(&next, None, cx.now_ms)?.0 } else { next };
        Ok(Next::state(next, ()))
    };
    cx.control.catalogue.change_existing(namespace, name, decide).await?;
    Ok(Answer::new())
}

#[async_trait]
impl Run for CreateFunction {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let runtime = config::runtime(&self.runtime)?;
        let http = filled(&self.kind).map(is_http).transpose()?.unwrap_or(false);
        let service =
            ServiceRequest::read(self.instance_concurrency_config, &self.protocol_type, self.protocol_params)?
                .create(http)?;
        let handler = config::handler(self.handler, (!http).then_some(runtime.1))?;
        let description = description(self.description)?.unwrap_or_default();
        let memory_mb = self.memory_size.map(config::memory_mb).transpose()?;
        let async_run = switch(&self.async_run_enable, "AsyncRunEnable")?;
        if async_run && http {
            let message =
                "Requests of HTTP functions are answered as they come; `AsyncRunEnable` is for event functions.";
            return Err(ApiError::new("UnsupportedOperation.AsyncRunEnable", message));
        }
        let timeout_s = self.timeout.map(|s| config::timeout_s(s, async_run)).transpose()?;
        let init_timeout_s = self.init_timeout.map(config::init_timeout_s).transpose()?;
        let environment = config::environment(self.environment.unwrap_or_default())?;
        let public_net = config::public_net(self.public_net_config.unwrap_or_default())?;
        let fork = config::fork_mode(filled(&self.fork_mode).unwrap_or_default())?;
        let tags = config::tags(self.tags)?;
        let role = self.role.map(config::role).transpose()?;
        let layers = config::layers(catalogue, self.layers.unwrap_or_default())?;
        let zip = packages::zip_of(self.code)?;
        let install = switch(&self.install_dependency, "InstallDependency")?;
        if !catalogue.namespaces().contains_key(&namespace) {
            return Err(crate::catalogue::no_namespace(namespace.as_str()));
        }
        let taken = || {
            ApiError::new(
                "ResourceInUse.Function",
                format!("Function `{name}` exists already in namespace `{namespace}`."),
            )
        };
        if catalogue.function(namespace.as_str(), name.as_str()).is_some() {
            return Err(taken());
        }
        let dead_letter = targets::dead_letter(cx, self.dead_letter_config).await?.flatten();
        let _layers = catalogue.protect(layers.iter().map(|l| l.code.digest));
        let (code, _upload) = packages::receive(cx.control, zip, "InvalidParameterValue.ZipFile").await?;
        config::check_size(&code, &layers)?;
        let mut latest = config::defaults(runtime, handler, description, code, cx.now_ms);
        set(&mut latest.memory_mb, memory_mb);
        set(&mut latest.timeout_s, timeout_s);
        set(&mut latest.init_timeout_s, init_timeout_s);
        latest.environment = environment;
        latest.layers = layers;
        latest.public_net = public_net;
        latest.fork = fork;
        latest.service = service;
        latest.async_run = async_run;
        latest.shown_only = cx.shown.clone();
        if let Some(role) = role {
            latest.set_role(role);
        }
        set_install(&mut latest, self.install_dependency.as_ref().map(|_| install));
        let mut state =
            new_function(catalogue.new_function_id(), namespace.clone(), name.clone(), latest, tags, cx.now_ms);
        Arc::make_mut(&mut state.record).targets.dead_letter = dead_letter;
        let max = cx.control.options.functions_per_namespace_max;
        if install && cx.control.installs.wants(&code.digest, runtime.1).await? {
            let install = cx.control.installs.state(code, None, false, false);
            Arc::make_mut(&mut state.record).install = Some(install);
            let taken = taken();
            return cx
                .control
                .installs
                .begin(namespace, name, max, move |old| match old {
                    Some(_) => Err(taken),
                    None => Ok(state),
                })
                .await;
        }
        catalogue
            .change_function(&namespace, &name, max, |old| match old {
                Some(_) => Err(taken()),
                None => Ok(Next::state(state, ())),
            })
            .await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for UpdateFunctionCode {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let and_publish = switch(&self.publish, "Publish")?;
        let entry = existing(catalogue, &namespace, &name)?;
        let latest = &entry.state.record.latest;
        let runtime = latest.service.is_none().then_some(latest.runtime);
        let handler = self.handler.filter(|h| !h.is_empty()).map(|h| config::handler(Some(h), runtime)).transpose()?;
        let mut code = self.code.unwrap_or_default();
        match (filled(&code.zip_file).is_some(), self.zip_file.filter(|z| !z.is_empty())) {
            (true, Some(_)) => {
                let message = "The code is given twice, in `ZipFile` and in `Code.ZipFile`; give one.";
                return Err(ApiError::new("InvalidParameterValue.Code", message));
            }
            (false, flat) => code.zip_file = flat,
            (true, None) => {}
        }
        let zip = packages::zip_of(code)?;
        let (code, _upload) = packages::receive(cx.control, zip, "InvalidParameterValue.ZipFile").await?;
        let told = match filled(&self.install_dependency) {
            Some(_) => Some(switch(&self.install_dependency, "InstallDependency")?),
            None => None,
        };
        let install = told.unwrap_or(latest.shown_only.get("InstallDependency").is_some_and(|on| on == "TRUE"));
        if install && cx.control.installs.wants(&code.digest, latest.runtime).await? {
            let (installs, shown, now_ms) = (cx.control.installs.clone(), cx.shown.clone(), cx.now_ms);
            let missing = catalogue.no_function(namespace.as_str(), name.as_str());
            let decide = move |old: Option<&FunctionState>| {
                let mut next = old.ok_or(missing)?.clone();
                next.check_idle()?;
                let serving = next.check_serving().is_ok();
                let record = Arc::make_mut(&mut next.record);
                record.install = Some(installs.state(code, handler, and_publish, serving));
                record.latest.shown_only.extend(shown);
                set_install(&mut record.latest, told);
                record.mod_time_ms = now_ms;
                Ok(next)
            };
            return cx.control.installs.begin(namespace, name, 0, decide).await;
        }
        change_latest(cx, &namespace, &name, and_publish, Change::Code, None, |latest| {
            latest.code = code;
            latest.source = None;
            set(&mut latest.handler, handler);
            set_install(latest, told);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Run for UpdateFunctionConfiguration {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        let and_publish = switch(&self.publish, "Publish")?;
        let description = description(self.description)?;
        let memory_mb = self.memory_size.map(config::memory_mb).transpose()?;
        let init_timeout_s = self.init_timeout.map(config::init_timeout_s).transpose()?;
        let environment = self.environment.map(config::environment).transpose()?;
        let public_net = self.public_net_config.map(config::public_net).transpose()?;
        let fork = filled(&self.fork_mode).map(config::fork_mode).transpose()?;
        let role = self.role.map(config::role).transpose()?;
        let service = ServiceRequest::read(self.instance_concurrency_config, &None, self.protocol_params)?;
        let entry = existing(catalogue, &namespace, &name)?;
        let async_run = entry.state.record.latest.async_run;
        let timeout_s = self.timeout.map(|s| config::timeout_s(s, async_run)).transpose()?;
        let old_service = entry.state.record.latest.service;
        if let Some(http) = filled(&self.kind).map(is_http).transpose()?
            && http != old_service.is_some()
        {
            let message = format!(
                "The type of a function cannot be changed: `{name}` has Type {}. Create another function.",
                type_name(old_service.as_ref())
            );
            return Err(ApiError::new("InvalidParameterValue.Type", message));
        }
        service.update(old_service)?;
        if let Some(runtime) = filled(&self.runtime)
            && !runtime.eq_ignore_ascii_case(&entry.state.record.latest.runtime_name)
        {
            let message = format!(
                "The runtime of a function cannot be changed: `{name}` has {}, not `{}`. Create another function.",
                entry.state.record.latest.runtime_name,
                clip(runtime)
            );
            return Err(ApiError::new("InvalidParameterValue.Runtime", message));
        }
        let layers = self.layers.map(|layers| config::layers(catalogue, layers)).transpose()?;
        let _layers = catalogue.protect(layers.iter().flatten().map(|l| l.code.digest));
        let dead_letter = targets::dead_letter(cx, self.dead_letter_config).await?;
        let told = match filled(&self.install_dependency) {
            Some(_) => Some(switch(&self.install_dependency, "InstallDependency")?),
            None => None,
        };
        change_latest(cx, &namespace, &name, and_publish, Change::Settings, dead_letter, |latest| {
            set_install(latest, told);
            set(&mut latest.description, description);
            set(&mut latest.memory_mb, memory_mb);
            set(&mut latest.timeout_s, timeout_s);
            set(&mut latest.init_timeout_s, init_timeout_s);
            set(&mut latest.environment, environment);
            set(&mut latest.public_net, public_net);
            set(&mut latest.fork, fork);
            set(&mut latest.layers, layers);
            latest.service = service.update(latest.service)?;
            if let Some(role) = role {
                latest.set_role(role);
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Run for DeleteFunction {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let namespace = namespace(&self.namespace)?;
        let name = function_name(&self.function_name)?;
        if let Some(qualifier) = filled(&self.qualifier) {
            let Ok(Qualifier::Version(number)) = Qualifier::parse(qualifier) else {
                let message = format!(
                    "`Qualifier` is `{}`; only the number of a published version can be deleted. Leave it out to delete the function.",
                    clip(qualifier)
                );
                return Err(ApiError::new("InvalidParameterValue.Qualifier", message));
            };
            let missing = "ResourceNotFound.Qualifier";
            return super::versions::delete(cx, &namespace, &name, number, false, missing).await;
        }
        let decide = |state: &FunctionState| Ok(Next { state: None, force: false, result: state.record.id.clone() });
        let id = cx.control.catalogue.change_existing(&namespace, &name, decide).await?;
        cx.control.installs.forget(&id);
        super::api_triggers::forget(cx, namespace.as_str(), name.as_str()).await?;
        Ok(Answer::new())
    }
}

#[async_trait]
impl Run for CopyFunction {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let catalogue = &cx.control.catalogue;
        let source_namespace = namespace(&self.namespace)?;
        let source_name = function_name(&self.function_name)?;
        let target_namespace = namespace(&self.target_namespace)?;
        let name = named_function("NewFunctionName", &self.new_function_name)?;
        let description = description(self.description)?;
        if let Some(region) = filled(&self.target_region)
            && region != cx.region
            && region != cx.control.options.region
        {
            let message =
                format!("Functions cannot be copied to region `{}`: this platform is one region.", clip(region));
            return Err(ApiError::new("UnsupportedOperation.Region", message));
        }
        let source = existing(catalogue, &source_namespace, &source_name)?;
        source.state.check_serving()?;
        let source = &source.state.record;
        let _code = catalogue.protect(digests_of(&source.latest));
        let mut latest = source.latest.clone();
        let whole = self.copy_configuration.unwrap_or(true);
        if !whole {
            let runtime = config::runtime(&Some(latest.runtime_name))?;
            let service = latest.service.map(|_| ServiceConfig::default());
            latest = config::defaults(runtime, latest.handler, latest.description, latest.code, cx.now_ms);
            latest.service = service;
        }
        set(&mut latest.description, description);
        latest.revision = 1;
        latest.mod_time_ms = cx.now_ms;
        let id = catalogue.new_function_id();
        let tags = source.tags.clone();
        let overwrite = self.override_target.unwrap_or(false);
        let max = cx.control.options.functions_per_namespace_max;
        catalogue
            .change_function(&target_namespace, &name, max, |old| match old {
                Some(_) if !overwrite => Err(ApiError::new(
                    "ResourceInUse.FunctionName",
                    format!("Function `{name}` exists already in namespace `{target_namespace}`; set `Override` to replace it."),
                )),
                Some(old) if old.record.latest.runtime != latest.runtime => Err(ApiError::new(
                    "FailedOperation.CopyFunction",
                    format!("Function `{name}` has another runtime, which cannot be changed."),
                )),
                Some(old) if old.record.latest.service.is_some() != latest.service.is_some() => Err(ApiError::new(
                    "FailedOperation.CopyFunction",
                    format!("Function `{name}` has another type, which cannot be changed."),
                )),
                Some(old) => {
                    old.check_idle()?;
                    let mut next = with_latest(old, latest, cx.now_ms);
                    Arc::make_mut(&mut next.record).install = None;
                    Ok(Next::state(next, ()))
                }
                None => {
                    let mut state = new_function(id, target_namespace.clone(), name.clone(), latest, tags, cx.now_ms);
                    let record = Arc::make_mut(&mut state.record);
                    record.targets.dead_letter = source.targets.dead_letter.clone().filter(|_| whole);
                    Ok(Next::state(state, ()))
                }
            })
            .await?;
        Ok(Answer::new())
    }
}
