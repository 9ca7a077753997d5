//! Layers, and functions that use them.

use crate::harness::{Platform, create, with, zip_of};
use serde_json::{Value, json};

fn layer(name: &str, text: &str) -> Value {
    json!({"LayerName": name, "CompatibleRuntimes": ["python3.10"], "Content": {"ZipFile": zip_of("lib.py", text)}, "Description": "d", "LicenseInfo": "MIT"})
}

#[tokio::test]
async fn layers_are_published_shown_listed_and_deleted() {
    let p = Platform::new().await;
    assert_eq!(p.ok("PublishLayerVersion", layer("lib", "1")).await["LayerVersion"], json!(1));
    assert_eq!(p.ok("PublishLayerVersion", layer("lib", "2")).await["LayerVersion"], json!(2));
    p.ok("PublishLayerVersion", with(layer("other", "x"), json!({"CompatibleRuntimes": ["Nodejs18.15", "Go1"]}))).await;
    let shown = p.ok("GetLayerVersion", json!({"LayerName": "lib", "LayerVersion": 1})).await;
    assert_eq!((&shown["CompatibleRuntimes"], &shown["LicenseInfo"]), (&json!(["Python3.10"]), &json!("MIT")));
    assert_eq!((&shown["Status"], &shown["LayerVersion"]), (&json!("Active"), &json!(1)));
    let token = shown["Location"].as_str().unwrap().rsplit('/').next().unwrap();
    assert!(p.control.download(token).await.is_some());

    let list = p.ok("ListLayers", json!({})).await;
    assert_eq!((&list["Layers"][0]["LayerName"], &list["Layers"][0]["LayerVersion"]), (&json!("lib"), &json!(2)));
    assert_eq!(list["TotalCount"], json!(2));
    assert_eq!(p.ok("ListLayers", json!({"CompatibleRuntime": "go1"})).await["Layers"][0]["LayerName"], json!("other"));
    assert_eq!(p.ok("ListLayers", json!({"SearchKey": "LI", "Limit": 1})).await["TotalCount"], json!(1));
    let versions = p.ok("ListLayerVersions", json!({"LayerName": "lib"})).await;
    assert_eq!(versions["LayerVersions"].as_array().unwrap().len(), 2);
    let none = p.ok("ListLayerVersions", json!({"LayerName": "lib", "CompatibleRuntime": ["Go1"]})).await;
    assert_eq!(none["LayerVersions"], json!([]));

    p.ok("DeleteLayerVersion", json!({"LayerName": "lib", "LayerVersion": 2})).await;
    assert_eq!(
        p.ok("PublishLayerVersion", layer("lib", "3")).await["LayerVersion"],
        json!(3),
        "numbers are not given twice"
    );
    let p = p.restart().await;
    p.ok("DeleteLayerVersion", json!({"LayerName": "lib", "LayerVersion": 3})).await;
    assert_eq!(p.ok("PublishLayerVersion", layer("lib", "4")).await["LayerVersion"], json!(4), "nor after a restart");
}

#[tokio::test]
async fn functions_bind_layers_and_keep_them() {
    let p = Platform::new().await;
    p.ok("PublishLayerVersion", layer("lib", "1")).await;
    p.ok("PublishLayerVersion", layer("lib2", "2")).await;
    let bound = json!([{"LayerName": "lib2", "LayerVersion": 1}, {"LayerName": "lib", "LayerVersion": 1}]);
    p.ok("CreateFunction", with(create("hello"), json!({"Layers": bound}))).await;
    let digests = p.control.live_digests();
    assert_eq!(digests.len(), 3);
    p.ok("DeleteLayerVersion", json!({"LayerName": "lib", "LayerVersion": 1})).await;
    assert_eq!(p.control.live_digests(), digests, "the function still needs it");
    let f = p.ok("GetFunction", json!({"FunctionName": "hello"})).await;
    let names: Vec<_> = f["Layers"].as_array().unwrap().iter().map(|l| (&l["LayerName"], &l["Status"])).collect();
    assert_eq!(names, [(&json!("lib2"), &json!("Active")), (&json!("lib"), &json!("Deleted"))], "in mount order");
    let target = p.control.catalogue().resolve("default", "hello", "$LATEST", &[], 0.0).unwrap();
    assert_eq!(target.spec.config.layers[1].name.as_str(), "lib");
    assert_eq!(
        p.code("CreateFunction", with(create("late"), json!({"Layers": bound}))).await,
        "ResourceNotFound.Layer"
    );
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Layers": []})).await;
    assert_eq!(p.control.live_digests().len(), 2);
    let twice = json!([{"LayerName": "lib2", "LayerVersion": 1}, {"LayerName": "lib2", "LayerVersion": 1}]);
    let update = json!({"FunctionName": "hello", "Layers": twice});
    assert_eq!(p.code("UpdateFunctionConfiguration", update).await, "InvalidParameterValue.Layers");
}

#[tokio::test]
async fn refusals_have_the_promised_codes() {
    let p = Platform::new().await;
    p.ok("PublishLayerVersion", layer("lib", "1")).await;
    for (action, params, code) in [
        ("PublishLayerVersion", layer("9", "x"), "InvalidParameterValue.LayerName"),
        (
            "PublishLayerVersion",
            with(layer("l", "x"), json!({"CompatibleRuntimes": ["Cobol"]})),
            "InvalidParameterValue.CompatibleRuntimes",
        ),
        (
            "PublishLayerVersion",
            with(layer("l", "x"), json!({"CompatibleRuntimes": []})),
            "InvalidParameterValue.CompatibleRuntimes",
        ),
        ("PublishLayerVersion", with(layer("l", "x"), json!({"CompatibleRuntimes": null})), "MissingParameter"),
        ("PublishLayerVersion", with(layer("l", "x"), json!({"Content": {}})), "InvalidParameterValue.Content"),
        (
            "PublishLayerVersion",
            with(layer("l", "x"), json!({"Content": {"ZipFile": "aGk="}})),
            "InvalidParameterValue.Content",
        ),
        (
            "PublishLayerVersion",
            with(layer("l", "x"), json!({"Content": {"ZipFile": "%"}})),
            "InvalidParameterValue.ZipFileBase64BinasciiError",
        ),
        (
            "PublishLayerVersion",
            with(layer("l", "x"), json!({"Content": {"CosObjectName": "/x"}})),
            "UnsupportedOperation.Cos",
        ),
        (
            "PublishLayerVersion",
            with(layer("l", "x"), json!({"Description": "x".repeat(1001)})),
            "InvalidParameterValue.Description",
        ),
        ("GetLayerVersion", json!({"LayerName": "lib", "LayerVersion": 2}), "ResourceNotFound.LayerVersion"),
        ("GetLayerVersion", json!({"LayerName": "!", "LayerVersion": -1}), "ResourceNotFound.LayerVersion"),
        ("DeleteLayerVersion", json!({"LayerName": "none", "LayerVersion": 1}), "ResourceNotFound.LayerVersion"),
        ("ListLayers", json!({"CompatibleRuntime": "Cobol"}), "InvalidParameterValue.Runtime"),
        ("ListLayerVersions", json!({"LayerName": "none"}), "ResourceNotFound.Layer"),
    ] {
        assert_eq!(p.code(action, params.clone()).await, code, "{action} {params}");
    }
    for i in 1..20 {
        p.ok("PublishLayerVersion", layer(&format!("lib{i}"), "x")).await;
    }
    assert_eq!(p.code("PublishLayerVersion", layer("one-more", "x")).await, "LimitExceeded.Layers");
    p.ok("PublishLayerVersion", layer("lib", "2")).await;
    for _ in 2..200 {
        p.ok("PublishLayerVersion", layer("lib", "2")).await;
    }
    assert_eq!(p.code("PublishLayerVersion", layer("lib", "2")).await, "LimitExceeded.LayerVersions");
}
