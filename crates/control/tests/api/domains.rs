//! Custom domains and their certificates.

use crate::harness::{Platform, create, create_http, with};
use serde_json::{Value, json};

/// A self-signed certificate for these names: the fields of PutCertificate.
fn certificate(id: &str, names: &[&str]) -> Value {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    json!({
        "CertificateId": id,
        "CertificatePublicKey": made.cert.pem(),
        "CertificatePrivateKey": made.signing_key.serialize_pem(),
    })
}

fn endpoint(path: &str, function: &str) -> Value {
    json!({"Namespace": "default", "FunctionName": function, "Qualifier": "$DEFAULT", "PathMatch": path})
}

fn domain(name: &str, endpoints: Value) -> Value {
    json!({"Domain": name, "Protocol": "HTTP", "EndpointsConfig": endpoints})
}

#[tokio::test]
async fn domains_live_and_die() {
    let p = Platform::ticking().await;
    p.create("hello").await;
    p.ok("CreateFunction", create_http("web")).await;
    let rules = json!([{"Path": "/api/*", "Type": "WildcardRules", "Rewrite": "/$"}]);
    let endpoints = json!([endpoint("/*", "web"), with(endpoint("/api/*", "hello"), json!({"PathRewrite": rules}))]);
    let request = with(
        domain("Bücher.Example", endpoints.clone()),
        json!({"Tags": [{"Key": "team", "Value": "a"}], "WafConfig": {"WafOpen": "CLOSE"}}),
    );
    p.ok("CreateCustomDomain", request).await;
    p.ok("CreateCustomDomain", domain("shop.example.com", json!([{"FunctionName": "web", "PathMatch": "/"}]))).await;
    let shown = p.ok("GetCustomDomain", json!({"Domain": "xn--bcher-kva.example"})).await;
    assert_eq!((&shown["Domain"], &shown["Protocol"]), (&json!("xn--bcher-kva.example"), &json!("HTTP")));
    assert_eq!(shown["EndpointsConfig"][1]["PathRewrite"], rules);
    assert_eq!(shown["EndpointsConfig"][0]["Qualifier"], json!("$DEFAULT"));
    assert_eq!(shown["Tags"], json!([{"Key": "team", "Value": "a"}]));
    assert_eq!(p.code("CreateCustomDomain", domain("bücher.example", endpoints)).await, "ResourceInUse");

    let list = p.ok("ListCustomDomains", json!({})).await;
    assert_eq!((&list["Total"], &list["Domains"][0]["Domain"]), (&json!(2), &json!("shop.example.com")));
    let list = p.ok("ListCustomDomains", json!({"Order": "ASC", "Offset": 1, "Limit": 1})).await;
    assert_eq!((&list["Total"], &list["Domains"][0]["Domain"]), (&json!(2), &json!("shop.example.com")));
    for (name, value, total) in [
        ("Domain", "SHOP", 1),
        ("FunctionName", "hello", 1),
        ("FunctionName", "web", 2),
        ("Namespace", "other", 0),
        ("Protocol", "HTTP", 2),
    ] {
        let list = p.ok("ListCustomDomains", json!({"Filters": [{"Name": name, "Values": [value]}]})).await;
        assert_eq!(list["Total"], json!(total), "{name} {value}");
    }

    let update = json!({"Domain": "shop.example.com", "EndpointsConfig": [endpoint("/x/*", "hello")]});
    p.ok("UpdateCustomDomain", update).await;
    let routed = |p: &Platform, path: &str| {
        let entry = p.control.domain("shop.example.com").expect("it is there");
        entry.record.route(path).map(|e| e.function.clone())
    };
    assert_eq!((routed(&p, "/x/y").as_deref(), routed(&p, "/")), (Some("hello"), None));
    // What was acknowledged outlives the process.
    let p = p.restart().await;
    assert_eq!((routed(&p, "/x/y").as_deref(), routed(&p, "/")), (Some("hello"), None));
    // So does the domain its function.
    p.ok("DeleteFunction", json!({"FunctionName": "hello"})).await;
    let p = p.restart().await;
    assert_eq!(routed(&p, "/x/y").as_deref(), Some("hello"));
    p.ok("DeleteCustomDomain", json!({"Domain": "SHOP.example.com"})).await;
    assert!(p.control.domain("shop.example.com").is_none());
    assert_eq!(p.restart().await.ok("ListCustomDomains", json!({})).await["Total"], json!(1));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let p = Platform::new().await;
    p.create("hello").await;
    let good = || domain("a.example.com", json!([endpoint("/*", "hello")]));
    let rewrite = |path: &str, kind: &str, to: &str| {
        let rules = json!([{"Path": path, "Type": kind, "Rewrite": to}]);
        json!({"EndpointsConfig": [with(endpoint("/*", "hello"), json!({"PathRewrite": rules}))]})
    };
    let many: Value = (0..101).map(|i| endpoint(&format!("/{i}"), "hello")).collect();
    for (change, code) in [
        (json!({"Domain": "*.example.com"}), "InvalidParameterValue.Domain"),
        (json!({"Domain": "127.0.0.1"}), "InvalidParameterValue.Domain"),
        (json!({"Domain": "fn.localhost"}), "InvalidParameterValue.Domain"),
        (json!({"Domain": "x.default.FN.localhost"}), "InvalidParameterValue.Domain"),
        (json!({"Protocol": "FTP"}), "InvalidParameterValue"),
        (json!({"Protocol": "HTTPS"}), "InvalidParameterValue"),
        (json!({"Protocol": "HTTP&HTTPS", "CertConfig": {"CertificateId": ""}}), "InvalidParameterValue"),
        (json!({"Protocol": "HTTPS", "CertConfig": {"CertificateId": "none"}}), "ResourceNotFound"),
        (json!({"CertConfig": {"CertificateId": "none"}}), "InvalidParameterValue"),
        (json!({"WafConfig": {"WafOpen": "OPEN"}}), "UnsupportedOperation"),
        (json!({"EndpointsConfig": []}), "InvalidParameterValue"),
        (json!({"EndpointsConfig": many}), "InvalidParameterValue"),
        (json!({"EndpointsConfig": [endpoint("/*", "none")]}), "ResourceNotFound.Function"),
        (
            json!({"EndpointsConfig": [with(endpoint("/*", "hello"), json!({"Namespace": "none"}))]}),
            "ResourceNotFound.Namespace",
        ),
        (
            json!({"EndpointsConfig": [with(endpoint("/*", "hello"), json!({"Qualifier": "7"}))]}),
            "ResourceNotFound.Qualifier",
        ),
        (
            json!({"EndpointsConfig": [with(endpoint("/*", "hello"), json!({"Qualifier": "a b"}))]}),
            "ResourceNotFound.Qualifier",
        ),
        (json!({"EndpointsConfig": [endpoint("x", "hello")]}), "InvalidParameterValue"),
        (json!({"EndpointsConfig": [endpoint("/a*", "hello")]}), "InvalidParameterValue"),
        (json!({"EndpointsConfig": [endpoint("/*", "hello"), endpoint("/*", "hello")]}), "InvalidParameterValue"),
        (rewrite("/a/*", "ExactRules", "/"), "InvalidParameterValue"),
        (rewrite("/a", "WildcardRules", "/"), "InvalidParameterValue"),
        (rewrite("/a", "Regex", "/"), "InvalidParameterValue"),
        (rewrite("/a", "ExactRules", "/$"), "InvalidParameterValue"),
        (rewrite("/a/*", "WildcardRules", "/$1/$2"), "InvalidParameterValue"),
        (rewrite("/a/*", "WildcardRules", "/*"), "InvalidParameterValue"),
        (rewrite("/a/*", "WildcardRules", "x"), "InvalidParameterValue"),
        (rewrite("/a/*", "WildcardRules", "/a b"), "InvalidParameterValue"),
    ] {
        assert_eq!(p.code("CreateCustomDomain", with(good(), change.clone())).await, code, "{change}");
    }
    for action in ["GetCustomDomain", "DeleteCustomDomain", "UpdateCustomDomain"] {
        assert_eq!(p.code(action, json!({"Domain": "a.example.com"})).await, "FailedOperation.Domain.UnExist");
    }
    assert_eq!(p.code("GetCustomDomain", json!({})).await, "MissingParameter");
    let filter = json!({"Filters": [{"Name": "Colour", "Values": ["red"]}]});
    assert_eq!(p.code("ListCustomDomains", filter).await, "InvalidParameterValue.Filters");
    assert_eq!(p.ok("ListCustomDomains", json!({})).await["Total"], json!(0));
}

#[tokio::test]
async fn a_url_that_a_domain_leads_to_keeps_its_trigger() {
    let p = Platform::new().await;
    p.create("hello").await;
    let trigger = json!({"FunctionName": "hello", "TriggerName": "url", "Type": "http", "Qualifier": "$DEFAULT",
        "TriggerDesc": "{\"AuthType\": \"NONE\", \"NetConfig\": {\"EnableExtranet\": true, \"EnableIntranet\": true}}"});
    p.ok("CreateTrigger", trigger).await;
    p.ok("CreateCustomDomain", domain("a.example.com", json!([endpoint("/*", "hello")]))).await;
    let delete = json!({"FunctionName": "hello", "TriggerName": "url", "Type": "http"});
    assert_eq!(p.code("DeleteTrigger", delete.clone()).await, "FailedOperation.DeleteTrigger.UrlUsed");
    p.ok("DeleteCustomDomain", json!({"Domain": "a.example.com"})).await;
    p.ok("DeleteTrigger", delete).await;
}

#[tokio::test]
async fn certificates_are_stored_replaced_and_never_shown() {
    let p = Platform::ticking().await;
    p.create("hello").await;
    let request = certificate("shop", &["shop.example.com", "*.example.org"]);
    let key = request["CertificatePrivateKey"].as_str().unwrap().lines().nth(1).unwrap().to_owned();
    let stored = p.ok("PutCertificate", request).await;
    assert_eq!((&stored["Status"], &stored["SubjectAltName"][0]), (&json!("VALID"), &json!("shop.example.com")));
    let secure = |name: &str| {
        with(
            domain(name, json!([endpoint("/*", "hello")])),
            json!({"Protocol": "HTTPS", "CertConfig": {"CertificateId": "shop"}}),
        )
    };
    assert_eq!(p.code("CreateCustomDomain", secure("other.example.com")).await, "InvalidParameterValue");
    p.ok("CreateCustomDomain", secure("shop.example.com")).await;
    p.ok("CreateCustomDomain", secure("a.example.org")).await;
    let shown = |p: &Platform| p.control.domain("shop.example.com").unwrap().certified().map(|c| c.cert[0].clone());
    let first = shown(&p).unwrap();
    assert_eq!(p.code("DeleteCertificate", json!({"CertificateId": "shop"})).await, "ResourceInUse");
    // A renewal that leaves a domain without certificate is none.
    assert_eq!(p.code("PutCertificate", certificate("shop", &["shop.example.com"])).await, "InvalidParameterValue");
    assert_eq!(shown(&p), Some(first.clone()));
    p.ok("PutCertificate", certificate("shop", &["shop.example.com", "a.example.org"])).await;
    let second = shown(&p).unwrap();
    assert_ne!(first, second);
    let p = p.restart().await;
    assert_eq!(shown(&p), Some(second));

    let list = p.ok("ListCertificates", json!({})).await;
    assert_eq!(list["TotalCount"], json!(1));
    assert_eq!(list["Certificates"][0]["Domains"], json!(["a.example.org", "shop.example.com"]));
    for answer in [list, stored, p.ok("GetCustomDomain", json!({"Domain": "a.example.org"})).await] {
        assert!(!answer.to_string().contains("PRIVATE") && !answer.to_string().contains(&key), "{answer}");
    }
    let entry = p.control.catalogue().domains().certificate("shop").cloned();
    assert!(!format!("{entry:?}").contains("PRIVATE"));

    // Without TLS there is no certificate.
    for name in ["shop.example.com", "a.example.org"] {
        p.ok("UpdateCustomDomain", json!({"Domain": name, "Protocol": "HTTP"})).await;
    }
    assert_eq!(shown(&p), None);
    p.ok("DeleteCertificate", json!({"CertificateId": "shop"})).await;
    assert_eq!(p.restart().await.ok("ListCertificates", json!({})).await["TotalCount"], json!(0));

    let (one, other) = (certificate("x", &["a.example"]), certificate("x", &["a.example"]));
    for (change, code) in [
        (json!({"CertificateId": "a b"}), "InvalidParameterValue"),
        (json!({"CertificateId": ".."}), "InvalidParameterValue"),
        (json!({"CertificateId": "x".repeat(65)}), "InvalidParameterValue"),
        (json!({"CertificatePublicKey": "nothing"}), "InvalidParameterValue"),
        (json!({"CertificatePrivateKey": ""}), "InvalidParameterValue"),
        (json!({"CertificatePrivateKey": other["CertificatePrivateKey"]}), "InvalidParameterValue"),
    ] {
        assert_eq!(p.code("PutCertificate", with(one.clone(), change.clone())).await, code, "{change}");
    }
    assert_eq!(p.code("DeleteCertificate", json!({"CertificateId": "none"})).await, "ResourceNotFound");
}

#[tokio::test]
async fn a_domain_is_bound_once_whoever_asks() {
    let p = Platform::new().await;
    p.ok("CreateFunction", create("hello")).await;
    let request = || p.call("CreateCustomDomain", domain("a.example.com", json!([endpoint("/*", "hello")])));
    let answers = tokio::join!(request(), request(), request());
    let answers = [answers.0, answers.1, answers.2];
    let refused = answers.iter().filter(|a| a["Error"]["Code"] == json!("ResourceInUse")).count();
    assert_eq!(refused, 2, "{answers:?}");
}
