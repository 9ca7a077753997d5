//! Buckets that keep what is replaced and deleted.

mod support;

use mayfly_objects::{EventKind, Rule};
use support::{Answer, BUCKET, Scene, eventually, files, limits, noise};

async fn versioning(scene: &Scene, status: &str) {
    let document = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    scene.ask("PUT", &format!("/{BUCKET}"), &[("versioning", "")], &[], document).await.ok();
}

fn version(answer: &Answer) -> String {
    answer.headers.get("x-cos-version-id").map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
}

async fn of(scene: &Scene, method: &str, key: &str, id: &str) -> Answer {
    scene.ask(method, &format!("/{BUCKET}/{key}"), &[("versionId", id)], &[], "").await
}

async fn delete(scene: &Scene, key: &str) -> Answer {
    scene.ask("DELETE", &format!("/{BUCKET}/{key}"), &[], &[], "").await.ok()
}

/// Every version and marker of a list, in pages of `size`: key, id, latest.
async fn listed(scene: &Scene, size: usize, prefix: &str, delimiter: &str) -> Vec<(String, String, bool)> {
    let (mut found, mut key, mut id) = (Vec::new(), String::new(), String::new());
    loop {
        let size = size.to_string();
        let mut query = vec![("versions", ""), ("max-keys", &*size), ("prefix", prefix), ("delimiter", delimiter)];
        if !key.is_empty() {
            query.push(("key-marker", &key));
        }
        if !id.is_empty() {
            query.push(("version-id-marker", &id));
        }
        let page = scene.ask("GET", &format!("/{BUCKET}"), &query, &[], "").await.ok();
        for kind in ["Version", "DeleteMarker"] {
            for text in page.tags(kind) {
                let one = |tag: &str| {
                    let rest = text.split(&format!("<{tag}>")).nth(1).unwrap_or("");
                    rest.split(&format!("</{tag}>")).next().unwrap().to_owned()
                };
                found.push((one("Key"), one("VersionId"), one("IsLatest") == "true"));
            }
        }
        for prefix in page.tags("CommonPrefixes") {
            found.push((prefix.replace("<Prefix>", "").replace("</Prefix>", ""), String::new(), false));
        }
        if page.tag("IsTruncated") != "true" {
            found.sort();
            return found;
        }
        (key, id) = (page.tag("NextKeyMarker"), page.tag("NextVersionIdMarker"));
        assert!(!key.is_empty());
    }
}

#[tokio::test]
async fn what_is_replaced_or_deleted_can_be_had_back() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    let status = async || scene.ask("GET", &format!("/{BUCKET}"), &[("versioning", "")], &[], "").await.ok();
    assert_eq!(status().await.tag("Status"), "");
    assert_eq!(version(&scene.put("k", "before").await.ok()), "", "no versions yet");
    versioning(&scene, "Enabled").await;
    assert_eq!(status().await.tag("Status"), "Enabled");
    let big = noise(20_000, 1);
    let one = version(&scene.put("k", big.clone()).await.ok());
    let two = version(&scene.put("k", "two").await.ok());
    assert!(!one.is_empty() && one != two);
    assert_eq!(scene.get("k").await.ok().text(), "two");
    assert_eq!(version(&scene.get("k").await.ok()), two);
    assert!(of(&scene, "GET", "k", &one).await.ok().body == big);
    assert_eq!(of(&scene, "GET", "k", "null").await.ok().text(), "before");
    of(&scene, "GET", "k", "abcdef").await.fails(404, "NoSuchVersion");
    of(&scene, "GET", "k", "no id").await.fails(400, "InvalidArgument");

    // A delete says that there is nothing, and keeps what there was.
    let gone = delete(&scene, "k").await;
    assert_eq!(gone.headers["x-cos-delete-marker"], "true");
    let marker = version(&gone);
    let missing = scene.get("k").await;
    assert_eq!(missing.headers["x-cos-delete-marker"], "true");
    missing.fails(404, "NoSuchKey");
    of(&scene, "GET", "k", &marker).await.fails(405, "MethodNotAllowed");
    assert!(of(&scene, "GET", "k", &one).await.ok().body == big);
    assert!(scene.ask("GET", &format!("/{BUCKET}"), &[], &[], "").await.ok().tags("Key").is_empty());
    let mut expected = vec![
        ("k".to_owned(), marker.clone(), true),
        ("k".to_owned(), two.clone(), false),
        ("k".to_owned(), one.clone(), false),
        ("k".to_owned(), "null".to_owned(), false),
    ];
    expected.sort();
    for size in [1, 2, 10] {
        assert_eq!(listed(&scene, size, "", "").await, expected, "{size}");
    }
    scene.ask("DELETE", &format!("/{BUCKET}"), &[], &[], "").await.fails(409, "BucketNotEmpty");

    // Without the marker the object is back; without its newest version, the one before.
    assert_eq!(of(&scene, "DELETE", "k", &marker).await.ok().headers["x-cos-delete-marker"], "true");
    assert_eq!(scene.get("k").await.ok().text(), "two");
    of(&scene, "DELETE", "k", &two).await.ok();
    assert!(scene.get("k").await.ok().body == big);
    of(&scene, "GET", "k", &two).await.fails(404, "NoSuchVersion");
    // An old version becomes the current one by a copy of it.
    let source = format!("{BUCKET}.cos.ap-x.myqcloud.com/k?versionId=null");
    scene.ask("PUT", &format!("/{BUCKET}/k"), &[], &[("x-cos-copy-source", &source)], "").await.ok();
    assert_eq!(scene.get("k").await.ok().text(), "before");
    // Tags belong to a version.
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let query = [("tagging", ""), ("versionId", &*one)];
    scene.ask("PUT", &format!("/{BUCKET}/k"), &query, &[], tags).await.ok();
    assert_eq!(scene.ask("GET", &format!("/{BUCKET}/k"), &query, &[], "").await.ok().tags("Key"), ["a"]);
    let current = [("tagging", "")];
    assert!(scene.ask("GET", &format!("/{BUCKET}/k"), &current, &[], "").await.ok().tags("Key").is_empty());

    // All of it survives a restart, and goes when it is removed.
    let before = listed(&scene, 10, "", "").await;
    scene.store().close().await;
    let scene = Scene::open(dir.path(), limits()).await;
    assert_eq!(listed(&scene, 10, "", "").await, before);
    assert!(of(&scene, "GET", "k", &one).await.ok().body == big);
    assert_eq!(scene.store().scrub().await.unwrap(), 0);
    for (key, id, _) in before {
        of(&scene, "DELETE", &key, &id).await.ok();
    }
    eventually("files of versions go", || files(dir.path()).is_empty()).await;
    assert_eq!(scene.store().stats().bytes, 0);
    assert_eq!(scene.store().stats().objects, 0);
    assert_eq!(scene.ask("DELETE", &format!("/{BUCKET}"), &[], &[], "").await.status, 204);
}

#[tokio::test]
async fn suspended_buckets_keep_one_version_without_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    versioning(&scene, "Enabled").await;
    let one = version(&scene.put("k", "one").await.ok());
    versioning(&scene, "Suspended").await;
    for text in ["two", "three"] {
        assert_eq!(version(&scene.put("k", text).await.ok()), "null");
    }
    assert_eq!(listed(&scene, 10, "", "").await.len(), 2);
    assert_eq!(of(&scene, "GET", "k", "null").await.ok().text(), "three");
    // The marker takes the place of the version without a name.
    assert_eq!(version(&delete(&scene, "k").await), "null");
    scene.get("k").await.fails(404, "NoSuchKey");
    assert_eq!(listed(&scene, 10, "", "").await.len(), 2);
    assert_eq!(of(&scene, "GET", "k", &one).await.ok().text(), "one");
    of(&scene, "DELETE", "k", "null").await.ok();
    assert_eq!(scene.get("k").await.ok().text(), "one");
    versioning(&scene, "Enabled").await;
    // Parts and copies make versions too.
    let path = format!("/{BUCKET}/k");
    let id = scene.ask("POST", &path, &[("uploads", "")], &[], "").await.ok().tag("UploadId");
    let etag = scene.ask("PUT", &path, &[("partNumber", "1"), ("uploadId", &id)], &[], "part").await.ok().etag();
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let done = scene.ask("POST", &path, &[("uploadId", &id)], &[], document.clone()).await.ok();
    let again = scene.ask("POST", &path, &[("uploadId", &id)], &[], document).await.ok();
    assert!(!version(&done).is_empty() && version(&done) == version(&again));
    assert_eq!(listed(&scene, 10, "", "").await.len(), 2);
    // Many at once: one is removed for good, the other gets a marker.
    let document = format!(
        "<Delete><Object><Key>k</Key><VersionId>{one}</VersionId></Object><Object><Key>k</Key></Object></Delete>"
    );
    let md5 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, <md5::Md5 as md5::Digest>::digest(&document));
    let gone =
        scene.ask("POST", &format!("/{BUCKET}"), &[("delete", "")], &[("content-md5", &md5)], document).await.ok();
    assert_eq!(gone.tags("Deleted").len(), 2);
    assert_eq!(gone.tag("DeleteMarker"), "true");
    assert_eq!(listed(&scene, 10, "", "").await.len(), 2);
}

#[tokio::test]
async fn lists_of_versions_show_each_once_whatever_their_pages() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    versioning(&scene, "Enabled").await;
    let keys = ["a", "b/1", "b/2", "b/c/1", "d", "é/1", "é/2"];
    let mut all = Vec::new();
    for round in 0..3 {
        for key in keys {
            let done = if round == 1 { delete(&scene, key).await } else { scene.put(key, "x").await.ok() };
            all.push((key.to_owned(), version(&done), round == 2));
        }
    }
    all.sort();
    for (prefix, delimiter, size) in [
        ("", "", 1),
        ("", "", 4),
        ("", "", 100),
        ("b/", "", 2),
        ("", "/", 1),
        ("", "/", 3),
        ("b/", "/", 2),
        ("no", "", 5),
    ] {
        let mut expected: Vec<_> = Vec::new();
        for (key, id, latest) in &all {
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
                Some(at) => expected.push((key[..prefix.len() + at + 1].to_owned(), String::new(), false)),
                None => expected.push((key.clone(), id.clone(), *latest)),
            }
        }
        expected.sort();
        expected.dedup();
        assert_eq!(listed(&scene, size, prefix, delimiter).await, expected, "{prefix} {delimiter} {size}");
    }
}

#[tokio::test]
async fn deletes_that_set_a_marker_are_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    versioning(&scene, "Enabled").await;
    let rule = |id: &str, event: &str| Rule {
        id: id.into(),
        event: event.into(),
        prefix: String::new(),
        suffix: String::new(),
    };
    scene.store().set_rules(
        BUCKET,
        vec![rule("all", "cos:ObjectRemove:*"), rule("marks", "cos:ObjectRemove:DeleteMarkerCreated")],
    );
    let id = version(&scene.put("k", "text").await.ok());
    let marker = version(&delete(&scene, "k").await);
    of(&scene, "DELETE", "k", &id).await.ok();
    of(&scene, "DELETE", "k", &marker).await.ok();
    let told = async |rule: &str| {
        let notices = scene.store().outbox().oldest(rule, 10).await.unwrap();
        notices.into_iter().map(|n| (n.kind, n.version.unwrap())).collect::<Vec<_>>()
    };
    let (mark, remove) = ((EventKind::DeleteMarkerCreated, marker), (EventKind::Delete, id));
    assert_eq!(told("marks").await, std::slice::from_ref(&mark));
    assert_eq!(told("all").await, [mark, remove], "to remove a marker removes no object");
}
