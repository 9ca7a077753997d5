//! Answers to browsers that ask from other origins. Source: the Fetch standard, "CORS protocol".

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use mayfly_gateway::StreamBody;
use mayfly_model::CorsConfig;

fn allows(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item.eq_ignore_ascii_case(wanted))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The answer to a browser's question before its request. `None`: this is not such a question.
pub fn preflight(cors: &CorsConfig, head: &Parts) -> Option<Response<StreamBody>> {
    let origin = head.headers.get(header::ORIGIN)?;
    let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?;
    if head.method != Method::OPTIONS {
        return None;
    }
    let mut response = Response::new(StreamBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|v| v.to_str().ok()).unwrap_or("");
    let headers_allowed = asked.split(',').map(str::trim).filter(|n| !n.is_empty()).all(|n| allows(&cors.headers, n));
    if allows(&cors.methods, method) && headers_allowed && admit(cors, origin, headers) {
        insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, method);
        if !asked.is_empty() {
            insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        if cors.max_age_s > 0 {
            insert(headers, header::ACCESS_CONTROL_MAX_AGE, &cors.max_age_s.to_string());
        }
    }
    headers.insert(
        header::VARY,
        HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"),
    );
    Some(response)
}

/// Says in an answer that scripts of `origin` may read it, if they may. The URL's settings stand above what the function said.
pub fn admit(cors: &CorsConfig, origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
    ] {
        headers.remove(name);
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if !origin.to_str().is_ok_and(|o| allows(&cors.origins, o)) {
        return false;
    }
    // With cookies, `*` is not allowed to stand for an origin.
    let any = cors.origins.iter().any(|o| o == "*") && !cors.credentials;
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, if any { HeaderValue::from_static("*") } else { origin.clone() });
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if !cors.expose_headers.is_empty() {
        insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose_headers.join(", "));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn cors(origins: &[&str], credentials: bool) -> CorsConfig {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        CorsConfig {
            origins: list(origins),
            methods: list(&["POST"]),
            headers: list(&["X-One"]),
            expose_headers: list(&["x-scf-request-id"]),
            credentials,
            max_age_s: 60,
        }
    }

    fn ask(cors: &CorsConfig, method: &str, headers: &str) -> HeaderMap {
        let request = Request::options("/")
            .header("origin", "https://a.example")
            .header("access-control-request-method", method)
            .header("access-control-request-headers", headers);
        let head = request.body(()).unwrap().into_parts().0;
        preflight(cors, &head).expect("it is a preflight").headers().clone()
    }

    #[test]
    fn only_what_is_allowed_is_granted() {
        let granted = ask(&cors(&["https://a.example"], true), "POST", "x-one");
        assert_eq!(granted["access-control-allow-origin"], "https://a.example");
        assert_eq!(granted["access-control-allow-credentials"], "true");
        assert_eq!(granted["access-control-max-age"], "60");
        for (list, method, headers) in [
            (cors(&["https://b.example"], false), "POST", "x-one"),
            (cors(&["*"], false), "PUT", "x-one"),
            (cors(&["*"], false), "POST", "x-two"),
        ] {
            assert!(ask(&list, method, headers).get("access-control-allow-methods").is_none());
        }
    }

    #[test]
    fn a_star_never_goes_with_cookies() {
        let origin = HeaderValue::from_static("https://a.example");
        let mut headers = HeaderMap::new();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("https://evil.example"));
        assert!(admit(&cors(&["*"], true), &origin, &mut headers));
        assert_eq!(headers["access-control-allow-origin"], "https://a.example");
        assert!(admit(&cors(&["*"], false), &origin, &mut headers));
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert!(!admit(&cors(&[], false), &origin, &mut headers));
        assert!(headers.get("access-control-allow-origin").is_none());
    }
}
