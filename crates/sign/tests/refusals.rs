//! Every way to be refused, and properties over arbitrary bytes.

mod common;

use std::collections::HashMap;

use bytes::Bytes;
use common::{T, Wire, credentials, tc3_wire, v1_request, v1_wire};
use mayfly_model::ApiError;
use mayfly_sign::{
    Credential, Params, SKEW_S, SignError, Style, V1Method, V1Request, Verifier, flatten, parse_form, sign_v1,
};
use proptest::prelude::*;
use serde_json::json;

const BODY: &str = r#"{"FunctionName":"hello"}"#;

fn tc3_by(secret_id: &'static str, secret_key: &'static str, token: Option<&'static str>) -> Wire {
    tc3_wire(BODY, |r| (r.secret_id, r.secret_key, r.token) = (secret_id, secret_key, token))
}

fn good() -> Wire {
    tc3_wire(BODY, |_| {})
}

fn v1_text(method: V1Method, style: Style, nonce: u64, fields: &[(String, String)]) -> String {
    sign_v1(&V1Request { method, ..v1_request(style, nonce, fields) }).unwrap()
}

fn good_v1() -> String {
    v1_text(V1Method::Post, Style::HmacSha1, 7, &[("FunctionName".into(), "a b".into())])
}

/// The published code and the sentence.
fn refusal(wire: &Wire) -> (&'static str, String) {
    let error = ApiError::from(wire.verify().expect_err("must be refused"));
    (error.code, error.message)
}

fn authorization(text: &str) -> Wire {
    good().set("authorization", text)
}

#[test]
fn what_is_signed_here_is_accepted_here() {
    assert_eq!(good().verify().unwrap().params, Params::Json(Bytes::from_static(BODY.as_bytes())));
    for style in [Style::HmacSha1, Style::HmacSha256] {
        for method in [V1Method::Post, V1Method::Get] {
            let fields = flatten(&json!({"Environment": {"Variables": [{"Key": "k", "Value": "ä +&=%"}]}, "N": 1}));
            let text = v1_text(method, style, 1, &fields);
            let wire = match method {
                V1Method::Post => v1_wire(&text),
                V1Method::Get => Wire::new("GET", &text, &[("host", "127.0.0.1:8700")], ""),
            };
            let verified = wire.verify().unwrap();
            let tree = json!({"Environment": {"Variables": [{"Key": "k", "Value": "ä +&=%"}]}, "N": "1"});
            assert_eq!((verified.params, verified.style), (Params::Tree(tree), style));
        }
    }
}

#[test]
fn tc3_headers_as_clients_vary_them_are_accepted() {
    let text = String::from_utf8(good().headers.iter().find(|(k, _)| k == "authorization").unwrap().1.clone()).unwrap();
    let signature = text.rsplit_once('=').unwrap().1.to_owned();
    let credential = "Credential=AKIDtest/2026-11-21/scf/tc3_request";
    for variant in [
        format!("TC3-HMAC-SHA256 {credential},SignedHeaders=content-type;host,Signature={signature}"),
        format!("  TC3-HMAC-SHA256\tSignature={signature} ,  {credential}, SignedHeaders=content-type;host "),
        format!(
            "TC3-HMAC-SHA256 {credential}, SignedHeaders=Content-Type;Host, Signature={}",
            signature.to_uppercase()
        ),
    ] {
        authorization(&variant).verify().unwrap_or_else(|e| panic!("{variant}: {e}"));
    }
}

#[test]
fn malformed_authorization() {
    let sig = "0".repeat(64);
    let scope = "AKIDtest/2026-11-21/scf/tc3_request";
    for (header, says) in [
        ("", "algorithm"),
        ("SKIP", "algorithm `SKIP`"),
        ("AWS4-HMAC-SHA256 Credential=x", "algorithm"),
        ("TC3-HMAC-SHA256", "not `name=value`"),
        ("TC3-HMAC-SHA256 Credential", "not `name=value`"),
        (&format!("TC3-HMAC-SHA256 SignedHeaders=content-type;host, Signature={sig}"), "`Credential` is missing"),
        (&format!("TC3-HMAC-SHA256 Credential={scope}, Signature={sig}"), "`SignedHeaders` is missing"),
        (&format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host"), "`Signature` is missing"),
        (
            &format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host, Signature=00"),
            "64 hexadecimal",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host, Signature={}",
                "g".repeat(64)
            ),
            "64 hexadecimal",
        ),
        (
            &format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={sig}"),
            "must contain `content-type`",
        ),
        (
            &format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type, Signature={sig}"),
            "must contain `host`",
        ),
        (
            &format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host;host, Signature={sig}"),
            "`host` twice",
        ),
        (
            &format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host;x-absent, Signature={sig}"),
            "`x-absent` is not in the request",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential={scope}, Credential={scope}, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "given twice",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential={scope}, SignedParams=a, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "`SignedParams` is not a part",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential=AKIDtest/2026-11-21/scf, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "SecretId/date/service/tc3_request",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential=a/b/c/d/tc3_request, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "SecretId/date/service/tc3_request",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential=/2026-11-21/scf/tc3_request, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "SecretId/date/service/tc3_request",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential=AKIDtest/2026-11-20/scf/tc3_request, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "UTC date of the timestamp",
        ),
        (
            &format!(
                "TC3-HMAC-SHA256 Credential=AKIDtest/2026-11-21/cvm/tc3_request, SignedHeaders=content-type;host, Signature={sig}"
            ),
            "`Service` in Credential not valid",
        ),
        (&"x".repeat(5000), "longer than 4096"),
    ] {
        let (code, message) = refusal(&authorization(header));
        assert_eq!(code, "AuthFailure.InvalidAuthorization", "{header}");
        assert!(message.contains(says), "{header}: {message}");
        assert!(message.starts_with("The request `Authorization` header does not conform to tencentcloud standards: "));
    }
    let many: String = (0..40).map(|i| format!(";x{i}")).collect();
    let mut wire = authorization(&format!(
        "TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host{many}, Signature={sig}"
    ));
    for i in 0..40 {
        wire = wire.set(&format!("x{i}"), "1");
    }
    assert!(refusal(&wire).1.contains("more than 32"));
}

#[test]
fn clock_skew_is_five_minutes_both_ways() {
    for style in ["tc3", "v1"] {
        let wire = if style == "tc3" { good() } else { v1_wire(&good_v1()) };
        let at = |now_s: u64| wire.verify_with(&Verifier::new(&["scf"]), &credentials(), now_s * 1000);
        assert!(at(T + SKEW_S).is_ok(), "{style}");
        assert!(at(T - SKEW_S).is_ok(), "{style}");
        for now_s in [T + SKEW_S + 1, T - SKEW_S - 1, 0, u64::MAX / 1000] {
            let error = at(now_s).unwrap_err();
            assert_eq!(error, SignError::Expired { timestamp_s: T, now_s }, "{style}");
            assert_eq!(error.code(), "AuthFailure.SignatureExpire");
        }
    }
}

#[test]
fn timestamps_that_are_none() {
    assert_eq!(refusal(&good().without("x-tc-timestamp")).0, "MissingParameter");
    for bad in ["", "abc", "-1", "+1795228103", "1795228103.5", "0x10", "99999999999999999999999"] {
        assert_eq!(refusal(&good().set("x-tc-timestamp", bad)).0, "InvalidParameter", "{bad}");
    }
    // Milliseconds are a far future.
    assert_eq!(refusal(&good().set("x-tc-timestamp", "1795228103000")).0, "AuthFailure.SignatureExpire");
    assert_eq!(refusal(&good().set("x-tc-timestamp", "18446744073709551615")).0, "AuthFailure.SignatureExpire");
}

#[test]
fn unknown_ids_and_wrong_secrets() {
    assert_eq!(refusal(&tc3_by("AKIDnobody", "x", None)).0, "AuthFailure.SecretIdNotFound");
    assert_eq!(refusal(&tc3_by("AKIDtest", "wrong", None)).0, "AuthFailure.SignatureFailure");
    let body = good_v1();
    assert_eq!(refusal(&v1_wire(&body.replace("AKIDtest", "AKIDnobody"))).0, "AuthFailure.SecretIdNotFound");
    assert_eq!(refusal(&v1_wire(&body.replace("GetFunction", "DeleteFunction"))).0, "AuthFailure.SignatureFailure");
    assert_eq!(refusal(&v1_wire(&body.replace("FunctionName=a", "FunctionName=b"))).0, "AuthFailure.SignatureFailure");
    assert_eq!(refusal(&v1_wire(&format!("{body}&Extra=1"))).0, "AuthFailure.SignatureFailure");
    let no_base64 = format!("{}&Signature=!!", body.split_once("&Signature=").unwrap().0);
    assert_eq!(refusal(&v1_wire(&no_base64)).0, "AuthFailure.SignatureFailure");
}

#[test]
fn a_changed_secret_is_noticed_though_the_old_key_is_cached() {
    let verifier = Verifier::new(&["scf"]);
    let wire = good();
    assert!(wire.verify_with(&verifier, &credentials(), T * 1000).is_ok());
    assert!(wire.verify_with(&verifier, &credentials(), T * 1000).is_ok(), "warm, and no replay refusal for TC3");
    let changed = HashMap::from([("AKIDtest".to_owned(), Credential::permanent("new"))]);
    assert_eq!(wire.verify_with(&verifier, &changed, T * 1000).unwrap_err(), SignError::SignatureFailure);
    let new = tc3_by("AKIDtest", "new", None);
    assert!(new.verify_with(&verifier, &changed, T * 1000).is_ok());
    assert!(new.verify_with(&verifier, &changed, T * 1000).is_ok());
    assert_eq!(new.verify_with(&verifier, &credentials(), T * 1000).unwrap_err(), SignError::SignatureFailure);
}

#[test]
fn tokens() {
    let temp = |token: Option<&'static str>| tc3_by("AKIDtemp", "tempsecret", token);
    assert!(temp(Some("tok/en+1")).verify().is_ok());
    for (wire, says) in [
        (temp(None), "needs the token"),
        (temp(Some("")), "needs the token"),
        (temp(Some("tok/en+2")), "not the one"),
        (tc3_by("AKIDtest", "testsecretkey", Some("stale")), "takes no token"),
    ] {
        let (code, message) = refusal(&wire);
        assert_eq!(code, "AuthFailure.TokenFailure");
        assert!(message.contains(says), "{message}");
    }
    // A wrong signature is told before anything about the token is.
    assert_eq!(refusal(&tc3_by("AKIDtemp", "wrong", Some("tok/en+2"))).0, "AuthFailure.SignatureFailure");
    let late = temp(Some("tok/en+1")).verify_with(&Verifier::new(&["scf"]), &credentials(), (T + 60) * 1000);
    assert!(late.unwrap_err().to_string().contains("expired"));
}

#[test]
fn v1_replays_are_refused_and_tc3_repeats_are_not() {
    let verifier = Verifier::new(&["scf"]);
    let wire = v1_wire(&good_v1());
    assert!(wire.verify_with(&verifier, &credentials(), T * 1000).is_ok());
    let error = wire.verify_with(&verifier, &credentials(), (T + 200) * 1000).unwrap_err();
    assert_eq!((&error, error.code()), (&SignError::Replayed, "AuthFailure.SignatureFailure"));
    assert!(error.to_string().contains("replay"));
    let other = v1_wire(&v1_text(V1Method::Post, Style::HmacSha1, 8, &[]));
    assert!(other.verify_with(&verifier, &credentials(), T * 1000).is_ok());
    // A forged request must not use up the honest one's place.
    let honest = v1_text(V1Method::Post, Style::HmacSha1, 9, &[]);
    let forged = v1_wire(&honest.replace("GetFunction", "Invoke"));
    assert_eq!(forged.verify_with(&verifier, &credentials(), T * 1000).unwrap_err(), SignError::SignatureFailure);
    assert!(v1_wire(&honest).verify_with(&verifier, &credentials(), T * 1000).is_ok());
    assert_eq!((verifier.replays().len(), verifier.replays().forgotten()), (3, 0));
}

#[test]
fn v1_without_a_field() {
    let body = good_v1();
    for (field, code) in [
        ("SecretId", "MissingParameter"),
        ("Signature", "MissingParameter"),
        ("Timestamp", "MissingParameter"),
        ("Nonce", "MissingParameter"),
    ] {
        let rest: Vec<_> = body.split('&').filter(|p| !p.starts_with(&format!("{field}="))).collect();
        let (got, message) = refusal(&v1_wire(&rest.join("&")));
        assert_eq!(got, code);
        assert!(message.contains(&format!("`{field}`")), "{message}");
    }
    for field in ["Action", "Version"] {
        // Signed without it: the signature is right, the parameter is missing.
        let mut request = v1_request(Style::HmacSha256, 1, &[]);
        *(if field == "Action" { &mut request.action } else { &mut request.version }) = "";
        let (code, message) = refusal(&v1_wire(&sign_v1(&request).unwrap()));
        assert_eq!(code, "MissingParameter");
        assert!(message.contains(&format!("`{field}`")), "{message}");
    }
    assert_eq!(refusal(&v1_wire(&body.replace("Nonce=7", "Nonce=x"))).0, "InvalidParameter");
    assert_eq!(refusal(&v1_wire(&body.replace("Nonce=7", "Nonce=7&Nonce=7"))).0, "InvalidParameter");
}

#[test]
fn requests_without_a_signature() {
    for wire in [
        good().without("authorization"),
        Wire::new("GET", "", &[("host", "h")], ""),
        Wire::new("GET", "Action=ListFunctions", &[("host", "h")], ""),
        v1_wire(""),
        v1_wire("Action=ListFunctions"),
    ] {
        let (code, message) = refusal(&wire);
        assert_eq!(code, "AuthFailure.InvalidAuthorization");
        assert!(message.contains("not signed"), "{message}");
    }
}

#[test]
fn methods_and_content_types() {
    for method in ["PUT", "DELETE", "HEAD", "OPTIONS", "post", ""] {
        let mut wire = good();
        wire.method = method.into();
        assert_eq!(refusal(&wire).0, "UnsupportedProtocol", "{method}");
    }
    let multipart = tc3_wire("x=1", |r| r.content_type = "multipart/form-data; boundary=x");
    let (code, message) = refusal(&multipart);
    assert_eq!(code, "InvalidRequest");
    assert!(message.contains("multipart/form-data"), "{message}");
}

#[test]
fn missing_and_overlong_common_headers() {
    assert!(refusal(&good().without("x-tc-action")).1.contains("`Action`"));
    assert_eq!(refusal(&good().without("x-tc-version")).0, "MissingParameter");
    assert_eq!(refusal(&good().set("x-tc-action", &"A".repeat(129))).0, "InvalidParameter");
    assert_eq!(refusal(&good().set("x-tc-region", &"A".repeat(129))).0, "InvalidParameter");
    assert_eq!(good().without("x-tc-region").verify().unwrap().region, None);
    assert_eq!(refusal(&good().without("host")).0, "AuthFailure.InvalidAuthorization");
    assert_eq!(refusal(&good().without("content-type")).0, "AuthFailure.InvalidAuthorization");
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let text = format!("{:?}", Credential::temporary("sEcReT", "tOkEn", 1));
    assert!(!text.contains("sEcReT") && !text.contains("tOkEn"), "{text}");
}

proptest! {
    #[test]
    fn a_flipped_bit_in_what_tc3_signs_fails(at in 0usize..BODY.len(), bit in 0u8..8) {
        let mut wire = good();
        let mut body = wire.body.to_vec();
        body[at] ^= 1 << bit;
        wire.body = body.into();
        prop_assert_eq!(wire.verify().unwrap_err(), SignError::SignatureFailure);
    }

    #[test]
    fn a_flipped_bit_in_a_signed_header_or_the_signature_fails(
        which in prop::sample::select(vec!["host", "content-type", "authorization", "x-tc-timestamp"]),
        at in 0usize..1000,
        bit in 0u8..7,
    ) {
        let mut wire = good();
        let value = &mut wire.headers.iter_mut().find(|(k, _)| k == which).unwrap().1;
        let at = at % value.len();
        let before = value[at];
        value[at] ^= 1 << bit;
        // Trimmed or case-folded on both sides by design; everything else must matter.
        let same = value[at].eq_ignore_ascii_case(&before) || (before == b' ' && value[at].is_ascii_whitespace());
        prop_assume!(!same);
        prop_assert!(wire.verify().is_err());
    }

    #[test]
    fn a_flipped_bit_in_a_v1_form_fails(at in 0usize..1000, bit in 0u8..8) {
        let text = good_v1();
        let mut bytes = text.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // `%2b` is `%2B`, and the order of fields is free.
        let same = |a: &[u8], b: &[u8]| matches!((parse_form(a), parse_form(b)), (Ok(a), Ok(b)) if a == b);
        prop_assume!(!same(&bytes, text.as_bytes()));
        let mut wire = v1_wire("");
        wire.body = bytes.into();
        prop_assert!(wire.verify().is_err());
    }

    #[test]
    fn arbitrary_authorization_headers_never_panic(header in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut wire = good();
        wire.headers.retain(|(k, _)| k != "authorization");
        wire.headers.push(("authorization".into(), header));
        prop_assert!(wire.verify().is_err());
    }

    #[test]
    fn nearly_right_authorization_headers_never_panic(
        header in "TC3-HMAC-SHA256 (Credential=[A-Za-z/0-9_-]{0,40}|SignedHeaders=[a-z;-]{0,30}|Signature=[0-9a-f]{60,66}|[,= ;é]){0,8}",
        host in ".{0,20}",
    ) {
        prop_assert!(authorization(&header).set("host", &host).verify().is_err());
    }

    #[test]
    fn arbitrary_forms_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut wire = v1_wire("");
        wire.body = body.into();
        prop_assert!(wire.verify().is_err());
    }

    #[test]
    fn any_strings_survive_signing(name in "[A-Z][a-z]{0,10}", value in any::<String>(), nonce in any::<u64>()) {
        prop_assume!(!["Action", "Nonce", "Region", "Token", "Version", "Language", "Timestamp", "Signature"].contains(&name.as_str()));
        let text = v1_text(V1Method::Post, Style::HmacSha256, nonce, &[(name.clone(), value.clone())]);
        let verified = v1_wire(&text).verify().unwrap();
        prop_assert_eq!(verified.params, Params::Tree(json!({name: value})));
    }
}
