//! Requests as real clients signed them: Tencent's published examples, and what `tencentcloud-sdk-python` 3.1.195
//! makes of fixed inputs (clock and nonce pinned). The Node and old-SDK variants follow their documented differences.

mod common;

use std::collections::HashMap;

use common::{T, Wire, credentials};
use mayfly_sign::{Credential, Params, SignError, Style, Verifier};
use serde_json::json;

const ARGUMENTS: &str = r#"{"FunctionName": "hello", "Environment": {"Variables": [{"Key": "A_B", "Value": "x y+z/=&\u672a"}, {"Key": "C", "Value": "1"}]}, "MemorySize": 128, "Publish": true, "Qualifier": "$LATEST"}"#;
const FIELDS: &str = "FunctionName=hello&Environment.Variables.0.Key=A_B&Environment.Variables.0.Value=x+y%2Bz%2F%3D%26%E6%9C%AA&Environment.Variables.1.Key=C&Environment.Variables.1.Value=1&MemorySize=128&Publish=True&Qualifier=%24LATEST";

fn tree() -> serde_json::Value {
    json!({
        "FunctionName": "hello",
        "Environment": {"Variables": [{"Key": "A_B", "Value": "x y+z/=&未"}, {"Key": "C", "Value": "1"}]},
        "MemorySize": "128", "Publish": "True", "Qualifier": "$LATEST",
    })
}

fn tc3(host: &str, body: &str, scope_service: &str, signature: &str) -> Wire {
    let authorization = format!(
        "TC3-HMAC-SHA256 Credential=AKIDtest/2026-11-21/{scope_service}/tc3_request, SignedHeaders=content-type;host, Signature={signature}"
    );
    let headers = [
        ("Host", host),
        ("Content-Type", "application/json"),
        ("X-TC-Action", "InvokeFunction"),
        ("X-TC-Version", "2018-04-16"),
        ("X-TC-Region", "ap-guangzhou"),
        ("X-TC-Timestamp", "1795228103"),
        ("X-TC-Language", "zh-CN"),
        ("Authorization", &authorization),
    ];
    Wire::new("POST", "", &headers, body)
}

fn form(nonce_and_on: &str) -> String {
    format!("{FIELDS}&Action=InvokeFunction&RequestClient=SDK_PYTHON_3.1.195&{nonce_and_on}")
}

#[test]
fn tencents_published_tc3_examples() {
    let body = r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
    for (id, key, signature) in [
        (
            "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
            "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
            "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
        ),
        (
            "AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******",
            "Gu5t9xGARNpq86cd98joQYCN3*******",
            "2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
        ),
    ] {
        let authorization = format!(
            "TC3-HMAC-SHA256 Credential={id}/2019-02-25/cvm/tc3_request, SignedHeaders=content-type;host, Signature={signature}"
        );
        let wire = Wire::new(
            "POST",
            "",
            &[
                ("Authorization", &authorization),
                ("Content-Type", "application/json; charset=utf-8"),
                ("Host", "cvm.tencentcloudapi.com"),
                ("X-TC-Action", "DescribeInstances"),
                ("X-TC-Timestamp", "1551113065"),
                ("X-TC-Version", "2017-03-12"),
                ("X-TC-Region", "ap-guangzhou"),
            ],
            body,
        );
        let known = HashMap::from([(id.to_owned(), Credential::permanent(key))]);
        let verified = wire.verify_with(&Verifier::new(&["cvm"]), &known, 1_551_113_065_000).unwrap();
        assert_eq!(verified.secret_id, id);
        assert_eq!((verified.action.as_str(), verified.version.as_str()), ("DescribeInstances", "2017-03-12"));
        assert_eq!((verified.region.as_deref(), verified.timestamp_s), (Some("ap-guangzhou"), 1_551_113_065));
        assert_eq!(verified.params, Params::Json(wire.body.clone()));
        assert_eq!(verified.style, Style::Tc3);
    }
}

#[test]
fn tencents_published_v1_example() {
    let query = "Action=DescribeInstances&InstanceIds.0=ins-09dx96dg&Limit=20&Nonce=11886&Offset=0&Region=ap-guangzhou\
        &SecretId=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE&Signature=EliP9YW3pW28FpsEdkXt%2f%2bWcGeI%3d&Timestamp=1465185768&Version=2017-03-12";
    let wire = Wire::new("GET", query, &[("Host", "cvm.tencentcloudapi.com")], "");
    let known = HashMap::from([(
        "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE".to_owned(),
        Credential::permanent("Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"),
    )]);
    let verified = wire.verify_with(&Verifier::new(&["cvm"]), &known, 1_465_185_768_000).unwrap();
    assert_eq!(verified.style, Style::HmacSha1);
    assert_eq!(verified.params, Params::Tree(json!({"InstanceIds": ["ins-09dx96dg"], "Limit": "20", "Offset": "0"})));
}

#[test]
fn tc3_of_each_client() {
    let limit = r#"{"Limit": 1}"#;
    let short = r#"{"Limit":1}"#;
    for (client, wire) in [
        (
            "tccli signs its Host with the scheme",
            tc3(
                "http://127.0.0.1:18080",
                limit,
                "scf",
                "1ab40cf5f4ef7861abd8d54e5d7db97987670517bd51754c03967786b3865b9a",
            ),
        ),
        (
            "Python SDK",
            tc3("127.0.0.1:8700", ARGUMENTS, "scf", "bb013ebf87b9fd7c3fcb02b1d14087638b5b5c4a65e924b8b99f841fd44ef6c1"),
        ),
        (
            "Python SDK, unsigned payload",
            tc3("127.0.0.1:8700", ARGUMENTS, "scf", "acd6abb698ee6b54ba10833d6d286ff6574eea8c0369f0845b1b4752e994ffa1")
                .set("x-tc-content-sha256", "UNSIGNED-PAYLOAD"),
        ),
        (
            "Python SDK 3.0 takes the service from the endpoint",
            tc3("127.0.0.1:8700", short, "127", "0a16c06c5ffa0f468c78a15db188e1dcfbbd09b2bb33fea363473d8e49470432"),
        ),
        (
            "Node SDK signs the host without port",
            tc3("127.0.0.1:8700", short, "127", "a4cc8127f8fae883db7fb8edbe8257d019f7940b6fc132c3f2781ba57a11ec86"),
        ),
        (
            "a content type with parameters",
            tc3("scf.local", short, "scf", "5e71350d4d01013759d6674adc09a26b4b148339087c59449d555bb9c776ab25")
                .set("content-type", "application/json; charset=utf-8"),
        ),
    ] {
        let verified = wire.verify().unwrap_or_else(|e| panic!("{client}: {e}"));
        assert_eq!(verified.params, Params::Json(wire.body.clone()), "{client}");
        assert_eq!(verified.secret_id, "AKIDtest", "{client}");
        assert_eq!(verified.action, "InvokeFunction", "{client}");
        assert_eq!(verified.language.as_deref(), Some("zh-CN"), "{client}");
    }
}

#[test]
fn tc3_with_a_signed_action_in_lower_case() {
    for (host, signature) in [
        ("scf.tencentcloudapi.com", "162ad1b03533f051988d98418b344d35105d7aa5eaa95a90bf09268ea0aec978"),
        // Host as it is, action lowered: what the SDKs do.
        ("Scf.Local:8700", "94b26ee616b225dc6d0324eb168224888fdb03133ce79c56a2c5d99e1aa0e5e3"),
    ] {
        let wire = tc3(host, r#"{"Limit":1}"#, "scf", signature).set(
            "authorization",
            &format!(
                "TC3-HMAC-SHA256 Credential=AKIDtest/2026-11-21/scf/tc3_request, SignedHeaders=content-type;host;x-tc-action, Signature={signature}"
            ),
        );
        wire.verify().unwrap_or_else(|e| panic!("{host}: {e}"));
        assert_eq!(wire.set("x-tc-action", "DeleteFunction").verify().unwrap_err(), SignError::SignatureFailure);
    }
}

#[test]
fn tc3_get_has_its_parameters_in_the_query() {
    let wire = tc3("127.0.0.1:8700", "", "scf", "4d6a8eef8911a69c5ea8f3000323b82c1d86a09ed3f532da60602dce3634cebd");
    let mut wire = wire.set("content-type", "application/x-www-form-urlencoded");
    wire.method = "GET".into();
    wire.query = FIELDS.into();
    assert_eq!(wire.verify().unwrap().params, Params::Tree(tree()));
    wire.query.push_str("&Namespace=other");
    assert_eq!(wire.verify().unwrap_err(), SignError::SignatureFailure);
}

#[test]
fn v1_of_the_python_sdk() {
    let tail = "Nonce=1234567890123456789&Timestamp=1795228103&Version=2018-04-16&Region=ap-guangzhou";
    for (method, style, rest) in [
        (
            "POST",
            Style::HmacSha1,
            "&SecretId=AKIDtest&SignatureMethod=HmacSHA1&Language=zh-CN&Signature=7g1emY4mo%2F1P4a84yN5p6Yf9i08%3D",
        ),
        (
            "GET",
            Style::HmacSha1,
            "&SecretId=AKIDtest&SignatureMethod=HmacSHA1&Language=zh-CN&Signature=3Fy0aJP6yqP8QdK1EvCnBfBSEeo%3D",
        ),
        (
            "POST",
            Style::HmacSha256,
            "&SecretId=AKIDtest&SignatureMethod=HmacSHA256&Language=zh-CN&Signature=dIJz%2BDwJNWWgr6vF%2FAv9cIwyDQTxPbFjsA8fpLDyJfM%3D",
        ),
    ] {
        let text = form(&format!("{tail}{rest}"));
        let headers = [("Host", "127.0.0.1:8700"), ("Content-Type", "application/x-www-form-urlencoded")];
        let (query, body) = if method == "GET" { (text.as_str(), "") } else { ("", text.as_str()) };
        let wire = Wire::new(method, query, &headers, body);
        let verified = wire.verify().unwrap_or_else(|e| panic!("{method} {style:?}: {e}"));
        assert_eq!(verified.style, style);
        assert_eq!(verified.params, Params::Tree(tree()), "common fields are not among the action's");
        assert_eq!((verified.action.as_str(), verified.version.as_str()), ("InvokeFunction", "2018-04-16"));
        assert_eq!((verified.region.as_deref(), verified.language.as_deref()), (Some("ap-guangzhou"), Some("zh-CN")));
        // Behind a proxy that puts the scheme into Host, the same text was signed.
        assert!(wire.set("host", "http://127.0.0.1:8700").verify().is_ok());
    }
}

#[test]
fn v1_get_with_a_token() {
    let query = form(
        "Nonce=1234567890123456789&Timestamp=1795228103&Version=2018-04-16&Region=ap-guangzhou&Token=tok%2Fen%2B1\
         &SecretId=AKIDtest&SignatureMethod=HmacSHA256&Language=zh-CN&Signature=i70rOJ9iSSdcS8Mg1uTXPRVcyn5r6L46euosgFsUwpo%3D",
    );
    let wire = Wire::new("GET", &query, &[("Host", "127.0.0.1:8700")], "");
    let with =
        |token: &str| HashMap::from([("AKIDtest".to_owned(), Credential::temporary("testsecretkey", token, u64::MAX))]);
    let verify = |credentials| wire.verify_with(&Verifier::new(&["scf"]), &credentials, T * 1000);
    assert!(verify(with("tok/en+1")).is_ok());
    assert!(matches!(verify(with("tok/en+2")), Err(SignError::Token(_))));
    assert!(matches!(verify(credentials()), Err(SignError::Token(_))));
}

#[test]
fn the_toolkits_form_without_signature_method_is_hmac_sha1() {
    // As captured, but signed by a secret that is not ours: everything up to the comparison must pass.
    let body = "Action=GetFunction&Version=2018-04-16&FunctionName=tkfn&Namespace=default&Qualifier=%24LATEST&ShowCode=FALSE&ShowTriggers=FALSE&Region=ap-guangzhou&Nonce=7445&Timestamp=1795226647&SecretId=AKIDtest&RequestClient=ServerlessComponentV2&Signature=DbInVFmAJyNFH%2Bi%2Byzf5LxwP14M%3D";
    let headers = [("Host", "scf.tencentcloudapi.com"), ("Content-Type", "application/x-www-form-urlencoded")];
    let wire = Wire::new("POST", "", &headers, body);
    let now_ms = 1_795_226_647_000;
    let verify = |key: &str| {
        let known = HashMap::from([("AKIDtest".to_owned(), Credential::permanent(key))]);
        wire.verify_with(&Verifier::new(&["scf"]), &known, now_ms)
    };
    assert_eq!(verify("not the captured secret").unwrap_err(), SignError::SignatureFailure);
}
