//! Where the platform is, and who we are to it.

use crate::error::{CliError, Kind};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Endpoint when none is given.
pub const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:8700";
/// Largest `credentials.json` that is read, in bytes.
const CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;

/// The data directory when none is given: `/var/lib/mayfly` for root, else `~/.local/share/mayfly`.
pub fn data_default(is_root: bool, home: Option<&str>) -> PathBuf {
    match home.filter(|h| !is_root && !h.is_empty()) {
        Some(home) => Path::new(home).join(".local/share/mayfly"),
        None => PathBuf::from("/var/lib/mayfly"),
    }
}

/// [`data_default`] for this process.
pub fn data_default_here() -> PathBuf {
    data_default(rustix::process::geteuid().is_root(), std::env::var("HOME").ok().as_deref())
}

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host` or `host:port`, as the `Host` header says it.
    pub authority: String,
}

impl Endpoint {
    /// What asks a store or a queue: answers of any status are read, nothing is followed, no proxy is between. `answer`: how long one may take.
    pub fn agent(answer: Duration) -> ureq::Agent {
        const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(answer))
            .build();
        config.new_agent()
    }

    /// Reads `http://host[:port]`, the scheme may be missing.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let hint = "an endpoint looks like http://127.0.0.1:8700";
        let bad = |why: &str| CliError::local(format!("the endpoint `{text}` {why}")).hint(hint);
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(bad("asks for TLS, which this client does not speak").hint(
                    "use http, through a tunnel (ssh -L 8700:127.0.0.1:8700 HOST) when the network is not yours",
                ));
            }
            Some(_) => return Err(bad("has a scheme other than http")),
            None => text,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) || authority.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("is more than a host and a port"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
            return Err(bad("names no host"));
        }
        if port.is_some_and(|p| p.parse::<u16>().map_or(true, |n| n == 0)) {
            return Err(bad("has a bad port"));
        }
        Ok(Self { authority: authority.to_owned() })
    }

    /// The same host, another port.
    pub fn at(&self, port: u16) -> Self {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => &self.authority,
        };
        Self { authority: format!("{host}:{port}") }
    }

    /// The URL that calls go to.
    pub fn url(&self) -> String {
        format!("http://{}/", self.authority)
    }
}

/// Who signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The id.
    pub secret_id: String,
    /// The secret.
    pub secret_key: String,
    /// The token of temporary credentials.
    pub token: Option<String>,
}

// The key must not reach a log or a test's output.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("secret_id", &self.secret_id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct File {
    secret_id: String,
    secret_key: String,
}

/// Finds credentials: flags, `MAYFLY_SECRET_ID`/`_KEY`, `TENCENTCLOUD_SECRET_ID`/`_KEY` (with `TENCENTCLOUD_TOKEN`),
/// then `credentials.json` in the data directory. `lookup` reads the environment.
pub fn credentials(
    flags: (Option<&str>, Option<&str>),
    data: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Credentials, CliError> {
    let filled = |name: &str| lookup(name).filter(|v| !v.is_empty());
    let own = |t: Option<&str>| t.filter(|t| !t.is_empty()).map(str::to_owned);
    let sources = [
        (("--secret-id", own(flags.0)), ("--secret-key", own(flags.1)), None),
        (("MAYFLY_SECRET_ID", filled("MAYFLY_SECRET_ID")), ("MAYFLY_SECRET_KEY", filled("MAYFLY_SECRET_KEY")), None),
        (
            ("TENCENTCLOUD_SECRET_ID", filled("TENCENTCLOUD_SECRET_ID")),
            ("TENCENTCLOUD_SECRET_KEY", filled("TENCENTCLOUD_SECRET_KEY")),
            filled("TENCENTCLOUD_TOKEN"),
        ),
    ];
    for ((id_name, id), (key_name, key), token) in sources {
        match (id, key) {
            (Some(secret_id), Some(secret_key)) => {
                return checked(Credentials { secret_id, secret_key, token }, id_name);
            }
            (None, None) => {}
            (Some(_), None) => return Err(half(id_name, key_name)),
            (None, Some(_)) => return Err(half(key_name, id_name)),
        }
    }
    from_file(data)
}

fn half(given: &str, missing: &str) -> CliError {
    CliError::local(format!("{given} is given without {missing}")).hint("give both or neither")
}

fn checked(credentials: Credentials, source: &str) -> Result<Credentials, CliError> {
    let id = &credentials.secret_id;
    if id.len() > 128 || !id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b',' | b'=')) {
        return Err(CliError::local(format!("the secret id of {source} is not one")).hint("was something else pasted?"));
    }
    Ok(credentials)
}

fn from_file(data: &Path) -> Result<Credentials, CliError> {
    use std::io::Read;
    let path = data.join("credentials.json");
    let shown = path.display();
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|f| f.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let hint = "`mayfly up` makes them at its first start; say where its data is with --data or MAYFLY_DATA, or set MAYFLY_SECRET_ID and MAYFLY_SECRET_KEY";
            return Err(CliError::local(format!("there are no credentials: {shown} does not exist")).hint(hint));
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let hint = "run this with sudo, or set MAYFLY_SECRET_ID and MAYFLY_SECRET_KEY";
            return Err(CliError::local(format!("{shown} belongs to another user")).hint(hint));
        }
        Err(error) => return Err(CliError::local(format!("cannot read {shown}: {error}"))),
    }
    let file: File = serde_json::from_str(&text).map_err(|e| {
        CliError::new(Kind::Local, format!("{shown} does not hold credentials: {e}"))
            .hint("it holds {\"secret_id\": …, \"secret_key\": …}")
    })?;
    checked(Credentials { secret_id: file.secret_id, secret_key: file.secret_key, token: None }, &shown.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, authority) in [
            ("http://127.0.0.1:8700", "127.0.0.1:8700"),
            ("HTTP://localhost/", "localhost"),
            ("host:80", "host:80"),
            ("http://[::1]:8700", "[::1]:8700"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().authority, authority, "{text}");
        }
        for (text, beside) in
            [("http://h:8700", "h:1"), ("h", "h:1"), ("http://[::1]:8700", "[::1]:1"), ("[::1]", "[::1]:1")]
        {
            assert_eq!(Endpoint::parse(text).unwrap().at(1).authority, beside, "{text}");
        }
        for bad in ["", "http://", "https://x", "ftp://x", "http://x/y", "http://u@x", "x:0", "x:99999", "::1", "a b"] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{bad}");
            assert!(!error.hint.is_empty(), "{bad}");
        }
    }

    #[test]
    fn data_directories() {
        assert_eq!(data_default(true, Some("/root")), Path::new("/var/lib/mayfly"));
        assert_eq!(data_default(false, Some("/home/a")), Path::new("/home/a/.local/share/mayfly"));
        assert_eq!(data_default(false, None), Path::new("/var/lib/mayfly"));
    }

    #[test]
    fn credentials_come_from_the_first_source_that_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let none = |_: &str| None;
        let missing = credentials((None, None), dir.path(), &none).unwrap_err();
        assert!(missing.hint.contains("mayfly up"), "{missing}");
        std::fs::write(dir.path().join("credentials.json"), r#"{"secret_id":"file","secret_key":"k"}"#).unwrap();
        assert_eq!(credentials((None, None), dir.path(), &none).unwrap().secret_id, "file");
        let tencent = |n: &str| n.starts_with("TENCENTCLOUD_").then(|| n.to_lowercase());
        let found = credentials((None, None), dir.path(), &tencent).unwrap();
        assert_eq!(
            (found.secret_id.as_str(), found.token.as_deref()),
            ("tencentcloud_secret_id", Some("tencentcloud_token"))
        );
        let all = |n: &str| Some(n.to_lowercase());
        assert_eq!(credentials((None, None), dir.path(), &all).unwrap().secret_id, "mayfly_secret_id");
        let flags = credentials((Some("a"), Some("b")), dir.path(), &all).unwrap();
        assert_eq!((flags.secret_id.as_str(), flags.secret_key.as_str(), flags.token), ("a", "b", None));
        assert!(credentials((Some("a"), None), dir.path(), &all).unwrap_err().message.contains("--secret-key"));
        assert!(credentials((Some("a/b"), Some("k")), dir.path(), &all).is_err());
        std::fs::write(dir.path().join("credentials.json"), "{}").unwrap();
        assert!(credentials((None, None), dir.path(), &none).unwrap_err().message.contains("secret_id"));
    }
}
