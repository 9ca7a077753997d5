//! The API gateway on a whole platform: triggers, routes, parameters, releases.

#[path = "support/api.rs"]
mod api;

use api::{ask, ask_with, echo, fails, must, platform, release, route, service};
use mayfly_testkit::can_sandbox;
use serde_json::{Value, json};

/// A server that tells what it was asked.
const SERVER: &str = r#"
const http = require('http');
http.createServer((q, s) => { s.setHeader('content-type', 'application/json'); s.end(JSON.stringify({ url: q.url, headers: q.headers })); }).listen(9000);
"#;

#[test]
fn triggers_are_routes_of_a_service() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    echo(&p, "hello");
    echo(&p, "other");
    let desc = |integrated: &str| {
        json!({ "api": { "authRequired": "FALSE", "requestConfig": { "method": "ANY" }, "isIntegratedResponse": integrated },
                "service": { "serviceName": "SCF_API_SERVICE" }, "release": { "environmentName": "release" } })
        .to_string()
    };
    let made = p.must("CreateTrigger", json!({ "FunctionName": "hello", "TriggerName": "SCF_API_SERVICE", "Type": "apigw", "TriggerDesc": desc("TRUE") }));
    let info = &made["TriggerInfo"];
    let shown: Value = serde_json::from_str(info["TriggerDesc"].as_str().unwrap()).unwrap();
    let service = shown["service"]["serviceId"].as_str().unwrap().to_owned();
    assert_eq!(shown["api"]["requestConfig"], json!({ "method": "ANY", "path": "/hello" }));
    assert!(info["ResourceId"].as_str().unwrap().contains(&format!("service/{service}/API/api-")), "{info}");
    p.must(
        "CreateTrigger",
        json!({ "FunctionName": "other", "TriggerName": "t", "Type": "apigw", "TriggerDesc": desc("FALSE") }),
    );

    // By path: an integrated response, with SCF's event.
    let got = ask_with(
        &p,
        "POST",
        &format!("/apigw/{service}/release/hello/a%20b?k=v&two=1&two=2"),
        &[("x-scf-name", "evil"), ("x-a", "1")],
        "text",
    );
    assert_eq!((got.status, got.headers["x-own"].to_str().unwrap()), (200, "yes"));
    let event = &got.body["event"];
    assert_eq!(got.body["me"], "hello");
    assert_eq!(
        (&event["path"], &event["httpMethod"], &event["body"], &event["queryString"], &event["stageVariables"]),
        (
            &json!("/hello/a%20b"),
            &json!("POST"),
            &json!("text"),
            &json!({ "k": "v", "two": ["1", "2"] }),
            &json!({ "stage": "release" })
        )
    );
    let context = &event["requestContext"];
    assert_eq!(
        (
            &context["serviceId"],
            &context["path"],
            &context["httpMethod"],
            &context["stage"],
            &context["sourceIp"],
            &context["identity"]
        ),
        (&json!(service), &json!("/hello"), &json!("POST"), &json!("release"), &json!("127.0.0.1"), &json!({}))
    );
    assert_eq!(context["requestId"], got.headers["x-api-requestid"].to_str().unwrap());
    assert!(event["headers"].get("x-scf-name").is_none() && event["headers"]["x-a"] == "1");
    // By host.
    let host = shown["service"]["subDomain"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(ask(&p, "/release/hello", &[("host", &host)]).body["me"], "hello");
    // Integrated, but no such answer; and an answer as it is.
    let bad = ask(&p, &format!("/apigw/{service}/release/hello/plain"), &[]);
    assert_eq!((bad.status, &bad.body["errno"]), (403, &json!(403)));
    let plain = ask(&p, &format!("/apigw/{service}/release/other/plain"), &[]);
    assert_eq!((plain.status, plain.body), (200, json!({ "plain": true })));
    for (path, status) in [("/release/none", 404), ("/test/hello", 404), ("/prod/hello", 404)] {
        assert_eq!(ask(&p, &format!("/apigw/{service}{path}"), &[]).status, status, "{path}");
    }

    // One trigger is listed, found, and refuses to be doubled; what SCF does not do with this type is said.
    let listed = p.must("ListTriggers", json!({ "FunctionName": "hello" }));
    assert_eq!((&listed["TotalCount"], &listed["Triggers"][0]["Type"]), (&json!(1), &json!("apigw")));
    assert_eq!(
        p.must("GetFunction", json!({ "FunctionName": "hello" }))["Triggers"][0]["TriggerName"],
        "SCF_API_SERVICE"
    );
    let again = json!({ "FunctionName": "hello", "TriggerName": "x", "Type": "apigw", "TriggerDesc": desc("TRUE") });
    assert_eq!(p.fails("CreateTrigger", again), "InvalidParameterValue.ApiGateway");
    let closed = json!({ "FunctionName": "hello", "TriggerName": "t", "Type": "apigw", "Enable": "CLOSE" });
    assert_eq!(p.fails("UpdateTriggerStatus", closed), "UnsupportedOperation.Trigger");
    let wrong = json!({ "FunctionName": "hello", "TriggerName": "x", "Type": "apigw", "TriggerDesc": "{\"api\":1}" });
    assert_eq!(p.fails("CreateTrigger", wrong), "InvalidParameterValue.TriggerDesc");

    // A trigger goes by its listed description; with the last one goes the service.
    let delete = |function: &str, name: &str, more: Value| {
        let mut request = json!({ "FunctionName": function, "TriggerName": name, "Type": "apigw" });
        more.as_object().into_iter().flatten().for_each(|(k, v)| request[k] = v.clone());
        request
    };
    p.must("DeleteTrigger", delete("hello", "SCF_API_SERVICE", json!({ "TriggerDesc": info["TriggerDesc"] })));
    assert_eq!(p.fails("DeleteTrigger", delete("hello", "SCF_API_SERVICE", json!({}))), "ResourceNotFound.Trigger");
    assert_eq!(ask(&p, &format!("/apigw/{service}/release/hello"), &[]).status, 404);
    assert_eq!(ask(&p, &format!("/apigw/{service}/release/other"), &[]).status, 200);
    p.must("DeleteFunction", json!({ "FunctionName": "other" }));
    assert_eq!(fails(&p, "DescribeService", json!({ "ServiceId": service })), "ResourceNotFound.InvalidService");
}

#[test]
fn one_service_has_several_functions_and_serves_what_was_released() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    echo(&p, "users");
    echo(&p, "orders");
    p.create(
        "web",
        "Nodejs18.15",
        "",
        &[("scf_bootstrap", "#!/bin/bash\nexec /var/lang/node18/bin/node server.js\n"), ("server.js", SERVER)],
        json!({ "Type": "HTTP", "InitTimeout": 30 }),
    );
    let s = service(&p, "shop");
    let users = route(
        &p,
        &s,
        "GET",
        "/users/{id}",
        "users",
        json!({ "EnableCORS": true, "RequestParameters": [
        { "Name": "id", "Position": "PATH", "Type": "int", "Required": true },
        { "Name": "page", "Position": "QUERY", "Type": "int", "DefaultValue": "1", "Required": false },
        { "Name": "X-Tenant", "Position": "HEADER", "Required": true }
    ] }),
    );
    route(&p, &s, "POST", "/users/{id}/orders", "orders", json!({}));
    let web = json!({ "ServiceScfFunctionType": "HTTP" });
    route(&p, &s, "ANY", "/", "web", web);
    must(
        &p,
        "CreateApi",
        json!({ "ServiceId": s, "ServiceType": "MOCK", "ServiceTimeout": 5, "Protocol": "HTTP", "RequestConfig": { "Path": "/mock", "Method": "GET" }, "ServiceMockReturnMessage": "mocked", "ResponseType": "TEXT" }),
    );
    let at = |path: &str| format!("/apigw/{s}/release{path}");
    assert_eq!(ask(&p, &at("/mock"), &[]).status, 404, "nothing is released");
    release(&p, &s);

    let mocked = ask(&p, &at("/mock"), &[]);
    assert_eq!((mocked.status, &mocked.body), (200, &json!("mocked")));
    let got = ask(&p, &at("/users/7"), &[("x-tenant", "t1")]);
    assert_eq!(got.body["me"], "users");
    let event = &got.body["event"];
    assert_eq!(
        (&event["pathParameters"], &event["queryStringParameters"], &event["headerParameters"]),
        (&json!({ "id": "7" }), &json!({ "page": "1" }), &json!({ "X-Tenant": "t1" }))
    );
    assert_eq!(ask_with(&p, "POST", &at("/users/7/orders"), &[], "{}").body["me"], "orders");
    let passed = ask(&p, &at("/some/page?q=1"), &[]);
    assert_eq!(
        (&passed.body["url"], &passed.body["headers"]["x-forwarded-prefix"]),
        (&json!("/some/page?q=1"), &json!(format!("/apigw/{s}/release")))
    );
    for (path, headers, part) in [
        ("/users/7", &[][..], "'X-Tenant' is missing"),
        ("/users/seven", &[("x-tenant", "t")], "'id' is not of type int"),
        ("/users/7?page=x", &[("x-tenant", "t")], "'page' is not of type int"),
    ] {
        let refused = ask(&p, &at(path), headers);
        assert_eq!(refused.status, 400, "{path}");
        assert!(refused.body["message"].as_str().unwrap().contains(part), "{}", refused.body);
    }
    let preflight = ask_with(
        &p,
        "OPTIONS",
        &at("/users/7"),
        &[
            ("origin", "https://a.example"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "x-tenant"),
        ],
        "",
    );
    assert_eq!((preflight.status, preflight.headers["access-control-allow-origin"].to_str().unwrap()), (204, "*"));

    // What is changed is served when it is released, and what was can be gone back to.
    let before =
        must(&p, "DescribeServiceReleaseVersion", json!({ "ServiceId": s }))["Result"]["VersionList"][0]["VersionName"]
            .clone();
    must(
        &p,
        "ModifyApi",
        json!({ "ServiceId": s, "ApiId": users, "ServiceType": "SCF", "Protocol": "HTTP", "RequestConfig": { "Path": "/people/{id}", "Method": "GET" }, "ServiceScfFunctionName": "users", "ServiceScfFunctionQualifier": "$LATEST", "ServiceScfIsIntegratedResponse": "TRUE" }),
    );
    assert_eq!(ask(&p, &at("/users/7"), &[("x-tenant", "t")]).body["me"], "users");
    release(&p, &s);
    assert_eq!(ask(&p, &at("/people/7"), &[]).body["me"], "users");
    must(&p, "UpdateService", json!({ "ServiceId": s, "EnvironmentName": "release", "VersionName": before }));
    assert_eq!(ask(&p, &at("/users/7"), &[("x-tenant", "t")]).body["me"], "users");
    assert_eq!(fails(&p, "DeleteService", json!({ "ServiceId": s })), "UnsupportedOperation.ExistingOnlineEnvironment");
    must(&p, "UnReleaseService", json!({ "ServiceId": s, "EnvironmentName": "release" }));
    assert_eq!(ask(&p, &at("/mock"), &[]).status, 404);
    assert_eq!(fails(&p, "DeleteService", json!({ "ServiceId": s })), "UnsupportedOperation.ApiListNotEmpty");

    // Functions show APIs that were made here too; an API of a function that is gone says so.
    assert_eq!(p.must("ListTriggers", json!({ "FunctionName": "orders" }))["Triggers"][0]["TriggerName"], "shop");
    release(&p, &s);
    p.must("DeleteFunction", json!({ "FunctionName": "orders" }));
    assert_eq!(ask_with(&p, "POST", &at("/users/7/orders"), &[], "{}").status, 404);
    for (request, code) in [
        (
            json!({ "RequestConfig": { "Path": "/x y", "Method": "GET" } }),
            "InvalidParameterValue.InvalidApiRequestConfig",
        ),
        (json!({ "RequestConfig": { "Path": "/x", "Method": "FETCH" } }), "InvalidParameterValue.InvalidMethod"),
        (
            json!({ "RequestConfig": { "Path": "/mock", "Method": "GET" } }),
            "InvalidParameterValue.InvalidApiRequestConfig",
        ),
        (json!({ "ServiceScfFunctionName": "nobody" }), "InvalidParameterValue.InvalidScfConfig"),
        (json!({ "ServiceType": "HTTP" }), "InvalidParameterValue.InvalidServiceType"),
        (json!({ "AuthType": "OAUTH", "AuthRelationApiId": "api-none" }), "ResourceNotFound.InvalidOauthApi"),
        (json!({ "Nonsense": 1 }), "UnknownParameter"),
    ] {
        let mut wrong = json!({ "ServiceId": s, "ServiceType": "SCF", "Protocol": "HTTP", "RequestConfig": { "Path": "/x", "Method": "GET" }, "ServiceScfFunctionName": "users" });
        request.as_object().unwrap().iter().for_each(|(k, v)| wrong[k] = v.clone());
        assert_eq!(fails(&p, "CreateApi", wrong), code, "{request}");
    }
    assert_eq!(fails(&p, "CreateNothing", json!({})), "InvalidAction");
    let (_, metrics) = p.get("/metrics");
    assert!(
        metrics.lines().any(|l| l.starts_with("mayfly_apigw_requests_admitted_total ") && !l.ends_with(" 0")),
        "{metrics}"
    );
}
