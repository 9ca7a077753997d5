//! A server of a few lines that verifies signatures as the platform does, and answers as a test says.

use bytes::Bytes;
use mayfly_sign::{Credential, Params, RequestView, Verifier};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

pub const SECRET_ID: &str = "AKIDcli";
pub const SECRET_KEY: &str = "cli-secret";

/// What the server saw: actions, and the JSON of their requests.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

pub struct Server {
    /// `127.0.0.1:port`.
    pub authority: String,
    seen: Seen,
}

impl Server {
    /// Answers each rightly signed request with what `answer` makes of its action and parameters: a whole body.
    pub fn start(answer: impl Fn(&str, &Value) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let seen = Seen::default();
        let (answer, all) = (Arc::new(answer), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, seen) = (answer.clone(), all.clone());
                std::thread::spawn(move || while let Some(()) = one(stream.as_ref().unwrap(), &*answer, &seen) {});
            }
        });
        Self { authority, seen }
    }

    /// What was seen since the last time.
    pub fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Serves one request. `None`: the client is gone.
fn one(mut stream: &TcpStream, answer: &(impl Fn(&str, &Value) -> String + ?Sized), seen: &Seen) -> Option<()> {
    // A client sends one request at a time, so nothing of the next is lost with this buffer.
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    assert_eq!(line.trim_end(), "POST / HTTP/1.1");
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let twice = headers.insert(name.to_ascii_lowercase(), value.trim().as_bytes().to_vec());
        assert!(twice.is_none(), "{name} is sent twice");
    }
    let length: usize = String::from_utf8_lossy(&headers["content-length"]).parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = Bytes::from(body);
    let header = |name: &str| headers.get(name).map(Vec::as_slice);
    let view = RequestView { method: "POST", path: "/", query: "", header: &header, body: &body };
    let credentials = HashMap::from([(SECRET_ID.to_owned(), Credential::permanent(SECRET_KEY))]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let text = match Verifier::new(&["scf"]).verify(&view, &credentials, now.as_millis() as u64) {
        Ok(verified) => {
            assert_eq!(verified.version, "2018-04-16");
            let Params::Json(params) = verified.params else { panic!("not JSON") };
            let params: Value = serde_json::from_slice(&params).unwrap();
            let text = answer(&verified.action, &params);
            seen.lock().unwrap().push((verified.action, params));
            text
        }
        Err(error) => failure("AuthFailure.SignatureFailure", &error.to_string()),
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
    stream.write_all((head + &text).as_bytes()).ok()
}

/// The body of an error.
pub fn failure(code: &str, message: &str) -> String {
    serde_json::json!({"Response": {"Error": {"Code": code, "Message": message}, "RequestId": "r-error"}}).to_string()
}
