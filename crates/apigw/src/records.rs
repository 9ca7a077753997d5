//! What is stored of services, APIs, releases, keys and usage plans.
//!
//! Source of names, values and limits: API Gateway's API 2018-08-08 (`CreateService`, `CreateApi`, `CreateUsagePlan` and their like).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// An environment of a service: which release of it visitors reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// For testing.
    Test,
    /// Before production.
    Prepub,
    /// Production.
    Release,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Test, Self::Prepub, Self::Release];

    /// As the API writes it, and as paths of the gateway begin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Prepub => "prepub",
            Self::Release => "release",
        }
    }

    /// Reads a name. `None`: it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A service: APIs that share an address, environments and limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// `service-` and eight letters and digits.
    pub id: String,
    /// Its name; several services may have one.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// `http`, `https` or `http&https`.
    pub protocol: String,
    /// `INNER`, `OUTER` or both: shown again, not acted upon.
    pub net_types: Vec<String>,
    /// What is released where.
    #[serde(default)]
    pub stages: BTreeMap<Stage, StageRecord>,
    /// Requests per second that each environment takes; absent: as many as come.
    #[serde(default)]
    pub limits: BTreeMap<Stage, u32>,
    /// Made by a trigger: goes with its last API.
    #[serde(default)]
    pub automatic: bool,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub modified_ms: u64,
}

/// The release that an environment serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name of the release.
    pub version: String,
    /// When it was put there, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// The APIs of a service at one moment. Never changed; APIs that are deleted later are no longer served from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The service.
    pub service: String,
    /// Its name, which grows with time.
    pub version: String,
    /// The environment that it was made for.
    pub stage: Stage,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// When it was made, in milliseconds since the epoch.
    pub time_ms: u64,
    /// What it serves.
    pub apis: Vec<ApiRecord>,
}

/// A function that is called: a version or alias of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The version or alias.
    pub qualifier: String,
}

impl fmt::Display for FunctionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.namespace, self.name, self.qualifier)
    }
}

/// What answers an API's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A function that gets each request as an event.
    Event {
        /// The function.
        function: FunctionRef,
        /// Its return value says status, headers and body; else it is the body.
        integrated: bool,
    },
    /// An HTTP function: requests are passed on.
    Http {
        /// The function.
        function: FunctionRef,
    },
    /// Three functions behind a WebSocket that the gateway holds.
    WebSocket(SocketFunctions),
    /// A fixed answer.
    Mock {
        /// The body.
        body: String,
    },
}

impl Backend {
    /// The functions in it.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionRef> {
        let list: [Option<&FunctionRef>; 3] = match self {
            Self::Event { function, .. } | Self::Http { function } => [Some(function), None, None],
            Self::WebSocket(f) => [f.register.as_ref(), Some(&f.transport), f.cleanup.as_ref()],
            Self::Mock { .. } => [None, None, None],
        };
        list.into_iter().flatten()
    }
}

/// The functions behind a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFunctions {
    /// Decides whether a connection is accepted; absent: all are.
    #[serde(default)]
    pub register: Option<FunctionRef>,
    /// Gets each message.
    pub transport: FunctionRef,
    /// Hears of each end; absent: nobody does.
    #[serde(default)]
    pub cleanup: Option<FunctionRef>,
}

/// Who may call an API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Anybody.
    #[default]
    None,
    /// Who signs with a key of a usage plan that is bound to the API or its service.
    Secret,
    /// Who has a token that the key of another API verifies.
    Token {
        /// Id of the API that has the key.
        issuer: String,
    },
    /// Anybody: it gives out tokens, and says how they are verified.
    Issuer(TokenRules),
}

/// How tokens are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRules {
    /// A JWK, or a JWK set, as JSON text.
    pub public_key: String,
    /// Where the token is: `header`, `query`, `cookie`, each with `:<name>` for another name than the usual one.
    pub location: String,
    /// Where a visitor without a token is sent; empty: nowhere.
    #[serde(default)]
    pub login_url: String,
}

/// Where a parameter of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Position {
    /// In the path, as `{name}`.
    Path,
    /// In the query.
    Query,
    /// Among the headers.
    Header,
}

impl Position {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "PATH",
            Self::Query => "QUERY",
            Self::Header => "HEADER",
        }
    }

    /// Reads a name; the case does not matter.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Path, Self::Query, Self::Header].into_iter().find(|p| p.as_str().eq_ignore_ascii_case(text))
    }
}

/// A parameter that requests have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub position: Position,
    /// `string`, `int`, `long`, `float`, `double` or `boolean`.
    pub kind: String,
    /// What an absent one counts as; empty: nothing.
    #[serde(default)]
    pub default: String,
    /// True: requests without it are refused.
    pub required: bool,
    /// Free text.
    #[serde(default)]
    pub description: String,
}

/// What SCF shows of an API as a trigger of a function. APIs made by API Gateway's API have none of their own and get the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerRecord {
    /// Its name.
    pub name: String,
    /// The environment that it was released in.
    pub stage: Stage,
    /// Text of the user's.
    #[serde(default)]
    pub argument: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
}

/// An API: one route of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiRecord {
    /// `api-` and eight letters and digits.
    pub id: String,
    /// Its service.
    pub service: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The path that it answers, with `{name}` for one segment; see [`crate::route`].
    pub path: String,
    /// `GET`, `POST` … or `ANY`.
    pub method: String,
    /// What requests carry.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// Who answers.
    pub backend: Backend,
    /// Who may call.
    #[serde(default)]
    pub auth: Auth,
    /// True: browsers of all origins may.
    #[serde(default)]
    pub cors: bool,
    /// How long an answer may take, in seconds.
    pub timeout_s: u32,
    /// `HTML`, `JSON`, `TEXT`, `BINARY` or `XML`: the type of answers that say none.
    #[serde(default)]
    pub response_type: String,
    /// True: event functions get every body in base64.
    #[serde(default)]
    pub base64: bool,
    /// Requests per second that each environment takes; absent: as many as come.
    #[serde(default)]
    pub limits: BTreeMap<Stage, u32>,
    /// The unguessable part of the address at which functions push to its WebSockets.
    #[serde(default)]
    pub push_token: String,
    /// What SCF shows of it.
    #[serde(default)]
    pub trigger: Option<TriggerRecord>,
    /// Fields that are only stored and shown again, by name.
    #[serde(default)]
    pub shown: BTreeMap<String, Value>,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub modified_ms: u64,
}

impl ApiRecord {
    /// `HTTP` or `WEBSOCKET`.
    pub fn protocol(&self) -> &'static str {
        match self.backend {
            Backend::WebSocket(_) => "WEBSOCKET",
            _ => "HTTP",
        }
    }

    /// True when one of its functions is this one.
    pub fn calls(&self, namespace: &str, function: &str) -> bool {
        self.backend.functions().any(|f| f.namespace == namespace && f.name == function)
    }
}

/// A key pair of callers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its public half.
    pub id: String,
    /// Its secret half.
    pub secret: String,
    /// Its name.
    pub name: String,
    /// True when the user chose both halves.
    pub manual: bool,
    /// False: nobody gets in with it.
    pub enabled: bool,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub modified_ms: u64,
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord").field("id", &self.id).field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// What a usage plan lets its keys into: an environment of a service, or of one API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    /// The service.
    pub service: String,
    /// The environment.
    pub stage: Stage,
    /// The API; absent: all of the service.
    #[serde(default)]
    pub api: Option<String>,
}

/// A usage plan: which keys may call what, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// `usagePlan-` and eight letters and digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Requests that each of its keys has in all; absent: no limit.
    pub requests_max: Option<u64>,
    /// Requests per second of each of its keys; absent: no limit.
    pub per_second: Option<u32>,
    /// Its keys.
    #[serde(default)]
    pub keys: BTreeSet<String>,
    /// What they get into.
    #[serde(default)]
    pub bindings: BTreeSet<Binding>,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub modified_ms: u64,
}

/// How much of its total a key has used under a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The plan.
    pub plan: String,
    /// The key.
    pub key: String,
    /// Requests.
    pub used: u64,
}

/// An open WebSocket, as far as its end has to be told to somebody, also by a process that did not live through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// Its id, as functions know it.
    pub id: String,
    /// The API.
    pub api: String,
    /// Who hears of its end.
    pub cleanup: FunctionRef,
    /// What it is told: JSON text.
    pub event: String,
}
