//! Aliases and their routes.

use crate::harness::{Platform, with};
use serde_json::{Value, json};

fn hello(fields: Value) -> Value {
    with(json!({"FunctionName": "hello"}), fields)
}

async fn platform() -> Platform {
    let p = Platform::new().await;
    p.create("hello").await;
    for _ in 0..3 {
        p.ok("PublishVersion", hello(json!({}))).await;
    }
    p
}

fn rules(rules: Value) -> Value {
    json!({"AddtionVersionMatchs": rules})
}

#[tokio::test]
async fn aliases_are_made_shown_changed_and_deleted() {
    let p = platform().await;
    let weights = json!({"AdditionalVersionWeights": [{"Version": "2", "Weight": 0.25}]});
    let alias = json!({"Name": "prod", "FunctionVersion": "1", "RoutingConfig": weights, "Description": "d"});
    p.ok("CreateAlias", hello(alias)).await;
    let shown = p.ok("GetAlias", hello(json!({"Name": "prod"}))).await;
    assert_eq!((&shown["FunctionVersion"], &shown["Description"]), (&json!("1"), &json!("d")));
    assert_eq!(shown["RoutingConfig"]["AdditionalVersionWeights"], weights["AdditionalVersionWeights"]);
    assert_eq!(shown["RoutingConfig"]["AddtionVersionMatchs"], json!([]));

    let list = p.ok("ListAliases", hello(json!({"Offset": "0", "Limit": "20"}))).await;
    let names: Vec<_> = list["Aliases"].as_array().unwrap().iter().map(|a| a["Name"].clone()).collect();
    assert_eq!((names, &list["TotalCount"]), (vec![json!("$DEFAULT"), json!("prod")], &json!(2)));
    let list = p.ok("ListAliases", hello(json!({"FunctionVersion": "2"}))).await;
    assert_eq!((&list["Aliases"][0]["Name"], &list["TotalCount"]), (&json!("prod"), &json!(1)));
    assert_eq!(p.ok("ListAliases", hello(json!({"FunctionVersion": "9"}))).await["TotalCount"], json!(0));
    assert_eq!(
        p.ok("ListAliases", hello(json!({"Offset": "1", "Limit": "1"}))).await["Aliases"][0]["Name"],
        json!("prod")
    );

    p.ok("UpdateAlias", hello(json!({"Name": "prod", "FunctionVersion": "3"}))).await;
    let shown = p.ok("GetAlias", hello(json!({"Name": "prod"}))).await;
    assert_eq!((&shown["FunctionVersion"], &shown["Description"]), (&json!("3"), &json!("d")));
    assert_eq!(shown["RoutingConfig"]["AdditionalVersionWeights"], json!([]));
    p.ok("UpdateAlias", hello(json!({"Name": "$DEFAULT", "FunctionVersion": "3"}))).await;
    let answer = p.ok("InvokeFunction", hello(json!({}))).await;
    assert_eq!(answer["Result"]["RetMsg"], json!("\"3\""), "InvokeFunction goes to $DEFAULT");
    p.ok("DeleteAlias", hello(json!({"Name": "prod"}))).await;
    assert_eq!(p.code("GetAlias", hello(json!({"Name": "prod"}))).await, "ResourceNotFound.Alias");
}

#[tokio::test]
async fn refusals_have_the_promised_codes() {
    let p = platform().await;
    p.ok("CreateAlias", hello(json!({"Name": "prod", "FunctionVersion": "1"}))).await;
    let weights = |list: Value| json!({"Name": "new", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": list}});
    let rule = |method: &str, key: &str, expression: &str| {
        let rule = json!([{"Version": "2", "Key": key, "Method": method, "Expression": expression}]);
        json!({"Name": "new", "FunctionVersion": "1", "RoutingConfig": rules(rule)})
    };
    for (action, fields, code) in [
        ("CreateAlias", json!({"Name": "prod", "FunctionVersion": "1"}), "ResourceInUse.Alias"),
        ("CreateAlias", json!({"Name": "1x", "FunctionVersion": "1"}), "InvalidParameterValue.Name"),
        ("CreateAlias", json!({"Name": "new", "FunctionVersion": "9"}), "ResourceNotFound.FunctionVersion"),
        ("CreateAlias", json!({"Name": "new", "FunctionVersion": "prod"}), "ResourceNotFound.FunctionVersion"),
        ("CreateAlias", json!({"Name": "new"}), "MissingParameter"),
        (
            "CreateAlias",
            json!({"Name": "new", "FunctionVersion": "1", "FunctionName": "nobody"}),
            "ResourceNotFound.Function",
        ),
        ("CreateAlias", weights(json!([{"Version": "9", "Weight": 0.5}])), "ResourceNotFound.FunctionVersion"),
        (
            "CreateAlias",
            weights(json!([{"Version": "1", "Weight": 0.5}])),
            "InvalidParameterValue.AdditionalVersionWeights",
        ),
        (
            "CreateAlias",
            weights(json!([{"Version": "2", "Weight": 1.5}])),
            "InvalidParameterValue.AdditionalVersionWeights",
        ),
        (
            "CreateAlias",
            weights(json!([{"Version": "2", "Weight": -0.1}])),
            "InvalidParameterValue.AdditionalVersionWeights",
        ),
        (
            "CreateAlias",
            weights(json!([{"Version": "2", "Weight": 0.6}, {"Version": "3", "Weight": 0.6}])),
            "InvalidParameterValue.AdditionalVersionWeights",
        ),
        ("CreateAlias", weights(json!([{"Version": "2"}])), "MissingParameter"),
        ("CreateAlias", weights(json!([{"Version": "2", "Weight": "half"}])), "InvalidParameter"),
        ("CreateAlias", rule("like", "invoke.headers.User", "x"), "InvalidParameterValue.RoutingConfig"),
        ("CreateAlias", rule("range", "invoke.headers.User", "x"), "InvalidParameterValue.RoutingConfig"),
        ("CreateAlias", rule("exact", "User", "x"), "InvalidParameterValue.RoutingConfig"),
        (
            "CreateAlias",
            json!({"Name": "new", "FunctionVersion": "1", "Description": "x".repeat(1001)}),
            "InvalidParameterValue.Description",
        ),
        ("UpdateAlias", json!({"Name": "new", "FunctionVersion": "1"}), "ResourceNotFound.Alias"),
        ("UpdateAlias", json!({"Name": "prod", "FunctionVersion": "9"}), "ResourceNotFound.FunctionVersion"),
        ("DeleteAlias", json!({"Name": "$DEFAULT"}), "InvalidParameterValue.Alias"),
        ("DeleteAlias", json!({"Name": "new"}), "ResourceNotFound.Alias"),
        ("GetAlias", json!({"Name": "new", "Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        ("ListAliases", json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        ("ListAliases", json!({"Limit": "many"}), "InvalidParameterValue.Limit"),
    ] {
        assert_eq!(p.code(action, hello(fields.clone())).await, code, "{action} {fields}");
    }
    assert_eq!(p.ok("ListAliases", hello(json!({}))).await["TotalCount"], json!(2));
    for i in 0..98 {
        p.ok("CreateAlias", hello(json!({"Name": format!("a{i}"), "FunctionVersion": "1"}))).await;
    }
    assert_eq!(
        p.code("CreateAlias", hello(json!({"Name": "new", "FunctionVersion": "1"}))).await,
        "LimitExceeded.Alias"
    );
}

#[tokio::test]
async fn weights_and_rules_decide() {
    let p = platform().await;
    let routing = json!({
        "AdditionalVersionWeights": [{"Version": "2", "Weight": 0.3}],
        "AddtionVersionMatchs": [
            {"Version": "3", "Key": "invoke.headers.User", "Method": "exact", "Expression": "Bob"},
            {"Version": "$LATEST", "Key": "invoke.headers.Id", "Method": "range", "Expression": "[1,10)"}
        ]
    });
    p.ok("CreateAlias", hello(json!({"Name": "split", "FunctionVersion": "1", "RoutingConfig": routing}))).await;
    // A fixed sequence that covers [0, 1) evenly stands for the random numbers.
    let mut counts = std::collections::BTreeMap::new();
    for i in 0..1000 {
        let target = p.control.catalogue().resolve("default", "hello", "split", &[], f64::from(i) / 1000.0).unwrap();
        *counts.entry(target.spec.key.version.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts, std::collections::BTreeMap::from([("1".to_owned(), 700), ("2".to_owned(), 300)]));
    for (key, version) in
        [(r#"{"User":"Bob"}"#, "3"), (r#"{"Id":"9"}"#, "$LATEST"), (r#"{"User":"Bob","Id":"9"}"#, "3")]
    {
        let answer = p.ok("Invoke", hello(json!({"Qualifier": "split", "RoutingKey": key}))).await;
        assert_eq!(answer["Result"]["RetMsg"], json!(format!("\"{version}\"")), "{key}");
    }
    let mut random = [0; 2];
    for _ in 0..400 {
        let answer = p.ok("Invoke", hello(json!({"Qualifier": "split", "RoutingKey": r#"{"Id":"10"}"#}))).await;
        random[usize::from(answer["Result"]["RetMsg"] == json!("\"2\""))] += 1;
    }
    // Ten standard deviations around 120.
    assert!((30..=210).contains(&random[1]), "{random:?}");
}
