//! What tests and benchmarks share: a platform in a process of its own, a signed client, packages, and waits with a deadline.
//!
//! Everything here blocks: tests of whole platforms are plain threads, as their users' programs are.

pub mod kafka;
pub mod nats;

use base64::Engine as _;
use bytes::Bytes;
use mayfly_sign::{Tc3Request, sign_tc3};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The key pair of every platform started here.
pub const SECRET_ID: &str = "AKIDtestkit";
/// See [`SECRET_ID`].
pub const SECRET_KEY: &str = "testkit-secret-key";
/// How long a platform may take to start, in debug builds on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// True when sandboxes can be made here. Says loudly when not; where `CI` is set that is a failure.
pub fn can_sandbox() -> bool {
    // SAFETY: takes no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(std::env::var_os("CI").is_none(), "tests with sandboxes need root, and CI has it");
        eprintln!("SKIPPED: tests with sandboxes need root");
    }
    root
}

/// Allows this process as many open files as it may have.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid rlimits.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Waits until `holds`, or panics with `what` after a minute, which only a busy machine comes near to.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a platform is to be started.
pub struct Setup {
    /// The `mayfly` program.
    pub program: PathBuf,
    /// Data directory; `None`: a temporary one that goes with the platform.
    pub data: Option<PathBuf>,
    /// Further arguments of `mayfly up`.
    pub arguments: Vec<String>,
    /// Variables of its environment, beside those of the test.
    pub variables: Vec<(String, String)>,
}

impl Setup {
    /// The defaults for `program`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), data: None, arguments: Vec::new(), variables: Vec::new() }
    }

    /// On this data directory.
    pub fn data(mut self, data: &Path) -> Self {
        self.data = Some(data.to_owned());
        self
    }

    /// With further arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// With a variable in its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits for its ready line.
    pub fn start(self) -> Platform {
        let temporary = self.data.is_none().then(|| tempfile::tempdir().expect("temporary directories can be made"));
        let data = self.data.unwrap_or_else(|| temporary.as_ref().expect("made above").path().to_owned());
        let mut child = Command::new(&self.program)
            .args(["up", "--listen", "127.0.0.1:0", "--queues-listen", "127.0.0.1:0"])
            .args(["--objects-listen", "127.0.0.1:0", "--log-level", "warn", "--data"])
            .arg(&data)
            .args(&self.arguments)
            .env("MAYFLY_SECRET_ID", SECRET_ID)
            .env("MAYFLY_SECRET_KEY", SECRET_KEY)
            .envs(self.variables)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let (sender, receiver) = std::sync::mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = sender.send(lines.next());
            for _ in lines {}
        });
        let line = match receiver.recv_timeout(START_PATIENCE) {
            Ok(Some(Ok(line))) => line,
            other => {
                let _ = child.kill();
                panic!("the platform did not say that it is ready: {other:?}");
            }
        };
        let address =
            line.split_whitespace().find_map(|w| w.strip_prefix("http://")).expect("the ready line has the address");
        let objects = after(&line, "objects:").unwrap_or_default().to_owned();
        let client = Client { address: address.to_owned(), secret_id: SECRET_ID.into(), secret_key: SECRET_KEY.into() };
        Platform { client, data, objects, child: Some(child), ready_line: line, _temporary: temporary }
    }
}

/// The word behind `name` in a ready line.
fn after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace().skip_while(|word| word.trim_start_matches('(') != name).skip(1);
    Some(words.next()?.trim_end_matches([',', ';', ')']))
}

/// A running platform. Dropping it stops it.
pub struct Platform {
    /// A client of it.
    pub client: Client,
    /// Its data directory.
    pub data: PathBuf,
    /// The address of its object store.
    pub objects: String,
    /// What it said when it was ready.
    pub ready_line: String,
    child: Option<Child>,
    _temporary: Option<tempfile::TempDir>,
}

impl std::ops::Deref for Platform {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Platform {
    /// Where its message queues listen: `host:port`.
    pub fn queues(&self) -> &str {
        after(&self.ready_line, "queues:").expect("the ready line tells where the queues are")
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.id() as i32)
    }

    /// Kills it without warning and waits for its end.
    pub fn kill(mut self) -> PathBuf {
        let mut child = self.child.take().expect("it runs until it is killed or stopped");
        child.kill().expect("an own child can be killed");
        child.wait().expect("an own child can be waited for");
        self.data.clone()
    }

    /// Stops it with SIGTERM and returns its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.terminate()
    }

    /// Waits until it ends by itself, and returns its exit code. `None`: it did not within a minute, or a signal ended it.
    pub fn wait(mut self) -> Option<i32> {
        end_of(self.child.take()?)
    }

    fn terminate(&mut self) -> Option<i32> {
        let child = self.child.take()?;
        // SAFETY: signals an own child that has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        end_of(child)
    }
}

/// Waits for the end of a platform, a minute at most, and kills it then.
fn end_of(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// A client that signs with TC3-HMAC-SHA256.
#[derive(Clone, Debug)]
pub struct Client {
    /// `host:port`.
    pub address: String,
    /// Who signs.
    pub secret_id: String,
    /// The secret.
    pub secret_key: String,
}

/// What an invocation gave.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// The whole `Result`.
    pub result: Value,
}

impl Invoked {
    /// The return value, or the error document.
    pub fn value(&self) -> Value {
        let text = self.result["RetMsg"].as_str().unwrap_or("");
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    }

    /// 200, or the status of the error document.
    pub fn status(&self) -> u64 {
        if self.result["InvokeResult"] == 0 { 200 } else { self.value()["statusCode"].as_u64().unwrap_or(0) }
    }

    /// The log, when it was asked for.
    pub fn log(&self) -> &str {
        self.result["Log"].as_str().unwrap_or("")
    }
}

impl Client {
    /// Calls an action and returns the `Response`.
    pub fn call(&self, action: &str, parameters: &Value) -> Value {
        self.try_call(action, parameters).unwrap_or_else(|why| panic!("{action}: {why}"))
    }

    /// As [`Self::call`], of a platform that may be gone: the error says why no answer came.
    pub fn try_call(&self, action: &str, parameters: &Value) -> Result<Value, String> {
        self.try_call_of(("scf", "2018-04-16"), action, parameters)
    }

    /// The same of an action of another service: its name and the version of its API.
    pub fn try_call_of(&self, of: (&str, &str), action: &str, parameters: &Value) -> Result<Value, String> {
        let body = Bytes::from(parameters.to_string());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
        let headers = sign_tc3(&Tc3Request {
            secret_id: &self.secret_id,
            secret_key: &self.secret_key,
            token: None,
            host: &self.address,
            service: of.0,
            action,
            version: of.1,
            region: Some("ap-guangzhou"),
            timestamp_s: now,
            query: None,
            content_type: "application/json",
            body: &body,
        })
        .expect("test keys can sign");
        let mut request = ureq::post(format!("http://{}/", self.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send(&body[..]).map_err(|e| e.to_string())?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|e| e.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        Ok(answer["Response"].take())
    }

    /// Calls an action that must succeed.
    pub fn must(&self, action: &str, parameters: Value) -> Value {
        let response = self.call(action, &parameters);
        assert!(response.get("Error").is_none(), "{action}: {}", response["Error"]);
        response
    }

    /// The error code of an action that must fail.
    pub fn fails(&self, action: &str, parameters: Value) -> String {
        let response = self.call(action, &parameters);
        response["Error"]["Code"].as_str().unwrap_or_else(|| panic!("{action} succeeded: {response}")).to_owned()
    }

    /// Creates a function of these files. `more` is merged into the request.
    pub fn create(&self, name: &str, runtime: &str, handler: &str, files: &[(&str, &str)], more: Value) {
        let mut request = json!({
            "FunctionName": name, "Runtime": runtime, "Handler": handler, "Code": { "ZipFile": zip_base64(files) }
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            request[key] = value.clone();
        }
        self.must("CreateFunction", request);
    }

    /// Invokes a function and waits for the result.
    pub fn invoke(&self, name: &str, event: &Value) -> Invoked {
        let response =
            self.must("Invoke", json!({ "FunctionName": name, "ClientContext": event.to_string(), "LogType": "Tail" }));
        Invoked { result: response["Result"].clone() }
    }

    /// Fetches a path without a signature. Returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let mut response = agent.get(format!("http://{}{path}", self.address)).call().expect("the platform answers");
        let status = response.status().as_u16();
        (status, response.body_mut().read_to_string().expect("the answer is text"))
    }
}

/// A zip of these files, all mode 755, in base64.
pub fn zip_base64(files: &[(&str, impl AsRef<[u8]>)]) -> String {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    for (name, text) in files {
        zip.start_file(*name, options).expect("zips in memory take files");
        zip.write_all(text.as_ref()).expect("zips in memory take bytes");
    }
    let bytes = zip.finish().expect("zips in memory end").into_inner();
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
