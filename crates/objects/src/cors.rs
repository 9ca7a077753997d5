//! What browsers ask on behalf of pages from elsewhere.

use crate::entry::CorsRule;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

/// Whether `pattern`, in which one `*` may stand for anything, fits.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(text),
        Some((before, after)) => {
            let (text, before, after) =
                (text.to_ascii_lowercase(), before.to_ascii_lowercase(), after.to_ascii_lowercase());
            text.len() >= before.len() + after.len() && text.starts_with(&before) && text.ends_with(&after)
        }
    }
}

/// The rule that allows it, and the headers that say so.
pub(crate) fn allow(rules: &[CorsRule], origin: &str, method: &str, headers: &[String]) -> Option<HeaderMap> {
    let rule = rules.iter().find(|rule| {
        rule.origins.iter().any(|o| fits(o, origin))
            && rule.methods.iter().any(|m| m == method)
            && headers.iter().all(|h| rule.headers.iter().any(|allowed| fits(allowed, h)))
    })?;
    let mut out = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            out.insert(name, value);
        }
    };
    let any = rule.origins.iter().any(|o| o == "*");
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, if any { "*".to_owned() } else { origin.to_owned() });
    set(header::ACCESS_CONTROL_ALLOW_METHODS, rule.methods.join(", "));
    if !any {
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true".to_owned());
    }
    if !headers.is_empty() {
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.join(", "));
    }
    if !rule.expose.is_empty() {
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, rule.expose.join(", "));
    }
    if let Some(seconds) = rule.max_age_s {
        set(header::ACCESS_CONTROL_MAX_AGE, seconds.to_string());
    }
    set(header::VARY, "Origin, Access-Control-Request-Headers, Access-Control-Request-Method".to_owned());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_allow_origins_methods_and_headers() {
        let rules = [CorsRule {
            origins: vec!["https://*.example.com".into()],
            methods: vec!["PUT".into()],
            headers: vec!["x-cos-*".into(), "content-type".into()],
            ..CorsRule::default()
        }];
        let asked = |headers: &[&str]| headers.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>();
        let allowed = allow(&rules, "https://a.example.com", "PUT", &asked(&["X-Cos-Meta-A", "Content-Type"])).unwrap();
        assert_eq!(allowed["access-control-allow-origin"], "https://a.example.com");
        assert!(allow(&rules, "https://example.org", "PUT", &[]).is_none());
        assert!(allow(&rules, "https://a.example.com", "GET", &[]).is_none());
        assert!(allow(&rules, "https://a.example.com", "PUT", &asked(&["authorization"])).is_none());
    }
}
