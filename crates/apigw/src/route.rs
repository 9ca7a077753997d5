//! Which API of a service a request means.
//!
//! A path is made of segments: text, or `{name}`, which stands for one segment and gives it a name. A path matches requests below it too
//! (`/a` answers `/a/b`), as API Gateway does; one that begins with `=` matches itself only. Of the APIs that match, the one with the most
//! segments wins, then text before a parameter (from the left), then the exact path before the prefix, then the method itself before
//! `ANY`. Source: API Gateway, "Frontend configuration", path matching.

use crate::records::ApiRecord;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest path of an API, in bytes. Ours.
pub const PATH_BYTES_MAX: usize = 512;
/// Most segments of a path. Ours.
pub const SEGMENTS_MAX: usize = 32;
/// Methods of APIs.
pub const METHODS: [&str; 9] = ["ANY", "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE"];

/// A part of a path between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Name(String),
}

/// The path of an API, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
    /// Matches itself only, not what is below it.
    exact: bool,
}

impl Template {
    /// Reads a path. Errors: a sentence for the client.
    pub fn parse(path: &str) -> Result<Self, String> {
        let (exact, rest) = match path.strip_prefix('=') {
            Some(rest) => (true, rest),
            None => (false, path),
        };
        if !rest.starts_with('/') || path.len() > PATH_BYTES_MAX {
            return Err(format!("a path begins with `/` (or `=/`) and has at most {PATH_BYTES_MAX} bytes"));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.~%$@:+*!',;&=()".contains(c);
        let mut segments = Vec::new();
        for part in rest.split('/').skip(1).filter(|part| !part.is_empty()) {
            if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
                if !named || segments.contains(&Segment::Name(name.to_owned())) {
                    return Err("a parameter of a path is `{name}`, a segment of its own, with a name of its own of letters, digits, `-`, `_`, `.`".into());
                }
                segments.push(Segment::Name(name.to_owned()));
            } else if part.chars().all(good) {
                segments.push(Segment::Text(part.to_owned()));
            } else {
                return Err(format!(
                    "the segment `{}` has characters that paths do not have",
                    crate::state::clip(part)
                ));
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(format!("a path has at most {SEGMENTS_MAX} segments"));
        }
        Ok(Self { segments, exact })
    }

    /// Names of its parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|s| match s {
            Segment::Name(name) => Some(name.as_str()),
            Segment::Text(_) => None,
        })
    }

    /// True when another path would answer exactly the same requests.
    pub fn same(&self, other: &Self) -> bool {
        let alike = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Text(a), Segment::Text(b)) => a == b,
            (Segment::Name(_), Segment::Name(_)) => true,
            _ => false,
        };
        self.exact == other.exact
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// The parameters of a path that matches, as they were sent.
    fn matches<'p>(&self, parts: &[&'p str]) -> Option<Vec<(&str, &'p str)>> {
        if parts.len() < self.segments.len() || (self.exact && parts.len() > self.segments.len()) {
            return None;
        }
        let mut found = Vec::new();
        for (segment, part) in self.segments.iter().zip(parts) {
            match segment {
                Segment::Text(text) if text == part => {}
                Segment::Text(_) => return None,
                Segment::Name(name) => found.push((name.as_str(), *part)),
            }
        }
        Some(found)
    }

    /// Orders paths: what is looked at first comes first.
    fn rank(&self) -> (std::cmp::Reverse<usize>, Vec<u8>, bool) {
        let kinds = self.segments.iter().map(|s| u8::from(matches!(s, Segment::Name(_)))).collect();
        (std::cmp::Reverse(self.segments.len()), kinds, !self.exact)
    }
}

/// The routes of one environment of a service.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<(Template, Arc<ApiRecord>)>,
}

/// What a request meant.
#[derive(Clone, Debug)]
pub struct Found {
    /// The API.
    pub api: Arc<ApiRecord>,
    /// Parameters of the path, decoded.
    pub path_parameters: BTreeMap<String, String>,
}

impl Table {
    /// A table of these APIs. Paths that this release cannot read answer nothing.
    pub fn new(apis: Vec<Arc<ApiRecord>>) -> Self {
        let mut rows: Vec<_> =
            apis.into_iter().filter_map(|api| Some((Template::parse(&api.path).ok()?, api))).collect();
        rows.sort_by_cached_key(|(template, api)| (template.rank(), api.method == "ANY", api.id.clone()));
        Self { rows }
    }

    /// The API that answers `method` at `path` (as it was sent, without the environment).
    pub fn find(&self, method: &str, path: &str) -> Option<Found> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for (template, api) in &self.rows {
            if api.method != "ANY" && api.method != method {
                continue;
            }
            if let Some(found) = template.matches(&parts) {
                let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
                let path_parameters = found.into_iter().map(|(n, v)| (n.to_owned(), decoded(v))).collect();
                return Some(Found { api: Arc::clone(api), path_parameters });
            }
        }
        None
    }

    /// The first API at a path that answers some method: for questions that browsers ask before their requests.
    pub fn find_any(&self, path: &str) -> Option<&Arc<ApiRecord>> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        self.rows.iter().find(|(template, _)| template.matches(&parts).is_some()).map(|(_, api)| api)
    }

    /// The API of an id.
    pub fn api(&self, id: &str) -> Option<&Arc<ApiRecord>> {
        self.rows.iter().map(|(_, api)| api).find(|api| api.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Auth, Backend};

    fn api(id: &str, method: &str, path: &str) -> Arc<ApiRecord> {
        Arc::new(ApiRecord {
            id: id.into(),
            service: "s".into(),
            name: String::new(),
            description: String::new(),
            path: path.into(),
            method: method.into(),
            parameters: Vec::new(),
            backend: Backend::Mock { body: String::new() },
            auth: Auth::None,
            cors: false,
            timeout_s: 15,
            response_type: String::new(),
            base64: false,
            limits: BTreeMap::new(),
            push_token: String::new(),
            trigger: None,
            shown: BTreeMap::new(),
            created_ms: 0,
            modified_ms: 0,
        })
    }

    #[test]
    fn the_narrowest_route_wins() {
        let table = Table::new(vec![
            api("root", "ANY", "/"),
            api("users", "GET", "/users"),
            api("user", "ANY", "/users/{id}"),
            api("user-get", "GET", "/users/{id}"),
            api("me", "GET", "/users/me"),
            api("only", "GET", "=/only"),
            api("deep", "POST", "/users/{id}/orders/{order}"),
        ]);
        let found = |method: &str, path: &str| table.find(method, path).map(|f| f.api.id.clone());
        for (method, path, wanted) in [
            ("GET", "/", "root"),
            ("GET", "/users", "users"),
            ("GET", "/users/", "users"),
            ("POST", "/users", "root"),
            ("GET", "/users/7", "user-get"),
            ("PUT", "/users/7", "user"),
            ("GET", "/users/me", "me"),
            ("GET", "/users/me/more", "me"),
            ("POST", "/users/7/orders/9", "deep"),
            ("GET", "/only", "only"),
            ("GET", "/only/not", "root"),
        ] {
            assert_eq!(found(method, path).as_deref(), Some(wanted), "{method} {path}");
        }
        let deep = table.find("POST", "/users/a%20b/orders/%2F").unwrap();
        assert_eq!(deep.path_parameters["id"], "a b");
        assert_eq!(deep.path_parameters["order"], "/");
        assert!(Table::new(vec![api("x", "GET", "/x")]).find("GET", "/xy").is_none());
    }

    #[test]
    fn paths_are_read_strictly() {
        for bad in ["", "x", "/a b", "/{a", "/{a}/{a}", "/x{a}", "/{a b}", "/é"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse(&format!("/{}", "a/".repeat(33))).is_err());
        let read = |p| Template::parse(p).unwrap();
        assert!(read("/a/{x}").same(&read("/a/{y}")) && !read("/a/{x}").same(&read("=/a/{x}")));
        assert_eq!(read("/a/{x}/{y}").names().collect::<Vec<_>>(), ["x", "y"]);
    }
}
