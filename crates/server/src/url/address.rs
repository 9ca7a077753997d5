//! Which function a URL means.

use http::request::Parts;
use http::{HeaderMap, Uri, header};
use std::borrow::Cow;

/// Where function URLs begin.
const PREFIX: &str = "/fn/";

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Namespace of the function.
    pub namespace: String,
    /// Its name.
    pub function: String,
    /// The alias or version, where the URL names one.
    pub qualifier: Option<String>,
    /// What is left of the path for the function, empty when the URL tells by host.
    pub prefix: String,
    /// Path and query as the function sees them.
    pub target: Uri,
}

/// True when the request is for a function's URL, whether or not there is such a function.
pub fn is_function_url(head: &Parts, domain: &str) -> bool {
    head.uri.path().starts_with(PREFIX) || host(head).is_some_and(|h| labels(&h, domain).is_some())
}

/// True for the host of a function, whether or not there is such a function.
pub fn is_function_host(host: &str, domain: &str) -> bool {
    labels(host, domain).is_some()
}

/// The host that the visitor asked, without its port, in lower case.
pub fn host(head: &Parts) -> Option<Cow<'_, str>> {
    host_of(&head.uri, &head.headers)
}

/// The same of a request's parts.
pub fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let text = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => text,
    };
    Some(if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// Function and namespace in a host below `domain`.
fn labels<'a>(host: &'a str, domain: &str) -> Option<(&'a str, &'a str)> {
    let below = host.strip_suffix(domain)?.strip_suffix('.')?;
    let (function, namespace) = below.split_once('.')?;
    (!function.is_empty() && !namespace.is_empty() && !namespace.contains('.')).then_some((function, namespace))
}

/// `hello@prod` is function `hello`, qualifier `prod`; `%24LATEST` is `$LATEST`.
fn split_qualifier(name: &str) -> (String, Option<String>) {
    let name = name.replace("%24", "$").replace("%40", "@");
    match name.split_once('@') {
        Some((function, qualifier)) => (function.to_owned(), Some(qualifier.to_owned())),
        None => (name, None),
    }
}

impl Address {
    /// Reads a request's target. `None`: it names no function.
    pub fn of(head: &Parts, domain: &str) -> Option<Self> {
        let host = host(head);
        if let Some((function, namespace)) = host.as_deref().and_then(|h| labels(h, domain)) {
            // A host has no `@`; an alias follows two hyphens.
            let (function, qualifier) = match function.rsplit_once("--") {
                Some((function, qualifier)) => (function.to_owned(), Some(qualifier.to_owned())),
                None => (function.to_owned(), None),
            };
            let target = origin_form(head.uri.path(), head.uri.query())?;
            return Some(Self { namespace: namespace.to_owned(), function, qualifier, prefix: String::new(), target });
        }
        let rest = head.uri.path().strip_prefix(PREFIX)?;
        let (namespace, rest) = rest.split_once('/')?;
        let (name, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        if namespace.is_empty() || name.is_empty() {
            return None;
        }
        let (function, qualifier) = split_qualifier(name);
        Some(Self {
            namespace: namespace.to_owned(),
            function,
            qualifier,
            prefix: format!("{PREFIX}{namespace}/{name}"),
            target: origin_form(path, head.uri.query())?,
        })
    }
}

/// Path and query as a target.
pub fn origin_form(path: &str, query: Option<&str>) -> Option<Uri> {
    let text = match (path, query) {
        ("", None) => "/".to_owned(),
        (path, None) => path.to_owned(),
        (path, Some(query)) => format!("{path}?{query}"),
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn read(uri: &str, host: &str) -> Option<Address> {
        let head = Request::builder().uri(uri).header("host", host).body(()).unwrap().into_parts().0;
        let address = Address::of(&head, "fn.localhost");
        assert!(address.is_none() || is_function_url(&head, "fn.localhost"));
        address
    }

    fn said(uri: &str, host: &str) -> Option<(String, String, Option<String>, String)> {
        read(uri, host).map(|a| (a.namespace, a.function, a.qualifier, a.target.to_string()))
    }

    fn four(
        ns: &str,
        function: &str,
        qualifier: Option<&str>,
        target: &str,
    ) -> Option<(String, String, Option<String>, String)> {
        Some((ns.into(), function.into(), qualifier.map(Into::into), target.into()))
    }

    #[test]
    fn by_path() {
        assert_eq!(said("/fn/default/hello", "a:1"), four("default", "hello", None, "/"));
        assert_eq!(said("/fn/default/hello/", "a:1"), four("default", "hello", None, "/"));
        assert_eq!(said("/fn/default/hello?a=1", "a"), four("default", "hello", None, "/?a=1"));
        assert_eq!(said("/fn/default/hello/x//y%2Fz?a=%20", "a"), four("default", "hello", None, "/x//y%2Fz?a=%20"));
        assert_eq!(said("/fn/ns/he@prod/x", "a"), four("ns", "he", Some("prod"), "/x"));
        assert_eq!(said("/fn/ns/he@%24LATEST/x", "a"), four("ns", "he", Some("$LATEST"), "/x"));
        assert_eq!(read("/fn/ns/hello/x", "a").unwrap().prefix, "/fn/ns/hello");
        for nothing in ["/fn/", "/fn/ns", "/fn/ns/", "/fn//x/", "/", "/fnx/a/b"] {
            assert_eq!(said(nothing, "a"), None, "{nothing}");
        }
    }

    #[test]
    fn by_host() {
        assert_eq!(said("/x?y", "hello.default.fn.localhost:8700"), four("default", "hello", None, "/x?y"));
        assert_eq!(said("/", "HELLO--Prod.ns.fn.localhost"), four("ns", "hello", Some("prod"), "/"));
        assert_eq!(said("/", "hello.fn.localhost"), None);
        assert_eq!(said("/", "a.b.c.fn.localhost"), None);
        assert_eq!(said("/", "evilfn.localhost"), None);
        assert_eq!(said("/", "127.0.0.1:8700"), None);
        // A service's own paths are its own.
        assert_eq!(said("/fn/other/thing", "hello.ns.fn.localhost"), four("ns", "hello", None, "/fn/other/thing"));
    }
}
