//! Custom domains: hosts of the user's own, and which path of them leads to which function.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a domain is asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainProtocol {
    /// Without encryption only.
    #[serde(rename = "HTTP")]
    Http,
    /// With encryption only.
    #[serde(rename = "HTTPS")]
    Https,
    /// With or without.
    #[serde(rename = "HTTP&HTTPS")]
    Both,
}

impl DomainProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Both];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Both => "HTTP&HTTPS",
        }
    }

    /// True when it needs a certificate.
    pub fn is_secure(self) -> bool {
        self != Self::Http
    }
}

impl fmt::Display for DomainProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A path of a domain, or, with `/*` at its end, all paths below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathPattern(String);

impl PathPattern {
    /// Longest pattern, in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Reads `/`, `/*`, `/x`, `/x/a` or `/x/*`.
    ///
    /// # Errors
    /// A sentence's end that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let good = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`');
        if text.len() > Self::BYTES_MAX {
            return Err("it is longer than 512 bytes");
        }
        if !text.starts_with('/') {
            return Err("it does not begin with `/`");
        }
        let fixed = text.strip_suffix("/*").unwrap_or(text);
        if fixed.contains('*') {
            return Err("`*` stands only at the end, after `/`");
        }
        if !fixed.bytes().all(good) {
            return Err("it has characters that no path has; write them as %XX");
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when it stands for many paths.
    pub fn is_wildcard(&self) -> bool {
        self.0.ends_with("/*")
    }

    /// What `*` stands for in `path` (nothing, when the pattern has none). `None`: the pattern does not match.
    pub fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.0.strip_suffix('*') {
            Some(prefix) => path.strip_prefix(prefix),
            None => (path == self.0).then_some(""),
        }
    }

    /// What decides between patterns that match: one path before many, then the longer one.
    pub fn rank(&self) -> (bool, usize) {
        (!self.is_wildcard(), self.0.len())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a path is written anew before the function sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRewrite {
    /// Which paths.
    pub path: PathPattern,
    /// What the function sees; `$` (or `$1`) stands for what `*` stood for.
    pub rewrite: String,
}

impl PathRewrite {
    /// The path as the function sees it. `None`: this rule is not for `path`.
    pub fn apply(&self, path: &str) -> Option<String> {
        let rest = self.path.rest(path)?;
        Some(match self.rewrite.split_once('$') {
            None => self.rewrite.clone(),
            Some((before, after)) => format!("{before}{rest}{}", after.strip_prefix('1').unwrap_or(after)),
        })
    }
}

/// Which function answers some paths of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainEndpoint {
    /// Namespace of the function.
    pub namespace: String,
    /// Its name.
    pub function: String,
    /// Its version or alias.
    pub qualifier: String,
    /// Which paths.
    pub path: PathPattern,
    /// Tried in this order; the first that matches holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<PathRewrite>,
}

impl DomainEndpoint {
    /// The path as the function sees it; `None`: as it came.
    pub fn rewritten(&self, path: &str) -> Option<String> {
        self.rewrites.iter().find_map(|rule| rule.apply(path))
    }
}

/// A custom domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// The host, in ASCII and lower case.
    pub name: String,
    /// What it is asked over.
    pub protocol: DomainProtocol,
    /// Which paths lead where.
    pub endpoints: Vec<DomainEndpoint>,
    /// Id of its certificate, where the protocol needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// When it was created, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

impl DomainRecord {
    /// Who answers `path`: of the patterns that match, one without `*` before one with, then the longest.
    pub fn route(&self, path: &str) -> Option<&DomainEndpoint> {
        // Clients that ask for nothing ask for the root.
        let path = if path.is_empty() { "/" } else { path };
        let matching = self.endpoints.iter().filter(|endpoint| endpoint.path.rest(path).is_some());
        matching.max_by_key(|endpoint| endpoint.path.rank())
    }
}

/// A certificate with its chain and its key, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The id that domains name it by.
    pub id: String,
    /// The chain, the server's own certificate first.
    pub certificate: String,
    /// The key. Never leaves the platform.
    pub key: String,
    /// When it was first given, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last replaced, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

impl fmt::Debug for CertificateRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRecord").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn patterns_are_what_the_api_says() {
        for good in ["/", "/*", "/x", "/x/a", "/x/*", "/a%20b", "/x/"] {
            assert_eq!(pattern(good).as_str(), good);
        }
        for bad in ["", "x", "*", "/x*", "/*/x", "/x/**", "/a b", "/a?b", "/é", &format!("/{}", "x".repeat(512))] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
        for (text, path, rest) in [
            ("/", "/", Some("")),
            ("/", "/x", None),
            ("/*", "/", Some("")),
            ("/*", "/x/y", Some("x/y")),
            ("/x", "/x", Some("")),
            ("/x", "/x/", None),
            ("/x/*", "/x", None),
            ("/x/*", "/x/", Some("")),
            ("/x/*", "/x/a/b", Some("a/b")),
            ("/x/*", "/xa", None),
        ] {
            assert_eq!(pattern(text).rest(path), rest, "{text} {path}");
        }
    }

    #[test]
    fn the_longest_path_wins_and_an_exact_one_before_it() {
        let endpoint = |path: &str| DomainEndpoint {
            namespace: "default".into(),
            function: path.into(),
            qualifier: "$DEFAULT".into(),
            path: pattern(path),
            rewrites: Vec::new(),
        };
        let record = |paths: &[&str]| DomainRecord {
            name: "a.example".into(),
            protocol: DomainProtocol::Http,
            endpoints: paths.iter().map(|p| endpoint(p)).collect(),
            certificate: None,
            tags: Vec::new(),
            add_time_ms: 0,
            mod_time_ms: 0,
        };
        let all = record(&["/*", "/api/*", "/api/v1/*", "/api/v1/x", "/"]);
        for (path, answers) in [
            ("/", "/"),
            ("", "/"),
            ("/z", "/*"),
            ("/api", "/*"),
            ("/api/", "/api/*"),
            ("/api/v1", "/api/*"),
            ("/api/v1/x", "/api/v1/x"),
            ("/api/v1/x/", "/api/v1/*"),
        ] {
            assert_eq!(all.route(path).unwrap().function, answers, "{path}");
        }
        assert_eq!(record(&["/x"]).route("/y"), None);
    }

    #[test]
    fn paths_are_written_anew_by_the_first_rule_that_matches() {
        let rule = |path: &str, rewrite: &str| PathRewrite { path: pattern(path), rewrite: rewrite.into() };
        for (rule, path, seen) in [
            (rule("/api/*", "/$"), "/api/a/b", Some("/a/b")),
            (rule("/api/*", "/$1"), "/api/", Some("/")),
            (rule("/api/*", "/v2/$1/x"), "/api/a", Some("/v2/a/x")),
            (rule("/api/*", "/"), "/api/a", Some("/")),
            (rule("/old", "/new"), "/old", Some("/new")),
            (rule("/old", "/new"), "/older", None),
        ] {
            assert_eq!(rule.apply(path).as_deref(), seen, "{rule:?}");
        }
        let endpoint = DomainEndpoint {
            namespace: "default".into(),
            function: "f".into(),
            qualifier: "$DEFAULT".into(),
            path: pattern("/*"),
            rewrites: vec![rule("/a/b", "/exact"), rule("/a/*", "/$")],
        };
        assert_eq!(endpoint.rewritten("/a/b").as_deref(), Some("/exact"));
        assert_eq!(endpoint.rewritten("/a/c").as_deref(), Some("/c"));
        assert_eq!(endpoint.rewritten("/b"), None);
    }

    #[test]
    fn keys_are_not_shown() {
        let record = CertificateRecord {
            id: "x".into(),
            certificate: "c".into(),
            key: "hush".into(),
            add_time_ms: 0,
            mod_time_ms: 0,
        };
        assert!(!format!("{record:?}").contains("hush"));
    }
}
