//! The client of the API: one signed POST for each call.

use crate::api::Action;
use crate::error::{CliError, Kind, api_hint};
use crate::settings::{Credentials, Endpoint};
use bytes::Bytes;
use mayfly_model::limits;
use mayfly_sign::{Tc3Request, sign_tc3};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

const VERSION: &str = "2018-04-16";
const SERVICE: &str = "scf";
/// API Gateway's API: name and version.
const APIGW: (&str, &str) = ("apigateway", "2018-08-08");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the platform may take over a call once it has it. Packages are checked and stored before the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The same for an invocation: the longest wait for an instance, initialisation and run, and some more.
const INVOKE_TIMEOUT: Duration =
    Duration::from_secs(2 * limits::TIMEOUT_S_MAX as u64 + limits::INIT_TIMEOUT_S_MAX as u64 + 60);
/// Largest answer that is read, in bytes: a page of logs, each as large as logs can be.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// An answer without error.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The fields that are known.
    pub body: T,
    /// The whole `Response` object, as it came.
    pub raw: String,
}

/// Told how many bytes of the body have been sent so far.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// A client. It keeps its connection open between calls.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    endpoint: Endpoint,
    credentials: Credentials,
    region: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "Response", borrow)]
    response: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    error: Option<ErrorBody>,
    #[serde(default)]
    request_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody {
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    /// A client of the platform at `endpoint`. Nothing is sent yet.
    pub fn new(endpoint: Endpoint, credentials: Credentials, region: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The platform is this machine or a near one: HTTP_PROXY of the environment is not meant for it.
            .proxy(None)
            .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Self { agent: config.new_agent(), endpoint, credentials, region }
    }

    /// Where the platform is, with a slash at the end.
    pub fn url(&self) -> String {
        self.endpoint.url()
    }

    /// Calls an action.
    ///
    /// # Errors
    /// [`Kind::Api`] when the platform refuses, [`Kind::Unreachable`] when it does not answer.
    pub fn call<A: Action>(&self, action: &A) -> Result<Answer<A::Answer>, CliError> {
        self.send(action, None)
    }

    /// The same, for large requests.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_with_progress<A: Action>(
        &self,
        action: &A,
        progress: Progress<'_>,
    ) -> Result<Answer<A::Answer>, CliError> {
        self.send(action, Some(progress))
    }

    /// The same; `None` when what is asked for does not exist.
    ///
    /// # Errors
    /// As [`Client::call`], but for `ResourceNotFound` and its subcodes that start with `prefix`.
    pub fn find<A: Action>(&self, action: &A, prefix: &str) -> Result<Option<Answer<A::Answer>>, CliError> {
        match self.call(action) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_api(prefix) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send<A: Action>(&self, action: &A, mut progress: Option<Progress<'_>>) -> Result<Answer<A::Answer>, CliError> {
        let body = serde_json::to_vec(action)
            .map_err(|e| CliError::local(format!("the request cannot be written as JSON: {e}")))?;
        let answer = self.exchange((SERVICE, VERSION, A::NAME), body, &mut progress)?;
        let raw = self.open(answer.0, &answer.1)?;
        let body = serde_json::from_str(&raw)
            .map_err(|e| self.strange(&format!("the answer to {} cannot be read: {e}", A::NAME)))?;
        Ok(Answer { body, raw })
    }

    /// Calls an action of API Gateway's API.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn apigw(&self, action: &str, parameters: &serde_json::Value) -> Result<Answer<serde_json::Value>, CliError> {
        let answer = self.exchange((APIGW.0, APIGW.1, action), parameters.to_string().into_bytes(), &mut None)?;
        let raw = self.open(answer.0, &answer.1)?;
        let body = serde_json::from_str(&raw)
            .map_err(|e| self.strange(&format!("the answer to {action} cannot be read: {e}")))?;
        Ok(Answer { body, raw })
    }

    /// Sends a signed request of a service, a version and an action. Returns the status and the body.
    fn exchange(
        &self,
        (service, version, action): (&str, &str, &str),
        body: Vec<u8>,
        progress: &mut Option<Progress<'_>>,
    ) -> Result<(u16, Vec<u8>), CliError> {
        if body.len() > limits::API_BODY_BYTES_MAX {
            let (size, max) = (body.len() >> 20, limits::API_BODY_BYTES_MAX >> 20);
            return Err(CliError::local(format!("the request has {size} MB; the platform takes at most {max} MB")));
        }
        let body = Bytes::from(body);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let headers = sign_tc3(&Tc3Request {
            secret_id: &self.credentials.secret_id,
            secret_key: &self.credentials.secret_key,
            token: self.credentials.token.as_deref(),
            host: &self.endpoint.authority,
            service,
            action,
            version,
            region: self.region.as_deref(),
            timestamp_s: now.as_secs(),
            query: None,
            content_type: "application/json; charset=utf-8",
            body: &body,
        })
        .map_err(|e| CliError::local(format!("the request cannot be signed: {e}")))?;
        let mut request = self.agent.post(self.endpoint.url()).header("content-length", body.len().to_string());
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        let wait = if action == "Invoke" { INVOKE_TIMEOUT } else { ANSWER_TIMEOUT };
        let request = request.config().timeout_recv_response(Some(wait)).build();
        let mut reader = Counted { body: &body, sent: 0, progress: progress.as_mut() };
        request
            .send(ureq::SendBody::from_reader(&mut reader))
            .and_then(|mut answer| {
                let status = answer.status().as_u16();
                let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
                Ok((status, text))
            })
            .map_err(|e| self.unreachable(&e, wait))
    }

    fn strange(&self, why: &str) -> CliError {
        let message = format!("what answers at {} is not a platform: {why}", self.endpoint.url());
        CliError::new(Kind::Unreachable, message)
            .hint("is the endpoint right? give it with --endpoint or MAYFLY_ENDPOINT")
    }

    /// The `Response` of an answer. Errors: the one that it says.
    fn open(&self, status: u16, body: &[u8]) -> Result<String, CliError> {
        let envelope: Envelope<'_> =
            serde_json::from_slice(body).map_err(|_| self.strange(&format!("status {status}, and no `Response`")))?;
        let raw = envelope.response.get();
        let failure: Failure = serde_json::from_str(raw).map_err(|e| self.strange(&format!("its `Response`: {e}")))?;
        if let Some(ErrorBody { code, message }) = failure.error {
            let request = if failure.request_id.is_empty() {
                String::new()
            } else {
                format!(" (request {})", failure.request_id)
            };
            let hint = api_hint(&code);
            let text = format!("{code}: {}{request}", message.trim_end_matches('.'));
            return Err(CliError::new(Kind::Api(code), text).hint(hint));
        }
        Ok(raw.to_owned())
    }

    fn unreachable(&self, error: &ureq::Error, waited: Duration) -> CliError {
        let at = self.endpoint.url();
        let gone = |message: String| CliError::new(Kind::Unreachable, message);
        let running =
            "is the platform running? start it with `mayfly up`, or say where it is with --endpoint or MAYFLY_ENDPOINT";
        match error {
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                gone(format!("nothing listens at {at}")).hint(running)
            }
            ureq::Error::HostNotFound => gone(format!("there is no host of the name in {at}"))
                .hint("is the endpoint right? give it with --endpoint or MAYFLY_ENDPOINT"),
            ureq::Error::ConnectionFailed | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                gone(format!("cannot connect to {at}: {error}")).hint(running)
            }
            ureq::Error::Timeout(ureq::Timeout::RecvResponse) => {
                gone(format!("{at} has not answered within {} seconds", waited.as_secs()))
                    .hint("the call may still take effect; look at the platform's log")
            }
            ureq::Error::Io(e) => gone(format!("the connection to {at} broke: {e}"))
                .hint("the call may have taken effect; look before you repeat it"),
            other => gone(format!("{at} does not answer as a platform does: {other}"))
                .hint("is the endpoint right? give it with --endpoint or MAYFLY_ENDPOINT"),
        }
    }
}

/// A body that tells how far it has been read.
struct Counted<'a, 'p> {
    body: &'a [u8],
    sent: u64,
    progress: Option<&'a mut Progress<'p>>,
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.body.read(buffer)?;
        self.sent += n as u64;
        if let Some(progress) = &mut self.progress {
            progress(self.sent);
        }
        Ok(n)
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
