//! HTTP functions: their settings, and where their requests go.

use crate::harness::{Platform, create, create_http, with, zip_of};
use mayfly_model::{ServiceConfig, UrlAuth};
use serde_json::{Value, json};

async fn shown(p: &Platform, name: &'static str) -> Value {
    p.ok("GetFunction", json!({"FunctionName": name, "ShowCode": "TRUE"})).await
}

fn concurrency(dynamic: &str, max: i64) -> Value {
    json!({"InstanceConcurrencyConfig": {"DynamicEnabled": dynamic, "MaxConcurrency": max}})
}

#[tokio::test]
async fn an_http_function_is_created_and_shown() {
    let p = Platform::new().await;
    p.create("event").await;
    p.ok("CreateFunction", create_http("plain")).await;
    let fields = json!({
        "Runtime": "Nodejs18.15", "Type": "http", "ProtocolType": "WS", "ProtocolParams": {"WSParams": {"IdleTimeOut": 60}},
        "InstanceConcurrencyConfig": {"DynamicEnabled": "FALSE", "MaxConcurrency": 100, "Type": "Request-Based"},
    });
    p.ok("CreateFunction", with(create_http("web"), fields)).await;
    let plain = shown(&p, "plain").await;
    assert_eq!((&plain["Type"], &plain["Handler"], &plain["ProtocolType"]), (&json!("HTTP"), &json!(""), &json!("")));
    assert_eq!(plain["CodeInfo"], json!("#!/bin/bash\nexec ./server\n"));
    assert_eq!(
        (&plain["InstanceConcurrencyConfig"]["MaxConcurrency"], &plain["ProtocolParams"]),
        (&json!(1), &Value::Null)
    );
    let web = shown(&p, "web").await;
    assert_eq!((&web["ProtocolType"], &web["Runtime"]), (&json!("WS"), &json!("Nodejs18.15")));
    assert_eq!(web["ProtocolParams"], json!({"WSParams": {"IdleTimeOut": 60}}));
    let config = &web["InstanceConcurrencyConfig"];
    assert_eq!((&config["DynamicEnabled"], &config["MaxConcurrency"]), (&json!("FALSE"), &json!(100)));
    let event = shown(&p, "event").await;
    assert_eq!((&event["Type"], event.get("InstanceConcurrencyConfig")), (&json!("Event"), None));

    let names = |list: Value| -> Vec<String> {
        list["Functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| format!("{}:{}", f["FunctionName"].as_str().unwrap(), f["Type"].as_str().unwrap()))
            .collect()
    };
    let by_name = |fields: Value| with(json!({"Orderby": "FunctionName", "Order": "ASC"}), fields);
    let list = p.ok("ListFunctions", by_name(json!({"Filters": [{"Name": "Type", "Values": ["HTTP"]}]}))).await;
    assert_eq!(names(list), ["plain:HTTP", "web:HTTP"]);
    assert_eq!(names(p.ok("ListFunctions", by_name(json!({"Type": "http"}))).await), ["plain:HTTP", "web:HTTP"]);
    assert_eq!(names(p.ok("ListFunctions", by_name(json!({"Type": "Event"}))).await), ["event:Event"]);
    assert_eq!(p.code("ListFunctions", json!({"Type": "Web"})).await, "InvalidParameterValue.Type");

    let p = p.restart().await;
    let target = p.control.resolve_url("default", "web", None).unwrap().target;
    let expected = ServiceConfig { concurrency: 100, websocket_idle_s: Some(60) };
    assert_eq!(target.spec.config.service, Some(expected), "settings outlive the process");
}

#[tokio::test]
async fn bad_settings_of_services_are_named() {
    let p = Platform::new().await;
    p.create("event").await;
    let isolation = json!({"InstanceConcurrencyConfig": {"InstanceIsolationEnabled": "TRUE"}});
    let sessions = json!({"InstanceConcurrencyConfig": {"Type": "Session-Based"}});
    let ws = |idle: i64| json!({"ProtocolType": "WS", "ProtocolParams": {"WSParams": {"IdleTimeOut": idle}}});
    for (fields, code, word) in [
        (concurrency("FALSE", 0), "InvalidParameterValue.MaxConcurrency", "MaxConcurrency"),
        (concurrency("FALSE", 101), "InvalidParameterValue.MaxConcurrency", "MaxConcurrency"),
        (concurrency("TRUE", 2), "UnsupportedOperation", "DynamicEnabled"),
        (concurrency("perhaps", 2), "InvalidParameterValue.DynamicEnabled", "DynamicEnabled"),
        (isolation, "UnsupportedOperation", "InstanceIsolationEnabled"),
        (sessions, "UnsupportedOperation", "InstanceConcurrencyConfig.Type"),
        (json!({"ProtocolType": "GRPC"}), "InvalidParameterValue.ProtocolType", "GRPC"),
        (ws(0), "InvalidParameterValue.IdleTimeOut", "IdleTimeOut"),
        (ws(1801), "InvalidParameterValue.IdleTimeOut", "IdleTimeOut"),
        (json!({"ProtocolParams": {"WSParams": {}}}), "InvalidParameterValue.WebSocketsParams", "ProtocolType"),
        (json!({"ProtocolParams": {"WSParams": 7}}), "InvalidParameter", "WSParams"),
        (json!({"Type": "Web"}), "InvalidParameterValue.Type", "Web"),
        (json!({"Runtime": "Cobol"}), "InvalidParameterValue.Runtime", "Cobol"),
    ] {
        let answer = p.call("CreateFunction", with(create_http("web"), fields.clone())).await;
        assert_eq!(answer["Error"]["Code"], json!(code), "{fields}: {answer}");
        assert!(answer["Error"]["Message"].as_str().unwrap().contains(word), "{fields}: {answer}");
    }
    for (fields, code) in [
        (concurrency("FALSE", 2), "InvalidParameterValue.InstanceConcurrencyConfig"),
        (ws(15), "InvalidParameterValue.ProtocolType"),
        (json!({"ProtocolParams": {"WSParams": {"IdleTimeOut": 9}}}), "InvalidParameterValue.WebSocketsParams"),
    ] {
        assert_eq!(p.code("CreateFunction", with(create("other"), fields.clone())).await, code, "{fields}");
        if fields.get("ProtocolType").is_none() {
            let update = with(json!({"FunctionName": "event"}), fields.clone());
            assert_eq!(p.code("UpdateFunctionConfiguration", update).await, code, "{fields}");
        }
    }
    assert_eq!(p.ok("ListFunctions", json!({})).await["TotalCount"], json!(1), "nothing was made");
}

#[tokio::test]
async fn settings_of_services_change_and_versions_keep_theirs() {
    let p = Platform::new().await;
    let ws = json!({"ProtocolType": "WS", "ProtocolParams": {"WSParams": {}}});
    p.ok("CreateFunction", with(create_http("web"), ws)).await;
    p.ok("CreateFunction", create_http("plain")).await;
    assert_eq!(shown(&p, "web").await["ProtocolParams"]["WSParams"]["IdleTimeOut"], json!(15));
    let update = |fields: Value| with(json!({"FunctionName": "web"}), fields);
    p.ok("UpdateFunctionConfiguration", update(with(concurrency("FALSE", 20), json!({"Publish": "TRUE"})))).await;
    assert_eq!(p.retired().len(), 1, "an instance that takes one request at a time cannot take twenty");
    let idle = json!({"ProtocolParams": {"WSParams": {"IdleTimeOut": 1800}}, "Type": "HTTP"});
    p.ok("UpdateFunctionConfiguration", update(idle)).await;
    p.ok("UpdateFunctionConfiguration", update(json!({"Description": "d"}))).await;
    let latest = shown(&p, "web").await;
    assert_eq!(latest["InstanceConcurrencyConfig"]["MaxConcurrency"], json!(20), "absent fields stay");
    assert_eq!(latest["ProtocolParams"]["WSParams"]["IdleTimeOut"], json!(1800));
    p.ok("UpdateFunctionConfiguration", update(concurrency("", 50))).await;
    assert_eq!(shown(&p, "web").await["InstanceConcurrencyConfig"]["MaxConcurrency"], json!(1), "off is one at a time");
    let v1 = p.ok("GetFunction", json!({"FunctionName": "web", "Qualifier": "1"})).await;
    assert_eq!((&v1["Type"], &v1["InstanceConcurrencyConfig"]["MaxConcurrency"]), (&json!("HTTP"), &json!(20)));

    assert_eq!(
        p.code("UpdateFunctionConfiguration", update(json!({"Type": "Event"}))).await,
        "InvalidParameterValue.Type"
    );
    let params = json!({"FunctionName": "plain", "ProtocolParams": {"WSParams": {"IdleTimeOut": 5}}});
    assert_eq!(p.code("UpdateFunctionConfiguration", params).await, "InvalidParameterValue.WebSocketsParams");
    let code = json!({"FunctionName": "web", "ZipFile": zip_of("scf_bootstrap", "#!/bin/sh\n"), "Handler": "anything"});
    p.ok("UpdateFunctionCode", code).await;
    assert_eq!(shown(&p, "web").await["Type"], json!("HTTP"));
}

#[tokio::test]
async fn copies_keep_the_type() {
    let p = Platform::new().await;
    p.create("event").await;
    p.ok("CreateFunction", with(create_http("web"), concurrency("FALSE", 9))).await;
    let url =
        json!({"FunctionName": "web", "TriggerName": "t", "Type": "http", "TriggerDesc": "{\"AuthType\":\"CAM\"}"});
    p.ok("CreateTrigger", url).await;
    let copy = |name: &str, fields: Value| with(json!({"FunctionName": "web", "NewFunctionName": name}), fields);
    p.ok("CopyFunction", copy("twin", json!({}))).await;
    let twin = shown(&p, "twin").await;
    assert_eq!((&twin["Type"], &twin["InstanceConcurrencyConfig"]["MaxConcurrency"]), (&json!("HTTP"), &json!(9)));
    assert_eq!(twin["Triggers"], json!([]), "a copy has no URL of its own");
    p.ok("CopyFunction", copy("bare", json!({"CopyConfiguration": false}))).await;
    let bare = shown(&p, "bare").await;
    assert_eq!((&bare["Type"], &bare["InstanceConcurrencyConfig"]["MaxConcurrency"]), (&json!("HTTP"), &json!(1)));
    let custom = with(create("custom"), json!({"Runtime": "CustomRuntime"}));
    p.ok("CreateFunction", custom).await;
    let onto = copy("custom", json!({"Override": true}));
    assert_eq!(
        p.code("CopyFunction", onto).await,
        "FailedOperation.CopyFunction",
        "the type of a function is for life"
    );
}

#[tokio::test]
async fn http_functions_are_not_invoked() {
    let p = Platform::new().await;
    p.ok("CreateFunction", create_http("web")).await;
    for (action, fields) in [
        ("Invoke", json!({"Qualifier": "$DEFAULT"})),
        ("Invoke", json!({"InvocationType": "Event", "Qualifier": "$DEFAULT"})),
        ("InvokeFunction", json!({"Event": "{}"})),
    ] {
        let answer = p.call(action, with(json!({"FunctionName": "web"}), fields)).await;
        assert_eq!(answer["Error"]["Code"], json!("InvalidParameterValue.FunctionType"), "{answer}");
        let message = answer["Error"]["Message"].as_str().unwrap();
        assert!(message.contains("http://127.0.0.1:8700/fn/default/web/"), "{message}");
    }
    assert!(p.invoker.calls.lock().is_empty());
}

#[tokio::test]
async fn urls_lead_to_versions_by_name_weight_and_type() {
    let p = Platform::new().await;
    p.create("event").await;
    p.ok("CreateFunction", create_http("web")).await;
    p.ok("PublishVersion", json!({"FunctionName": "web"})).await;
    let alias = json!({"FunctionName": "web", "Name": "prod", "FunctionVersion": "1"});
    p.ok("CreateAlias", alias).await;
    let resolve = |function: &str, qualifier: Option<&str>| p.control.resolve_url("default", function, qualifier);
    let open = resolve("web", None).unwrap();
    assert_eq!((open.auth, open.cors.is_none(), &*open.qualifier), (UrlAuth::Open, true, "$DEFAULT"));
    assert_eq!(open.target.spec.key.version, "$LATEST");
    assert_eq!(resolve("event", None).unwrap().auth, UrlAuth::Signed, "an event function is not open by itself");
    for qualifier in ["prod", "1"] {
        let route = resolve("web", Some(qualifier)).unwrap();
        assert_eq!((route.target.spec.key.version.as_str(), &*route.qualifier), ("1", qualifier));
    }
    for (function, qualifier, code) in [
        ("web", Some("2"), "ResourceNotFound.Qualifier"),
        ("web", Some("01"), "ResourceNotFound.Qualifier"),
        ("web", Some("stage"), "ResourceNotFound.Qualifier"),
        ("web", Some(""), "ResourceNotFound.Qualifier"),
        ("web", Some("$latest"), "ResourceNotFound.Qualifier"),
        ("none", None, "ResourceNotFound.Function"),
    ] {
        assert_eq!(resolve(function, qualifier).unwrap_err().code, code, "{function} {qualifier:?}");
    }
    assert_eq!(p.control.resolve_url("nowhere", "web", None).unwrap_err().code, "ResourceNotFound.Namespace");
    let routing = json!({"AdditionalVersionWeights": [{"Version": "$LATEST", "Weight": 0.5}]});
    p.ok(
        "UpdateAlias",
        json!({"FunctionName": "web", "Name": "prod", "FunctionVersion": "1", "RoutingConfig": routing}),
    )
    .await;
    let first = (0..400).filter(|_| resolve("web", Some("prod")).unwrap().target.spec.key.version == "1").count();
    assert!((100..300).contains(&first), "{first} of 400");
}
