//! Requests of CMQ's SDKs: signatures that `qcloud-cmq-sdk-py3` made, and what may not be changed in them.

mod common;

use common::{Wire, credentials};
use mayfly_sign::{Params, SignError, Verified, Verifier};
use serde_json::json;

/// When the requests below were signed, in milliseconds.
const T_MS: u64 = 1_795_226_647_000;
const COMMON: &str = "&Action=SendMessage&RequestClient=SDK_Python_1.3&SecretId=AKIDtest&Nonce=8117642370915531741&Timestamp=1795226647&SignatureMethod=";
const HELLO: &str = "queueName=q1&msgBody=hello+%E4%BD%A0%E5%A5%BD+%2B%26%3D&delaySeconds=0";

fn verify(method: &str, form: &str) -> Result<Verified, SignError> {
    let (query, body) = if method == "GET" { (form, "") } else { ("", form) };
    let mut wire = Wire::new(method, query, &[("host", "127.0.0.1:8702")], body);
    wire.path = "/v2/index.php".into();
    wire.verify_cmq(T_MS)
}

#[test]
fn what_the_sdk_signs_is_accepted() {
    for (method, fields, digest, signature) in [
        ("POST", HELLO, "HmacSHA1", "AonmjKuDARV7DA7QanLnUuSm6EQ%3D"),
        ("GET", HELLO, "HmacSHA1", "eLirXOSDnFDXyjoWm4rPO8BFxPw%3D"),
        ("POST", HELLO, "HmacSHA256", "n6U3sL8V4hUatGTvbNCTtCFkevlglAuoF2Va07ZNBjI%3D"),
        (
            "POST",
            "queueName=q1&msgBody=%40home&delaySeconds=0&queue_Name=x",
            "HmacSHA1",
            "VscNEqryxHbFLiTvtJCYmDC6LC0%3D",
        ),
        ("GET", "queueName=q1&msgBody=%40home&delaySeconds=0", "HmacSHA1", "DPgyJv29R%2FfaWMKWI%2FiKmDPGASY%3D"),
    ] {
        let verified = verify(method, &format!("{fields}{COMMON}{digest}&Signature={signature}")).unwrap();
        assert_eq!((verified.action.as_str(), verified.version.as_str()), ("SendMessage", ""), "{fields}");
        let Params::Tree(tree) = verified.params else { panic!("a form gives a tree") };
        assert_eq!(tree["queueName"], json!("q1"));
    }
}

#[test]
fn what_was_signed_may_not_be_changed() {
    let signed = |fields: &str| format!("{fields}{COMMON}HmacSHA1&Signature=AonmjKuDARV7DA7QanLnUuSm6EQ%3D");
    for fields in [
        HELLO.replace("q1", "q2"),
        HELLO.replace("hello", "@hello"),
        format!("{HELLO}&more=1"),
        HELLO.replace("&delaySeconds=0", ""),
    ] {
        assert_eq!(verify("POST", &signed(&fields)).unwrap_err(), SignError::SignatureFailure, "{fields}");
    }
    assert_eq!(verify("GET", &signed(HELLO)).unwrap_err(), SignError::SignatureFailure, "a GET is not a POST");
    assert_eq!(verify("PUT", &signed(HELLO)).unwrap_err(), SignError::UnsupportedMethod);
    assert_eq!(verify("POST", "").unwrap_err(), SignError::Unsigned);
}

#[test]
fn the_habits_of_cmq_are_not_accepted_elsewhere() {
    let form = format!(
        "queueName=q1&msgBody=%40home&delaySeconds=0&queue_Name=x{COMMON}HmacSHA1&Signature=VscNEqryxHbFLiTvtJCYmDC6LC0%3D"
    );
    let headers = [("host", "127.0.0.1:8702"), ("content-type", "application/x-www-form-urlencoded")];
    let mut wire = Wire::new("POST", "", &headers, &form);
    wire.path = "/v2/index.php".into();
    let verified = wire.verify_with(&Verifier::new(&["tdmq"]), &credentials(), T_MS);
    assert_eq!(verified.unwrap_err(), SignError::SignatureFailure);
}
