//! The `Authorization` header and everything that TC3 verification reads of a request.
//!
//! Input: lines `authorization`, `host`, `content-type`, `timestamp`, `query`, and the rest is the body. Nothing may
//! panic, and nothing may verify: the secret is not in the input.
#![no_main]

use std::collections::HashMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mayfly_sign::{Authorization, Credential, RequestView, Verifier};

const NOW_MS: u64 = 1_795_228_103_000;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(6, |b| *b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (authorization, host, content_type, timestamp, query) = (line(), line(), line(), line(), line());
    let body = Bytes::copy_from_slice(line());
    if let Ok(parsed) = Authorization::parse(authorization) {
        assert!(parsed.scope.starts_with(parsed.secret_id) && parsed.scope.ends_with(parsed.service));
    }
    let header = |name: &str| match name {
        "authorization" => Some(authorization),
        "host" => Some(host),
        "content-type" => Some(content_type),
        "x-tc-timestamp" => Some(timestamp),
        "x-tc-action" | "x-tc-version" => Some(&b"X"[..]),
        _ => None,
    };
    let known =
        HashMap::from([("AKIDtest".to_owned(), Credential::permanent("a secret that the input does not hold"))]);
    for method in ["POST", "GET"] {
        let view = RequestView {
            method,
            path: "/",
            query: std::str::from_utf8(query).unwrap_or_default(),
            header: &header,
            body: &body,
        };
        let outcome = Verifier::new(&["scf"]).verify(&view, &known, NOW_MS);
        let error = outcome.expect_err("a signature made without the secret");
        assert!(!error.code().is_empty() && error.to_string().len() < 1024);
    }
});
