//! What holds for every action: names, versions, parameter forms, panics.

use crate::harness::{Platform, create, zip_of};
use mayfly_sign::Params;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn unknown_actions_versions_and_bodies_are_told_apart() {
    let p = Platform::new().await;
    for action in ["PutTotalConcurrencyConfig", "Nonsense", ""] {
        assert_eq!(p.call(action, json!({})).await["Error"]["Code"], json!("InvalidAction"), "{action}");
    }
    let params = || Params::Json("{}".into());
    for action in ["ListFunctions", "Invoke"] {
        let answer = p.send(action, "2017-01-01", params()).await;
        assert_eq!(answer["Error"]["Code"], json!("NoSuchVersion"), "{action}");
        for body in ["{", "[]", "7", "{\"Limit\":1}x", "\u{0}"] {
            let answer = p.send(action, "2018-04-16", Params::Json(body.into())).await;
            assert_eq!(answer["Error"]["Code"], json!("InvalidParameter"), "{action} {body:?}");
        }
    }
    let answer = p.send("Nonsense", "2017-01-01", params()).await;
    assert_eq!(answer["Error"]["Code"], json!("InvalidAction"), "the action is looked at before the version");
    let answer = p.send("ListFunctions", "2018-04-16", Params::Json("".into())).await;
    assert_eq!(answer["TotalCount"], json!(0), "no body is no parameters");
}

#[tokio::test]
async fn v1_callers_send_everything_as_text() {
    let p = Platform::new().await;
    let created = p
        .call_v1(
            "CreateFunction",
            json!({
                "FunctionName": "tkfn", "Runtime": "Nodejs18.15", "Handler": "index.main", "MemorySize": "256", "Timeout": "7",
                "Code": {"ZipFile": zip_of("index.js", "exports.main = 1")},
                "Environment": {"Variables": [{"Key": "AB", "Value": "1"}]},
                "Tags": {"0": {"Key": "a", "Value": "b"}}, "PublicNetConfig": {"PublicNetStatus": "ENABLE", "EipConfig": {"EipStatus": "DISABLE"}},
                "L5Enable": "FALSE", "DiskSize": "512", "InitTimeout": ""
            }),
        )
        .await;
    assert!(created.get("Error").is_none(), "{created}");
    let f =
        p.call_v1("GetFunction", json!({"FunctionName": "tkfn", "ShowCode": "FALSE", "ShowTriggers": "FALSE"})).await;
    assert_eq!((&f["MemorySize"], &f["Timeout"], &f["InitTimeout"]), (&json!(256), &json!(7), &json!(65)));
    assert_eq!((&f["Environment"]["Variables"][0]["Key"], &f["Tags"][0]["Key"]), (&json!("AB"), &json!("a")));
    let copy = json!({"FunctionName": "tkfn", "NewFunctionName": "copy", "CopyConfiguration": "false"});
    assert!(p.call_v1("CopyFunction", copy).await.get("Error").is_none());
    let weights = json!({"FunctionName": "tkfn", "Name": "$DEFAULT", "FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": [{"Version": "1", "Weight": "0.5"}]}});
    p.call_v1("PublishVersion", json!({"FunctionName": "tkfn"})).await;
    assert!(p.call_v1("UpdateAlias", weights).await.get("Error").is_none());
    let answer = p.call_v1("Invoke", json!({"FunctionName": "tkfn", "ClientContext": "{}", "LogType": "Tail"})).await;
    assert_eq!(answer["Result"]["InvokeResult"], json!(0));
    let answer = p.call_v1("ListFunctions", json!({"Limit": "ten"})).await;
    assert_eq!(answer["Error"]["Code"], json!("InvalidParameter"));
    assert!(answer["Error"]["Message"].as_str().unwrap().contains("`Limit`"));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_no_more() {
    let p = Platform::new().await;
    p.ok("CreateFunction", create("hello")).await;
    *p.invoker.script.lock() = Box::new(|_, _| panic!("secret detail"));
    assert_eq!(p.code("Invoke", json!({"FunctionName": "hello"})).await, "InternalError");
    *p.invoker.script.lock() = Box::new(|_, _| (mayfly_model::Status::OK, "1".into(), Duration::ZERO));
    p.ok("Invoke", json!({"FunctionName": "hello"})).await;
}
