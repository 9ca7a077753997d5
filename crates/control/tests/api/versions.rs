//! PublishVersion, ListVersionByFunction, DeleteFunctionVersion.

use crate::harness::{Platform, with};
use serde_json::{Value, json};

fn hello(fields: Value) -> Value {
    with(json!({"FunctionName": "hello"}), fields)
}

#[tokio::test]
async fn versions_are_numbered_listed_and_deleted() {
    let p = Platform::ticking().await;
    p.create("hello").await;
    let v = p.ok("PublishVersion", hello(json!({"Description": "first"}))).await;
    for (field, value) in [
        ("FunctionVersion", json!("1")),
        ("MemorySize", json!(128)),
        ("Description", json!("first")),
        ("Handler", json!("index.main_handler")),
        ("Timeout", json!(3)),
        ("Runtime", json!("Python3.10")),
        ("Namespace", json!("default")),
    ] {
        assert_eq!(v[field], value, "{field}");
    }
    p.ok("PublishVersion", hello(json!({}))).await;
    p.ok("DeleteFunctionVersion", hello(json!({"Qualifier": "2", "ForceDelete": "true"}))).await;
    assert_eq!(p.retired().last().unwrap(), &("2".to_owned(), false, true));
    assert_eq!(
        p.ok("PublishVersion", hello(json!({}))).await["FunctionVersion"],
        json!("3"),
        "numbers are not given twice"
    );

    let list = p.ok("ListVersionByFunction", hello(json!({}))).await;
    assert_eq!((&list["FunctionVersion"], &list["TotalCount"]), (&json!(["$LATEST", "3", "1"]), &json!(3)));
    assert_eq!((&list["Versions"][2]["Version"], &list["Versions"][2]["Description"]), (&json!("1"), &json!("first")));
    let list = p
        .ok("ListVersionByFunction", hello(json!({"Order": "ASC", "OrderBy": "AddTime", "Offset": 1, "Limit": 1})))
        .await;
    assert_eq!((&list["FunctionVersion"], &list["TotalCount"]), (&json!(["1"]), &json!(3)));
    let list = p.ok("ListVersionByFunction", hello(json!({"Order": "DESC", "OrderBy": "ModTime"}))).await;
    assert_eq!(list["FunctionVersion"], json!(["3", "1", "$LATEST"]), "publishing does not change `$LATEST`");

    p.ok("DeleteFunction", hello(json!({"Qualifier": "1"}))).await;
    assert_eq!(p.retired().last().unwrap(), &("1".to_owned(), false, false));
    assert_eq!(p.ok("ListVersionByFunction", hello(json!({}))).await["FunctionVersion"], json!(["$LATEST", "3"]));
}

#[tokio::test]
async fn refusals_have_the_promised_codes() {
    let p = Platform::new().await;
    p.create("hello").await;
    p.ok("PublishVersion", hello(json!({}))).await;
    p.ok("CreateAlias", hello(json!({"Name": "prod", "FunctionVersion": "1"}))).await;
    for (action, fields, code) in [
        ("PublishVersion", json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        ("PublishVersion", json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        ("PublishVersion", json!({"Description": "x".repeat(1001)}), "InvalidParameterValue.Description"),
        ("ListVersionByFunction", json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        ("ListVersionByFunction", json!({"Order": "up"}), "InvalidParameterValue.Order"),
        ("ListVersionByFunction", json!({"OrderBy": "Size"}), "InvalidParameterValue.OrderBy"),
        ("DeleteFunctionVersion", json!({}), "MissingParameter"),
        ("DeleteFunctionVersion", json!({"Qualifier": "$LATEST"}), "InvalidParameterValue.Qualifier"),
        ("DeleteFunctionVersion", json!({"Qualifier": "7"}), "ResourceNotFound.Version"),
        ("DeleteFunctionVersion", json!({"Qualifier": "1"}), "UnsupportedOperation.AliasBind"),
        ("DeleteFunctionVersion", json!({"Qualifier": "1", "FunctionName": "nobody"}), "ResourceNotFound.Function"),
        ("DeleteFunction", json!({"Qualifier": "1"}), "UnsupportedOperation.AliasBind"),
        ("DeleteFunction", json!({"Qualifier": "7"}), "ResourceNotFound.Qualifier"),
        ("DeleteFunction", json!({"Qualifier": "prod"}), "InvalidParameterValue.Qualifier"),
        ("GetFunction", json!({"Qualifier": "7"}), "ResourceNotFound.Version"),
        ("GetFunction", json!({"Qualifier": "nope"}), "ResourceNotFound.Version"),
    ] {
        assert_eq!(p.code(action, hello(fields.clone())).await, code, "{action} {fields}");
    }
    let f = p.ok("GetFunction", hello(json!({"Qualifier": "prod"}))).await;
    assert_eq!((&f["Qualifier"], &f["FunctionVersion"]), (&json!("prod"), &json!("1")));
    p.ok("DeleteFunction", hello(json!({}))).await;
    assert_eq!(p.retired().len(), 2, "both versions lost their instances");
}

#[tokio::test]
async fn a_function_has_at_most_a_thousand_versions() {
    let p = Platform::new().await;
    p.create("hello").await;
    for _ in 0..1000 {
        p.ok("PublishVersion", hello(json!({}))).await;
    }
    assert_eq!(p.code("PublishVersion", hello(json!({}))).await, "LimitExceeded.FunctionVersions");
    let list = p.ok("ListVersionByFunction", hello(json!({"Offset": 990, "Limit": 100}))).await;
    assert_eq!((list["Versions"].as_array().unwrap().len(), &list["TotalCount"]), (11, &json!(1001)));
}
