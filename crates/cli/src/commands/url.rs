//! `mayfly url`: where a function is reached over HTTP, and by whom.

use super::{Context, namespace_flag, quoted};
use crate::api::{CreateTrigger, DeleteTrigger, Function, GetFunction, Trigger, UpdateTrigger};
use crate::cli::InNamespace;
use crate::error::CliError;
use crate::manifest::{Auth, Cors, UrlSettings};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The trigger that this client makes; triggers of other names are changed where they are.
const TRIGGER: &str = "url";
/// The qualifier that a URL without one means.
pub const DEFAULT: &str = "$DEFAULT";

/// Show a function's URL, or change who may call it.
///
/// HTTP services are open to anybody, and event functions want signed requests, until --auth says something else.
#[derive(Debug, Args)]
pub struct UrlArgs {
    /// The function
    pub name: String,
    /// Version or alias, which has a URL of its own
    #[arg(long, value_name = "QUALIFIER", default_value = DEFAULT)]
    pub qualifier: String,
    /// Who may call: anybody, or who signs
    #[arg(long, value_enum)]
    pub auth: Option<Auth>,
    /// Let pages of this origin call, such as https://example.com, or '*' for all; may be repeated
    #[arg(long = "cors", value_name = "ORIGIN", conflicts_with = "no_cors")]
    pub origins: Vec<String>,
    /// Leave other origins to the function
    #[arg(long)]
    pub no_cors: bool,
    /// Answer 404 until --open
    #[arg(long, conflicts_with = "open")]
    pub close: bool,
    /// Answer again
    #[arg(long)]
    pub open: bool,
    /// Forget what was set: who may call is what it was in the beginning
    #[arg(long, conflicts_with_all = ["auth", "origins", "no_cors", "open", "close"])]
    pub reset: bool,
    #[command(flatten)]
    pub place: InNamespace,
}

/// `TriggerDesc` of an `http` trigger, as far as this client knows it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Desc {
    auth_type: String,
    cors_config: CorsDesc,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct CorsDesc {
    enable: bool,
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    expose_headers: Vec<String>,
    credentials: bool,
    max_age: u64,
}

impl CorsDesc {
    fn of(cors: &Cors) -> Self {
        Self {
            enable: true,
            origins: cors.origins.clone(),
            methods: cors.methods.iter().map(|m| m.to_ascii_uppercase()).collect(),
            headers: cors.headers.clone(),
            expose_headers: cors.expose_headers.clone(),
            credentials: cors.credentials,
            max_age: cors.max_age,
        }
    }
}

/// A URL as it is.
#[derive(Clone, Debug, PartialEq)]
struct State {
    trigger: Option<String>,
    open: bool,
    desc: Desc,
}

impl State {
    /// The URL of `qualifier`, by what GetFunction says of the function's triggers.
    fn of(function: &Function, qualifier: &str) -> Self {
        let urls = || function.triggers.iter().filter(|t| t.kind == "http");
        let read = |t: &Trigger| serde_json::from_str::<Desc>(&t.trigger_desc).unwrap_or_default();
        if let Some(trigger) = urls().find(|t| t.qualifier == qualifier) {
            return Self {
                trigger: Some(trigger.trigger_name.clone()),
                open: trigger.enable == 1,
                desc: read(trigger),
            };
        }
        // What holds without a trigger; see docs/http.md.
        let guarded = urls().any(|t| t.enable != 1 || read(t).auth_type != "NONE");
        let auth = if is_service(function) && !guarded { Auth::None } else { Auth::Signed };
        Self { trigger: None, open: true, desc: Desc { auth_type: auth.as_api().into(), ..Desc::default() } }
    }

    fn auth(&self) -> &'static str {
        if self.desc.auth_type == "NONE" { "none" } else { "signed" }
    }

    /// In brackets behind the URL.
    fn remark(&self) -> &'static str {
        match (self.open, self.auth()) {
            (false, _) => " (closed)",
            (true, "none") => "",
            (true, _) => " (signed requests only)",
        }
    }
}

/// True for HTTP services.
pub fn is_service(function: &Function) -> bool {
    function.kind.eq_ignore_ascii_case("http")
}

/// The URL of a function.
pub fn address(context: &Context, namespace: &str, function: &str, qualifier: &str) -> String {
    let at = if qualifier == DEFAULT { String::new() } else { format!("@{qualifier}") };
    format!("{}fn/{namespace}/{function}{at}/", context.client.url())
}

/// The URL of `qualifier` and a remark on who may use it, for those functions that are meant to be reached by it. `function` has the
/// triggers of all its qualifiers.
pub fn summary(context: &Context, function: &Function, qualifier: &str) -> Option<String> {
    let state = State::of(function, qualifier);
    let shown = is_service(function) || state.trigger.is_some();
    shown.then(|| {
        format!("{}{}", address(context, &function.namespace, &function.function_name, qualifier), state.remark())
    })
}

/// Brings the URL of `$DEFAULT` to what `wanted` says. Returns whether anything had to change.
///
/// # Errors
/// Those of the platform.
pub fn apply(context: &Context, wanted: &UrlSettings, function: &Function) -> Result<bool, CliError> {
    let state = State::of(function, DEFAULT);
    let mut desc = state.desc.clone();
    if let Some(auth) = wanted.auth {
        desc.auth_type = auth.as_api().into();
    }
    if let Some(cors) = &wanted.cors {
        desc.cors_config = CorsDesc::of(cors);
    }
    if desc == state.desc {
        return Ok(false);
    }
    put(context, function, DEFAULT, &state, &desc, None)?;
    Ok(true)
}

fn put(
    context: &Context,
    function: &Function,
    qualifier: &str,
    state: &State,
    desc: &Desc,
    open: Option<bool>,
) -> Result<(), CliError> {
    let text = json!({
        "AuthType": desc.auth_type,
        "NetConfig": {"EnableIntranet": true, "EnableExtranet": true},
        "CorsConfig": desc.cors_config,
    })
    .to_string();
    let (function_name, namespace) = (function.function_name.clone(), function.namespace.clone());
    let enable = open.map(|open| if open { "OPEN" } else { "CLOSE" }.to_owned());
    match &state.trigger {
        Some(name) => context
            .client
            .call(&UpdateTrigger {
                function_name,
                namespace,
                trigger_name: name.clone(),
                kind: "http".into(),
                qualifier: qualifier.into(),
                trigger_desc: text,
                enable,
            })
            .map(drop),
        None => {
            let taken = |name: &str| function.triggers.iter().any(|t| t.trigger_name == name);
            let name = match taken(TRIGGER) {
                false => TRIGGER.to_owned(),
                true => format!("{TRIGGER}-{}", qualifier.trim_start_matches('$').to_lowercase()),
            };
            context
                .client
                .call(&CreateTrigger {
                    function_name,
                    namespace,
                    trigger_name: name,
                    kind: "http".into(),
                    qualifier: qualifier.into(),
                    trigger_desc: text,
                    enable,
                    ..CreateTrigger::default()
                })
                .map(drop)
        }
    }
}

/// Shows or changes a URL.
pub fn run(args: &UrlArgs, context: &Context) -> Result<(), CliError> {
    let namespace = args.place.namespace.clone();
    // Without a qualifier, the triggers of all of them come back.
    let get = GetFunction { function_name: args.name.clone(), namespace: namespace.clone(), qualifier: None };
    let mut function = context.client.call(&get)?.body;
    if args.qualifier != DEFAULT {
        // An error here says that there is no such version or alias.
        context.client.call(&GetFunction { qualifier: Some(args.qualifier.clone()), ..get.clone() })?;
    }
    let mut state = State::of(&function, &args.qualifier);
    let open = (args.open || args.close).then_some(args.open);
    let mut desc = state.desc.clone();
    if let Some(auth) = args.auth {
        desc.auth_type = auth.as_api().into();
    }
    if args.no_cors {
        desc.cors_config = CorsDesc::default();
    } else if !args.origins.is_empty() {
        desc.cors_config = CorsDesc::of(&Cors { origins: args.origins.clone(), ..Cors::default() });
    }
    if args.reset {
        if let Some(trigger) = &state.trigger {
            context.client.call(&DeleteTrigger {
                function_name: args.name.clone(),
                namespace: namespace.clone(),
                trigger_name: trigger.clone(),
                kind: "http".into(),
                qualifier: args.qualifier.clone(),
                ..DeleteTrigger::default()
            })?;
        }
        function = context.client.call(&get)?.body;
        state = State::of(&function, &args.qualifier);
        desc = state.desc.clone();
    }
    let asked = args.auth.is_some() && state.trigger.is_none();
    if asked || desc != state.desc || open.is_some_and(|open| open != state.open) {
        put(context, &function, &args.qualifier, &state, &desc, open)?;
        function = context.client.call(&get)?.body;
        state = State::of(&function, &args.qualifier);
    }
    let url = address(context, &namespace, &args.name, &args.qualifier);
    let domains = super::domain::leading_to(context, &namespace, &args.name, &args.qualifier)?;
    let cors = Some(&state.desc.cors_config).filter(|c| c.enable);
    if context.out.is_json() {
        let shown = json!({"Url": url, "Auth": state.auth(), "Open": state.open, "Trigger": state.trigger, "Cors": cors, "Domains": domains});
        context.out.json(&shown.to_string());
        return Ok(());
    }
    context.out.line(&url);
    if !domains.is_empty() {
        context.out.note(format_args!("also at {}", domains.join(", ")));
    }
    if !state.open {
        context.out.note(format_args!("closed: it answers 404; open it again with --open"));
    } else if state.auth() == "signed" {
        context.out.note(format_args!(
            "only signed requests are let in; for anybody: mayfly url {}{}{} --auth none",
            quoted(&args.name),
            if args.qualifier == DEFAULT { String::new() } else { format!(" --qualifier {}", quoted(&args.qualifier)) },
            namespace_flag(&namespace)
        ));
    }
    if let Some(cors) = cors {
        context.out.note(format_args!("pages of these origins may call: {}", cors.origins.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(kind: &str, triggers: &[(&str, &str, u64)]) -> Function {
        let trigger = |(qualifier, auth, enable): &(&str, &str, u64)| Trigger {
            trigger_name: "t".into(),
            kind: "http".into(),
            trigger_desc: json!({"AuthType": auth, "NetConfig": {"EnableExtranet": true}}).to_string(),
            qualifier: (*qualifier).into(),
            enable: *enable,
            ..Trigger::default()
        };
        Function { kind: kind.into(), triggers: triggers.iter().map(trigger).collect(), ..Default::default() }
    }

    #[test]
    fn who_may_call_is_what_the_platform_says() {
        for (kind, triggers, remark) in [
            ("HTTP", vec![], ""),
            ("Event", vec![], " (signed requests only)"),
            ("", vec![], " (signed requests only)"),
            ("Event", vec![(DEFAULT, "NONE", 1)], ""),
            ("HTTP", vec![(DEFAULT, "CAM", 1)], " (signed requests only)"),
            ("HTTP", vec![(DEFAULT, "NONE", 0)], " (closed)"),
            ("HTTP", vec![("prod", "NONE", 1)], ""),
            ("HTTP", vec![("prod", "CAM", 1)], " (signed requests only)"),
            ("HTTP", vec![("prod", "NONE", 0)], " (signed requests only)"),
        ] {
            assert_eq!(State::of(&function(kind, &triggers), DEFAULT).remark(), remark, "{kind} {triggers:?}");
        }
    }

    #[test]
    fn cross_origin_settings_are_compared_as_they_come_back() {
        let cors = Cors { origins: vec!["https://a.example".into()], methods: vec!["get".into()], ..Cors::default() };
        let mut shown = function("HTTP", &[(DEFAULT, "NONE", 1)]);
        shown.triggers[0].trigger_desc = json!({
            "AuthType": "NONE",
            "NetConfig": {"EnableIntranet": true, "ExtranetUrl": "http://h/"},
            "CorsConfig": {"Enable": true, "Origins": ["https://a.example"], "Methods": ["GET"], "Headers": ["*"],
                "ExposeHeaders": [], "Credentials": false, "MaxAge": 0},
        })
        .to_string();
        assert_eq!(State::of(&shown, DEFAULT).desc.cors_config, CorsDesc::of(&cors));
    }
}
