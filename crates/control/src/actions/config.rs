//! The settings of a version: rules for each, and their making from requests.

use super::common::{filled, limited};
use crate::api::requests::{Environment, LayerVersionSimple, PublicNetConfigIn, Tag};
use crate::catalogue::{Catalogue, clip};
use mayfly_model::runtime::{HandlerForm, RuntimeName, find_runtime};
use mayfly_model::{ApiError, CodeRef, ForkMode, LayerBinding, LayerName, RuntimeId, VersionConfig, limits};
use std::collections::HashSet;

/// Beginnings of variable names that belong to the platform.
const RESERVED_PREFIXES: [&str; 3] = ["SCF_", "QCLOUD_", "TENCENTCLOUD_"];
/// Longest handler, in characters: two parts of 60 and the dot, with room for a path.
const HANDLER_CHARS_MAX: usize = 240;
/// Most tags of a resource.
const TAGS_MAX: usize = 50;
/// Longest `Role`. Source: CAM, names of roles.
const ROLE_CHARS_MAX: usize = 128;

/// `MemorySize`. Errors: `LimitExceeded.Memory`, `InvalidParameterValue.MemorySize`.
pub fn memory_mb(mb: i64) -> Result<u32, ApiError> {
    let max = i64::from(limits::MEMORY_MB_MAX);
    if mb > max {
        return Err(ApiError::new("LimitExceeded.Memory", format!("`MemorySize` is {mb} MB; the limit is {max} MB.")));
    }
    match u32::try_from(mb) {
        Ok(mb) if limits::memory_mb_is_valid(mb) => Ok(mb),
        _ => Err(ApiError::new(
            "InvalidParameterValue.MemorySize",
            format!("`MemorySize` is {mb}; it is 64, or 128 to {max} in steps of 128 (MB)."),
        )),
    }
}

/// `Timeout`. Errors: `LimitExceeded.Timeout`, `InvalidParameterValue`.
pub fn timeout_s(s: i64, async_run: bool) -> Result<u32, ApiError> {
    let max = if async_run { limits::TIMEOUT_ASYNC_S_MAX } else { limits::TIMEOUT_S_MAX };
    seconds(s, "Timeout", "LimitExceeded.Timeout", max)
}

/// `InitTimeout`. Errors: `LimitExceeded.InitTimeout`, `InvalidParameterValue`.
pub fn init_timeout_s(s: i64) -> Result<u32, ApiError> {
    seconds(s, "InitTimeout", "LimitExceeded.InitTimeout", limits::INIT_TIMEOUT_S_MAX)
}

fn seconds(s: i64, field: &str, over: &'static str, max: u32) -> Result<u32, ApiError> {
    match u32::try_from(s) {
        Ok(s) if (1..=max).contains(&s) => Ok(s),
        _ if s > i64::from(max) => {
            Err(ApiError::new(over, format!("`{field}` is {s} seconds; the limit is {max} seconds.")))
        }
        _ => Err(ApiError::invalid(format!("`{field}` is {s}; it is a number of seconds from 1 to {max}."))),
    }
}

/// `Runtime`. Errors: `MissingParameter.Runtime`, `InvalidParameterValue.Runtime` (unknown, or known and not served, saying why).
pub fn runtime(text: &Option<String>) -> Result<(&'static RuntimeName, RuntimeId), ApiError> {
    let Some(text) = filled(text) else {
        let message =
            "No `Runtime` was given. SCF's default, Python2.7, is not supported here: name one, such as Python3.10.";
        return Err(ApiError::new("MissingParameter.Runtime", message));
    };
    let invalid = |message| Err(ApiError::new("InvalidParameterValue.Runtime", message));
    match find_runtime(text) {
        None => invalid(format!("There is no runtime `{}`.", clip(text))),
        Some(RuntimeName { name, family: Err(why) }) => {
            invalid(format!("Runtime `{name}` is not supported here: {why}."))
        }
        Some(runtime @ RuntimeName { family: Ok(id), .. }) => Ok((runtime, *id)),
    }
}

/// `Handler` for a runtime; `None` for HTTP services, which need none. Errors: `MissingParameter`, `InvalidParameterValue.Handler`.
pub fn handler(text: Option<String>, runtime: Option<RuntimeId>) -> Result<String, ApiError> {
    let text = limited(text, "Handler", "InvalidParameterValue.Handler", HANDLER_CHARS_MAX)?.unwrap_or_default();
    let form = runtime.map_or(HandlerForm::Any, RuntimeId::handler_form);
    if form == HandlerForm::Any {
        return Ok(text);
    }
    if text.is_empty() {
        return Err(ApiError::missing("Handler"));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$');
    let name = |n: &str| !n.is_empty() && n.bytes().all(word);
    let part = |p: &str| !p.is_empty() && !matches!(p, "." | "..") && p.bytes().all(|b| word(b) || b == b'.');
    let path = |p: &str| p.split('/').all(part);
    let (good, what) = match form {
        HandlerForm::Any => (true, ""),
        HandlerForm::Function => (
            text.rsplit_once('.').is_some_and(|(file, function)| path(file) && name(function)),
            "a file of the package and a function in it, such as `index.main_handler`",
        ),
        HandlerForm::Program => (path(&text), "a program in the package, such as `main`"),
        HandlerForm::Method => (
            text.split_once("::").is_some_and(|(class, method)| class.split('.').all(name) && name(method)),
            "a class and a method of it, such as `example.Hello::mainHandler`",
        ),
    };
    if !good {
        let message = format!("`Handler` is `{}`; it names {what}.", clip(&text));
        return Err(ApiError::new("InvalidParameterValue.Handler", message));
    }
    Ok(text)
}

/// `Environment`. Errors: `InvalidParameterValue.{Environment, EnvironmentSystemProtect, EnvironmentExceededLimit}`.
pub fn environment(environment: Environment) -> Result<Vec<(String, String)>, ApiError> {
    let error = |code, message| Err(ApiError::new(code, message));
    let variables = environment.variables.unwrap_or_default();
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for variable in &variables {
        let key = variable.key.as_str();
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !(2..=64).contains(&key.len()) || !plain || !key.as_bytes()[0].is_ascii_alphabetic() {
            let message = format!(
                "The environment variable `{}` is not a valid name: 2–64 of letters, digits and `_`, a letter first.",
                clip(key)
            );
            return error("InvalidParameterValue.Environment", message);
        }
        if let Some(prefix) = RESERVED_PREFIXES.iter().find(|prefix| key.starts_with(**prefix)) {
            let message = format!("The environment variable `{key}` is reserved: names do not start with `{prefix}`.");
            return error("InvalidParameterValue.EnvironmentSystemProtect", message);
        }
        if variable.value.contains('\0') {
            let message = format!("The value of the environment variable `{key}` contains a NUL character.");
            return error("InvalidParameterValue.Environment", message);
        }
        if !seen.insert(key) {
            let message = format!("The environment variable `{key}` is given twice.");
            return error("InvalidParameterValue.Environment", message);
        }
        bytes += key.len() + variable.value.len();
    }
    if bytes > limits::ENVIRONMENT_BYTES_MAX {
        let max = limits::ENVIRONMENT_BYTES_MAX;
        let message = format!("The environment variables have {bytes} bytes together; the limit is {max}.");
        return error("InvalidParameterValue.EnvironmentExceededLimit", message);
    }
    Ok(variables.into_iter().map(|v| (v.key, v.value)).collect())
}

/// `PublicNetConfig`: whether the code may open connections to outside. Errors: `InvalidParameterValue.PublicNetConfig`.
pub fn public_net(config: PublicNetConfigIn) -> Result<bool, ApiError> {
    match filled(&config.public_net_status) {
        None => Ok(true),
        Some(t) if t.eq_ignore_ascii_case("enable") => Ok(true),
        Some(t) if t.eq_ignore_ascii_case("disable") => Ok(false),
        Some(other) => Err(ApiError::new(
            "InvalidParameterValue.PublicNetConfig",
            format!("`PublicNetConfig.PublicNetStatus` is `{}`; it is ENABLE or DISABLE.", clip(other)),
        )),
    }
}

/// `ForkMode`, Mayfly's own. Errors: `InvalidParameterValue`.
pub fn fork_mode(text: &str) -> Result<ForkMode, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "auto" => Ok(ForkMode::Auto),
        "off" => Ok(ForkMode::Off),
        _ => Err(ApiError::invalid(format!("`ForkMode` is `{}`; it is `auto` or `off`.", clip(text)))),
    }
}

/// `Tags`. Errors: `InvalidParameterValue`.
pub fn tags(tags: Option<Vec<Tag>>) -> Result<Vec<(String, String)>, ApiError> {
    let tags = tags.unwrap_or_default();
    if tags.len() > TAGS_MAX {
        return Err(ApiError::invalid(format!("`Tags` has {} tags; the limit is {TAGS_MAX}.", tags.len())));
    }
    let mut seen = HashSet::new();
    for tag in &tags {
        if tag.key.is_empty() || tag.key.chars().count() > 127 || tag.value.chars().count() > 255 {
            let message = "A tag has a key of 1 to 127 characters and a value of at most 255.";
            return Err(ApiError::invalid(message));
        }
        if !seen.insert(tag.key.as_str()) {
            return Err(ApiError::invalid(format!("The tag `{}` is given twice.", clip(&tag.key))));
        }
    }
    Ok(tags.into_iter().map(|t| (t.key, t.value)).collect())
}

/// `Layers`, bound to the content they have now. Errors: `InvalidParameterValue.Layers`, `ResourceNotFound.Layer`.
pub fn layers(catalogue: &Catalogue, wanted: Vec<LayerVersionSimple>) -> Result<Vec<LayerBinding>, ApiError> {
    let max = limits::LAYERS_PER_VERSION_MAX;
    if wanted.len() > max {
        let message = format!("`Layers` names {} layers; the limit is {max}.", wanted.len());
        return Err(ApiError::new("InvalidParameterValue.Layers", message));
    }
    let known = catalogue.layers();
    let mut bound: Vec<LayerBinding> = Vec::with_capacity(wanted.len());
    for LayerVersionSimple { layer_name, layer_version } in wanted {
        let missing = || {
            let message = format!("Layer `{}` has no version {layer_version}.", clip(&layer_name));
            ApiError::new("ResourceNotFound.Layer", message)
        };
        let name = LayerName::parse(&layer_name).map_err(|_| missing())?;
        let number = u32::try_from(layer_version).map_err(|_| missing())?;
        let record = known.get(&name).and_then(|layer| layer.versions.get(&number)).ok_or_else(missing)?;
        if bound.iter().any(|b| b.name == name) {
            let message = format!("`Layers` names the layer `{name}` twice.");
            return Err(ApiError::new("InvalidParameterValue.Layers", message));
        }
        bound.push(LayerBinding { name, version: number, code: record.code });
    }
    Ok(bound)
}

/// Code and layers together must fit into an instance. Errors: `InvalidParameterValue.Code`.
pub fn check_size(code: &CodeRef, layers: &[LayerBinding]) -> Result<(), ApiError> {
    let bytes = layers.iter().fold(code.unpacked_bytes, |sum, l| sum.saturating_add(l.code.unpacked_bytes));
    if bytes > limits::PACKAGE_UNPACKED_BYTES_MAX {
        let message = format!(
            "Code and layers have {} MB when they are unpacked; the limit is {} MB.",
            bytes.div_ceil(1 << 20),
            limits::PACKAGE_UNPACKED_BYTES_MAX >> 20
        );
        return Err(ApiError::new("InvalidParameterValue.Code", message));
    }
    Ok(())
}

/// The settings of a function of which only code, runtime and handler are given.
pub fn defaults(
    runtime: (&RuntimeName, RuntimeId),
    handler: String,
    description: String,
    code: CodeRef,
    now_ms: u64,
) -> VersionConfig {
    VersionConfig {
        runtime_name: runtime.0.name.to_owned(),
        runtime: runtime.1,
        handler,
        description,
        memory_mb: limits::MEMORY_MB_DEFAULT,
        timeout_s: limits::TIMEOUT_S_DEFAULT,
        init_timeout_s: limits::INIT_TIMEOUT_S_DEFAULT,
        environment: Vec::new(),
        code,
        layers: Vec::new(),
        public_net: true,
        fork: ForkMode::Auto,
        service: None,
        async_run: false,
        mod_time_ms: now_ms,
        revision: 1,
        source: None,
        shown_only: serde_json::Map::new(),
    }
}

/// True when an instance of one of these settings could not serve the other: only then does the revision grow.
pub fn matters_to_instances(a: &VersionConfig, b: &VersionConfig) -> bool {
    (a.runtime, a.memory_mb, a.timeout_s, a.init_timeout_s, a.public_net, a.fork)
        != (b.runtime, b.memory_mb, b.timeout_s, b.init_timeout_s, b.public_net, b.fork)
        || a.code.digest != b.code.digest
        || a.runtime_name != b.runtime_name
        || a.handler != b.handler
        || a.environment != b.environment
        || a.layers != b.layers
        || a.service != b.service
        || a.role() != b.role()
}

/// `Role`. Errors: `InvalidParameterValue`.
pub fn role(text: String) -> Result<String, ApiError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    if text.len() > ROLE_CHARS_MAX || !text.bytes().all(good) {
        let message = format!(
            "`Role` is `{}`; it is the name of a role: at most {ROLE_CHARS_MAX} letters, digits and `+=,.@_-`.",
            clip(&text)
        );
        return Err(ApiError::invalid(message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::requests::Variable;

    #[test]
    fn numbers_have_their_limits() {
        assert_eq!(memory_mb(64).unwrap(), 64);
        assert_eq!(memory_mb(3072).unwrap(), 3072);
        for bad in [0, -128, 65, 127, 200] {
            assert_eq!(memory_mb(bad).unwrap_err().code, "InvalidParameterValue.MemorySize", "{bad}");
        }
        assert_eq!(memory_mb(3200).unwrap_err().code, "LimitExceeded.Memory");
        assert_eq!(timeout_s(900, false).unwrap(), 900);
        assert_eq!(timeout_s(901, false).unwrap_err().code, "LimitExceeded.Timeout");
        assert_eq!(timeout_s(0, false).unwrap_err().code, "InvalidParameterValue");
        assert_eq!(timeout_s(i64::MAX, false).unwrap_err().code, "LimitExceeded.Timeout");
        assert_eq!(init_timeout_s(301).unwrap_err().code, "LimitExceeded.InitTimeout");
    }

    #[test]
    fn handlers_name_a_file_and_a_function() {
        for good in ["index.main_handler", "app.handler", "src/app.handler", "a.b.c", "dist/main.lambda-x", "x.$y"] {
            assert_eq!(handler(Some(good.into()), Some(RuntimeId::Python)).unwrap(), good);
        }
        for bad in ["index", ".main", "index.", "/index.main", "../index.main", "a//b.c", "a b.c", "a/../b.c", "é.x"] {
            let error = handler(Some(bad.into()), Some(RuntimeId::Node)).unwrap_err();
            assert_eq!(error.code, "InvalidParameterValue.Handler", "{bad}");
        }
        let refused = |text: &str, runtime| handler(Some(text.into()), Some(runtime)).unwrap_err().message;
        for good in ["main", "bin/main", "my-app.v2"] {
            assert_eq!(handler(Some(good.into()), Some(RuntimeId::Go)).unwrap(), good);
        }
        for bad in ["../main", "/bin/sh", "a b", "a//b", "."] {
            assert!(refused(bad, RuntimeId::Go).contains("such as `main`"), "{bad}");
        }
        assert!(handler(Some("example.Hello::mainHandler".into()), Some(RuntimeId::Java)).is_ok());
        for bad in ["example.Hello.mainHandler", "::x", "a..B::c", "A::", "A::b::c", "a/B::c"] {
            assert!(refused(bad, RuntimeId::Java).contains("Hello::mainHandler"), "{bad}");
        }
        assert_eq!(handler(None, Some(RuntimeId::Node)).unwrap_err().code, "MissingParameter");
        assert_eq!(handler(None, Some(RuntimeId::Custom)).unwrap(), "");
        assert_eq!(handler(None, None).unwrap(), "");
        assert!(handler(Some("x".repeat(300)), Some(RuntimeId::Custom)).is_err());
    }

    fn variables(pairs: &[(&str, &str)]) -> Environment {
        let variable = |(key, value): &(&str, &str)| Variable { key: (*key).into(), value: (*value).into() };
        Environment { variables: Some(pairs.iter().map(variable).collect()) }
    }

    #[test]
    fn environments_follow_the_rules() {
        let good =
            environment(variables(&[("AB", "1"), ("_A".trim_start_matches('_').repeat(2).as_str(), "")])).unwrap();
        assert_eq!(good, [("AB".to_owned(), "1".to_owned()), ("AA".to_owned(), String::new())]);
        for (pairs, code) in [
            (vec![("A", "1")], "InvalidParameterValue.Environment"),
            (vec![("1A", "1")], "InvalidParameterValue.Environment"),
            (vec![("", "1")], "InvalidParameterValue.Environment"),
            (vec![("A=B", "1")], "InvalidParameterValue.Environment"),
            (vec![("AB", "1"), ("AB", "2")], "InvalidParameterValue.Environment"),
            (vec![("AB", "a\0b")], "InvalidParameterValue.Environment"),
            (vec![("SCF_X", "1")], "InvalidParameterValue.EnvironmentSystemProtect"),
            (vec![("TENCENTCLOUD_SECRETID", "1")], "InvalidParameterValue.EnvironmentSystemProtect"),
        ] {
            assert_eq!(environment(variables(&pairs)).unwrap_err().code, code, "{pairs:?}");
        }
        let large = "x".repeat(4095);
        assert!(environment(variables(&[("AB", &large[..4094])])).is_ok());
        let error = environment(variables(&[("AB", &large)])).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue.EnvironmentExceededLimit");
    }

    #[test]
    fn runtimes_are_found_or_explained() {
        let (name, id) = runtime(&Some("python3.10".into())).unwrap();
        assert_eq!((name.name, id), ("Python3.10", RuntimeId::Python));
        assert_eq!(runtime(&None).unwrap_err().code, "MissingParameter.Runtime");
        let error = runtime(&Some("Php5.6".into())).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue.Runtime");
        assert!(error.message.contains("CustomRuntime"), "{error}");
        assert_eq!(runtime(&Some("Cobol".into())).unwrap_err().code, "InvalidParameterValue.Runtime");
    }
}
