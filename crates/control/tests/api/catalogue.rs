//! The catalogue against its store: whatever is done, a reload gives the same; readers see whole states.

use crate::harness::{Platform, create, with, zip_of};
use mayfly_control::{Catalogue, LoadError, RouteTarget};
use mayfly_store::{Change, MemoryMeta, MetaStore};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that the API shows, as one value.
async fn everything(p: &Platform) -> Value {
    let mut all = Vec::new();
    let namespaces = p.ok("ListNamespaces", json!({"Orderby": "Name"})).await;
    for namespace in namespaces["Namespaces"].as_array().unwrap() {
        let list = p.ok("ListFunctions", json!({"Namespace": namespace["Name"], "Orderby": "FunctionName"})).await;
        for function in list["Functions"].as_array().unwrap() {
            let params = json!({"Namespace": namespace["Name"], "FunctionName": function["FunctionName"]});
            all.push(p.ok("GetFunction", params.clone()).await);
            all.push(p.ok("ListVersionByFunction", params.clone()).await);
            all.push(p.ok("ListAliases", params.clone()).await);
            all.push(p.ok("GetReservedConcurrencyConfig", params).await);
        }
        all.push(list);
    }
    all.push(namespaces);
    let layers = p.ok("ListLayers", json!({})).await;
    for layer in layers["Layers"].as_array().unwrap() {
        all.push(p.ok("ListLayerVersions", json!({"LayerName": layer["LayerName"]})).await);
    }
    all.push(layers);
    all.push(p.ok("GetAccount", json!({})).await);
    for value in &mut all {
        value.as_object_mut().unwrap().remove("RequestId");
    }
    Value::Array(all)
}

fn action() -> impl Strategy<Value = (&'static str, Value)> {
    let name = prop::sample::select(vec!["aa", "bb"]);
    let namespace = prop::sample::select(vec!["default", "ns"]);
    let version = prop::sample::select(vec!["$LATEST", "1", "2", "3"]);
    (0..16usize, name, namespace, version, 0..3u32).prop_map(|(action, name, namespace, version, n)| {
        let base = json!({"FunctionName": name, "Namespace": namespace});
        match action {
            0..3 => ("CreateFunction", with(create(name), json!({"Namespace": namespace}))),
            3 => ("DeleteFunction", base),
            4 => ("UpdateFunctionCode", with(base, json!({"ZipFile": zip_of("index.py", &n.to_string()), "Publish": if n == 0 { "TRUE" } else { "FALSE" }}))),
            5 => ("UpdateFunctionConfiguration", with(base, json!({"MemorySize": 128 * (n + 1), "Role": version, "Description": version}))),
            6 | 7 => ("PublishVersion", base),
            8 => ("DeleteFunctionVersion", with(base, json!({"Qualifier": version}))),
            9 => ("CreateAlias", with(base, json!({"Name": "prod", "FunctionVersion": version}))),
            10 => {
                let weights = json!({"AdditionalVersionWeights": [{"Version": (n + 1).to_string(), "Weight": 0.5}]});
                ("UpdateAlias", with(base, json!({"Name": if n == 0 { "prod" } else { "$DEFAULT" }, "FunctionVersion": version, "RoutingConfig": weights})))
            }
            11 => ("DeleteAlias", with(base, json!({"Name": "prod"}))),
            12 => ("CopyFunction", with(base, json!({"NewFunctionName": "bb", "TargetNamespace": "ns", "Override": n == 0}))),
            13 => ("PutReservedConcurrencyConfig", with(base, json!({"ReservedConcurrencyMem": 50_000 * (n + 1)}))),
            14 if n == 0 => ("DeleteNamespace", json!({"Namespace": "ns"})),
            14 => ("CreateNamespace", json!({"Namespace": "ns"})),
            _ if n == 0 => ("DeleteLayerVersion", json!({"LayerName": "lib", "LayerVersion": 1})),
            _ => ("PublishLayerVersion", json!({"LayerName": "lib", "CompatibleRuntimes": ["Python3.10"], "Content": {"ZipFile": zip_of("x", &n.to_string())}})),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_reload_gives_what_was_there(actions in prop::collection::vec(action(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let p = Platform::ticking().await;
            p.ok("CreateNamespace", json!({"Namespace": "ns"})).await;
            for (action, params) in actions {
                let answer = p.call(action, params).await;
                let code = answer["Error"]["Code"].as_str().unwrap_or("");
                assert!(!code.starts_with("Internal"), "{action}: {answer}");
            }
            let q = p.restart().await;
            assert_eq!(everything(&p).await, everything(&q).await);
            assert_eq!(p.control.live_digests(), q.control.live_digests());
        });
    }
}

#[tokio::test]
async fn targets_stay_the_same_while_their_version_lives() {
    let p = Platform::new().await;
    p.create("hello").await;
    let resolve = |qualifier: &str| p.control.catalogue().resolve("default", "hello", qualifier, &[], 0.5).unwrap();
    let first = resolve("$LATEST");
    assert_eq!(first.attachment(|| Arc::new(41u32)), Some(&41));
    assert_eq!(first.attachment(|| Arc::new(42u32)), Some(&41), "made once");
    assert_eq!(first.attached::<String>(), None);
    p.ok("PublishVersion", json!({"FunctionName": "hello"})).await;
    p.ok("CreateAlias", json!({"FunctionName": "hello", "Name": "prod", "FunctionVersion": "1"})).await;
    assert!(Arc::ptr_eq(&first, &resolve("$LATEST")));
    assert!(Arc::ptr_eq(&first, &resolve("$DEFAULT")));
    let one = resolve("1");
    assert!(Arc::ptr_eq(&one, &resolve("prod")));
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Timeout": 9})).await;
    let second = resolve("$LATEST");
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!((first.spec.key.revision, second.spec.key.revision), (1, 2));
    assert_eq!(second.spec.config.timeout_s, 9);
    assert!(Arc::ptr_eq(&one, &resolve("1")));
    assert_eq!(p.retired(), [("$LATEST".to_owned(), true, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_half_of_a_change() {
    let p = Arc::new(Platform::new().await);
    p.create("hello").await;
    let reader = {
        let p = p.clone();
        tokio::spawn(async move {
            let mut seen = 0u32;
            while seen < 30 {
                let f = p.ok("GetFunction", json!({"FunctionName": "hello"})).await;
                // Three seconds stand for the function as it was made (and is left), and for the third change.
                if !(f["Timeout"] == json!(3) && f["MemorySize"] == json!(128)) {
                    assert_eq!(f["MemorySize"].as_u64().unwrap(), f["Timeout"].as_u64().unwrap() * 128, "{f}");
                }
                seen = u32::try_from(f["Timeout"].as_u64().unwrap()).unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for n in 1..=24 {
        p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Timeout": n, "MemorySize": n * 128}))
            .await;
        tokio::task::yield_now().await;
    }
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "Timeout": 3, "MemorySize": 128})).await;
    reader.abort();
    assert!(reader.await.unwrap_err().is_cancelled(), "the reader saw nothing wrong until it was stopped");
}

#[tokio::test]
async fn concurrent_changes_of_one_function_all_count() {
    let p = Platform::new().await;
    p.create("hello").await;
    let publish = || p.call("PublishVersion", json!({"FunctionName": "hello"}));
    let (a, b, c, d) = tokio::join!(publish(), publish(), publish(), publish());
    let mut numbers: Vec<_> = [a, b, c, d].iter().map(|v| v["FunctionVersion"].as_str().unwrap().to_owned()).collect();
    numbers.sort();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_rows_and_tables_equal() {
    let p = Platform::new().await;
    for round in 0..20 {
        let name = format!("fn-{round}");
        let work = p.call("CreateFunction", create(&name));
        // Dropped at whatever await it has reached.
        let _ = tokio::time::timeout(Duration::from_micros(round * 300), work).await;
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let q = p.restart().await;
        if everything(&p).await == everything(&q).await {
            break;
        }
        assert!(Instant::now() < deadline, "tables and rows differ");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn uploads_in_progress_are_live() {
    let p = Platform::new().await;
    let digest = mayfly_store::blobs::digest_of(b"on its way");
    let guard = p.control.catalogue().protect([digest]);
    let second = p.control.catalogue().protect([digest]);
    drop(guard);
    assert!(p.control.live_digests().contains(&digest));
    drop(second);
    assert!(!p.control.live_digests().contains(&digest));
    p.create("hello").await;
    assert_eq!(p.control.live_digests().len(), 1);
    p.ok("UpdateFunctionCode", json!({"FunctionName": "hello", "ZipFile": zip_of("index.py", "new")})).await;
    assert_eq!(p.control.live_digests().len(), 1, "the old code is free");
    p.ok("PublishVersion", json!({"FunctionName": "hello"})).await;
    p.ok("UpdateFunctionCode", json!({"FunctionName": "hello", "ZipFile": zip_of("index.py", "newer")})).await;
    assert_eq!(p.control.live_digests().len(), 2);
}

async fn load(change: Change) -> Result<Catalogue, LoadError> {
    let p = Platform::new().await;
    p.create("hello").await;
    p.ok("PublishVersion", json!({"FunctionName": "hello"})).await;
    p.meta.apply(vec![change]).await.unwrap();
    Catalogue::load(Arc::new(p.meta.clone()), p.invoker.clone(), 0).await
}

#[tokio::test]
async fn rows_that_make_no_sense_are_named() {
    let put = |kind: &'static str, key: &str, value: &str| Change::Put { kind, key: key.into(), value: value.into() };
    let alias = r#"{"function_id":"lam-x","name":"prod","version":"1","weights":[],"matches":[],"description":"","add_time_ms":0,"mod_time_ms":0}"#;
    let layer = r#"{"name":"lib","version":3,"compatible_runtimes":[],"description":"","license_info":"","code":{"digest":"0000000000000000000000000000000000000000000000000000000000000000","zip_bytes":1,"unpacked_bytes":1},"tags":[],"add_time_ms":0}"#;
    for (change, text) in [
        (put("spaceship", "x", "{}"), "spaceship/x"),
        (put("function", "lam-1", "{}"), "function/lam-1"),
        (put("namespace", "ns", "7"), "namespace/ns"),
        (put("alias", "lam-x/prod", alias), "alias/lam-x/prod"),
        (put("layer_version", "lib/3", layer), "layer_version/lib/3"),
    ] {
        let error = load(change).await.err().expect("the row is refused").to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(
        load(put("namespace", "ns", r#"{"name":"ns","description":"","add_time_ms":0,"mod_time_ms":0}"#)).await.is_ok()
    );
}

#[tokio::test]
async fn a_thousand_functions_load_and_resolve_fast() {
    let p = Platform::new().await;
    for i in 0..1000 {
        p.create(&format!("fn-{i}")).await;
    }
    let start = Instant::now();
    let q = p.restart().await;
    let loaded = start.elapsed();
    assert_eq!(q.ok("ListFunctions", json!({"Limit": 1})).await["TotalCount"], json!(1000));
    let start = Instant::now();
    let mut found: Option<Arc<RouteTarget>> = None;
    for _ in 0..10_000 {
        found = q.control.catalogue().resolve("default", "fn-500", "$DEFAULT", &[], 0.5).ok();
    }
    let resolved = start.elapsed() / 10_000;
    assert_eq!(found.unwrap().spec.function.as_str(), "fn-500");
    // Generous: an unoptimised build on a busy machine.
    assert!(loaded < Duration::from_secs(5) && resolved < Duration::from_micros(100), "{loaded:?} {resolved:?}");
    eprintln!("loaded 1000 functions in {loaded:?}; a look-up takes {resolved:?}");
}

#[tokio::test]
async fn an_empty_store_gets_its_namespace() {
    let meta = MemoryMeta::new();
    let p = Platform::new().await;
    let catalogue = Catalogue::load(Arc::new(meta.clone()), p.invoker.clone(), 7).await.unwrap();
    assert_eq!(catalogue.namespaces().len(), 1);
    assert_eq!(meta.load().await.unwrap().len(), 1);
}
