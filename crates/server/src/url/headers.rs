//! What a good proxy does to headers. Sources: RFC 9110 §7.6, RFC 9113 §8.2, the usual `X-Forwarded-*`, W3C Trace Context.

use super::address::Address;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use mayfly_model::RequestId;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The other end of a visitor's connection.
pub struct Visitor {
    pub peer: SocketAddr,
    pub secure: bool,
}

/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// True when the visitor wants the connection to become something else.
pub fn asks_for_upgrade(head: &Parts) -> bool {
    head.version == Version::HTTP_11
        && head.headers.contains_key(header::UPGRADE)
        && names_in_connection(&head.headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
        // HTTP/2 in HTTP/1.1 would be a tunnel for requests that nobody looks at.
        && !head.headers.get_all(header::UPGRADE).iter().any(|v| v.as_bytes().to_ascii_lowercase().windows(3).any(|w| w == b"h2c"))
}

/// True when the visitor says, as HTTP asks for, which one host it means. Source: RFC 9112 §3.2.
pub fn names_a_host(head: &Parts) -> bool {
    let good = |bytes: &[u8]| !bytes.contains(&b'@') && http::uri::Authority::try_from(bytes).is_ok();
    match (head.headers.get(header::HOST), head.uri.authority()) {
        (Some(host), _) => good(host.as_bytes()),
        (None, Some(authority)) => good(authority.as_str().as_bytes()),
        (None, None) => head.version < Version::HTTP_11,
    }
}

/// True for the names in which the platform speaks to servers, also as those see them that make no difference between `-` and `_`.
pub fn is_the_platforms_own(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    name.len() > 5
        && name[..5].iter().zip(b"x-scf").all(|(n, w)| n == w || (*w == b'-' && *n == b'_'))
        && matches!(name[5], b'-' | b'_')
}

fn names_in_connection(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

/// Takes out what concerned the connection it came over.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = names_in_connection(headers).filter_map(|n| n.parse().ok()).collect();
        // No connection's affair, whatever a visitor says; somebody would like servers not to see them.
        let kept = |n: &HeaderName| {
            [header::HOST, header::CONTENT_LENGTH].contains(n) || n.as_str().starts_with("x-forwarded-")
        };
        for name in named.iter().filter(|n| !kept(n)) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes out the names that the platform speaks in, and nobody else.
pub fn drop_own(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers.keys().filter(|n| is_the_platforms_own(n)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// Makes a visitor's headers ones for the server.
pub fn forward(head: &mut Parts, visitor: &Visitor, address: &Address, id: RequestId, upgrading: bool) {
    let authority = head.uri.authority().map(|a| a.as_str().to_owned());
    let headers = &mut head.headers;
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| upgrading);
    let trailers = headers.get(header::TE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    drop_own(headers);
    // The platform has said "go on" itself when it began to read.
    headers.remove(header::EXPECT);
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // HTTP/2 carries the host in the target, and may split cookies.
    if let Some(authority) = authority.and_then(|a| HeaderValue::try_from(a).ok()) {
        headers.insert(header::HOST, authority);
    }
    join(headers, header::COOKIE, "; ");
    if let Ok(ip) = HeaderValue::try_from(visitor.peer.ip().to_string()) {
        headers.append(FORWARDED_FOR, ip);
        join(headers, FORWARDED_FOR, ", ");
    }
    let scheme = HeaderValue::from_static(if visitor.secure { "https" } else { "http" });
    // A proxy in front may know better, but for what came in encrypted.
    match visitor.secure {
        true => drop(headers.insert(FORWARDED_PROTO, scheme)),
        false => drop(headers.entry(FORWARDED_PROTO).or_insert(scheme)),
    }
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    if !address.prefix.is_empty()
        && let Ok(prefix) = HeaderValue::try_from(&address.prefix)
    {
        headers.insert(FORWARDED_PREFIX, prefix);
    }
    if !headers.contains_key(&TRACE_PARENT)
        && let Ok(parent) = HeaderValue::try_from(format!("00-{:032x}-{:016x}-00", id.0, id.0 as u64 | 1))
    {
        headers.insert(TRACE_PARENT, parent);
    }
}

/// Makes several headers of one name one.
fn join(headers: &mut HeaderMap, name: HeaderName, separator: &str) {
    if headers.get_all(&name).iter().nth(1).is_none() {
        return;
    }
    let values: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&values.join(separator.as_bytes())) {
        headers.insert(name, value);
    }
}

/// Every header by its name, several of one name as one text.
pub fn join_all(headers: &HeaderMap) -> BTreeMap<String, String> {
    let of = |name: &HeaderName| {
        let separator = if name == header::COOKIE { "; " } else { ", " };
        let values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        values.collect::<Vec<_>>().join(separator)
    };
    headers.keys().map(|name| (name.as_str().to_owned(), of(name))).collect()
}

/// Makes a server's headers ones for the visitor.
pub fn back(headers: &mut HeaderMap, upgrading: bool) {
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| upgrading);
    strip(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn forwarded(request: http::request::Builder, upgrading: bool) -> HeaderMap {
        let mut head = request.body(()).unwrap().into_parts().0;
        let address = Address {
            namespace: "ns".into(),
            function: "f".into(),
            qualifier: None,
            prefix: "/fn/ns/f".into(),
            target: "/".parse().unwrap(),
        };
        let visitor = Visitor { peer: "192.0.2.7:1".parse().unwrap(), secure: false };
        assert_eq!(asks_for_upgrade(&head), upgrading);
        forward(&mut head, &visitor, &address, RequestId(5), upgrading);
        head.headers
    }

    fn text(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_concerned_the_connection_stays_behind() {
        let h = forwarded(
            Request::get("/fn/ns/f")
                .header("host", "h")
                .header("connection", "keep-alive, X-Own, Host, X-Forwarded-For")
                .header("x-scf-name", "somebody-else")
                .header("x_scf_version", "somebody-else")
                .header("x-own", "1")
                .header("keep-alive", "5")
                .header("te", "gzip")
                .header("proxy-authorization", "secret")
                .header("expect", "100-continue")
                .header("x-forwarded-for", "198.51.100.1")
                .header("x-forwarded-proto", "https")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("authorization", "theirs"),
            false,
        );
        for gone in
            ["connection", "x-own", "x-scf-name", "x_scf_version", "keep-alive", "te", "proxy-authorization", "expect"]
        {
            assert_eq!(text(&h, gone), Vec::<String>::new(), "{gone}");
        }
        assert_eq!(text(&h, "x-forwarded-for"), ["198.51.100.1, 192.0.2.7"]);
        assert_eq!(text(&h, "x-forwarded-proto"), ["https"]);
        assert_eq!(text(&h, "x-forwarded-host"), ["h"]);
        assert_eq!(text(&h, "x-forwarded-prefix"), ["/fn/ns/f"]);
        assert_eq!(text(&h, "cookie"), ["a=1; b=2"]);
        assert_eq!(text(&h, "authorization"), ["theirs"]);
        assert_eq!(text(&h, "traceparent"), ["00-00000000000000000000000000000005-0000000000000005-00"]);
    }

    #[test]
    fn hosts_are_one_and_tunnels_are_not_for_http() {
        let head = |build: http::request::Builder| build.body(()).unwrap().into_parts().0;
        for good in ["h", "h:80", "127.0.0.1:8700", "[::1]:80"] {
            assert!(names_a_host(&head(Request::get("/").header("host", good))), "{good}");
        }
        for bad in ["h, other", "a b", "a/b", "probe@h", ""] {
            assert!(!names_a_host(&head(Request::get("/").header("host", bad))), "{bad}");
        }
        assert!(!names_a_host(&head(Request::get("/"))));
        let upgrade =
            |to| head(Request::get("/").header("connection", "upgrade, http2-settings").header("upgrade", to));
        assert!(asks_for_upgrade(&upgrade("websocket")) && !asks_for_upgrade(&upgrade("H2C")));
    }

    #[test]
    fn upgrades_and_trailers_are_asked_for_again() {
        let h = forwarded(
            Request::get("/")
                .header("connection", "keep-alive, Upgrade")
                .header("upgrade", "websocket")
                .header("te", "trailers"),
            true,
        );
        assert_eq!((text(&h, "connection"), text(&h, "upgrade")), (vec!["Upgrade".into()], vec!["websocket".into()]));
        assert_eq!(text(&h, "te"), ["trailers"]);
        let mut answer = h.clone();
        back(&mut answer, false);
        assert_eq!(text(&answer, "upgrade"), Vec::<String>::new());
    }
}
