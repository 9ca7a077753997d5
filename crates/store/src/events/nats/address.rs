//! Where a NATS server is, and which stream of it keeps the events: what stands in the option.

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Name of the stream where the address gives none.
const STREAM_DEFAULT: &str = "MAYFLY_EVENTS";
/// Servers that one address may name.
const SERVERS_MAX: usize = 16;

/// A stream of a NATS server or cluster: `nats://[user:password@]host[:port][,host…][/STREAM][?replicas=N]`. `tls://` asks for TLS; a name alone
/// before the `@` is a token.
#[derive(Clone, Debug)]
pub struct NatsAddress {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) stream: String,
    pub(super) replicas: usize,
    pub(super) credentials: Option<PathBuf>,
    login: Option<Login>,
}

/// What stands before the `@`. The library takes it from nowhere but its options.
#[derive(Clone)]
enum Login {
    Token(String),
    User(String, String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    fn read(text: &str) -> Result<Self, String> {
        let decoded = |part: &str| {
            let text = percent_decode_str(part).decode_utf8();
            text.map(|text| text.into_owned()).map_err(|_| "the user or password is not UTF-8".to_owned())
        };
        Ok(match text.split_once(':') {
            None => Self::Token(decoded(text)?),
            Some((user, password)) => Self::User(decoded(user)?, decoded(password)?),
        })
    }
}

impl NatsAddress {
    /// Proves who it is with the JWT and seed of this `.creds` file, which is read at each start.
    pub fn with_credentials(mut self, file: PathBuf) -> Self {
        self.credentials = Some(file);
        self
    }

    /// Options with what the address says of who connects.
    pub(super) fn log_in(&self, options: ConnectOptions) -> ConnectOptions {
        match self.login.clone() {
            None => options,
            Some(Login::Token(token)) => options.token(token),
            Some(Login::User(user, password)) => options.user_and_password(user, password),
        }
    }

    /// The servers without what is secret in their addresses, for messages.
    pub fn shown(&self) -> String {
        let hosts: Vec<_> = self.servers.iter().map(|s| format!("{}:{}", s.host(), s.port())).collect();
        hosts.join(", ")
    }

    /// Name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl FromStr for NatsAddress {
    type Err = String;

    /// No message holds what was read: there may be a password in it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it is not nats://host:port")?;
        if !matches!(scheme, "nats" | "tls") {
            return Err("its scheme is neither `nats` nor `tls`".into());
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        // A password may hold a `/` only in percent-encoding.
        let (hosts, stream) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match hosts.rsplit_once('@') {
            Some((user, hosts)) => (Some(Login::read(user)?), hosts),
            None => (None, hosts),
        };
        let servers = hosts
            .split(',')
            .map(|host| match host.trim() {
                "" => Err("a host is empty".to_owned()),
                host => format!("{scheme}://{host}").parse().map_err(|_| "a host is not host:port".to_owned()),
            })
            .collect::<Result<Vec<ServerAddr>, _>>()?;
        if servers.len() > SERVERS_MAX {
            return Err(format!("it names more than {SERVERS_MAX} servers"));
        }
        let stream = if stream.is_empty() { STREAM_DEFAULT } else { stream };
        let named = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if stream.len() > 64 || !stream.bytes().all(named) {
            return Err("the name of its stream is not 1 to 64 letters, digits, `_` or `-`".into());
        }
        let replicas = match query {
            None => 1,
            Some(query) => match query.strip_prefix("replicas=").map(str::parse) {
                Some(Ok(replicas @ 1..=5)) => replicas,
                Some(_) => return Err("`replicas` is 1 to 5".into()),
                None => return Err("it knows no setting but `replicas`".into()),
            },
        };
        Ok(Self { servers, stream: stream.to_owned(), replicas, credentials: None, login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<NatsAddress, String> {
        text.parse()
    }

    #[test]
    fn addresses_are_read() {
        let plain = read("nats://localhost:4222").unwrap();
        assert_eq!((plain.stream(), plain.replicas, plain.shown().as_str()), (STREAM_DEFAULT, 1, "localhost:4222"));
        let full = read("tls://me:se%2Fcret@a.example:1,b.example/EV-1?replicas=3").unwrap();
        assert_eq!((full.stream(), full.replicas), ("EV-1", 3));
        assert_eq!(full.shown(), "a.example:1, b.example:4222");
        assert!(full.servers.iter().all(ServerAddr::tls_required));
        assert!(matches!(&full.login, Some(Login::User(user, password)) if user == "me" && password == "se/cret"));
        assert!(!full.shown().contains("cret") && !format!("{full:?}").contains("cret"));
        assert!(matches!(read("nats://a%20b@h").unwrap().login, Some(Login::Token(token)) if token == "a b"));
    }

    #[test]
    fn mistakes_are_told_without_secrets() {
        for (text, says) in [
            ("localhost:4222", "not nats://"),
            ("http://secret@h:1", "scheme"),
            ("nats://secret@", "empty"),
            ("nats://secret@h:1,,", "empty"),
            ("nats://secret@h:1/a.b", "stream"),
            ("nats://secret@h:1/S?replicas=9", "replicas"),
            ("nats://secret@h:1?x=1", "no setting"),
            ("nats://secret@h:99999", "host:port"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
