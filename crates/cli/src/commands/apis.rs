//! `mayfly api`: services of the API gateway, their routes, and who may call them.

use super::api_keys::{KeyCommand, PlanCommand, keys, plans};
use super::{Context, quoted};
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// APIs of the gateway: routes, keys, tokens, limits, WebSockets.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ApiCommand,
}

const EXAMPLES: &str = "\
Examples:
  mayfly api add /users/{id} users --method GET --service shop
  mayfly api add /orders orders@prod --service shop --auth key
  mayfly api key add mobile
  mayfly api plan add gold --per-second 10 --service shop --key APID…
  mayfly api socket /chat --transport chat-message --register chat-in --cleanup chat-out --service shop
";

/// What can be done with APIs.
#[derive(Debug, Subcommand)]
pub enum ApiCommand {
    /// Let a function answer a path of a service, and release it
    #[command(after_help = EXAMPLES)]
    Add(AddArgs),
    /// Let three functions hold WebSockets through the gateway, and release it
    Socket(SocketArgs),
    /// Let a function give out tokens that other APIs are opened with (`add --auth token --issuer`)
    Issuer(IssuerArgs),
    /// List services, or the APIs of one
    Ls {
        /// The service, by name or id
        service: Option<String>,
    },
    /// Show an API with its addresses
    Show {
        /// Its id
        api: String,
    },
    /// Delete an API; with `--service`, what is left of a whole service
    Rm {
        /// The id of an API, or the name or id of a service
        target: String,
        /// It is a service: its releases and APIs go too
        #[arg(long)]
        service: bool,
    },
    /// Release a service's APIs as they are now
    Release {
        /// The service, by name or id
        service: String,
        /// The environment
        #[arg(long, value_name = "ENVIRONMENT", default_value = "release")]
        stage: String,
    },
    /// Limit the requests per second of a service or one of its APIs
    Limit {
        /// The service, by name or id
        service: String,
        /// Only this API
        #[arg(long, value_name = "ID")]
        api: Option<String>,
        /// Requests per second; -1: as many as come
        #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
        per_second: i64,
        /// The environment
        #[arg(long, value_name = "ENVIRONMENT", default_value = "release")]
        stage: String,
    },
    /// Key pairs of callers
    #[command(subcommand)]
    Key(KeyCommand),
    /// Usage plans: which keys may call what, and how often
    #[command(subcommand)]
    Plan(PlanCommand),
}

/// Where an API is.
#[derive(Debug, Args)]
pub struct Place {
    /// The service, by name or id; it is made when there is none of the name
    #[arg(long, value_name = "SERVICE", default_value = "default")]
    pub service: String,
    /// The environment that it is released in
    #[arg(long, value_name = "ENVIRONMENT", default_value = "release")]
    pub stage: String,
    /// How long an answer may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub timeout: u32,
    #[command(flatten)]
    pub namespace: InNamespace,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Anybody
    None,
    /// With a key of a usage plan
    Key,
    /// With a token of an issuer
    Token,
}

/// A new API.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The path, with {name} for a segment; it answers what is below it too, unless it begins with `=`
    pub path: String,
    /// The function, with @QUALIFIER for a version or alias
    #[arg(value_name = "FUNCTION[@QUALIFIER]")]
    pub function: String,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "ANY")]
    pub method: String,
    /// Who may call
    #[arg(long, value_enum, default_value_t = Auth::None)]
    pub auth: Auth,
    /// The API whose keys verify tokens, by id
    #[arg(long, value_name = "API", required_if_eq("auth", "token"))]
    pub issuer: Option<String>,
    /// The return value is the body, and not what says status, headers and body
    #[arg(long)]
    pub plain: bool,
    /// Browsers may ask from other origins
    #[arg(long)]
    pub cors: bool,
    #[command(flatten)]
    pub place: Place,
}

/// A new WebSocket.
#[derive(Debug, Args)]
pub struct SocketArgs {
    /// The path
    pub path: String,
    /// The function that gets each message
    #[arg(long, value_name = "FUNCTION[@QUALIFIER]")]
    pub transport: String,
    /// The function that decides who comes in [default: everybody does]
    #[arg(long, value_name = "FUNCTION[@QUALIFIER]")]
    pub register: Option<String>,
    /// The function that hears of each end
    #[arg(long, value_name = "FUNCTION[@QUALIFIER]")]
    pub cleanup: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

/// A new issuer.
#[derive(Debug, Args)]
pub struct IssuerArgs {
    /// The path at which the function gives out tokens
    pub path: String,
    /// The function, with @QUALIFIER for a version or alias
    #[arg(value_name = "FUNCTION[@QUALIFIER]")]
    pub function: String,
    /// A file with a JWK or a JWK set; a set may have `iss` and `aud` beside its keys
    #[arg(long, value_name = "FILE")]
    pub keys: PathBuf,
    /// Where tokens are: header, query or cookie, with :NAME for another name than the usual one
    #[arg(long, value_name = "PLACE", default_value = "header")]
    pub location: String,
    #[command(flatten)]
    pub place: Place,
}

/// All items of a list action.
pub(super) fn all(context: &Context, action: &str, parameters: Value, items: &str) -> Result<Vec<Value>, CliError> {
    super::pages(|offset, limit| {
        let mut parameters = parameters.clone();
        parameters["Offset"] = offset.into();
        parameters["Limit"] = limit.into();
        let mut answer = context.client.apigw(action, &parameters)?.body;
        let result = answer["Result"].take();
        let total = result["TotalCount"].as_u64().unwrap_or(0);
        Ok((result[items].as_array().cloned().unwrap_or_default(), total))
    })
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The service of a name or id. `None`: there is none.
fn find_service(context: &Context, wanted: &str) -> Result<Option<Value>, CliError> {
    let services = all(context, "DescribeServicesStatus", json!({}), "ServiceSet")?;
    let by_id = services.iter().find(|s| text(s, "ServiceId") == wanted);
    let mut named = services.iter().filter(|s| text(s, "ServiceName") == wanted);
    match (by_id, named.next(), named.next()) {
        (Some(service), ..) | (None, Some(service), None) => Ok(Some(service.clone())),
        (None, None, _) => Ok(None),
        (None, Some(_), Some(_)) => Err(CliError::local(format!("several services are called {}", quoted(wanted)))
            .hint("name one by its id; see them with: mayfly api ls")),
    }
}

pub(super) fn existing_service(context: &Context, wanted: &str) -> Result<Value, CliError> {
    find_service(context, wanted)?.ok_or_else(|| {
        CliError::local(format!("there is no service {}", quoted(wanted))).hint("see them with: mayfly api ls")
    })
}

fn service_id(context: &Context, wanted: &str) -> Result<String, CliError> {
    if let Some(found) = find_service(context, wanted)? {
        return Ok(text(&found, "ServiceId").to_owned());
    }
    if wanted.starts_with("service-") {
        return Err(
            CliError::local(format!("there is no service {}", quoted(wanted))).hint("see them with: mayfly api ls")
        );
    }
    let made = context.client.apigw("CreateService", &json!({ "ServiceName": wanted, "Protocol": "http&https" }))?;
    context.out.note(format_args!("made the service {wanted}"));
    Ok(text(&made.body, "ServiceId").to_owned())
}

/// The fields that name a function.
fn function(fields: &mut Map<String, Value>, kind: &str, named: &str, namespace: &str) {
    let (name, qualifier) = named.split_once('@').unwrap_or((named, "$DEFAULT"));
    for (field, value) in [("Name", name), ("Namespace", namespace), ("Qualifier", qualifier)] {
        fields.insert(format!("Service{kind}Function{field}"), value.into());
    }
}

/// True when a function is an HTTP function.
fn takes_http(context: &Context, named: &str, namespace: &str) -> Result<bool, CliError> {
    let name = named.split_once('@').map_or(named, |(name, _)| name).to_owned();
    let get = crate::api::GetFunction { function_name: name, namespace: namespace.to_owned(), ..Default::default() };
    let answer = context.client.call(&get)?;
    let shown: Value = serde_json::from_str(&answer.raw).unwrap_or_default();
    Ok(text(&shown, "Type") == "HTTP")
}

fn create(
    context: &Context,
    place: &Place,
    method: &str,
    path: &str,
    mut fields: Map<String, Value>,
) -> Result<(), CliError> {
    let service = service_id(context, &place.service)?;
    fields.insert("ServiceId".into(), service.as_str().into());
    fields.insert("ServiceTimeout".into(), place.timeout.into());
    fields.insert("RequestConfig".into(), json!({ "Path": path, "Method": method.to_ascii_uppercase() }));
    let made = context.client.apigw("CreateApi", &Value::Object(fields))?;
    let id = text(&made.body["Result"], "ApiId").to_owned();
    let release =
        json!({ "ServiceId": service, "EnvironmentName": place.stage, "ReleaseDesc": "mayfly api", "ApiIds": [id] });
    context.client.apigw("ReleaseService", &release)?;
    show(context, &id)
}

/// The service of an API, and the API as DescribeApi shows it.
fn find_api(context: &Context, id: &str) -> Result<(Value, Value), CliError> {
    for service in all(context, "DescribeServicesStatus", json!({}), "ServiceSet")? {
        let filter = json!({ "ServiceId": service["ServiceId"], "Filters": [{ "Name": "ApiId", "Values": [id] }] });
        if !all(context, "DescribeApisStatus", filter, "ApiIdStatusSet")?.is_empty() {
            let request = json!({ "ServiceId": service["ServiceId"], "ApiId": id });
            let mut api = context.client.apigw("DescribeApi", &request)?.body;
            return Ok((service, api["Result"].take()));
        }
    }
    Err(CliError::local(format!("there is no API {}", quoted(id))).hint("see them with: mayfly api ls SERVICE"))
}

fn show(context: &Context, id: &str) -> Result<(), CliError> {
    let out = context.out;
    let (service, api) = find_api(context, id)?;
    if out.is_json() {
        out.json(&api.to_string());
        return Ok(());
    }
    let path = text(&api["RequestConfig"], "Path").trim_start_matches('=').to_owned();
    let stages: Vec<&str> = api["Environments"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let scheme = if text(&api, "Protocol") == "WEBSOCKET" { "ws" } else { "http" };
    let base = context.client.url();
    let authority = base.split_once("://").map_or(base.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned();
    for stage in &stages {
        out.line(format_args!("{scheme}://{}/{stage}{path}", text(&service, "OuterSubDomain")));
        out.line(format_args!("{scheme}://{authority}/apigw/{}/{stage}{path}", text(&service, "ServiceId")));
    }
    if stages.is_empty() {
        out.note(format_args!(
            "it is released nowhere; release it with: mayfly api release {}",
            text(&service, "ServiceId")
        ));
    }
    if scheme == "ws" {
        out.line(format_args!("functions push to: {}", text(&api, "InternalDomain")));
    }
    out.note(format_args!("{id}: {} {path}, auth {}", text(&api["RequestConfig"], "Method"), text(&api, "AuthType")));
    Ok(())
}

fn list(context: &Context, service: Option<&str>) -> Result<(), CliError> {
    let out = context.out;
    let Some(wanted) = service else {
        let services = all(context, "DescribeServicesStatus", json!({}), "ServiceSet")?;
        if out.is_json() {
            out.json(&json!({ "TotalCount": services.len(), "ServiceSet": services }).to_string());
            return Ok(());
        }
        let row = |s: &Value| {
            let stages: Vec<&str> =
                s["AvailableEnvironments"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            vec![
                text(s, "ServiceName").into(),
                text(s, "ServiceId").into(),
                stages.join(" "),
                text(s, "OuterSubDomain").into(),
            ]
        };
        out.table(&["SERVICE", "ID", "RELEASED", "HOST"], services.iter().map(row).collect());
        return Ok(());
    };
    let service = existing_service(context, wanted)?;
    let apis = all(context, "DescribeApisStatus", json!({ "ServiceId": service["ServiceId"] }), "ApiIdStatusSet")?;
    if out.is_json() {
        out.json(&json!({ "TotalCount": apis.len(), "ApiIdStatusSet": apis }).to_string());
        return Ok(());
    }
    let row = |a: &Value| {
        ["ApiId", "Method", "Path", "Protocol", "AuthType", "ApiName"].map(|f| text(a, f).to_owned()).to_vec()
    };
    out.table(&["API", "METHOD", "PATH", "PROTOCOL", "AUTH", "NAME"], apis.iter().map(row).collect());
    Ok(())
}

fn remove_service(context: &Context, wanted: &str) -> Result<(), CliError> {
    let service = existing_service(context, wanted)?;
    let id = &service["ServiceId"];
    // Before anything goes: half a service is of no use.
    for (action, items) in
        [("DescribeServiceUsagePlan", "ServiceUsagePlanList"), ("DescribeApiUsagePlan", "ApiUsagePlanList")]
    {
        if let Some(bound) = all(context, action, json!({ "ServiceId": id }), items)?.first() {
            let plan = text(bound, "UsagePlanId");
            return Err(CliError::local(format!("the usage plan {plan} is bound to the service; nothing was deleted"))
                .hint(format!("delete it first: mayfly api plan rm {plan}")));
        }
    }
    for stage in service["AvailableEnvironments"].as_array().into_iter().flatten() {
        context.client.apigw("UnReleaseService", &json!({ "ServiceId": id, "EnvironmentName": stage }))?;
    }
    let mut apis = all(context, "DescribeApisStatus", json!({ "ServiceId": id }), "ApiIdStatusSet")?;
    // An issuer goes after those that rely on it.
    apis.sort_by_key(|api| text(api, "ApiBusinessType") == "OAUTH");
    for api in apis {
        context.client.apigw("DeleteApi", &json!({ "ServiceId": id, "ApiId": api["ApiId"] }))?;
    }
    context.client.apigw("DeleteService", &json!({ "ServiceId": id }))?;
    context.out.note(format_args!("deleted the service {wanted}"));
    Ok(())
}

/// Runs the command.
pub fn run(args: &ApiArgs, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    let fields = |value: Value| value.as_object().cloned().unwrap_or_default();
    match &args.command {
        ApiCommand::Add(add) => {
            let namespace = &add.place.namespace.namespace;
            let kind = if takes_http(context, &add.function, namespace)? { "HTTP" } else { "EVENT" };
            let auth = match add.auth {
                Auth::None => "NONE",
                Auth::Key => "SECRET",
                Auth::Token => "OAUTH",
            };
            let mut wanted = fields(json!({
                "ServiceType": "SCF", "Protocol": "HTTP", "ServiceScfFunctionType": kind, "AuthType": auth,
                "ServiceScfIsIntegratedResponse": !add.plain, "EnableCORS": add.cors,
            }));
            if let Some(issuer) = &add.issuer {
                wanted.insert("AuthRelationApiId".into(), issuer.as_str().into());
            }
            function(&mut wanted, "Scf", &add.function, namespace);
            create(context, &add.place, &add.method, &add.path, wanted)
        }
        ApiCommand::Socket(socket) => {
            let mut wanted = fields(json!({ "ServiceType": "SCF", "Protocol": "WEBSOCKET" }));
            let named = [
                ("Transport", Some(&socket.transport)),
                ("Register", socket.register.as_ref()),
                ("Cleanup", socket.cleanup.as_ref()),
            ];
            for (kind, named) in named {
                if let Some(named) = named {
                    function(&mut wanted, &format!("Websocket{kind}"), named, &socket.place.namespace.namespace);
                }
            }
            create(context, &socket.place, "GET", &socket.path, wanted)
        }
        ApiCommand::Issuer(issuer) => {
            let keys = std::fs::read_to_string(&issuer.keys)
                .map_err(|e| CliError::local(format!("{} cannot be read: {e}", issuer.keys.display())))?;
            let namespace = &issuer.place.namespace.namespace;
            let kind = if takes_http(context, &issuer.function, namespace)? { "HTTP" } else { "EVENT" };
            let mut wanted = fields(json!({
                "ServiceType": "SCF", "Protocol": "HTTP", "ServiceScfFunctionType": kind, "ServiceScfIsIntegratedResponse": true,
                "AuthType": "OAUTH", "ApiBusinessType": "OAUTH", "OauthConfig": { "PublicKey": keys, "TokenLocation": issuer.location },
            }));
            function(&mut wanted, "Scf", &issuer.function, namespace);
            create(context, &issuer.place, "ANY", &issuer.path, wanted)
        }
        ApiCommand::Ls { service } => list(context, service.as_deref()),
        ApiCommand::Show { api } => show(context, api),
        ApiCommand::Rm { target, service: true } => remove_service(context, target),
        ApiCommand::Rm { target, service: false } => {
            let (service, _) = find_api(context, target)?;
            let answer =
                context.client.apigw("DeleteApi", &json!({ "ServiceId": service["ServiceId"], "ApiId": target }))?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("deleted the API {target}"));
            Ok(())
        }
        ApiCommand::Release { service, stage } => {
            let service = existing_service(context, service)?;
            let request =
                json!({ "ServiceId": service["ServiceId"], "EnvironmentName": stage, "ReleaseDesc": "mayfly api" });
            let answer = context.client.apigw("ReleaseService", &request)?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!(
                "released {} in {stage} as {}",
                text(&service, "ServiceName"),
                text(&answer.body["Result"], "ReleaseVersion")
            ));
            Ok(())
        }
        ApiCommand::Limit { service, api, per_second, stage } => {
            let service = existing_service(context, service)?;
            let id = &service["ServiceId"];
            let answer = match api {
                Some(api) => context.client.apigw(
                    "ModifyApiEnvironmentStrategy",
                    &json!({ "ServiceId": id, "Strategy": per_second, "EnvironmentName": stage, "ApiIds": [api] }),
                )?,
                None => context.client.apigw(
                    "ModifyServiceEnvironmentStrategy",
                    &json!({ "ServiceId": id, "Strategy": per_second, "EnvironmentNames": [stage] }),
                )?,
            };
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(match per_second {
                -1 => "no limit any more".to_owned(),
                n => format!("at most {n} requests per second in {stage}"),
            });
            Ok(())
        }
        ApiCommand::Key(command) => keys(command, context),
        ApiCommand::Plan(command) => plans(command, context),
    }
}
