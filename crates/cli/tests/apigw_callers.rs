//! Who may call an API, and how often: keys, plans, tokens, limits, and what a kill leaves of them.

#[path = "support/api.rs"]
mod api;

use api::{Answer, ask, echo, fails, must, platform, release, route, service};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Headers of a request that is signed as Tencent's documentation says.
fn key_headers(id: &str, secret: &str) -> Vec<(String, String)> {
    let date =
        chrono::DateTime::from_timestamp(now_s() as i64, 0).unwrap().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("x-date: {date}\nsource: test").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    vec![
        ("x-date".into(), date),
        ("source".into(), "test".into()),
        (
            "authorization".into(),
            format!("hmac id=\"{id}\", algorithm=\"hmac-sha1\", headers=\"x-date source\", signature=\"{signature}\""),
        ),
    ]
}

fn ask_signed(p: &Platform, path: &str, id: &str, secret: &str) -> Answer {
    let headers = key_headers(id, secret);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    ask(p, path, &headers)
}

#[test]
fn keys_open_apis_within_their_plans_and_outlive_a_kill() {
    if !can_sandbox() {
        return;
    }
    let keep = tempfile::tempdir().unwrap();
    let data = keep.path().join("data");
    let start = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(&data).start();
    let p = start();
    echo(&p, "hello");
    let s = service(&p, "closed");
    let id = route(&p, &s, "GET", "/x", "hello", json!({ "AuthType": "SECRET" }));
    release(&p, &s);
    let key = must(&p, "CreateApiKey", json!({ "SecretName": "k" }))["Result"].clone();
    let (key_id, secret) =
        (key["AccessKeyId"].as_str().unwrap().to_owned(), key["AccessKeySecret"].as_str().unwrap().to_owned());
    let plan = must(&p, "CreateUsagePlan", json!({ "UsagePlanName": "plan" }))["Result"]["UsagePlanId"].clone();
    let path = format!("/apigw/{s}/release/x");
    assert_eq!(ask(&p, &path, &[]).status, 401);
    assert_eq!(ask_signed(&p, &path, &key_id, &secret).status, 403, "no plan yet");
    must(&p, "BindSecretIds", json!({ "UsagePlanId": plan, "AccessKeyIds": [key_id] }));
    must(
        &p,
        "BindEnvironment",
        json!({ "UsagePlanIds": [plan], "BindType": "API", "Environment": "release", "ServiceId": s, "ApiIds": [id] }),
    );
    let got = ask_signed(&p, &path, &key_id, &secret);
    assert_eq!((got.status, &got.body["event"]["requestContext"]["identity"]), (200, &json!({ "secretId": key_id })));
    assert_eq!(ask_signed(&p, &path, &key_id, "another-secret").status, 403);
    assert_eq!(ask_signed(&p, &path, "nobody", &secret).status, 403);
    must(&p, "DisableApiKey", json!({ "AccessKeyId": key_id }));
    assert_eq!(ask_signed(&p, &path, &key_id, &secret).status, 403);
    must(&p, "EnableApiKey", json!({ "AccessKeyId": key_id }));
    // Lists do not show secrets, and nothing in the platform's log or metrics does.
    let listed = must(&p, "DescribeApiKeysStatus", json!({}));
    assert!(!listed.to_string().contains(&secret), "{listed}");
    assert_eq!(fails(&p, "DeleteApiKey", json!({ "AccessKeyId": key_id })), "UnsupportedOperation.InvalidStatus");
    assert_eq!(fails(&p, "DeleteUsagePlan", json!({ "UsagePlanId": plan })), "UnsupportedOperation.UsagePlanInUse");
    assert_eq!(fails(&p, "DeleteApi", json!({ "ServiceId": s, "ApiId": id })), "FailedOperation.ApiBindEnvironment");

    // A kill later all is there.
    p.kill();
    let p = start();
    assert_eq!(ask_signed(&p, &path, &key_id, &secret).status, 200);
    // A rate for the key, with what tells when to come again; a total; a rate for the API.
    must(&p, "ModifyUsagePlan", json!({ "UsagePlanId": plan, "MaxRequestNumPreSec": 1 }));
    let mut limited = None;
    eventually("the second request of a second is one too many", || {
        let got = ask_signed(&p, &path, &key_id, &secret);
        let over = got.status == 429;
        limited = over.then_some(got);
        over
    });
    let limited = limited.unwrap();
    assert_eq!(
        (limited.headers["retry-after"].to_str().unwrap(), &limited.body["message"]),
        ("1", &json!("API rate limit exceeded"))
    );
    must(&p, "ModifyUsagePlan", json!({ "UsagePlanId": plan, "MaxRequestNumPreSec": -1, "MaxRequestNum": 3 }));
    let statuses: Vec<u16> = (0..5).map(|_| ask_signed(&p, &path, &key_id, &secret).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let used = must(&p, "DescribeUsagePlanEnvironments", json!({ "UsagePlanId": plan, "BindType": "API" }));
    assert_eq!(used["Result"]["EnvironmentList"][0]["InUseRequestNum"], 3);
    must(&p, "ModifyUsagePlan", json!({ "UsagePlanId": plan, "MaxRequestNum": -1 }));
    must(
        &p,
        "ModifyApiEnvironmentStrategy",
        json!({ "ServiceId": s, "Strategy": 0, "EnvironmentName": "release", "ApiIds": [id] }),
    );
    assert_eq!(ask_signed(&p, &path, &key_id, &secret).status, 429);
    must(
        &p,
        "ModifyApiEnvironmentStrategy",
        json!({ "ServiceId": s, "Strategy": -1, "EnvironmentName": "release", "ApiIds": [id] }),
    );
    must(
        &p,
        "ModifyServiceEnvironmentStrategy",
        json!({ "ServiceId": s, "Strategy": 0, "EnvironmentNames": ["release"] }),
    );
    assert_eq!(ask_signed(&p, &path, &key_id, &secret).status, 429);
}

struct Issuer {
    key: EcdsaKeyPair,
    random: ring::rand::SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = ring::rand::SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Self { key, random }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
        json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": part(1..33), "y": part(33..65) })
    }

    fn token(&self, claims: Value) -> String {
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" })), part(claims));
        let signature = self.key.sign(&self.random, text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

#[test]
fn tokens_of_an_issuer_open_apis() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    echo(&p, "hello");
    let s = service(&p, "tokens");
    let issuer = Issuer::new();
    let keys = json!({ "keys": [issuer.jwk()], "iss": "https://id.example", "aud": "shop" }).to_string();
    let authority = route(
        &p,
        &s,
        "ANY",
        "/login",
        "hello",
        json!({ "AuthType": "OAUTH", "ApiBusinessType": "OAUTH", "OauthConfig": { "PublicKey": keys, "TokenLocation": "header" } }),
    );
    route(
        &p,
        &s,
        "GET",
        "/private",
        "hello",
        json!({ "AuthType": "OAUTH", "ApiBusinessType": "NORMAL", "AuthRelationApiId": authority }),
    );
    release(&p, &s);
    let at = |path: &str| format!("/apigw/{s}/release{path}");
    let claims = |more: Value| {
        let mut all = json!({ "sub": "u1", "iss": "https://id.example", "aud": "shop", "exp": now_s() + 600 });
        more.as_object().unwrap().iter().for_each(|(k, v)| all[k] = v.clone());
        all
    };
    let with = |token: &str| ask(&p, &at("/private"), &[("authorization", &format!("Bearer {token}"))]);
    assert_eq!(ask(&p, &at("/login"), &[]).status, 200);
    assert_eq!(ask(&p, &at("/private"), &[]).status, 401);
    let good = with(&issuer.token(claims(json!({ "role": "admin" }))));
    assert_eq!(good.status, 200, "{}", good.body);
    let identity = &good.body["event"]["requestContext"]["identity"]["claims"];
    assert_eq!((&identity["sub"], &identity["role"]), (&json!("u1"), &json!("admin")));
    let none = format!(
        "{}.{}.",
        BASE64_URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"),
        BASE64_URL_SAFE_NO_PAD.encode(claims(json!({})).to_string())
    );
    for (what, token) in [
        ("expired", issuer.token(claims(json!({ "exp": now_s() - 600 })))),
        ("not yet", issuer.token(claims(json!({ "nbf": now_s() + 600 })))),
        ("a nbf that is no number", issuer.token(claims(json!({ "nbf": "99999999999" })))),
        ("for another", issuer.token(claims(json!({ "aud": "bank" })))),
        ("of another", issuer.token(claims(json!({ "iss": "https://evil.example" })))),
        ("without an end", issuer.token(json!({ "sub": "u1", "iss": "https://id.example", "aud": "shop" }))),
        ("another key", Issuer::new().token(claims(json!({})))),
        ("no signature", none),
        ("no token", "x".into()),
    ] {
        assert_eq!(with(&token).status, 403, "{what}");
    }
    // The issuer stays while others rely on it; its keys change at once, for released APIs too.
    assert_eq!(
        fails(&p, "DeleteApi", json!({ "ServiceId": s, "ApiId": authority })),
        "UnsupportedOperation.ResourceIsInUse"
    );
    let other = Issuer::new();
    must(
        &p,
        "ModifyApiIncrement",
        json!({ "ServiceId": s, "ApiId": authority, "BusinessType": "OAUTH", "PublicKey": other.jwk().to_string(), "LoginRedirectUrl": "https://id.example/login" }),
    );
    assert_eq!(with(&issuer.token(claims(json!({})))).status, 403);
    assert_eq!(with(&other.token(json!({ "exp": now_s() + 600 }))).status, 200);
    let sent = ask(&p, &at("/private"), &[]);
    assert_eq!((sent.status, sent.headers["location"].to_str().unwrap()), (302, "https://id.example/login"));
    let wrong = json!({ "ServiceId": s, "ApiId": authority, "BusinessType": "OAUTH", "PublicKey": "{\"kty\":\"oct\",\"k\":\"AAAA\"}" });
    assert_eq!(fails(&p, "ModifyApiIncrement", wrong), "InvalidParameterValue.InvalidPublicKey");
}
