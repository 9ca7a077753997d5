//! The v1 form: decoding, dotted names, and verification.
//!
//! Whatever is read must come back when it is written and read again; nothing may panic or verify.
#![no_main]

use std::collections::HashMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mayfly_sign::{
    COMMON_FIELDS, Credential, RequestView, Style, V1Method, V1Request, Verifier, flatten, parse_form, sign_v1,
};

const NOW_S: u64 = 1_795_228_103;

fuzz_target!(|data: &[u8]| {
    let known =
        HashMap::from([("AKIDtest".to_owned(), Credential::permanent("a secret that the input does not hold"))]);
    let verify = |text: &[u8]| {
        let body = Bytes::copy_from_slice(text);
        let header = |name: &str| match name {
            "host" => Some(&b"127.0.0.1:8700"[..]),
            "content-type" => Some(&b"application/x-www-form-urlencoded"[..]),
            _ => None,
        };
        let view = RequestView { method: "POST", path: "/", query: "", header: &header, body: &body };
        Verifier::new(&["scf"]).verify(&view, &known, NOW_S * 1000)
    };
    assert!(verify(data).is_err(), "a signature made without the secret");

    let Ok(tree) = parse_form(data) else { return };
    let fields = flatten(&tree);
    assert!(fields.len() <= mayfly_sign::FIELDS_MAX);
    // Signed by who has the secret, the same fields verify, unless they clash with the common ones.
    let request = V1Request {
        method: V1Method::Post,
        secret_id: "AKIDtest",
        secret_key: "a secret that the input does not hold",
        token: None,
        host: "127.0.0.1:8700",
        path: "/",
        action: "X",
        version: "X",
        region: None,
        timestamp_s: NOW_S,
        nonce: 1,
        style: Style::HmacSha256,
        fields: &fields,
    };
    // A structure named like a common field is the action's; room is needed for the common fields themselves.
    if fields.iter().any(|(name, _)| COMMON_FIELDS.contains(&name.as_str()))
        || fields.len() + 16 > mayfly_sign::FIELDS_MAX
    {
        return;
    }
    let text = sign_v1(&request).expect("a v1 style");
    let verified = verify(text.as_bytes()).expect("signed with the secret");
    // Gaps between array indices close on the first reading, so the second is a fixed point.
    assert_eq!(verified.params, mayfly_sign::Params::Tree(tree));
});
