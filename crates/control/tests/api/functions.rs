//! CreateFunction to GetFunctionAddress.

use crate::harness::{Platform, create, with, zip_of};
use mayfly_control::Options;
use mayfly_store::EventLimits;
use serde_json::{Value, json};

#[tokio::test]
async fn a_function_is_created_shown_listed_and_deleted() {
    let p = Platform::new().await;
    let request = with(
        create("hello"),
        json!({
            "Description": "d", "MemorySize": 256, "Timeout": 10, "InitTimeout": 30, "Role": "SCF_QcsRole", "ClsTopicId": "t-1",
            "InstallDependency": "TRUE", "Environment": {"Variables": [{"Key": "GREETING", "Value": "hi"}]},
            "Tags": [{"Key": "team", "Value": "a"}], "PublicNetConfig": {"PublicNetStatus": "DISABLE", "EipConfig": {"EipStatus": "DISABLE"}},
            "Stamp": "MINI_QCBASE", "DiskSize": 512, "DeployMode": "code", "L5Enable": "FALSE", "Type": "Event", "Runtime": "python3.10",
            "VpcConfig": {"VpcId": "", "SubnetId": ""}, "CfsConfig": {"CfsInsList": []}, "AsyncRunEnable": "FALSE",
            "InstanceConcurrencyConfig": {"DynamicEnabled": "", "MaxConcurrency": 1}, "Unheard": {"Of": [1]}, "ForkMode": "off"
        }),
    );
    assert_eq!(p.ok("CreateFunction", request).await.as_object().unwrap().len(), 1);
    let f = p.ok("GetFunction", json!({"FunctionName": "hello", "ShowCode": "TRUE", "ShowTriggers": "FALSE"})).await;
    for (field, value) in [
        ("FunctionName", json!("hello")),
        ("Namespace", json!("default")),
        ("Runtime", json!("Python3.10")),
        ("Handler", json!("index.main_handler")),
        ("Description", json!("d")),
        ("MemorySize", json!(256)),
        ("Timeout", json!(10)),
        ("InitTimeout", json!(30)),
        ("Role", json!("SCF_QcsRole")),
        ("ClsTopicId", json!("t-1")),
        ("ClsLogsetId", json!("")),
        ("InstallDependency", json!("TRUE")),
        ("Environment", json!({"Variables": [{"Key": "GREETING", "Value": "hi"}]})),
        ("Tags", json!([{"Key": "team", "Value": "a"}])),
        ("Status", json!("Active")),
        ("Type", json!("Event")),
        ("Qualifier", json!("$LATEST")),
        ("FunctionVersion", json!("$LATEST")),
        ("Triggers", json!([])),
        ("ForkMode", json!("off")),
        ("CodeInfo", json!("def main_handler(event, context):\n    return event\n")),
    ] {
        assert_eq!(f[field], value, "{field}");
    }
    assert_eq!(f["PublicNetConfig"]["PublicNetStatus"], json!("DISABLE"));
    assert!(f["CodeSize"].as_u64().unwrap() > 100);
    assert_eq!(f["AddTime"].as_str().unwrap().len(), 19);
    assert!(f["FunctionId"].as_str().unwrap().starts_with("lam-"));

    let list = p.ok("ListFunctions", json!({"Type": "Event"})).await;
    assert_eq!((list["TotalCount"].clone(), &list["Functions"][0]["FunctionName"]), (json!(1), &json!("hello")));
    p.ok("DeleteFunction", json!({"FunctionName": "hello"})).await;
    assert_eq!(p.code("GetFunction", json!({"FunctionName": "hello"})).await, "ResourceNotFound.Function");
    assert_eq!(p.code("DeleteFunction", json!({"FunctionName": "hello"})).await, "ResourceNotFound.Function");
    p.create("hello").await;
    let again = p.ok("GetFunction", json!({"FunctionName": "hello"})).await;
    assert_ne!(again["FunctionId"], f["FunctionId"], "ids are not reused with the name");
}

#[tokio::test]
async fn creating_is_refused_with_the_promised_codes() {
    let p = Platform::new().await;
    p.create("taken").await;
    let base = || create("hello");
    let code = |code: Value| json!({"Code": code});
    let variable = |key: &str| json!({"Environment": {"Variables": [{"Key": key, "Value": "1"}]}});
    let cases: Vec<(Value, &str)> = vec![
        (json!({"FunctionName": "taken"}), "ResourceInUse.Function"),
        (json!({"FunctionName": "9x"}), "InvalidParameterValue.FunctionName"),
        (json!({"FunctionName": null}), "MissingParameter"),
        (json!({"FunctionName": 5}), "InvalidParameter"),
        (json!({"Code": null}), "MissingParameter.Code"),
        (code(json!({})), "MissingParameter.Code"),
        (code(json!({"ZipFile": ""})), "MissingParameter.Code"),
        (code(json!({"ZipFile": "$$$"})), "InvalidParameterValue.ZipFileBase64BinasciiError"),
        (code(json!({"ZipFile": "aGVsbG8="})), "InvalidParameterValue.ZipFile"),
        (code(json!({"CosBucketName": "b", "CosObjectName": "/o"})), "UnsupportedOperation.Cos"),
        (code(json!({"TempCosObjectName": "/o"})), "UnsupportedOperation.Cos"),
        (code(json!({"GitUrl": "https://x"})), "UnsupportedOperation"),
        (code(json!({"DemoId": "demo-x"})), "UnsupportedOperation"),
        (code(json!({"ImageConfig": {"ImageUri": "a/b"}})), "UnsupportedOperation"),
        (json!({"CodeSource": "Cos"}), "UnsupportedOperation"),
        (json!({"Handler": null}), "MissingParameter"),
        (json!({"Handler": "index"}), "InvalidParameterValue.Handler"),
        (json!({"Description": "x".repeat(1001)}), "InvalidParameterValue.Description"),
        (json!({"MemorySize": 100}), "InvalidParameterValue.MemorySize"),
        (json!({"MemorySize": 4096}), "LimitExceeded.Memory"),
        (json!({"MemorySize": "128"}), "InvalidParameter"),
        (json!({"Timeout": 901}), "LimitExceeded.Timeout"),
        (json!({"Timeout": 0}), "InvalidParameterValue"),
        (json!({"InitTimeout": 301}), "LimitExceeded.InitTimeout"),
        (json!({"Runtime": null}), "MissingParameter.Runtime"),
        (json!({"Runtime": "Python2.7"}), "InvalidParameterValue.Runtime"),
        (json!({"Runtime": "Python2.7"}), "InvalidParameterValue.Runtime"),
        (variable("A"), "InvalidParameterValue.Environment"),
        (variable("SCF_X"), "InvalidParameterValue.EnvironmentSystemProtect"),
        (
            json!({"Environment": {"Variables": [{"Key": "AB", "Value": "x".repeat(4095)}]}}),
            "InvalidParameterValue.EnvironmentExceededLimit",
        ),
        (json!({"Layers": [{"LayerName": "l", "LayerVersion": 1}]}), "ResourceNotFound.Layer"),
        (json!({"Layers": vec![json!({"LayerName": "l", "LayerVersion": 1}); 6]}), "InvalidParameterValue.Layers"),
        (json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        (json!({"Namespace": "!"}), "InvalidParameterValue.Namespace"),
        (json!({"VpcConfig": {"VpcId": "vpc-1", "SubnetId": "s"}}), "UnsupportedOperation.VpcConfig"),
        (json!({"CfsConfig": {"CfsInsList": [{"CfsId": "c"}]}}), "UnsupportedOperation"),
        (json!({"DeadLetterConfig": {"Type": "topic", "Name": "missing"}}), "ResourceNotFound.Cmq"),
        (json!({"Type": "Web"}), "InvalidParameterValue.Type"),
        (json!({"AsyncRunEnable": "TRUE", "Type": "HTTP"}), "UnsupportedOperation.AsyncRunEnable"),
        (json!({"AsyncRunEnable": "often"}), "InvalidParameterValue"),
        (json!({"AsyncRunEnable": "TRUE", "Timeout": 86_401}), "LimitExceeded.Timeout"),
        (json!({"TraceEnable": "TRUE"}), "UnsupportedOperation"),
        (json!({"ProtocolType": "WS"}), "InvalidParameterValue.ProtocolType"),
        (
            json!({"InstanceConcurrencyConfig": {"MaxConcurrency": 2}}),
            "InvalidParameterValue.InstanceConcurrencyConfig",
        ),
        (json!({"InstanceConcurrencyConfig": {"DynamicEnabled": "TRUE"}}), "UnsupportedOperation"),
        (json!({"PublicNetConfig": {"EipConfig": {"EipStatus": "ENABLE"}}}), "UnsupportedOperation.EipFixed"),
        (json!({"PublicNetConfig": {"PublicNetStatus": "MAYBE"}}), "InvalidParameterValue.PublicNetConfig"),
        (json!({"IntranetConfig": {"IpFixed": "ENABLE"}}), "UnsupportedOperation"),
        (json!({"AutoCreateClsTopic": "TRUE"}), "UnsupportedOperation"),
        (json!({"Tags": [{"Key": "", "Value": ""}]}), "InvalidParameterValue"),
        (json!({"ForkMode": "sometimes"}), "InvalidParameterValue"),
    ];
    for (fields, expected) in cases {
        let answer = p.call("CreateFunction", with(base(), fields.clone())).await;
        assert_eq!(answer["Error"]["Code"], json!(expected), "{fields}: {answer}");
    }
    assert_eq!(p.ok("ListFunctions", json!({})).await["TotalCount"], json!(1), "nothing was changed");
}

#[tokio::test]
async fn one_of_two_creators_wins() {
    let p = Platform::new().await;
    for round in 0..20 {
        let name = format!("race-{round}");
        let (a, b) = tokio::join!(p.call("CreateFunction", create(&name)), p.call("CreateFunction", create(&name)));
        let codes = [a["Error"]["Code"].as_str(), b["Error"]["Code"].as_str()];
        assert!(codes.contains(&None) && codes.contains(&Some("ResourceInUse.Function")), "{codes:?}");
    }
}

#[tokio::test]
async fn namespaces_have_a_limit_of_functions_even_under_a_rush() {
    let options = Options { functions_per_namespace_max: 5, ..Options::default() };
    let p = Platform::with(options, EventLimits::default(), false).await;
    let names: Vec<String> = (0..12).map(|i| format!("fn-{i}")).collect();
    let mut made = 0;
    let tasks: Vec<_> = names
        .iter()
        .map(|name| {
            let (control, request) = (&p, create(name));
            async move { control.call("CreateFunction", request).await["Error"]["Code"].clone() }
        })
        .collect();
    for code in join_all(tasks).await {
        match code.as_str() {
            None => made += 1,
            Some(code) => assert_eq!(code, "LimitExceeded.Function"),
        }
    }
    assert_eq!(made, 5);
    let list = p.ok("ListFunctions", json!({"Orderby": "FunctionName"})).await;
    p.ok("DeleteFunction", json!({"FunctionName": list["Functions"][0]["FunctionName"]})).await;
    p.create("one-more").await;
    assert_eq!(p.code("CreateFunction", create("two-more")).await, "LimitExceeded.Function");
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut all = true;
        for (future, output) in &mut pinned {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pinned.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn code_is_replaced_and_published() {
    let p = Platform::new().await;
    p.create("hello").await;
    let new = zip_of("app.py", "def handler(e, c): pass");
    let update =
        json!({"FunctionName": "hello", "ZipFile": new, "Handler": "app.handler", "Publish": "TRUE", "EnvId": "env-1"});
    p.ok("UpdateFunctionCode", update).await;
    let f = p.ok("GetFunction", json!({"FunctionName": "hello", "ShowCode": "TRUE"})).await;
    assert_eq!((&f["Handler"], &f["CodeInfo"]), (&json!("app.handler"), &json!("def handler(e, c): pass")));
    let v1 = p.ok("GetFunction", json!({"FunctionName": "hello", "Qualifier": "1"})).await;
    assert_eq!((&v1["Handler"], &v1["FunctionVersion"]), (&json!("app.handler"), &json!("1")));
    assert_eq!(p.retired(), [("$LATEST".to_owned(), true, false)]);

    p.ok("UpdateFunctionCode", json!({"FunctionName": "hello", "Code": {"ZipFile": zip_of("app.py", "x = 1")}})).await;
    let f = p.ok("GetFunction", json!({"FunctionName": "hello", "ShowCode": "TRUE"})).await;
    assert_eq!((&f["Handler"], &f["CodeInfo"]), (&json!("app.handler"), &json!("x = 1")));
    let v1 = p.ok("GetFunction", json!({"FunctionName": "hello", "Qualifier": "1", "ShowCode": "TRUE"})).await;
    assert_eq!(v1["CodeInfo"], json!("def handler(e, c): pass"), "a version does not change");

    for (fields, code) in [
        (json!({}), "MissingParameter.Code"),
        (json!({"ZipFile": new, "Code": {"ZipFile": new}}), "InvalidParameterValue.Code"),
        (json!({"ZipFile": new, "Handler": "x"}), "InvalidParameterValue.Handler"),
        (json!({"ZipFile": "!"}), "InvalidParameterValue.ZipFileBase64BinasciiError"),
        (json!({"CosBucketName": "b"}), "UnsupportedOperation.Cos"),
        (json!({"ZipFile": new, "FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"ZipFile": new, "Publish": "yes"}), "InvalidParameterValue"),
    ] {
        assert_eq!(p.code("UpdateFunctionCode", with(json!({"FunctionName": "hello"}), fields)).await, code);
    }
}

#[tokio::test]
async fn settings_change_one_by_one() {
    let p = Platform::new().await;
    p.ok("CreateFunction", with(create("hello"), json!({"Role": "r1", "ClsTopicId": "t", "Description": "old"}))).await;
    let retired = p.retired().len();
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Description": "new", "Role": "r1"})).await;
    assert_eq!(p.retired().len(), retired, "a new description costs no instance");
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Role": "r2"})).await;
    assert_eq!(p.retired().len(), retired + 1, "the keys of the old role end with their instances");
    let refused = p.code("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Role": "a role"})).await;
    assert_eq!(refused, "InvalidParameterValue");
    let retired = p.retired().len();
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "MemorySize": 512, "Runtime": "PYTHON3.10"}))
        .await;
    assert_eq!(p.retired().len(), retired + 1);
    p.ok(
        "UpdateFunctionConfiguration",
        json!({"FunctionName": "hello", "Environment": {"Variables": [{"Key": "AB", "Value": ""}]}}),
    )
    .await;
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Environment": {}, "Publish": "TRUE"})).await;
    let f = p.ok("GetFunction", json!({"FunctionName": "hello"})).await;
    assert_eq!((&f["Description"], &f["Role"], &f["ClsTopicId"]), (&json!("new"), &json!("r2"), &json!("t")));
    assert_eq!((&f["MemorySize"], &f["Environment"]), (&json!(512), &json!({"Variables": []})));
    assert_eq!(p.ok("ListVersionByFunction", json!({"FunctionName": "hello"})).await["TotalCount"], json!(2));
    for (fields, code) in [
        (json!({"Runtime": "Nodejs18.15"}), "InvalidParameterValue.Runtime"),
        (json!({"MemorySize": 1}), "InvalidParameterValue.MemorySize"),
        (json!({"IgnoreSysLog": true}), "UnsupportedOperation"),
        (json!({"L5Enable": "TRUE"}), "UnsupportedOperation"),
        (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        (json!({"VpcConfig": {"VpcId": "v"}}), "UnsupportedOperation.VpcConfig"),
    ] {
        assert_eq!(p.code("UpdateFunctionConfiguration", with(json!({"FunctionName": "hello"}), fields)).await, code);
    }
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_paged() {
    let p = Platform::ticking().await;
    for (name, tag) in [("delta", "x"), ("alpha", "x"), ("charlie", "y"), ("bravo", "y")] {
        p.ok(
            "CreateFunction",
            with(create(name), json!({"Description": format!("about {name}"), "Tags": [{"Key": "k", "Value": tag}]})),
        )
        .await;
    }
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "alpha", "Timeout": 5})).await;
    let names = |params: Value| {
        let p = &p;
        async move {
            let list = p.ok("ListFunctions", params).await;
            let names: Vec<String> = list["Functions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| f["FunctionName"].as_str().unwrap().to_owned())
                .collect();
            (names.join(" "), list["TotalCount"].as_u64().unwrap())
        }
    };
    let expect = |names: &str, total| (names.to_owned(), total);
    assert_eq!(names(json!({})).await, expect("alpha bravo charlie delta", 4), "latest change first");
    assert_eq!(names(json!({"Orderby": "AddTime", "Order": "ASC"})).await, expect("delta alpha charlie bravo", 4));
    assert_eq!(
        names(json!({"Orderby": "FunctionName", "Order": "ASC", "Offset": 1, "Limit": 2})).await,
        expect("bravo charlie", 4)
    );
    assert_eq!(names(json!({"SearchKey": "LPH"})).await, expect("alpha", 1));
    assert_eq!(names(json!({"Description": "bra"})).await, expect("bravo", 1));
    let filter = |name: &str, values: Value| json!({"Orderby": "FunctionName", "Order": "ASC", "Filters": [{"Name": name, "Values": values}]});
    assert_eq!(names(filter("tag-k", json!(["x"]))).await, expect("alpha delta", 2));
    assert_eq!(names(filter("Runtime", json!(["Python3.10", "Go1"]))).await.1, 4);
    assert_eq!(names(filter("Status", json!(["Creating"]))).await.1, 0);
    assert_eq!(names(filter("Type", json!(["HTTP"]))).await.1, 0);
    for (params, code) in [
        (filter("Colour", json!(["x"])), "InvalidParameterValue.Filters"),
        (json!({"Order": "UP"}), "InvalidParameterValue.Order"),
        (json!({"Orderby": "Size"}), "InvalidParameterValue.OrderBy"),
        (json!({"Offset": -1}), "InvalidParameterValue.Offset"),
        (json!({"Limit": 101}), "InvalidParameterValue.Limit"),
        (json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
    ] {
        assert_eq!(p.code("ListFunctions", params).await, code);
    }
}

#[tokio::test]
async fn functions_are_copied() {
    let p = Platform::new().await;
    p.ok("CreateNamespace", json!({"Namespace": "other"})).await;
    p.ok("CreateFunction", with(create("hello"), json!({"MemorySize": 256, "Description": "d", "Role": "r"}))).await;
    let copy = |fields: Value| with(json!({"FunctionName": "hello", "NewFunctionName": "copy"}), fields);
    p.ok("CopyFunction", copy(json!({"TargetNamespace": "other", "TargetRegion": "ap-guangzhou"}))).await;
    let f = p.ok("GetFunction", json!({"FunctionName": "copy", "Namespace": "other"})).await;
    assert_eq!((&f["MemorySize"], &f["Description"], &f["Role"]), (&json!(256), &json!("d"), &json!("r")));
    p.ok("CopyFunction", copy(json!({"CopyConfiguration": false, "Description": "e"}))).await;
    let f = p.ok("GetFunction", json!({"FunctionName": "copy", "ShowCode": "TRUE"})).await;
    assert_eq!((&f["MemorySize"], &f["Description"], &f["Role"]), (&json!(128), &json!("e"), &json!("")));
    assert!(f["CodeInfo"].as_str().unwrap().contains("main_handler"));
    assert_eq!(p.code("CopyFunction", copy(json!({}))).await, "ResourceInUse.FunctionName");
    let id = f["FunctionId"].clone();
    p.ok("CopyFunction", copy(json!({"Override": true}))).await;
    let f = p.ok("GetFunction", json!({"FunctionName": "copy"})).await;
    assert_eq!((&f["MemorySize"], &f["FunctionId"]), (&json!(256), &id), "the same function, new settings");
    for (fields, code) in [
        (json!({"TargetRegion": "ap-tokyo"}), "UnsupportedOperation.Region"),
        (json!({"TargetNamespace": "nowhere"}), "ResourceNotFound.Namespace"),
        (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"NewFunctionName": "-"}), "InvalidParameterValue.FunctionName"),
    ] {
        assert_eq!(p.code("CopyFunction", copy(fields)).await, code);
    }
}

#[tokio::test]
async fn code_can_be_downloaded_for_a_while() {
    let p = Platform::new().await;
    p.create("hello").await;
    let address = p.ok("GetFunctionAddress", json!({"FunctionName": "hello"})).await;
    let url = address["Url"].as_str().unwrap();
    let token = url.strip_prefix("http://127.0.0.1:8700/_mayfly/code/").unwrap();
    let download = p.control.download(token).await.unwrap();
    assert_eq!(address["CodeSha256"], json!(mayfly_store::blobs::digest_of(&download.bytes).to_string()));
    assert!(p.control.download(&token[1..]).await.is_none());
    let missing = p.code("GetFunctionAddress", json!({"FunctionName": "hello", "Qualifier": "9"})).await;
    assert_eq!(missing, "ResourceNotFound.Version");
    assert_eq!(p.code("GetFunctionAddress", json!({"FunctionName": "nobody"})).await, "ResourceNotFound.Function");
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing() {
    let p = Platform::new().await;
    p.create("hello").await;
    p.meta.fail_with(Some(mayfly_store::StoreError::Closed));
    assert_eq!(p.code("CreateFunction", create("other")).await, "InternalError.System");
    assert_eq!(p.code("DeleteFunction", json!({"FunctionName": "hello"})).await, "InternalError.System");
    p.meta.fail_with(Some(mayfly_store::StoreError::Full("the disk is full")));
    assert_eq!(
        p.code("PublishVersion", json!({"FunctionName": "hello"})).await,
        "FailedOperation.InsufficientResources"
    );
    p.meta.fail_with(None);
    assert_eq!(p.ok("ListFunctions", json!({})).await["TotalCount"], json!(1));
    assert_eq!(p.ok("PublishVersion", json!({"FunctionName": "hello"})).await["FunctionVersion"], json!("1"));
    assert!(p.retired().is_empty());
}
