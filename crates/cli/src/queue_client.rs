//! The client of queues and topics: one signed form each, in CMQ's words.

use crate::error::{CliError, Kind};
use crate::settings::{Credentials, Endpoint};
use mayfly_sign::{Style, V1Method, V1Request, sign_v1};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const PATH: &str = "/v2/index.php";
/// The longest poll, and some more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: 16 messages of a megabyte, escaped.
const ANSWER_BYTES_MAX: u64 = 128 << 20;
/// The code of CMQ for "no message".
pub const NO_MESSAGE: &str = "7000";
/// What there is to know of handles.
const HANDLES: &str =
    "a handle is good until its message is deleted or received again; `mayfly queue receive NAME` gives new ones";
/// Hints of CMQ's error numbers.
const HINTS: [(&str, &str); 10] = [
    ("4440", "`mayfly queue ls` shows the queues, `mayfly queue create NAME` makes one"),
    ("4440 topic", "`mayfly topic ls` shows the topics, `mayfly topic create NAME` makes one"),
    ("4460", "choose another name, or use what is there"),
    ("4410", "receive and delete some first, or clear the queue: `mayfly queue purge NAME`"),
    ("4420", "too many wait already; try again later"),
    ("6030", "nobody gets it: `mayfly topic subscribe` makes a subscription that fits"),
    ("6020", HANDLES),
    ("6010", HANDLES),
    ("4100", "check the secret id and the secret key (--secret-id, MAYFLY_SECRET_ID, --data)"),
    ("4400", "the message is too large for this queue or topic"),
];

/// A client of queues and topics.
#[derive(Debug)]
pub struct QueueClient {
    agent: ureq::Agent,
    endpoint: Endpoint,
    credentials: Credentials,
    nonce: AtomicU64,
}

/// The fields of a request.
pub type Fields = Vec<(String, String)>;

/// A list as CMQ's forms have it: `name.1`, `name.2` …
pub fn list(name: &str, items: &[String]) -> Fields {
    (1..).zip(items).map(|(n, item): (usize, _)| (format!("{name}.{n}"), item.clone())).collect()
}

impl QueueClient {
    /// A client of the queues at `endpoint`. Nothing is sent yet.
    pub fn new(endpoint: Endpoint, credentials: Credentials) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // No two requests of a second may be alike: the time in nanoseconds makes two programs differ.
        let nonce = AtomicU64::new(u64::try_from(since.as_nanos()).unwrap_or(0) >> 1);
        Self { agent: Endpoint::agent(ANSWER_TIMEOUT), endpoint, credentials, nonce }
    }

    /// Calls an action.
    ///
    /// # Errors
    /// [`Kind::Api`] with CMQ's number when it is refused, [`Kind::Unreachable`] when nobody answers.
    pub fn call(&self, action: &str, fields: &Fields) -> Result<Value, CliError> {
        let timestamp_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let form = sign_v1(&V1Request {
            method: V1Method::Post,
            secret_id: &self.credentials.secret_id,
            secret_key: &self.credentials.secret_key,
            token: self.credentials.token.as_deref(),
            host: &self.endpoint.authority,
            path: PATH,
            action,
            version: "",
            region: None,
            timestamp_s,
            nonce: self.nonce.fetch_add(1, Ordering::Relaxed),
            style: Style::HmacSha256,
            fields,
        })
        .map_err(|e| CliError::local(format!("the request cannot be signed: {e}")))?;
        let url = format!("http://{}{PATH}", self.endpoint.authority);
        let asked = self.agent.post(&url).header("content-type", "application/x-www-form-urlencoded").send(form);
        let text = asked
            .and_then(|mut answer| answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec())
            .map_err(|e| self.unreachable(&e))?;
        let strange = || {
            CliError::new(Kind::Unreachable, format!("what answers at {} has no queues", self.endpoint.url()))
                .hint("is the endpoint right? give it with --queues-endpoint or MAYFLY_QUEUES_ENDPOINT")
        };
        let answer: Value = serde_json::from_slice(&text).map_err(|_| strange())?;
        let code = answer.get("code").and_then(Value::as_i64).ok_or_else(strange)?;
        if code == 0 {
            return Ok(answer);
        }
        let field = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, message) = (code.to_string(), field("message"));
        // One number for both.
        let about = if code == "4440" && message.contains("topic") { "4440 topic" } else { &*code };
        let hint = HINTS.iter().find(|(known, _)| *known == about).map_or("", |(_, hint)| hint);
        let message = message.trim_end_matches('.');
        let text = format!("{code}: {message} (request {})", field("requestId"));
        Err(CliError::new(Kind::Api(code), text).hint(hint))
    }

    /// All items of a list action, whatever its pages.
    ///
    /// # Errors
    /// As [`QueueClient::call`].
    pub fn all(&self, action: &str, items: &str, fields: &Fields) -> Result<Vec<Value>, CliError> {
        /// The longest page.
        const PAGE: usize = 50;
        let mut found = Vec::new();
        loop {
            let mut fields = fields.clone();
            fields.extend([("offset".into(), found.len().to_string()), ("limit".into(), PAGE.to_string())]);
            let answer = self.call(action, &fields)?;
            let page = answer.get(items).and_then(Value::as_array).cloned().unwrap_or_default();
            let last = page.len() < PAGE;
            found.extend(page);
            if last {
                return Ok(found);
            }
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let at = self.endpoint.url();
        let message = match error {
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => format!("no queues are at {at}"),
            other => format!("the queues at {at} do not answer: {other}"),
        };
        CliError::new(Kind::Unreachable, message).hint(
            "is the platform running, and its queues not off (`mayfly up --queues-listen`)? say where they are with --queues-endpoint or MAYFLY_QUEUES_ENDPOINT",
        )
    }
}
