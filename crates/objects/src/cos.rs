//! From COS's words to S3's and back. The operations are the same, and so are most documents.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Uri};
use mayfly_sign::CosVerified;

/// Query parameters that say which operation is meant: a presigned URL must have been signed with them.
const OPERATIONS: [&str; 28] = [
    "accelerate",
    "acl",
    "analytics",
    "append",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "policy",
    "referer",
    "replication",
    "restore",
    "retention",
    "select",
    "tagging",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// Why a request that is signed is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncovered;

/// A presigned URL is in the hands of third parties: whatever makes another operation of it must have been signed.
pub(crate) fn check_presigned(verified: &CosVerified, headers: &HeaderMap, query: &str) -> Result<(), Uncovered> {
    if !verified.presigned {
        return Ok(());
    }
    let names = form_urlencoded::parse(query.as_bytes()).map(|(n, _)| n.to_ascii_lowercase());
    let decides = |n: &str| OPERATIONS.contains(&n) || matches!(n, "uploadid" | "partnumber" | "versionid");
    if names.into_iter().any(|n| decides(&n) && !verified.covers(&n)) {
        return Err(Uncovered);
    }
    let copies =
        headers.keys().any(|h| h.as_str().starts_with("x-cos-copy-source") && !verified.covers_header(h.as_str()));
    if copies { Err(Uncovered) } else { Ok(()) }
}

/// Rewrites the headers of a request whose signature is proven.
pub(crate) fn translate_headers(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    let (mut cos, mut foreign) = (Vec::new(), Vec::new());
    for name in headers.keys() {
        if name.as_str().starts_with("x-amz-") {
            foreign.push(name.clone());
        } else if let Some(rest) = name.as_str().strip_prefix("x-cos-") {
            cos.push((name.clone(), rest.to_owned()));
        }
    }
    // S3's own headers mean nothing in COS, and were not looked at when the signature was.
    for name in foreign {
        headers.remove(name);
    }
    for (name, rest) in cos {
        let Some(value) = headers.remove(&name) else { continue };
        match rest.as_str() {
            "security-token" | "traffic-limit" | "request-id" => {}
            "forbid-overwrite" => {
                if value.as_bytes().eq_ignore_ascii_case(b"true") {
                    headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
                }
            }
            _ => {
                let value = match rest.as_str() {
                    "copy-source" => copy_source(&value),
                    // COS says `Copy` and `Replaced`.
                    "metadata-directive" | "tagging-directive" => {
                        let replaces = value.as_bytes().to_ascii_lowercase().starts_with(b"replace");
                        HeaderValue::from_static(if replaces { "REPLACE" } else { "COPY" })
                    }
                    "acl" if value.as_bytes() == b"default" => continue,
                    _ => value,
                };
                if let Ok(name) = HeaderName::try_from(format!("x-amz-{rest}")) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// `<bucket>.cos.<region>.myqcloud.com/<key>` becomes `<bucket>/<key>`; so does `<host>/<bucket>/<key>` where the host has a port.
fn copy_source(value: &HeaderValue) -> HeaderValue {
    let Ok(text) = value.to_str() else { return value.clone() };
    let text = text.trim_start_matches('/');
    let Some((host, key)) = text.split_once('/') else { return value.clone() };
    let rewritten = match host.split_once(".cos.") {
        Some((bucket, _)) => format!("{bucket}/{key}"),
        None if host.contains(':') => key.to_owned(),
        None => text.to_owned(),
    };
    HeaderValue::try_from(rewritten).unwrap_or_else(|_| value.clone())
}

/// Takes the signature out of a request's address, and what would look like S3's.
pub(crate) fn translate_uri(uri: &Uri) -> Uri {
    let Some(query) = uri.query() else { return uri.clone() };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or("").to_ascii_lowercase();
            let q_sign = ["q-sign-", "q-ak", "q-key-time", "q-header-list", "q-url-param-list", "q-signature"];
            !(q_sign.iter().any(|q| name.starts_with(q))
                || name.starts_with("x-cos-")
                || name.starts_with("x-amz-")
                || name == "sign")
        })
        .filter(|pair| !pair.is_empty())
        .collect();
    let path = uri.path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut parts = uri.clone().into_parts();
    match target.parse() {
        Ok(target) => parts.path_and_query = Some(target),
        Err(_) => return uri.clone(),
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// Rewrites the headers of an answer.
pub(crate) fn translate_answer(headers: &mut HeaderMap) {
    let names: Vec<(HeaderName, String)> = headers
        .keys()
        .filter_map(|name| Some((name.clone(), name.as_str().strip_prefix("x-amz-")?.to_owned())))
        .collect();
    for (name, rest) in names {
        let Some(value) = headers.remove(&name) else { continue };
        if !rest.starts_with("checksum-")
            && let Ok(name) = HeaderName::try_from(format!("x-cos-{rest}"))
        {
            headers.insert(name, value);
        }
    }
}

/// Says where a bucket is as COS does.
pub(crate) fn translate_buckets(document: &Bytes) -> Bytes {
    match std::str::from_utf8(document) {
        Ok(text) => text.replace("<BucketRegion>", "<Location>").replace("</BucketRegion>", "</Location>").into(),
        Err(_) => document.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_translated() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "q-sign-algorithm=sha1"),
            ("x-amz-copy-source", "stolen/key"),
            ("x-cos-meta-who", "me"),
            ("x-cos-copy-source", "b-125.cos.ap-x.myqcloud.com/a%20b"),
            ("x-cos-metadata-directive", "Replaced"),
            ("x-cos-forbid-overwrite", "true"),
            ("x-cos-acl", "default"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        translate_headers(&mut headers);
        let mut found: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        found.sort();
        let expected = [
            ("if-none-match", "*"),
            ("x-amz-copy-source", "b-125/a%20b"),
            ("x-amz-meta-who", "me"),
            ("x-amz-metadata-directive", "REPLACE"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn signatures_leave_addresses() {
        let uri = "/b/k?q-sign-algorithm=sha1&q-ak=1&uploadId=7&partNumber=1&q-signature=0&X-Amz-Signature=1"
            .parse()
            .unwrap();
        assert_eq!(translate_uri(&uri).to_string(), "/b/k?uploadId=7&partNumber=1");
        assert_eq!(translate_uri(&"/b/k?q-ak=1".parse().unwrap()).to_string(), "/b/k");
    }
}
