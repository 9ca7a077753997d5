//! Triggers of type `http`: the URLs of functions.

use crate::harness::{Platform, create_http, with};
use mayfly_model::UrlAuth;
use serde_json::{Value, json};

const OPEN: &str = r#"{"AuthType":"NONE"}"#;
const SIGNED: &str = r#"{"AuthType":"CAM","NetConfig":{"EnableIntranet":true,"EnableExtranet":true},"CorsConfig":{"Enable":true,"Origins":["https://a.example"],"Methods":["GET"],"Headers":["X-A"],"ExposeHeaders":["X-B"],"Credentials":true,"MaxAge":60}}"#;

fn trigger(function: &str, name: &str, qualifier: &str, desc: &str) -> Value {
    json!({"FunctionName": function, "TriggerName": name, "Type": "http", "TriggerDesc": desc, "Qualifier": qualifier})
}

fn named(function: &str, name: &str) -> Value {
    json!({"FunctionName": function, "TriggerName": name, "Type": "http"})
}

fn desc(trigger: &Value) -> Value {
    serde_json::from_str(trigger["TriggerDesc"].as_str().unwrap()).unwrap()
}

/// A platform with an HTTP function `web` (version 1, alias `prod`) and an event function `event`.
async fn platform() -> Platform {
    let p = Platform::ticking().await;
    p.create("event").await;
    p.ok("CreateFunction", create_http("web")).await;
    p.ok("PublishVersion", json!({"FunctionName": "web"})).await;
    p.ok("CreateAlias", json!({"FunctionName": "web", "Name": "prod", "FunctionVersion": "1"})).await;
    p
}

#[tokio::test]
async fn a_url_is_created_shown_changed_and_deleted() {
    let p = platform().await;
    let fields = json!({"CustomArgument": "a", "Description": "d", "Enable": "OPEN", "Type": "HTTP"});
    let made =
        p.ok("CreateTrigger", with(trigger("web", "url", "$DEFAULT", SIGNED), fields)).await["TriggerInfo"].clone();
    for (field, value) in [
        ("TriggerName", json!("url")),
        ("Type", json!("http")),
        ("Qualifier", json!("$DEFAULT")),
        ("Enable", json!(1)),
        ("CustomArgument", json!("a")),
        ("Description", json!("d")),
        ("AvailableStatus", json!("Available")),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let url_id = made["ResourceId"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
    assert!(url_id.len() == 10 && url_id.bytes().all(|b| b.is_ascii_alphanumeric()), "{url_id}");
    let shown = desc(&made);
    assert_eq!((&shown["AuthType"], &shown["CorsConfig"]["Origins"]), (&json!("CAM"), &json!(["https://a.example"])));
    let url = "http://127.0.0.1:8700/fn/default/web/";
    assert_eq!(
        (&shown["NetConfig"]["ExtranetUrl"], &shown["NetConfig"]["ExtranetHTTPUrl"]),
        (&json!(url), &json!(url))
    );
    assert_eq!(
        (&shown["NetConfig"]["IntranetUrl"], &shown["NetConfig"]["EnableIntranet"]),
        (&json!(url), &json!(true))
    );
    assert_eq!(shown["NetConfig"]["WsExtranetUrl"], json!("ws://127.0.0.1:8700/fn/default/web/"));

    let route = p.control.resolve_url("default", "web", None).unwrap();
    let cors = route.cors.unwrap();
    assert_eq!((route.auth, cors.max_age_s, cors.credentials), (UrlAuth::Signed, 60, true));

    let p = p.restart().await;
    let listed = p.ok("ListTriggers", json!({"FunctionName": "web"})).await;
    assert_eq!((&listed["TotalCount"], &listed["Triggers"][0]), (&json!(1), &made), "it is the same after a restart");
    assert_eq!(p.retired().len(), 0, "a trigger costs no instance");

    let update = with(named("web", "url"), json!({"TriggerDesc": OPEN, "Description": ""}));
    p.ok("UpdateTrigger", update).await;
    let changed = p.ok("ListTriggers", json!({"FunctionName": "web"})).await["Triggers"][0].clone();
    assert_eq!((&changed["Description"], &changed["CustomArgument"]), (&json!(""), &json!("a")), "absent fields stay");
    assert_ne!(changed["ModTime"], changed["AddTime"]);
    assert_eq!(
        (changed["ResourceId"].clone(), desc(&changed)["CorsConfig"]["Enable"].clone()),
        (made["ResourceId"].clone(), json!(false))
    );
    let route = p.control.resolve_url("default", "web", None).unwrap();
    assert_eq!((route.auth, route.cors.is_none()), (UrlAuth::Open, true));

    p.ok("DeleteTrigger", with(named("web", "url"), json!({"TriggerDesc": SIGNED, "Qualifier": "$DEFAULT"}))).await;
    assert_eq!(p.ok("ListTriggers", json!({"FunctionName": "web"})).await["TotalCount"], json!(0));
    assert_eq!(p.code("DeleteTrigger", named("web", "url")).await, "ResourceNotFound.Trigger");
    p.ok("CreateTrigger", trigger("web", "url", "$DEFAULT", OPEN)).await;
    let again = p.ok("ListTriggers", json!({"FunctionName": "web"})).await["Triggers"][0].clone();
    assert_ne!(again["ResourceId"], made["ResourceId"], "a new URL is not the old one");
}

#[tokio::test]
async fn a_closed_url_is_not_found_until_it_is_opened() {
    let p = platform().await;
    p.ok("CreateTrigger", with(trigger("web", "url", "$DEFAULT", OPEN), json!({"Enable": "CLOSE"}))).await;
    let code = |qualifier| p.control.resolve_url("default", "web", qualifier).map(|r| r.auth).map_err(|e| e.code);
    assert_eq!(code(None), Err("ResourceNotFound.Trigger"));
    assert_eq!(code(Some("$LATEST")), Ok(UrlAuth::Signed), "what is closed is not open by another name");
    let status = |enable: &str| with(named("web", "url"), json!({"Enable": enable}));
    assert_eq!(p.code("UpdateTriggerStatus", status("close")).await, "FailedOperation.UpdateTriggerStatus");
    p.ok("UpdateTriggerStatus", status("OPEN")).await;
    assert_eq!((code(None), code(Some("$LATEST"))), (Ok(UrlAuth::Open), Ok(UrlAuth::Open)));
    p.ok("UpdateTrigger", status("CLOSE")).await;
    assert_eq!(code(None), Err("ResourceNotFound.Trigger"));
    assert_eq!(p.code("UpdateTriggerStatus", status("maybe")).await, "InvalidParameterValue.Enable");
}

#[tokio::test]
async fn each_qualifier_has_terms_of_its_own() {
    let p = platform().await;
    p.ok("CreateTrigger", trigger("web", "signed", "prod", SIGNED)).await;
    p.ok("CreateTrigger", trigger("web", "open", "$DEFAULT", OPEN)).await;
    p.ok("CreateTrigger", trigger("event", "open", "$DEFAULT", OPEN)).await;
    let auth = |function: &str, qualifier| p.control.resolve_url("default", function, qualifier).unwrap().auth;
    assert_eq!((auth("web", Some("prod")), auth("web", None)), (UrlAuth::Signed, UrlAuth::Open));
    assert_eq!(auth("web", Some("1")), UrlAuth::Signed, "the version behind a signed alias is no way around it");
    assert_eq!((auth("event", None), auth("event", Some("$LATEST"))), (UrlAuth::Open, UrlAuth::Signed));
    let f = p.ok("GetFunction", json!({"FunctionName": "web", "Qualifier": "prod"})).await;
    assert_eq!((f["Triggers"].as_array().unwrap().len(), &f["Triggers"][0]["TriggerName"]), (1, &json!("signed")));
    let url = desc(&f["Triggers"][0])["NetConfig"]["ExtranetUrl"].clone();
    assert_eq!(url, json!("http://127.0.0.1:8700/fn/default/web@prod/"));
    let all = p.ok("GetFunction", json!({"FunctionName": "web"})).await;
    assert_eq!(all["Triggers"].as_array().unwrap().len(), 2);
    let none = p.ok("GetFunction", json!({"FunctionName": "web", "ShowTriggers": "FALSE"})).await;
    assert_eq!(none["Triggers"], json!([]));
    let event = p.ok("ListTriggers", json!({"FunctionName": "event"})).await;
    assert_eq!(desc(&event["Triggers"][0])["NetConfig"]["WsExtranetUrl"], json!(""), "an event takes no WebSocket");
}

#[tokio::test]
async fn refusals_are_typed() {
    let p = platform().await;
    p.ok("CreateTrigger", trigger("web", "url", "1", OPEN)).await;
    let base = || trigger("web", "other", "$DEFAULT", OPEN);
    for (fields, code) in [
        (json!({"Type": "timer", "TriggerDesc": "0 */6 * * * * *"}), "UnsupportedOperation.Trigger"),
        (json!({"Type": "COS"}), "UnsupportedOperation.Trigger"),
        (json!({"Type": "telepathy"}), "InvalidParameterValue.Type"),
        (json!({"Type": ""}), "InvalidParameterValue.Type"),
        (json!({"TriggerName": ""}), "InvalidParameterValue.TriggerName"),
        (json!({"TriggerName": "x".repeat(101)}), "InvalidParameterValue.TriggerName"),
        (json!({"TriggerName": "a\u{1b}b"}), "InvalidParameterValue.TriggerName"),
        (json!({"TriggerDesc": ""}), "MissingParameter"),
        (json!({"TriggerDesc": "no json"}), "InvalidParameterValue.TriggerDesc"),
        (json!({"TriggerDesc": r#"{"AuthType":"NONE","CorsConfig":{"Origins":["a"]}}"#}), "InvalidParameterValue.Cors"),
        (json!({"Enable": "yes"}), "InvalidParameterValue.Enable"),
        (json!({"CustomArgument": "x".repeat(4097)}), "InvalidParameterValue.CustomArgument"),
        (json!({"Description": "x".repeat(1001)}), "InvalidParameterValue.Description"),
        (json!({"Qualifier": "9"}), "ResourceNotFound.Qualifier"),
        (json!({"Qualifier": "stage"}), "ResourceNotFound.Qualifier"),
        (json!({"Qualifier": "!"}), "ResourceNotFound.Qualifier"),
        (json!({"Qualifier": "01"}), "ResourceInUse.Trigger"),
        (json!({"TriggerName": "url"}), "ResourceInUse.TriggerName"),
        (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
    ] {
        let answer = p.call("CreateTrigger", with(base(), fields.clone())).await;
        assert_eq!(answer["Error"]["Code"], json!(code), "{fields}: {answer}");
    }
    for action in ["DeleteTrigger", "UpdateTrigger", "UpdateTriggerStatus"] {
        let request = |fields: Value| with(with(named("web", "url"), json!({"Enable": "CLOSE"})), fields);
        for (fields, code) in [
            (json!({"TriggerName": "nothing"}), "ResourceNotFound.Trigger"),
            (json!({"Qualifier": "prod"}), "ResourceNotFound.Trigger"),
            (json!({"Type": "cls"}), "UnsupportedOperation.Trigger"),
            (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        ] {
            let answer = p.call(action, request(fields.clone())).await;
            assert_eq!(answer["Error"]["Code"], json!(code), "{action} {fields}: {answer}");
        }
    }
    let update = with(named("web", "url"), json!({"TriggerDesc": "{}"}));
    assert_eq!(p.code("UpdateTrigger", update).await, "InvalidParameterValue.TriggerDesc");
    assert_eq!(p.ok("ListTriggers", json!({"FunctionName": "web"})).await["TotalCount"], json!(1), "nothing changed");
    assert_eq!(p.code("ListTriggers", json!({"FunctionName": "nobody"})).await, "ResourceNotFound.Function");
    for (fields, code) in [
        (json!({"OrderBy": "name"}), "InvalidParameterValue.OrderBy"),
        (json!({"Order": "up"}), "InvalidParameterValue.Order"),
        (json!({"Limit": 101}), "InvalidParameterValue.Limit"),
        (json!({"Filters": [{"Name": "Colour", "Values": ["red"]}]}), "InvalidParameterValue.Filters"),
    ] {
        assert_eq!(
            p.code("ListTriggers", with(json!({"FunctionName": "event"}), fields.clone())).await,
            code,
            "{fields}"
        );
    }
}

#[tokio::test]
async fn a_function_has_ten_urls_that_are_listed_in_order() {
    let p = platform().await;
    for n in 0..11 {
        p.ok("CreateAlias", json!({"FunctionName": "web", "Name": format!("a{n}"), "FunctionVersion": "1"})).await;
    }
    for n in 0..10 {
        let fields = json!({"Description": format!("number {n}")});
        p.ok("CreateTrigger", with(trigger("web", &format!("t{n}"), &format!("a{n}"), OPEN), fields)).await;
    }
    assert_eq!(p.code("CreateTrigger", trigger("web", "t10", "a10", OPEN)).await, "LimitExceeded.Trigger");
    p.ok("UpdateTrigger", with(named("web", "t3"), json!({"CustomArgument": "x"}))).await;
    let names = async |fields: Value| {
        let list = p.ok("ListTriggers", with(json!({"FunctionName": "web"}), fields)).await;
        let names = list["Triggers"].as_array().unwrap().iter().map(|t| t["TriggerName"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), list["TotalCount"].as_u64().unwrap())
    };
    assert_eq!(names(json!({"Limit": 3})).await, ("t3 t9 t8".into(), 10), "last changed first");
    assert_eq!(
        names(json!({"Limit": 2, "Offset": 1, "OrderBy": "add_time", "Order": "ASC"})).await,
        ("t1 t2".into(), 10)
    );
    let filter = |name: &str, values: Value| json!({"Filters": [{"Name": name, "Values": values}]});
    assert_eq!(names(filter("Qualifier", json!(["a4"]))).await, ("t4".into(), 1));
    assert_eq!(names(filter("TriggerName", json!(["t5", "t6"]))).await.1, 2);
    assert_eq!(names(filter("Description", json!(["BER 7"]))).await, ("t7".into(), 1));
    assert_eq!(names(filter("Type", json!(["timer"]))).await.1, 0);
    let text =
        json!({"FunctionName": "web", "Limit": "2", "Filters": {"0": {"Name": "Type", "Values": {"0": "http"}}}});
    assert_eq!(p.call_v1("ListTriggers", text).await["Triggers"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_url_leads_to_cannot_be_deleted() {
    let p = platform().await;
    p.ok("CreateTrigger", trigger("web", "alias", "prod", OPEN)).await;
    let alias = json!({"FunctionName": "web", "Name": "prod"});
    assert_eq!(p.code("DeleteAlias", alias.clone()).await, "FailedOperation.DeleteAlias");
    p.ok("DeleteTrigger", named("web", "alias")).await;
    p.ok("DeleteAlias", alias).await;
    p.ok("CreateTrigger", trigger("web", "version", "1", OPEN)).await;
    let version = json!({"FunctionName": "web", "Qualifier": "1"});
    assert_eq!(p.code("DeleteFunctionVersion", version.clone()).await, "FailedOperation.DeleteFunction");
    assert_eq!(p.code("DeleteFunction", version.clone()).await, "FailedOperation.DeleteFunction");
    p.ok("DeleteTrigger", named("web", "version")).await;
    p.ok("DeleteFunctionVersion", version).await;
    p.ok("CreateTrigger", trigger("web", "url", "$LATEST", SIGNED)).await;
    p.ok("DeleteFunction", json!({"FunctionName": "web"})).await;
    p.ok("CreateFunction", create_http("web")).await;
    assert_eq!(
        p.ok("ListTriggers", json!({"FunctionName": "web"})).await["TotalCount"],
        json!(0),
        "URLs go with their function"
    );
}

#[tokio::test]
async fn two_creators_of_one_url_do_not_both_win() {
    let p = platform().await;
    let (one, two) = (trigger("web", "one", "prod", OPEN), trigger("web", "two", "prod", OPEN));
    let (a, b) = tokio::join!(p.call("CreateTrigger", one), p.call("CreateTrigger", two));
    let codes = [a["Error"]["Code"].as_str(), b["Error"]["Code"].as_str()];
    assert!(codes.contains(&None) && codes.contains(&Some("ResourceInUse.Trigger")), "{codes:?}");
}
