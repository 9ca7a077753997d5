//! The client of the object store: one signed request each, COS's words, buckets in the path.

use crate::error::{CliError, Kind};
use crate::settings::{Credentials, Endpoint};
use base64::Engine as _;
use mayfly_sign::{CosToSign, sign_cos};
use quick_xml::Reader;
use quick_xml::events::Event;
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::time::{Duration, SystemTime};

/// How long the store may take before it begins to answer. Large bodies are synced to disk first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Largest document that is read: a page of a list with the longest keys.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Hints of COS's error codes.
const HINTS: [(&str, &str); 11] = [
    ("PreconditionFailed", "there is such an object already; without --no-overwrite it is replaced"),
    ("NoSuchBucket", "`mayfly objects buckets ls` shows the buckets, `mayfly objects buckets mb NAME` makes one"),
    ("NoSuchKey", "`mayfly objects ls BUCKET/` shows what there is"),
    ("NoSuchVersion", "`mayfly objects ls --versions BUCKET/KEY` shows the versions"),
    ("BucketNotEmpty", "`mayfly objects rm -r BUCKET/` removes what is in it (with --versions: for good)"),
    ("InvalidAccessKeyId", "the platform does not know this secret id; see `credentials.json` in its data directory"),
    (
        "SignatureDoesNotMatch",
        "the secret key does not belong to this secret id; see `credentials.json` in the platform's data directory",
    ),
    ("AccessDenied", "are the clocks of this machine and of the platform alike, and the keys the platform's?"),
    (
        "InvalidBucketName",
        "3 to 63 of a-z, 0-9, `-` and `.`; for COS's SDKs it ends in the account number, as photos-1250000000",
    ),
    ("InsufficientStorage", "the platform's disk has no room left; remove something or give it more"),
    ("SlowDown", "wait a moment and try again"),
];

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Bucket; empty: of the service.
    pub bucket: &'a str,
    /// Key; empty: of the bucket.
    pub key: &'a str,
    /// Query parameters, decoded.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Ask<'a> {
    /// A request without parameters and headers.
    pub fn new(method: &'a str, bucket: &'a str, key: &'a str) -> Self {
        Self { method, bucket, key, query: &[], headers: &[] }
    }

    /// The same with parameters.
    pub fn query(self, query: &'a [(&'a str, &'a str)]) -> Self {
        Self { query, ..self }
    }

    /// The same with headers.
    pub fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    fn path(&self) -> String {
        match (self.bucket, self.key) {
            ("", _) => "/".to_owned(),
            (bucket, "") => format!("/{bucket}"),
            (bucket, key) => format!("/{bucket}/{key}"),
        }
    }
}

/// A client of the object store.
#[derive(Debug)]
pub struct StoreClient {
    agent: ureq::Agent,
    endpoint: Endpoint,
    credentials: Credentials,
}

/// An answer whose body has not been read.
pub type Answer = ureq::http::Response<ureq::Body>;

fn encoded(text: &str, keep: &[u8]) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || keep.contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl StoreClient {
    /// A client of the store at `endpoint`. Nothing is sent yet.
    pub fn new(endpoint: Endpoint, credentials: Credentials) -> Self {
        Self { agent: Endpoint::agent(ANSWER_TIMEOUT), endpoint, credentials }
    }

    fn signature(&self, ask: &Ask<'_>, seconds: u64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        sign_cos(&CosToSign {
            secret_id: &self.credentials.secret_id,
            secret_key: &self.credentials.secret_key,
            // A minute for clocks that differ.
            span_s: (now.saturating_sub(60), now + seconds),
            method: ask.method,
            path: &ask.path(),
            params: ask.query,
            headers: &[("host", &self.endpoint.authority)],
        })
    }

    fn url(&self, ask: &Ask<'_>) -> String {
        let mut url = format!("http://{}{}", self.endpoint.authority, encoded(&ask.path(), b"/"));
        for (n, (name, value)) in ask.query.iter().enumerate() {
            url += &format!("{}{}={}", if n == 0 { "?" } else { "&" }, encoded(name, b""), encoded(value, b""));
        }
        url
    }

    /// A URL that whoever has it may use for so many seconds.
    pub fn presigned(&self, ask: &Ask<'_>, seconds: u64) -> String {
        let url = self.url(ask);
        let mut url = format!("{url}{}{}", if url.contains('?') { "&" } else { "?" }, self.signature(ask, seconds));
        if let Some(token) = &self.credentials.token {
            url += &format!("&x-cos-security-token={}", encoded(token, b""));
        }
        url
    }

    /// Sends a request with a body of `length` bytes.
    ///
    /// # Errors
    /// [`Kind::Api`] when the store refuses, [`Kind::Unreachable`] when it does not answer.
    pub fn send(&self, ask: &Ask<'_>, body: &mut dyn Read, length: u64) -> Result<Answer, CliError> {
        let mut request = ureq::http::Request::builder()
            .method(ask.method)
            .uri(self.url(ask))
            .header("authorization", self.signature(ask, 600))
            .header("content-length", length);
        if let Some(token) = &self.credentials.token {
            request = request.header("x-cos-security-token", token);
        }
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(ureq::SendBody::from_reader(body))
            .map_err(|e| CliError::local(format!("this cannot be asked: {e}")).hint("is the name of the key right?"))?;
        let answer = self.agent.run(request).map_err(|e| self.unreachable(&e))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(answer)) }
    }

    /// The same with a body that is there, and whose SHA-256 the store verifies.
    ///
    /// # Errors
    /// As [`StoreClient::send`].
    pub fn send_bytes(&self, ask: &Ask<'_>, body: &[u8], progress: &mut dyn FnMut(u64)) -> Result<Answer, CliError> {
        let sum = base64::prelude::BASE64_STANDARD.encode(Sha256::digest(body));
        let headers = [ask.headers, &[("x-cos-checksum-sha256", &*sum)]].concat();
        let mut reader = Told { inner: body, done: 0, progress };
        self.send(&ask.headers(&headers), &mut reader, body.len() as u64)
    }

    /// Sends a request without a body, and reads the document of the answer.
    ///
    /// # Errors
    /// As [`StoreClient::send`].
    pub fn document(&self, ask: &Ask<'_>) -> Result<Element, CliError> {
        self.document_for(ask, b"")
    }

    /// The same with a document as body.
    ///
    /// # Errors
    /// As [`StoreClient::send`].
    pub fn document_for(&self, ask: &Ask<'_>, body: &[u8]) -> Result<Element, CliError> {
        let mut answer = self.send(ask, &mut &*body, body.len() as u64)?;
        let text = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX).read_to_string();
        let text = text.map_err(|e| self.unreachable(&e))?;
        Element::parse(&text).ok_or_else(|| {
            CliError::new(Kind::Unreachable, format!("what answers at {} is no object store", self.endpoint.url()))
                .hint("is the endpoint right? give it with --objects-endpoint or MAYFLY_OBJECTS_ENDPOINT")
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let at = self.endpoint.url();
        let message = match error {
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                format!("no object store listens at {at}")
            }
            other => format!("the object store at {at} does not answer: {other}"),
        };
        CliError::new(Kind::Unreachable, message).hint(
            "is the platform running, and its store not off (`mayfly up --objects-listen`)? say where it is with --objects-endpoint or MAYFLY_OBJECTS_ENDPOINT",
        )
    }
}

fn refused(mut answer: Answer) -> CliError {
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX).read_to_string().unwrap_or_default();
    let document = Element::parse(&text);
    let field = |name: &str| document.as_ref().map(|d| d.text(name)).filter(|t| !t.is_empty());
    // An answer to HEAD has no document.
    let code = field("Code").unwrap_or_else(|| match status {
        404 => "NoSuchKey".to_owned(),
        other => format!("Status{other}"),
    });
    let request = field("RequestId").map(|id| format!(" (request {id})")).unwrap_or_default();
    let message = field("Message").unwrap_or_else(|| format!("the store answers with status {status}"));
    let hint = HINTS.iter().find(|(known, _)| *known == code).map_or("", |(_, hint)| hint);
    let text = format!("{code}: {}{request}", message.trim_end_matches('.'));
    CliError::new(Kind::Api(code), text).hint(hint)
}

/// A body that tells how far it has been read.
pub struct Told<'a, R> {
    /// The body.
    pub inner: R,
    /// Bytes read so far.
    pub done: u64,
    /// Told of them.
    pub progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.progress)(self.done);
        Ok(n)
    }
}

/// An element of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// The outermost element of a document. `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = vec![Self::default()];
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => {
                    let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                    open.push(Self { name, ..Self::default() });
                    // Deeper than any document of the store.
                    if open.len() > 16 {
                        return None;
                    }
                }
                Event::Empty(empty) => {
                    let name = String::from_utf8_lossy(empty.local_name().as_ref()).into_owned();
                    open.last_mut()?.children.push(Self { name, ..Self::default() });
                }
                Event::Text(piece) => open.last_mut()?.text.push_str(&piece.decode().ok()?),
                Event::GeneralRef(name) => {
                    let found = match name.resolve_char_ref().ok()? {
                        Some(c) => c,
                        None => match &*name.decode().ok()? {
                            "amp" => '&',
                            "lt" => '<',
                            "gt" => '>',
                            "quot" => '"',
                            "apos" => '\'',
                            _ => return None,
                        },
                    };
                    open.last_mut()?.text.push(found);
                }
                Event::End(_) => {
                    let done = open.pop()?;
                    open.last_mut()?.children.push(done);
                }
                Event::Eof => return open.pop().filter(|_| open.is_empty())?.children.pop(),
                _ => {}
            }
        }
    }

    /// The text of the first child of this name; empty if there is none.
    pub fn text(&self, name: &str) -> String {
        self.all(name).next().map(|c| c.text.clone()).unwrap_or_default()
    }

    /// All children of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |c| c.name == name)
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|c| c.name == name)
    }
}

/// Text as a document has it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // A document's reader would make a line feed of it.
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let text = "<?xml version=\"1.0\"?><A xmlns=\"x\"><B>1 &lt; 2 &amp; &#233;</B><C/><D><B>in</B></D><D><B>two</B></D></A>";
        let read = Element::parse(text).unwrap();
        assert_eq!((read.text("B").as_str(), read.text("C").as_str(), read.text("E").as_str()), ("1 < 2 & é", "", ""));
        assert_eq!(read.all("D").map(|d| d.text("B")).collect::<Vec<_>>(), ["in", "two"]);
        let back = format!("<A><B>{}</B></A>", escaped("a<b>&\"c\r"));
        assert_eq!(Element::parse(&back).unwrap().text("B"), "a<b>&\"c\r");
        for bad in ["", "text", "<A>", "<A></B>", "{}", &"<A>".repeat(100)] {
            assert_eq!(Element::parse(bad), None, "{bad}");
        }
    }
}
