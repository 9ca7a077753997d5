//! Custom domains: which function a request to a host of the user's own means.

use super::address::{Address, host, origin_form};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use mayfly_control::{Control, DomainEntry};
use mayfly_gateway::StreamBody;
use mayfly_model::DomainProtocol;
use std::sync::Arc;

/// What a request to a custom domain comes to.
pub enum Found {
    /// A function.
    Function(Address),
    /// The domain is asked over TLS only, and this was not: go there.
    Elsewhere(Uri),
    /// The domain is asked without TLS only.
    NotSecure,
    /// No path of the domain matches.
    NoPath,
}

/// The custom domain that a request is for, if it is for one.
pub fn of(control: &Control, head: &Parts) -> Option<Arc<DomainEntry>> {
    if !control.catalogue().has_domains() {
        return None;
    }
    control.domain(&host(head)?)
}

/// True when the request came over TLS, to this platform or to a proxy in front of it.
fn came_over_tls(head: &Parts, secure: bool) -> bool {
    let proxied = head.headers.get(HeaderName::from_static("x-forwarded-proto"));
    secure || proxied.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Finds who answers.
pub fn find(domain: &DomainEntry, head: &Parts, secure: bool, tls_port: Option<u16>) -> Found {
    let record = &domain.record;
    match record.protocol {
        DomainProtocol::Http if secure => return Found::NotSecure,
        DomainProtocol::Https if !came_over_tls(head, secure) => {
            return elsewhere(&record.name, head, tls_port).map_or(Found::NoPath, Found::Elsewhere);
        }
        _ => {}
    }
    let path = head.uri.path();
    let Some(endpoint) = record.route(path) else { return Found::NoPath };
    let rewritten = endpoint.rewritten(path);
    let seen = rewritten.as_deref().unwrap_or(path);
    let Some(target) = origin_form(seen, head.uri.query()) else { return Found::NoPath };
    Found::Function(Address {
        namespace: endpoint.namespace.clone(),
        function: endpoint.function.clone(),
        qualifier: Some(endpoint.qualifier.clone()),
        prefix: rewritten.as_deref().and_then(|seen| taken_off(path, seen)).unwrap_or_default().to_owned(),
        target,
    })
}

/// What was taken off the front of a path, when that is all that a rewriting did to it.
fn taken_off<'a>(path: &'a str, seen: &str) -> Option<&'a str> {
    path.strip_suffix(seen)
}

/// The same URL over TLS. A visitor who named a port is asked to name that of the TLS listener; to one who named none both are hidden behind
/// the usual ones.
fn elsewhere(name: &str, head: &Parts, tls_port: Option<u16>) -> Option<Uri> {
    let asked = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(header::HOST)?.to_str().ok()?,
    };
    let named_port = asked.rsplit_once(':').is_some_and(|(_, port)| port != "80" && !port.is_empty());
    let authority = match tls_port {
        Some(port) if named_port && port != 443 => format!("{name}:{port}"),
        _ => name.to_owned(),
    };
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    Uri::builder().scheme("https").authority(authority).path_and_query(path).build().ok()
}

/// Sends a visitor to another URL, with method and body.
pub fn redirect(to: &Uri) -> Response<StreamBody> {
    let mut response = Response::new(StreamBody::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(to.to_string()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn visitors_are_sent_to_the_port_that_they_can_reach() {
        for (host, port, url) in [
            ("a.example", Some(8743), "https://a.example/x?y=1"),
            ("a.example:80", Some(8743), "https://a.example/x?y=1"),
            ("a.example:8700", Some(8743), "https://a.example:8743/x?y=1"),
            ("a.example:8700", Some(443), "https://a.example/x?y=1"),
            ("a.example:8700", None, "https://a.example/x?y=1"),
        ] {
            let head = Request::get("/x?y=1").header("host", host).body(()).unwrap().into_parts().0;
            assert_eq!(elsewhere("a.example", &head, port).unwrap().to_string(), url, "{host}");
        }
    }

    #[test]
    fn only_what_was_taken_off_is_a_prefix() {
        assert_eq!(taken_off("/api/x", "/x"), Some("/api"));
        assert_eq!(taken_off("/api/x", "/y"), None);
        assert_eq!(taken_off("/api/x", "/v2/x"), None);
        assert_eq!(taken_off("/x", "/x"), Some(""));
    }
}
