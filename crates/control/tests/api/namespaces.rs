//! Namespaces.

use crate::harness::{Platform, create, with};
use serde_json::json;

#[tokio::test]
async fn namespaces_live_and_die() {
    let p = Platform::ticking().await;
    p.ok("CreateNamespace", json!({"Namespace": "prod", "Description": "the real one"})).await;
    p.ok("CreateNamespace", json!({"Namespace": "test"})).await;
    p.ok("UpdateNamespace", json!({"Namespace": "prod", "Description": "changed"})).await;
    let list = p.ok("ListNamespaces", json!({"Offset": 0, "Limit": 100})).await;
    let names: Vec<_> = list["Namespaces"].as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap()).collect();
    assert_eq!((names, &list["TotalCount"]), (vec!["prod", "test", "default"], &json!(3)));
    assert_eq!(list["Namespaces"][0]["Description"], json!("changed"));
    let list = p.ok("ListNamespaces", json!({"Orderby": "Name", "Order": "ASC", "Offset": 1, "Limit": 1})).await;
    assert_eq!(list["Namespaces"][0]["Name"], json!("prod"));
    let search = |key: &str, value: &str| json!({"SearchKey": [{"Key": key, "Value": value}]});
    assert_eq!(p.ok("ListNamespaces", search("Namespace", "ES")).await["TotalCount"], json!(1));
    assert_eq!(p.ok("ListNamespaces", search("Description", "chang")).await["TotalCount"], json!(1));

    p.ok("CreateFunction", with(create("hello"), json!({"Namespace": "prod"}))).await;
    p.create("hello").await;
    assert_eq!(p.code("DeleteNamespace", json!({"Namespace": "prod"})).await, "ResourceInUse.Namespace");
    p.ok("DeleteFunction", json!({"FunctionName": "hello", "Namespace": "prod"})).await;
    p.ok("DeleteNamespace", json!({"Namespace": "prod"})).await;
    let gone = json!({"FunctionName": "hello", "Namespace": "prod"});
    assert_eq!(p.code("GetFunction", gone).await, "ResourceNotFound.Namespace");
    p.ok("GetFunction", json!({"FunctionName": "hello"})).await;

    for (action, params, code) in [
        ("CreateNamespace", json!({"Namespace": "default"}), "InvalidParameterValue.DefaultNamespace"),
        ("CreateNamespace", json!({"Namespace": "test"}), "ResourceInUse.Namespace"),
        ("CreateNamespace", json!({"Namespace": "a b"}), "InvalidParameterValue.NamespaceInvalid"),
        ("CreateNamespace", json!({"Namespace": "x".repeat(31)}), "InvalidParameterValue.NamespaceInvalid"),
        (
            "CreateNamespace",
            json!({"Namespace": "new", "Description": "x".repeat(1001)}),
            "InvalidParameterValue.Description",
        ),
        ("CreateNamespace", json!({"Namespace": "new", "ResourceEnv": {"OFFLINE": true}}), "UnsupportedOperation"),
        ("UpdateNamespace", json!({"Namespace": "prod", "Description": ""}), "ResourceNotFound.Namespace"),
        ("UpdateNamespace", json!({"Namespace": "test"}), "MissingParameter"),
        ("DeleteNamespace", json!({"Namespace": "default"}), "FailedOperation.DeleteNamespace"),
        ("DeleteNamespace", json!({"Namespace": "prod"}), "ResourceNotFound.Namespace"),
        ("ListNamespaces", search("Colour", "x"), "InvalidParameterValue.SearchKey"),
        ("ListNamespaces", json!({"Order": "x"}), "InvalidParameterValue.Order"),
    ] {
        assert_eq!(p.code(action, params.clone()).await, code, "{action} {params}");
    }
    for i in 0..3 {
        p.ok("CreateNamespace", json!({"Namespace": format!("n{i}")})).await;
    }
    assert_eq!(p.code("CreateNamespace", json!({"Namespace": "new"})).await, "LimitExceeded.Namespace");
}

#[tokio::test]
async fn a_namespace_is_not_deleted_under_a_function_being_created() {
    let p = Platform::new().await;
    for round in 0..20 {
        p.ok("CreateNamespace", json!({"Namespace": "ns"})).await;
        let request = with(create(&format!("fn-{round}")), json!({"Namespace": "ns"}));
        let (created, deleted) =
            tokio::join!(p.call("CreateFunction", request), p.call("DeleteNamespace", json!({"Namespace": "ns"})));
        let codes = (created["Error"]["Code"].as_str(), deleted["Error"]["Code"].as_str());
        match codes {
            (None, Some("ResourceInUse.Namespace")) => {
                p.ok("DeleteFunction", json!({"FunctionName": format!("fn-{round}"), "Namespace": "ns"})).await;
                p.ok("DeleteNamespace", json!({"Namespace": "ns"})).await;
            }
            (Some("ResourceNotFound.Namespace"), None) => {}
            other => panic!("{other:?}"),
        }
    }
}
