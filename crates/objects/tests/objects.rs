//! What clients see.

mod support;

use http_body_util::BodyExt;
use mayfly_objects::Body;
use md5::{Digest, Md5};
use std::pin::Pin;
use std::task::{Context, Poll};
use support::{BUCKET, Scene, answered, eventually, files, limits, noise, signature};

fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

#[tokio::test]
async fn objects_come_back_as_they_were_put() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.put("k", "x").await.fails(404, "NoSuchBucket");
    scene.make_bucket().await;
    scene.ask("PUT", &format!("/{BUCKET}"), &[], &[], "").await.fails(409, "BucketAlreadyOwnedByYou");
    for (key, len) in
        [("empty", 0), ("small", 10), ("edge", 8192), ("file", 8193), ("größer/ a+b", 3 << 20), ("../../up", 9000)]
    {
        let bytes = noise(len, 7);
        let put = scene
            .ask(
                "PUT",
                &format!("/{BUCKET}/{key}"),
                &[],
                &[("x-cos-meta-who", "me"), ("content-type", "a/b")],
                bytes.clone(),
            )
            .await
            .ok();
        assert_eq!(put.etag(), md5(&bytes), "{key}");
        assert!(put.headers.contains_key("x-cos-request-id"));
        let got = scene.get(key).await.ok();
        assert!(got.body == bytes, "{key}");
        assert_eq!(got.headers["x-cos-meta-who"], "me");
        assert_eq!(got.headers["content-type"], "a/b");
        let head = scene.ask("HEAD", &format!("/{BUCKET}/{key}"), &[], &[], "").await.ok();
        assert_eq!(head.headers["content-length"], len.to_string().as_str(), "{key}");
        if len > 5 {
            let part = scene.ask("GET", &format!("/{BUCKET}/{key}"), &[], &[("range", "bytes=2-4")], "").await;
            assert_eq!((part.status, &part.body[..]), (206, &bytes[2..5]), "{key}");
            assert_eq!(part.headers["content-range"], format!("bytes 2-4/{len}").as_str());
            let tail = scene.ask("GET", &format!("/{BUCKET}/{key}"), &[], &[("range", "bytes=-3")], "").await;
            assert_eq!(&tail.body[..], &bytes[len - 3..], "{key}");
            let beyond = format!("bytes={len}-");
            scene
                .ask("GET", &format!("/{BUCKET}/{key}"), &[], &[("range", &beyond)], "")
                .await
                .fails(416, "InvalidRange");
        }
    }
    // Nothing is outside of the store's folder, and keys are not names of files.
    assert!(files(dir.path()).iter().all(|f| !f.to_string_lossy().contains("up")));
    scene.ask("DELETE", &format!("/{BUCKET}"), &[], &[], "").await.fails(409, "BucketNotEmpty");
    for key in ["empty", "small", "edge", "file", "größer/ a+b", "../../up", "never"] {
        assert_eq!(scene.ask("DELETE", &format!("/{BUCKET}/{key}"), &[], &[], "").await.status, 204);
        scene.get(key).await.fails(404, "NoSuchKey");
    }
    eventually("files of deleted objects go", || files(dir.path()).is_empty()).await;
    assert_eq!(scene.ask("DELETE", &format!("/{BUCKET}"), &[], &[], "").await.status, 204);
    scene.get("k").await.fails(404, "NoSuchBucket");
}

#[tokio::test]
async fn objects_are_put_in_parts_and_copied_without_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    let (path, copied) = (format!("/{BUCKET}/big"), format!("/{BUCKET}/copied"));
    let id = scene.ask("POST", &path, &[("uploads", "")], &[("x-cos-meta-a", "b")], "").await.ok().tag("UploadId");
    let parts = [noise(1 << 20, 1), noise((1 << 20) + 5, 2), noise(10, 3)];
    let mut document = String::from("<CompleteMultipartUpload>");
    for (number, part) in (1..).zip(&parts) {
        let number: i32 = number;
        let query = [("partNumber", &*number.to_string()), ("uploadId", &*id)];
        // The first try is replaced by the second.
        scene.ask("PUT", &path, &query, &[], "wrong").await.ok();
        let etag = scene.ask("PUT", &path, &query, &[], part.clone()).await.ok().etag();
        document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag></Part>");
    }
    document += "</CompleteMultipartUpload>";
    let listed = scene.ask("GET", &path, &[("uploadId", &id)], &[], "").await.ok();
    assert_eq!(listed.tags("PartNumber"), ["1", "2", "3"]);
    let uploads = scene.ask("GET", &format!("/{BUCKET}"), &[("uploads", "")], &[], "").await.ok();
    assert_eq!(uploads.tags("UploadId"), [id.as_str()]);
    let wrong = document.replace("<PartNumber>3<", "<PartNumber>4<");
    scene.ask("POST", &path, &[("uploadId", &id)], &[], wrong).await.fails(400, "InvalidPart");
    let done = scene.ask("POST", &path, &[("uploadId", &id)], &[], document.clone()).await.ok();
    assert!(done.tag("ETag").contains("-3"), "{}", done.text());
    // A client that lost the answer asks again, and is told the same.
    let again = scene.ask("POST", &path, &[("uploadId", &id)], &[], document.clone()).await.ok();
    assert_eq!(again.tag("ETag"), done.tag("ETag"));
    let all = parts.concat();
    assert!(scene.get("big").await.ok().body == all);
    let across = scene.ask("GET", &path, &[], &[("range", "bytes=1048570-1048590")], "").await;
    assert_eq!(&across.body[..], &all[1_048_570..=1_048_590]);
    eventually("files of replaced parts go", || files(dir.path()).len() == 3).await;

    let source = format!("{BUCKET}.cos.ap-x.myqcloud.com/big");
    scene.ask("PUT", &copied, &[], &[("x-cos-copy-source", &source)], "").await.ok();
    assert_eq!(files(dir.path()).len(), 3, "a copy shares its bytes");
    scene.ask("DELETE", &path, &[], &[], "").await.ok();
    scene.ask("POST", &path, &[("uploadId", &id)], &[], document).await.fails(404, "NoSuchUpload");
    let copy = scene.get("copied").await.ok();
    assert!(copy.body == all && copy.headers["x-cos-meta-a"] == "b");
    // Part of it becomes a part of another.
    let path = format!("/{BUCKET}/cut");
    let id = scene.ask("POST", &path, &[("uploads", "")], &[], "").await.ok().tag("UploadId");
    let query = [("partNumber", "1"), ("uploadId", &*id)];
    let source = format!("{BUCKET}.cos.ap-x.myqcloud.com/copied");
    let headers = [("x-cos-copy-source", &*source), ("x-cos-copy-source-range", "bytes=1000000-1100000")];
    let etag = scene.ask("PUT", &path, &query, &headers, "").await.ok().tag("ETag").replace("&quot;", "");
    assert_eq!(etag.trim_matches('"'), md5(&all[1_000_000..=1_100_000]));
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    scene.ask("POST", &path, &[("uploadId", &id)], &[], document).await.ok();
    scene.ask("DELETE", &copied, &[], &[], "").await.ok();
    assert_eq!(&scene.get("cut").await.ok().body[..], &all[1_000_000..=1_100_000]);
    assert_eq!(scene.store().scrub().await.unwrap(), 0);
    scene.ask("DELETE", &path, &[], &[], "").await.ok();
    // An upload that is aborted, and one that nobody completes.
    for aborted in [true, false] {
        let id = scene.ask("POST", &path, &[("uploads", "")], &[], "").await.ok().tag("UploadId");
        scene.ask("PUT", &path, &[("partNumber", "1"), ("uploadId", &id)], &[], "part").await.ok();
        if aborted {
            assert_eq!(scene.ask("DELETE", &path, &[("uploadId", &id)], &[], "").await.status, 204);
        } else {
            assert_eq!(scene.store().abort_old_uploads(std::time::Duration::from_secs(60)).await.unwrap(), 0);
            eventually("a millisecond passes", || true).await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            assert_eq!(scene.store().abort_old_uploads(std::time::Duration::ZERO).await.unwrap(), 1);
        }
        scene.ask("GET", &path, &[("uploadId", &id)], &[], "").await.fails(404, "NoSuchUpload");
    }
    eventually("all files go", || files(dir.path()).is_empty()).await;
}

#[tokio::test]
async fn lists_show_every_key_once_whatever_their_pages() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    let mut keys: Vec<String> = Vec::new();
    for a in ["a", "b/", "b/c/", "b/d", "é/", "z//"] {
        keys.extend((0..7).map(|n| format!("{a}{n}")));
    }
    keys.sort();
    for key in &keys {
        scene.put(key, "").await.ok();
    }
    for (prefix, delimiter, size) in
        [("", "", 5), ("b/", "", 3), ("", "/", 1), ("b/", "/", 2), ("z/", "/", 4), ("no", "/", 4)]
    {
        let mut expected: Vec<String> = keys
            .iter()
            .filter_map(|key| {
                let rest = key.strip_prefix(prefix)?;
                let at = if delimiter.is_empty() { None } else { rest.find(delimiter) };
                Some(at.map_or(key.clone(), |at| key[..prefix.len() + at + 1].to_owned()))
            })
            .collect();
        expected.dedup();
        let (mut found, mut marker) = (Vec::new(), String::new());
        loop {
            let size_text = size.to_string();
            let query = [("prefix", prefix), ("delimiter", delimiter), ("marker", &*marker), ("max-keys", &*size_text)];
            let page = scene.ask("GET", &format!("/{BUCKET}"), &query, &[], "").await.ok();
            // The first prefix is the query's own.
            let shown: Vec<String> = page
                .tags("Key")
                .into_iter()
                .chain(page.tags("CommonPrefixes").iter().map(|p| p.replace("<Prefix>", "").replace("</Prefix>", "")))
                .collect();
            assert!(shown.len() <= size);
            found.extend(shown);
            if page.tag("IsTruncated") != "true" {
                break;
            }
            marker = page.tag("NextMarker");
            assert!(!marker.is_empty());
        }
        found.sort();
        assert_eq!(found, expected, "{prefix} {delimiter} {size}");
    }
}

#[tokio::test]
async fn conditions_hold_for_reads_and_writes() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    let path = format!("/{BUCKET}/k");
    let etag = format!("\"{}\"", scene.put("k", "one").await.ok().etag());
    let past = "Mon, 01 Jan 2001 00:00:00 GMT";
    for (name, value, status) in [
        ("if-match", &*etag, 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", &*etag, 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", past, 200),
        ("if-unmodified-since", past, 412),
    ] {
        let answer = scene.ask("GET", &path, &[], &[(name, value)], "").await;
        assert_eq!(answer.status, status, "{name}: {value}");
        assert!(status != 304 || answer.body.is_empty());
    }
    scene.ask("PUT", &path, &[], &[("if-none-match", "*")], "two").await.fails(412, "PreconditionFailed");
    scene.ask("PUT", &path, &[], &[("x-cos-forbid-overwrite", "true")], "two").await.fails(412, "PreconditionFailed");
    scene.ask("PUT", &path, &[], &[("if-match", "\"other\"")], "two").await.fails(412, "PreconditionFailed");
    assert_eq!(scene.get("k").await.text(), "one");
    scene.ask("PUT", &path, &[], &[("if-match", &etag)], "two").await.ok();
    // Of many that would make the same object, one does.
    let mut tries = Vec::new();
    for n in 0..16 {
        let request = Scene::request(
            "PUT",
            &format!("/{BUCKET}/once"),
            &[],
            &[("if-none-match", "*")],
            support::whole(n.to_string()),
        );
        let objects = scene.objects.clone();
        tries.push(tokio::spawn(
            async move { objects.call(request, ([127, 0, 0, 1], 1).into()).await.status().as_u16() },
        ));
    }
    let mut made = 0;
    for done in tries {
        made += usize::from(done.await.unwrap() == 200);
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    scene.put("k", "secret").await.ok();
    let path = format!("/{BUCKET}/k");
    let plain = |uri: String, authorization: Option<&str>| {
        let mut builder = http::Request::builder().uri(uri).header("host", "127.0.0.1:8701");
        if let Some(text) = authorization {
            builder = builder.header("authorization", text);
        }
        builder.body(Body::default()).unwrap()
    };
    answered(scene.raw(plain(path.clone(), None)).await).await.fails(403, "AccessDenied");
    let other = signature("GET", "/elsewhere", &[], &[]);
    answered(scene.raw(plain(path.clone(), Some(&other))).await).await.fails(403, "SignatureDoesNotMatch");
    // A presigned URL opens what it was signed for, and no other operation.
    let presigned = signature("GET", &path, &[], &[]);
    let answer = answered(scene.raw(plain(format!("{path}?{presigned}"), None)).await).await.ok();
    assert_eq!(answer.text(), "secret");
    answered(scene.raw(plain(format!("{path}?{presigned}&tagging"), None)).await).await.fails(403, "AccessDenied");
    let uploads = signature("GET", &path, &[("tagging", "")], &[]);
    answered(scene.raw(plain(format!("{path}?{uploads}&tagging"), None)).await).await.ok();
    let put = signature("PUT", &format!("/{BUCKET}/new"), &[], &[]);
    let mut copying = plain(format!("/{BUCKET}/new?{put}"), None);
    *copying.method_mut() = http::Method::PUT;
    copying.headers_mut().insert("x-cos-copy-source", format!("{BUCKET}.cos.ap-x.myqcloud.com/k").parse().unwrap());
    answered(scene.raw(copying).await).await.fails(403, "AccessDenied");
    let headers = [("x-cos-acl", "public-read")];
    scene.ask("PUT", &path, &[], &headers, "x").await.fails(501, "NotImplemented");
    scene.ask("PUT", &path, &[], &[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], "x").await.fails(400, "BadDigest");
    assert_eq!(scene.get("k").await.text(), "secret");
    let failed = scene.get("nothing<&>").await;
    assert!(failed.text().contains("<Resource>") && failed.text().contains("<TraceId>"), "{}", failed.text());
}

/// A body that says what it is told, and then breaks off or never ends.
struct Broken {
    first: Option<Vec<u8>>,
    hangs: bool,
}

impl http_body::Body for Broken {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(http_body::Frame::data(first.into())))),
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(Some(Err("gone".into()))),
        }
    }
}

#[tokio::test]
async fn what_does_not_arrive_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let quick = mayfly_objects::Limits { body_window: std::time::Duration::from_millis(200), ..limits() };
    let scene = Scene::open(dir.path(), quick).await;
    scene.make_bucket().await;
    scene.put("k", "old").await.ok();
    let path = format!("/{BUCKET}/k");
    for (hangs, code) in [(false, "IncompleteBody"), (true, "RequestTimeout")] {
        let body = Body::new(Broken { first: Some(noise(3 << 20, 1)), hangs });
        let answer = answered(scene.raw(Scene::request("PUT", &path, &[], &[], body)).await).await;
        answer.fails(400, code);
    }
    let mut short = Scene::request("PUT", &path, &[], &[], support::whole("four"));
    short.headers_mut().insert("content-length", "5".parse().unwrap());
    answered(scene.raw(short).await).await.fails(400, "IncompleteBody");
    // A client that goes away takes its request with it.
    let body = Body::new(Broken { first: Some(noise(3 << 20, 1)), hangs: true });
    let waiting = scene.raw(Scene::request("PUT", &path, &[], &[], body));
    let _ = tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await;
    eventually("their files go", || files(dir.path()).is_empty()).await;
    assert_eq!(scene.get("k").await.text(), "old");
    let full = mayfly_objects::Limits { disk_free_min: u64::MAX, ..limits() };
    scene.store().close().await;
    let scene = Scene::open(dir.path(), full).await;
    scene.put("k", noise(1 << 20, 1)).await.fails(507, "InsufficientStorage");
    assert_eq!(scene.get("k").await.text(), "old");
}

#[tokio::test]
async fn a_reader_reads_on_what_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    let old = noise(2 << 20, 1);
    scene.put("k", old.clone()).await.ok();
    let mut reading =
        scene.raw(Scene::request("GET", &format!("/{BUCKET}/k"), &[], &[], Body::default())).await.into_body();
    let mut found = reading.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    scene.put("k", noise(2 << 20, 2)).await.ok();
    scene.put("k", "short").await.ok();
    eventually("the file between goes", || files(dir.path()).len() == 1).await;
    found.extend_from_slice(&reading.collect().await.unwrap().to_bytes());
    assert!(found == old);
    eventually("the file that was read goes", || files(dir.path()).is_empty()).await;
}
