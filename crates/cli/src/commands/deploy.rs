//! `mayfly deploy`: a folder becomes a function.

use super::progress::Bar;
use super::{Context, destinations, install, namespace_flag, quoted, service, url};
use crate::api::{
    Address, Code, CreateFunction, DeadLetter, Environment, Function, GetAlias, GetFunction, GetFunctionAddress,
    LayerRef, ListVersionByFunction, PublicNet, PublishVersion, UpdateFunctionCode, UpdateFunctionConfiguration,
    Variable,
};
use crate::client::Answer;
use crate::error::{CliError, Kind};
use crate::guess;
use crate::manifest::{self, Fork, FunctionType, Install, Manifest, UrlSettings};
use crate::output::{Output, bytes, files};
use crate::package::{IGNORE_FILE, Package, pack};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use mayfly_model::{FunctionName, RuntimeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a function may take to become active.
const ACTIVE_WITHIN: Duration = Duration::from_secs(120);
const ACTIVE_POLL: Duration = Duration::from_millis(200);

/// Create or update a function from a folder.
///
/// Settings come from flags, then from DIR/mayfly.yml, whose fields are: name, namespace, runtime, handler, memory (MB),
/// type (event or http), concurrency (requests at a time in an instance of type http), url (auth: none or signed; cors: origins, methods,
/// headers, exposeHeaders, credentials, maxAge), timeout and initTimeout (seconds), environment (a map), layers (a list of `name:version`), description, publicNet
/// (true or false), deadLetter (queue:NAME, topic:NAME or none), fork (auto or off), install (auto, always or never), publish (true or false) and exclude (patterns as in .gitignore). What neither
/// says keeps the value it has. Without a runtime or handler they are guessed from the files; with a file `scf_bootstrap`
/// the function is of type http.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The folder with the code
    pub dir: PathBuf,
    /// Name of the function [default: the folder's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Its namespace [default: default]
    #[arg(long, short = 'n')]
    pub namespace: Option<String>,
    /// Runtime: Python3, Nodejs, CustomRuntime or another name of SCF
    #[arg(long)]
    pub runtime: Option<String>,
    /// Handler: `file.function`
    #[arg(long)]
    pub handler: Option<String>,
    /// Event function, or server that answers HTTP requests
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub kind: Option<FunctionType>,
    /// Requests that an instance takes at a time, for type http (1 to 100) [default: 100]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u64>,
    /// Memory in MB: 64, or 128 to 3072 in steps of 128
    #[arg(long, value_name = "MB")]
    pub memory: Option<u64>,
    /// Longest run, in seconds (1 to 900)
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Longest initialisation, in seconds (1 to 300)
    #[arg(long, value_name = "SECONDS")]
    pub init_timeout: Option<u64>,
    /// Set an environment variable besides those there are; may be repeated
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// Layer to put at /opt, in place of those there are; may be repeated, later ones win
    #[arg(long = "layer", value_name = "NAME:VERSION")]
    pub layers: Vec<String>,
    /// Publish a version, unless the newest one is the same
    #[arg(long)]
    pub publish: bool,
    /// Where dead letters of asynchronous events go: queue:NAME, topic:NAME or none
    #[arg(long, value_name = "WHERE")]
    pub dead_letter: Option<String>,
    /// What the function is, or with --publish what is new
    #[arg(long)]
    pub description: Option<String>,
    /// Role whose temporary keys the code has, for buckets, queues and other functions; '' for none
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,
    /// Whether instances are forked from an initialised one
    #[arg(long, value_enum)]
    pub fork: Option<Fork>,
    /// Whether the platform installs what requirements.txt, package.json, composer.json or go.mod names; auto: when it is not in the package
    #[arg(long, value_enum)]
    pub install: Option<Install>,
}

/// What a function shall be. `None`: as it is, or the platform's default.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    name: String,
    namespace: String,
    runtime: Option<String>,
    handler: Option<String>,
    kind: Option<FunctionType>,
    concurrency: Option<u64>,
    url: Option<UrlSettings>,
    memory: Option<u64>,
    timeout: Option<u64>,
    init_timeout: Option<u64>,
    environment: Option<BTreeMap<String, String>>,
    more_environment: Vec<Variable>,
    layers: Option<Vec<LayerRef>>,
    dead_letter: Option<DeadLetter>,
    description: Option<String>,
    role: Option<String>,
    public_net: Option<bool>,
    fork: Option<Fork>,
    install: Install,
    publish: bool,
    exclude: Vec<String>,
}

impl Wanted {
    fn read(args: &DeployArgs) -> Result<(Self, Vec<String>), CliError> {
        if !args.dir.is_dir() {
            return Err(CliError::local(format!("{} is not a folder", args.dir.display()))
                .hint("give the folder with the function's code"));
        }
        let mut notes = Vec::new();
        let file = Manifest::read(&args.dir)?.unwrap_or_default();
        let name = match args.name.clone().or(file.name) {
            Some(name) => name,
            None => {
                let name = folder_name(&args.dir)?;
                notes.push(format!("name: {name} (the folder's)"));
                name
            }
        };
        FunctionName::parse(&name).map_err(|e| {
            CliError::local(format!("`{name}` cannot be a function's name: {e}"))
                .hint("give another with --name or `name` in mayfly.yml")
        })?;
        let layers = match args.layers.is_empty() {
            true => file.layers,
            false => Some(args.layers.clone()),
        };
        let dead_letter = args.dead_letter.clone().or(file.dead_letter);
        let dead_letter = dead_letter
            .map(|text| destinations::dead_letter(&text))
            .transpose()
            .map_err(|why| CliError::local(format!("the place of dead letters cannot be read: {why}")))?;
        let memory = args.memory.or(file.memory).map(manifest::check_memory).transpose()?;
        let wanted = Self {
            name,
            namespace: args.namespace.clone().or(file.namespace).unwrap_or_else(|| "default".into()),
            runtime: args.runtime.clone().or(file.runtime),
            handler: args.handler.clone().or(file.handler),
            kind: args.kind.or(file.kind),
            concurrency: args.concurrency.or(file.concurrency),
            url: file.url,
            memory,
            timeout: args.timeout.or(file.timeout),
            init_timeout: args.init_timeout.or(file.init_timeout),
            environment: file.environment,
            more_environment: args.variables.iter().map(|v| manifest::variable(v)).collect::<Result<_, _>>()?,
            layers: layers.map(|l| l.iter().map(|l| manifest::layer(l)).collect::<Result<_, _>>()).transpose()?,
            dead_letter,
            description: args.description.clone().or(file.description),
            role: args.role.clone().or(file.role),
            public_net: file.public_net,
            fork: args.fork.or(file.fork),
            install: args.install.or(file.install).unwrap_or_default(),
            publish: args.publish || file.publish.unwrap_or(false),
            exclude: file.exclude,
        };
        Ok((wanted, notes))
    }

    /// All variables that there shall be, given those that there are. `None`: no change is asked for.
    fn variables(&self, present: &[Variable]) -> Option<Environment> {
        let mut all = match (&self.environment, self.more_environment.is_empty()) {
            (Some(all), _) => all.clone(),
            (None, true) => return None,
            (None, false) => present.iter().map(|v| (v.key.clone(), v.value.clone())).collect(),
        };
        all.extend(self.more_environment.iter().map(|v| (v.key.clone(), v.value.clone())));
        Some(Environment { variables: all.into_iter().map(|(key, value)| Variable { key, value }).collect() })
    }

    fn create(&self, kind: FunctionType, guess: &guess::Guess, zip_file: String, installs: bool) -> CreateFunction {
        let http = kind == FunctionType::Http;
        let concurrency = self.concurrency.unwrap_or(service::CONCURRENCY_DEFAULT);
        CreateFunction {
            kind: http.then(|| "HTTP".into()),
            instance_concurrency_config: http.then(|| service::concurrency(concurrency)),
            function_name: self.name.clone(),
            namespace: self.namespace.clone(),
            runtime: guess.runtime.clone(),
            handler: guess.handler.clone(),
            code: Code { zip_file },
            description: self.description.clone(),
            role: self.role.clone(),
            memory_size: self.memory,
            timeout: self.timeout,
            init_timeout: self.init_timeout,
            environment: self.variables(&[]),
            layers: self.layers.clone(),
            public_net_config: self.public_net.map(public_net),
            fork_mode: self.fork.map(|f| f.as_str().into()),
            install_dependency: install::field(installs, None),
            dead_letter_config: self.dead_letter.clone(),
        }
    }

    /// The settings that differ from those of `now`, and their names on the wire.
    fn changes(&self, now: &Function) -> (UpdateFunctionConfiguration, Vec<&'static str>) {
        fn differing<T: PartialEq>(wanted: Option<T>, now: &T) -> Option<T> {
            wanted.filter(|w| w != now)
        }
        let mut names = Vec::new();
        let mut named = |name, given: bool| {
            if given {
                names.push(name);
            }
        };
        let update = UpdateFunctionConfiguration {
            function_name: self.name.clone(),
            namespace: self.namespace.clone(),
            // With --publish a description is about the version.
            description: differing(self.description.clone().filter(|_| !self.publish), &now.description),
            role: differing(self.role.clone(), &now.role),
            memory_size: differing(self.memory, &now.memory_size),
            timeout: differing(self.timeout, &now.timeout),
            init_timeout: differing(self.init_timeout, &now.init_timeout),
            environment: self
                .variables(&now.environment.variables)
                .filter(|e| by_key(&e.variables) != by_key(&now.environment.variables)),
            layers: differing(self.layers.clone(), &now.layers),
            public_net_config: self.public_net.filter(|on| *on != is_public(now)).map(public_net),
            fork_mode: self.fork.map(|f| f.as_str().to_owned()).filter(|f| f != fork_of(now)),
            instance_concurrency_config: self
                .concurrency
                .filter(|n| *n != now.instance_concurrency_config.max_concurrency.max(1))
                .map(service::concurrency),
            dead_letter_config: differing(self.dead_letter.clone(), &now.dead_letter_config),
        };
        named("Description", update.description.is_some());
        named("Role", update.role.is_some());
        named("MemorySize", update.memory_size.is_some());
        named("Timeout", update.timeout.is_some());
        named("InitTimeout", update.init_timeout.is_some());
        named("Environment", update.environment.is_some());
        named("Layers", update.layers.is_some());
        named("PublicNetConfig", update.public_net_config.is_some());
        named("ForkMode", update.fork_mode.is_some());
        named("InstanceConcurrencyConfig", update.instance_concurrency_config.is_some());
        named("DeadLetterConfig", update.dead_letter_config.is_some());
        (update, names)
    }
}

fn by_key(variables: &[Variable]) -> BTreeMap<&str, &str> {
    variables.iter().map(|v| (v.key.as_str(), v.value.as_str())).collect()
}

fn public_net(on: bool) -> PublicNet {
    PublicNet { public_net_status: if on { "ENABLE" } else { "DISABLE" }.into() }
}

fn is_public(function: &Function) -> bool {
    !function.public_net_config.public_net_status.eq_ignore_ascii_case("DISABLE")
}

fn fork_of(function: &Function) -> &str {
    if function.fork_mode.is_empty() { "auto" } else { &function.fork_mode }
}

/// True when two versions would do the same: their code is compared by whoever asks.
pub fn same_settings(a: &Function, b: &Function) -> bool {
    let numbers = |f: &Function| (f.memory_size, f.timeout, f.init_timeout);
    numbers(a) == numbers(b)
        && (&a.handler, &a.runtime, &a.layers, &a.role) == (&b.handler, &b.runtime, &b.layers, &b.role)
        && by_key(&a.environment.variables) == by_key(&b.environment.variables)
        && (is_public(a), fork_of(a)) == (is_public(b), fork_of(b))
        && a.instance_concurrency_config.max_concurrency == b.instance_concurrency_config.max_concurrency
}

fn folder_name(dir: &Path) -> Result<String, CliError> {
    let full =
        std::fs::canonicalize(dir).map_err(|e| CliError::local(format!("cannot open {}: {e}", dir.display())))?;
    let name = full.file_name().and_then(|n| n.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        CliError::local(format!("{} has no name to call the function by", dir.display())).hint("give --name")
    })
}

/// Runs the command.
pub fn run(
    args: &DeployArgs,
    out: Output,
    context: impl FnOnce() -> Result<Context, CliError>,
) -> Result<(), CliError> {
    let (wanted, notes) = Wanted::read(args)?;
    for note in notes {
        out.note(note);
    }
    let package = pack(&args.dir, &wanted.exclude)?;
    let context = context()?;
    let get = GetFunction { function_name: wanted.name.clone(), namespace: wanted.namespace.clone(), qualifier: None };
    // A namespace that is not there is told apart: creating the function says so.
    let present = context.client.find(&get, "ResourceNotFound")?.map(|a| a.body);
    let (kind, why) = service::type_of(&args.dir, wanted.kind, wanted.handler.as_deref(), present.as_ref())?;
    if let Some(why) = why {
        out.note(why);
    }
    service::check_concurrency(wanted.concurrency, kind)?;
    let guess = match kind {
        FunctionType::Http => {
            let guess = service::complete(wanted.runtime.as_deref(), wanted.handler.as_deref(), present.as_ref());
            guess::family_of(&guess.runtime)?;
            guess
        }
        FunctionType::Event => complete(&args.dir, &wanted, present.as_ref())
            .map_err(|error| service::explain(&args.dir, present.as_ref(), error))?,
    };
    if !guess.why.is_empty() {
        let handler = if guess.handler.is_empty() { String::new() } else { format!(", handler {}", guess.handler) };
        out.note(format_args!("runtime {}{handler} ({})", guess.runtime, guess.why));
    }
    let family = guess::family_of(&guess.runtime)?;
    let manifest = install::decide(wanted.install, family, &guess.handler, &package.paths, &args.dir)?;
    let installs = manifest.is_some();
    match kind {
        FunctionType::Http => service::check_files(&package, &args.dir, out)?,
        FunctionType::Event => check_files(&package, &guess, &args.dir, installs, out)?,
    }
    let mut deployed = match &present {
        None => create(&context, &wanted, kind, &guess, &package, installs)?,
        Some(present) => update(&context, &wanted, &guess, &package, present, installs)?,
    };
    let mut function = wait_active(&context, &get)?;
    if let Some(settings) = &wanted.url
        && url::apply(&context, settings, &function.body)?
    {
        deployed.changes.push("Url");
        if present.is_some() {
            deployed.action = "updated";
        }
        function = wait_active(&context, &get)?;
    }
    let published = match wanted.publish {
        true => publish(&context, &wanted, &package, &function.body)?,
        false => None,
    };
    show(&context, &deployed, &package, &function, published.as_ref());
    warn_default(&context, &wanted)
}

/// Runtime and handler: as wanted; else as they are, for a function that exists; else guessed.
fn complete(dir: &Path, wanted: &Wanted, present: Option<&Function>) -> Result<guess::Guess, CliError> {
    let (runtime, handler) = (wanted.runtime.as_deref(), wanted.handler.as_deref());
    let Some(present) = present.filter(|p| runtime.is_none() && guess::family_of(&p.runtime).is_ok()) else {
        return guess::complete(dir, runtime, handler);
    };
    let family = guess::family_of(&present.runtime)?;
    let kept = Some(present.handler.as_str()).filter(|h| entry_files(family, h).iter().any(|f| dir.join(f).is_file()));
    match guess::complete(dir, Some(&present.runtime), handler.or(kept)) {
        Ok(guess) => Ok(guess),
        // The folder may have become something else altogether, which is better said than "no handler".
        Err(error) => guess::complete(dir, None, handler).map_err(|_| error),
    }
}

/// The files of which one must be in the package.
fn entry_files(family: RuntimeId, handler: &str) -> Vec<String> {
    let file = handler.rsplit_once('.').map_or(handler, |(file, _)| file);
    match family {
        RuntimeId::Custom => vec!["bootstrap".to_owned()],
        RuntimeId::Python => vec![format!("{file}.py")],
        // A class is in the package as it is, or in any jar of it.
        RuntimeId::Java => Vec::new(),
        RuntimeId::Go => vec![handler.to_owned()],
        RuntimeId::Php => vec![format!("{file}.php")],
        RuntimeId::Node => guess::NODE_ENDINGS.iter().map(|ending| format!("{file}{ending}")).collect(),
    }
}

/// What was done.
struct Deployed {
    action: &'static str,
    changes: Vec<&'static str>,
    installed: Option<install::Done>,
}

/// The SHA-256 of the package as it was sent.
fn sent(address: &Address) -> &str {
    if address.source_sha256.is_empty() { &address.code_sha256 } else { &address.source_sha256 }
}

fn get_of(wanted: &Wanted) -> GetFunction {
    GetFunction { function_name: wanted.name.clone(), namespace: wanted.namespace.clone(), qualifier: None }
}

fn create(
    context: &Context,
    wanted: &Wanted,
    kind: FunctionType,
    guess: &guess::Guess,
    package: &Package,
    installs: bool,
) -> Result<Deployed, CliError> {
    let request = wanted.create(kind, guess, BASE64_STANDARD.encode(&package.zip), installs);
    let bar = Bar::new(request.code.zip_file.len(), context.out);
    context.client.call_with_progress(&request, &mut |sent| bar.at(sent))?;
    drop(bar);
    let installed = if installs { install::follow(context, &get_of(wanted))? } else { None };
    Ok(Deployed { action: "created", changes: vec!["Code"], installed })
}

fn update(
    context: &Context,
    wanted: &Wanted,
    guess: &guess::Guess,
    package: &Package,
    present: &Function,
    installs: bool,
) -> Result<Deployed, CliError> {
    if !guess.runtime.eq_ignore_ascii_case(&present.runtime) {
        return Err(CliError::local(format!(
            "the function `{}` has the runtime {}, which cannot become {}",
            wanted.name, present.runtime, guess.runtime
        ))
        .hint(format!(
            "choose another name, or remove it first: mayfly rm {}{}",
            wanted.name,
            namespace_flag(&wanted.namespace)
        )));
    }
    let (function_name, namespace) = (wanted.name.clone(), wanted.namespace.clone());
    let address = context.client.call(&GetFunctionAddress {
        function_name: function_name.clone(),
        namespace: namespace.clone(),
        qualifier: None,
    })?;
    let mut changes = Vec::new();
    let install_dependency = install::field(installs, Some(present));
    let was = present.install_dependency == "TRUE";
    // After a failure the same code is sent again: what it needs may be there now.
    let new_code = sent(&address.body) != package.sha256 || installs != was || present.status.ends_with("Failed");
    let mut installed = None;
    let new_handler = !guess.handler.is_empty() && guess.handler != present.handler;
    if new_code {
        changes.push("Code");
    }
    if new_handler {
        changes.push("Handler");
    }
    if new_code || new_handler {
        // The handler changes together with the code, in one step, or requests in between would fail.
        let request = UpdateFunctionCode {
            function_name,
            namespace,
            zip_file: BASE64_STANDARD.encode(&package.zip),
            handler: new_handler.then(|| guess.handler.clone()),
            install_dependency,
        };
        let bar = Bar::new(request.zip_file.len(), context.out);
        context.client.call_with_progress(&request, &mut |sent| bar.at(sent))?;
        drop(bar);
        if installs {
            installed = install::follow(context, &get_of(wanted))?;
        }
    }
    let (request, names) = wanted.changes(present);
    if !names.is_empty() {
        if new_code || new_handler {
            wait_active(context, &get_of(wanted))?;
        }
        context.client.call(&request)?;
        changes.extend(names);
    }
    Ok(Deployed { action: if changes.is_empty() { "unchanged" } else { "updated" }, changes, installed })
}

fn wait_active(context: &Context, get: &GetFunction) -> Result<Answer<Function>, CliError> {
    let deadline = Instant::now() + ACTIVE_WITHIN;
    loop {
        let answer = context.client.call(get)?;
        let function = &answer.body;
        if matches!(function.status.as_str(), "Active" | "") {
            return Ok(answer);
        }
        if function.status.ends_with("Failed") {
            let why: Vec<_> =
                function.status_reasons.iter().map(|r| format!("{}: {}", r.error_code, r.error_message)).collect();
            let why = if why.is_empty() { function.status_desc.clone() } else { why.join("\n") };
            let code = function.status.clone();
            return Err(CliError::new(Kind::Api(code), format!("the function is in the state {}", function.status))
                .details(why)
                .hint(match function.status.as_str() {
                    "UpdateFailed" => {
                        "the code that was there before still serves; correct the package and deploy again"
                    }
                    _ => "correct the package and deploy again",
                }));
        }
        if Instant::now() >= deadline {
            let message =
                format!("the function is still {} after {} seconds", function.status, ACTIVE_WITHIN.as_secs());
            return Err(CliError::new(Kind::Api(function.status.clone()), message)
                .hint(format!("look again later: mayfly get {}", get.function_name)));
        }
        sleep(ACTIVE_POLL);
    }
}

/// Publishes a version unless the newest one is the same. Returns its number, and whether it is new.
fn publish(
    context: &Context,
    wanted: &Wanted,
    package: &Package,
    latest: &Function,
) -> Result<Option<(String, bool)>, CliError> {
    let (function_name, namespace) = (wanted.name.clone(), wanted.namespace.clone());
    let versions = context.client.call(&ListVersionByFunction {
        function_name: function_name.clone(),
        namespace: namespace.clone(),
        offset: 0,
        limit: 2,
    })?;
    // `$LATEST` is first, then the newest.
    if let Some(newest) = versions.body.versions.iter().map(|v| &v.version).find(|v| *v != "$LATEST") {
        let qualifier = Some(newest.clone());
        let get = GetFunction {
            function_name: function_name.clone(),
            namespace: namespace.clone(),
            qualifier: qualifier.clone(),
        };
        let address =
            GetFunctionAddress { function_name: function_name.clone(), namespace: namespace.clone(), qualifier };
        if sent(&context.client.call(&address)?.body) == package.sha256
            && same_settings(&context.client.call(&get)?.body, latest)
        {
            return Ok(Some((newest.clone(), false)));
        }
    }
    let answer =
        context.client.call(&PublishVersion { function_name, namespace, description: wanted.description.clone() })?;
    Ok(Some((answer.body.function_version, true)))
}

/// Says what would surely fail: an entry file that is not in the package, dependencies that are left out.
fn check_files(
    package: &Package,
    guess: &guess::Guess,
    dir: &Path,
    installs: bool,
    out: Output,
) -> Result<(), CliError> {
    let family = guess::family_of(&guess.runtime)?;
    install::check_program(family, &guess.handler, &package.paths, installs)?;
    let entries = entry_files(family, &guess.handler);
    if !entries.iter().any(|e| package.paths.contains(e))
        && let Some(entry) = entries.iter().find(|e| dir.join(e).is_file())
    {
        return Err(CliError::local(format!("{entry} is left out of the package by the ignore rules"))
            .hint(format!("bring it back with a line `!{entry}` in {IGNORE_FILE}")));
    }
    if package.left_out.is_empty() {
        return Ok(());
    }
    out.note(format_args!("left out by the ignore rules: {}", package.left_out.join(", ")));
    if family == RuntimeId::Node && !installs && package.left_out.iter().any(|n| n == "node_modules/") {
        out.warning(format_args!(
            "node_modules/ is not in the package; add a line `!node_modules/` to {IGNORE_FILE} unless a layer has it"
        ));
    }
    Ok(())
}

fn show(
    context: &Context,
    deployed: &Deployed,
    package: &Package,
    function: &Answer<Function>,
    published: Option<&(String, bool)>,
) {
    let (out, body) = (context.out, &function.body);
    if out.is_json() {
        let text = |t: &str| serde_json::Value::from(t).to_string();
        let changes: Vec<_> = deployed.changes.iter().map(|c| text(c)).collect();
        out.json(&format!(
            r#"{{"Action":{},"Changes":[{}],"CodeSha256":{},"Install":{},"PublishedVersion":{},"Url":{},"Function":{}}}"#,
            text(deployed.action),
            changes.join(","),
            text(&package.sha256),
            deployed.installed.map_or("null".into(), |i| {
                format!(r#"{{"Cached":{},"DurationMs":{}}}"#, i.cached, i.duration_ms)
            }),
            published.map_or("null".into(), |(version, _)| text(version)),
            text(&url::address(context, &body.namespace, &body.function_name, url::DEFAULT)),
            function.raw
        ));
        return;
    }
    let action = match deployed.action {
        "updated" => format!("updated ({})", deployed.changes.join(", ")),
        action => action.to_owned(),
    };
    let package_text = format!(
        "{}, {} ({} unpacked)",
        files(package.paths.len()),
        bytes(package.zip.len() as u64),
        bytes(package.unpacked_bytes)
    );
    let handler = if body.handler.is_empty() { String::new() } else { format!(", {}", body.handler) };
    let mut rows = vec![
        ["function".to_owned(), body.function_name.clone()],
        ["namespace".into(), body.namespace.clone()],
        ["action".into(), action],
        ["runtime".into(), format!("{}{handler}", body.runtime)],
        ["memory, timeout".into(), format!("{} MB, {} s", body.memory_size, body.timeout)],
        ["package".into(), package_text],
        ["status".into(), body.status.clone()],
    ];
    rows.extend(deployed.installed.map(|i| ["dependencies".to_owned(), i.text()]));
    rows.extend(url::summary(context, body, url::DEFAULT).map(|url| ["url".to_owned(), url]));
    if let Some((version, new)) = published {
        let text = if *new { version.clone() } else { format!("{version} (the same already)") };
        rows.push(["version".into(), text]);
    }
    out.table(&[], rows.into_iter().map(Vec::from).collect());
    if url::is_service(body) {
        if let Some(address) = url::summary(context, body, url::DEFAULT).filter(|url| url.ends_with('/')) {
            out.note(format_args!("\ntry: curl {address}"));
        }
        return;
    }
    out.note(format_args!(
        "\ntry: mayfly invoke {}{} -d '{{\"key\": \"value\"}}'",
        quoted(&body.function_name),
        namespace_flag(&body.namespace)
    ));
}

/// After a rollback, what is deployed is not what requests get. Nobody should have to find that out.
fn warn_default(context: &Context, wanted: &Wanted) -> Result<(), CliError> {
    let get =
        GetAlias { name: "$DEFAULT".into(), function_name: wanted.name.clone(), namespace: wanted.namespace.clone() };
    let Some(alias) = context.client.find(&get, "ResourceNotFound")? else { return Ok(()) };
    if !matches!(alias.body.function_version.as_str(), "$LATEST" | "") {
        let name = format!("{}{}", quoted(&wanted.name), namespace_flag(&wanted.namespace));
        context.out.warning(format_args!(
            "the alias $DEFAULT leads to version {}, not to what was deployed now; to change that: mayfly rollback {name} --to '$LATEST'",
            alias.body.function_version
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "deploy_tests.rs"]
mod tests;
