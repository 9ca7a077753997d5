//! Which API a request means, and whether it is let in.
//!
//! The order is: address, route, parameters, limits of service and API, caller, limits of the caller. Whoever is turned away has cost no
//! function anything.

use crate::jwt;
use crate::keypair::{self, Denied};
use crate::limits::Limited;
use crate::records::{ApiRecord, Auth, Position, Stage};
use crate::route::Found;
use crate::state::{Gateway, State};
use http::request::Parts;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the gateway's addresses by path begin.
pub const PREFIX: &str = "/apigw/";
/// Where functions push to WebSockets: `/apigw-push/<api>/<token>`.
pub const PUSH_PREFIX: &str = "/apigw-push/";

/// What an address of the gateway says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The service.
    pub service: String,
    /// The environment.
    pub stage: Stage,
    /// The path within it, as it was sent.
    pub path: String,
    /// What stood before it in the request's path.
    pub prefix: String,
}

/// The service that a host below `domain` names.
fn service_of_host<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let below = host.strip_suffix(domain)?.strip_suffix('.')?;
    (below.starts_with("service-") && !below.contains('.')).then_some(below)
}

/// True for the host of a service, whether or not there is such a one. `host` is in lower case and without a port.
pub fn is_service_host(host: &str, domain: &str) -> bool {
    service_of_host(host, domain).is_some()
}

/// True for paths that are the gateway's at the platform's own hosts.
pub fn is_gateway_path(path: &str) -> bool {
    path.starts_with(PREFIX) || path.starts_with(PUSH_PREFIX)
}

impl Address {
    /// Reads an address. `None`: it names no service and environment.
    pub fn of(path: &str, host: Option<&str>, domain: &str) -> Option<Self> {
        let (service, rest, before) = match host.and_then(|h| service_of_host(h, domain)) {
            Some(service) => (service, path.strip_prefix('/')?, String::new()),
            None => {
                let rest = path.strip_prefix(PREFIX)?;
                let (service, rest) = rest.split_once('/').unwrap_or((rest, ""));
                (service, rest, format!("{PREFIX}{service}"))
            }
        };
        let (stage, below) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let stage = Stage::parse(stage)?;
        Some(Self { service: service.to_owned(), stage, path: below.to_owned(), prefix: format!("{before}/{stage}") })
    }
}

/// Why a request is turned away.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// The address names no service and environment.
    NoAddress,
    /// Nothing is released there.
    NoService,
    /// No API of it answers that.
    NoApi(String),
    /// Its service is asked over the other protocol only.
    Protocol(&'static str),
    /// A parameter is absent or is not what it should be.
    Parameter(String),
    /// Too many requests.
    TooMany(Duration),
    /// The caller has used up its total.
    UsedUp,
    /// The caller is not let in.
    Denied(Denied),
    /// The caller has to fetch a token first, there.
    Login(String),
}

impl Refused {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoAddress | Self::NoService | Self::NoApi(_) => 404,
            Self::Protocol(_) | Self::Parameter(_) => 400,
            Self::TooMany(_) | Self::UsedUp => 429,
            Self::Denied(denied) => denied.status,
            Self::Login(_) => 302,
        }
    }

    /// What the caller is told.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::NoAddress => {
                "An address is /apigw/<service>/<environment>/<path>, the environment release, prepub or test".into()
            }
            Self::NoService => "There is no such service, or nothing is released in that environment".into(),
            Self::NoApi(path) => format!("There is no api match path '{}'", crate::state::clip(path)).into(),
            Self::Protocol(other) => format!("This service is asked over {other} only").into(),
            Self::Parameter(why) => why.into(),
            Self::TooMany(_) => "API rate limit exceeded".into(),
            Self::UsedUp => "API quota exceeded".into(),
            Self::Denied(denied) => (&denied.message).into(),
            Self::Login(_) => "a token is required".into(),
        }
    }
}

/// A request that is let in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The API.
    pub api: Arc<ApiRecord>,
    /// The environment.
    pub stage: Stage,
    /// The name of the service.
    pub service_name: String,
    /// Parameters of the path.
    pub path_parameters: BTreeMap<String, String>,
    /// Declared parameters of the query, defaults included.
    pub query_parameters: BTreeMap<String, String>,
    /// Declared headers, defaults included.
    pub header_parameters: BTreeMap<String, String>,
    /// Who calls: `{}`, `{"secretId": …}` or `{"claims": …}`.
    pub identity: Value,
}

/// True when a text is a value of the kind that a parameter was declared with.
fn fits(kind: &str, text: &str) -> bool {
    match kind {
        "int" | "long" => text.parse::<i64>().is_ok(),
        "float" | "double" => text.parse::<f64>().is_ok_and(f64::is_finite),
        "boolean" => matches!(text, "true" | "false" | "TRUE" | "FALSE"),
        _ => true,
    }
}

/// Declared parameters by name.
type Values = BTreeMap<String, String>;

/// Those of the query and of the head.
fn parameters(found: &Found, head: &Parts) -> Result<(Values, Values), Refused> {
    let (mut query, mut headers) = (BTreeMap::new(), BTreeMap::new());
    for parameter in &found.api.parameters {
        let name = parameter.name.as_str();
        let sent: Option<Cow<'_, str>> = match parameter.position {
            Position::Path => found.path_parameters.get(name).map(|v| v.as_str().into()),
            Position::Query => {
                let pairs = form_urlencoded::parse(head.uri.query().unwrap_or("").as_bytes());
                pairs.into_iter().find(|(n, _)| n == name).map(|(_, v)| v)
            }
            Position::Header => head.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes())),
        };
        let value = match sent {
            Some(value) => value.into_owned(),
            None if !parameter.default.is_empty() => parameter.default.clone(),
            None if parameter.required => {
                let place = parameter.position.as_str().to_ascii_lowercase();
                return Err(Refused::Parameter(format!("the required {place} parameter '{name}' is missing")));
            }
            None => continue,
        };
        if !fits(&parameter.kind, &value) {
            return Err(Refused::Parameter(format!("the parameter '{name}' is not of type {}", parameter.kind)));
        }
        match parameter.position {
            Position::Path => {}
            Position::Query => drop(query.insert(name.to_owned(), value)),
            Position::Header => drop(headers.insert(name.to_owned(), value)),
        }
    }
    Ok((query, headers))
}

/// What is asked at the door.
pub struct Asked<'a> {
    /// The request.
    pub head: &'a Parts,
    /// What its address says.
    pub address: &'a Address,
    /// True when it came over TLS, to this platform or a proxy in front of it.
    pub secure: bool,
    /// Now, in milliseconds since the epoch.
    pub now_ms: u64,
}

impl Gateway {
    /// Lets a request in, or says why not. `state` is [`Gateway::state`].
    pub fn admit(&self, state: &State, asked: &Asked<'_>) -> Result<Admitted, Refused> {
        let Asked { head, address, secure, now_ms } = asked;
        let stage = address.stage;
        let service = state.services.get(&address.service).ok_or(Refused::NoService)?;
        let table = state.table(&address.service, stage).ok_or(Refused::NoService)?;
        match (service.protocol.as_str(), secure) {
            ("https", false) => return Err(Refused::Protocol("https")),
            ("http", true) => return Err(Refused::Protocol("http")),
            _ => {}
        }
        let found =
            table.find(head.method.as_str(), &address.path).ok_or_else(|| Refused::NoApi(address.path.clone()))?;
        let (query_parameters, header_parameters) = parameters(&found, head)?;
        let api = &found.api;
        if let Some(limit) = service.limits.get(&stage) {
            self.limits.take(Limited::Service(service.id.clone(), stage), *limit).map_err(Refused::TooMany)?;
        }
        if let Some(limit) = api.limits.get(&stage) {
            self.limits.take(Limited::Api(api.id.clone(), stage), *limit).map_err(Refused::TooMany)?;
        }
        let identity = match &api.auth {
            Auth::None | Auth::Issuer(_) => json!({}),
            Auth::Secret => self.by_key(state, api, stage, head, *now_ms)?,
            Auth::Token { issuer } => by_token(state, issuer, head)?,
        };
        Ok(Admitted {
            api: found.api,
            stage,
            service_name: service.name.clone(),
            path_parameters: found.path_parameters,
            query_parameters,
            header_parameters,
            identity,
        })
    }

    fn by_key(
        &self,
        state: &State,
        api: &ApiRecord,
        stage: Stage,
        head: &Parts,
        now_ms: u64,
    ) -> Result<Value, Refused> {
        let signed = keypair::read(&head.headers).map_err(Refused::Denied)?;
        // An unknown key, one that is off and one without a plan are told alike: who does not hold it learns nothing.
        let unknown =
            || Refused::Denied(Denied::new(403, "HMAC signature cannot be verified, the key is not known here"));
        let key = state.keys.get(signed.id).filter(|key| key.enabled).ok_or_else(unknown)?;
        keypair::check(&signed, &head.headers, &key.secret, now_ms).map_err(Refused::Denied)?;
        let plan = state.plan_for(&key.id, api, stage).ok_or_else(unknown)?;
        if let Some(limit) = plan.per_second {
            let bucket = Limited::Key(plan.id.clone(), key.id.clone());
            self.limits.take(bucket, limit).map_err(Refused::TooMany)?;
        }
        if let Some(total) = plan.requests_max
            && !self.spend(&plan.id, &key.id, total)
        {
            return Err(Refused::UsedUp);
        }
        Ok(json!({ "secretId": key.id }))
    }
}

fn by_token(state: &State, issuer: &str, head: &Parts) -> Result<Value, Refused> {
    let gone = || Refused::Denied(Denied::new(403, "the API that tokens are verified with is gone"));
    let rules = state.token_rules(issuer).ok_or_else(gone)?;
    match jwt::verify(rules, &head.headers, head.uri.query().unwrap_or("")) {
        Ok(claims) => Ok(Value::Object(Map::from_iter([("claims".to_owned(), Value::Object(claims))]))),
        Err(denied) if denied.status == 401 && !rules.login_url.is_empty() => {
            Err(Refused::Login(rules.login_url.clone()))
        }
        Err(denied) => Err(Refused::Denied(denied)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_by_path_and_by_host() {
        let of = |path: &str, host: &str| {
            Address::of(path, Some(host), "apigw.localhost").map(|a| (a.service, a.stage, a.path, a.prefix))
        };
        let four = |s: &str, stage, path: &str, prefix: &str| Some((s.into(), stage, path.into(), prefix.into()));
        assert_eq!(
            of("/apigw/service-a/release/x/y", "h"),
            four("service-a", Stage::Release, "/x/y", "/apigw/service-a/release")
        );
        assert_eq!(of("/apigw/service-a/test", "h"), four("service-a", Stage::Test, "/", "/apigw/service-a/test"));
        assert_eq!(of("/prepub/x", "service-a.apigw.localhost"), four("service-a", Stage::Prepub, "/x", "/prepub"));
        // At a service's own host its paths are its own.
        assert_eq!(of("/apigw/service-b/release/x", "service-a.apigw.localhost"), None);
        for (path, host) in
            [("/apigw/service-a", "h"), ("/apigw/service-a/prod/x", "h"), ("/release/x", "other.apigw.localhost")]
        {
            assert_eq!(of(path, host), None, "{path}");
        }
        assert!(is_gateway_path("/apigw/x") && is_gateway_path("/apigw-push/x") && !is_gateway_path("/apigwx"));
        assert!(is_service_host("service-a.d", "d") && !is_service_host("a.service-a.d", "d"));
    }

    #[test]
    fn values_are_of_their_kind() {
        for (kind, good, bad) in [("int", "-5", "5.5"), ("double", "5.5", "x"), ("boolean", "true", "yes")] {
            assert!(fits(kind, good) && !fits(kind, bad), "{kind}");
        }
        assert!(fits("string", "anything"));
    }
}
