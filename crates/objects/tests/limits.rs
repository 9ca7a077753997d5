//! Bodies that vouch for themselves, and what bounds the store.

mod support;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mayfly_objects::{Body, Limits};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use support::aws::{Chunks, Forged, Trailed, crc, put};
use support::{BUCKET, Scene, answered, eventually, files, limits, noise};

const CRC32: u32 = 0xedb8_8320;
const CRC32C: u32 = 0x82f6_3b78;

fn sum(algorithm: &str, bytes: &[u8]) -> String {
    match algorithm {
        "crc32" => BASE64_STANDARD.encode(crc(CRC32, bytes)),
        "crc32c" => BASE64_STANDARD.encode(crc(CRC32C, bytes)),
        _ => BASE64_STANDARD.encode(Sha256::digest(bytes)),
    }
}

#[tokio::test]
async fn checksums_after_a_body_are_verified_and_kept() {
    assert_eq!(crc(CRC32, b"123456789"), 0xcbf4_3926_u32.to_be_bytes(), "the check value of CRC-32");
    assert_eq!(crc(CRC32C, b"123456789"), 0xe306_9283_u32.to_be_bytes(), "the check value of CRC-32C");
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    let path = format!("/{BUCKET}/k");
    // In the database, in a file, and with nothing in it.
    for body in [noise(100, 1), noise(200_000, 2), Vec::new()] {
        for chunks in [Chunks::Signed, Chunks::Unsigned] {
            for algorithm in ["crc32", "crc32c", "sha256"] {
                let right = Trailed { chunks, algorithm, sum: sum(algorithm, &body), forged: None };
                let name = format!("x-amz-checksum-{algorithm}");
                let put_answer = answered(scene.raw(put(&path, &body, &right)).await).await.ok();
                assert_eq!(put_answer.headers[&name], right.sum.as_str(), "{right:?}");
                let got = scene.get("k").await.ok();
                assert!(got.body == body, "{right:?}");
                assert!(!got.headers.contains_key("content-encoding"), "how it travelled is not how it is");
            }
        }
    }
}

#[tokio::test]
async fn what_a_trailer_or_signature_denies_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    scene.put("k", "old").await.ok();
    let path = format!("/{BUCKET}/k");
    for body in [noise(100, 1), noise(200_000, 2)] {
        for algorithm in ["crc32", "crc32c", "sha256"] {
            for chunks in [Chunks::Signed, Chunks::Unsigned] {
                let wrong = Trailed { chunks, algorithm, sum: sum(algorithm, b"another"), forged: None };
                answered(scene.raw(put(&path, &body, &wrong)).await).await.fails(400, "BadDigest");
            }
            for forged in [Forged::Chunk, Forged::Trailer] {
                let sum = sum(algorithm, &body);
                let forged = Trailed { chunks: Chunks::Signed, algorithm, sum, forged: Some(forged) };
                answered(scene.raw(put(&path, &body, &forged)).await).await.fails(403, "SignatureDoesNotMatch");
            }
        }
        let mut short = put(
            &path,
            &body,
            &Trailed { chunks: Chunks::Unsigned, algorithm: "crc32", sum: sum("crc32", &body), forged: None },
        );
        short.headers_mut().insert("x-amz-decoded-content-length", "5".parse().unwrap());
        // The length is signed.
        answered(scene.raw(short).await).await.fails(403, "SignatureDoesNotMatch");
    }
    assert_eq!(scene.get("k").await.text(), "old");
    eventually("what was refused leaves no file", || files(dir.path()).is_empty()).await;
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        buckets_max: 2,
        put_bytes_max: 3 << 20,
        object_bytes_max: 5 << 20,
        parts_max: 3,
        uploads_max: 2,
        ..limits()
    };
    let scene = Scene::open(dir.path(), small).await;
    scene.make_bucket().await;
    scene.ask("PUT", "/second-1250000000", &[], &[], "").await.ok();
    scene.ask("PUT", "/third-1250000000", &[], &[], "").await.fails(400, "TooManyBuckets");
    scene.ask("DELETE", "/second-1250000000", &[], &[], "").await.ok();
    scene.ask("PUT", "/third-1250000000", &[], &[], "").await.ok();

    scene.put("k", "old").await.ok();
    scene.put("k", noise((3 << 20) + 1, 1)).await.fails(400, "EntityTooLarge");
    // Without a length it is found out on the way.
    let mut request = Scene::request("PUT", &format!("/{BUCKET}/k"), &[], &[], support::whole(noise((3 << 20) + 1, 1)));
    request.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
    let status = answered(scene.raw(request).await).await.status;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(scene.get("k").await.text(), "old");

    let path = format!("/{BUCKET}/parts");
    let begin = async || scene.ask("POST", &path, &[("uploads", "")], &[], "").await;
    let id = begin().await.ok().tag("UploadId");
    let other = begin().await.ok().tag("UploadId");
    begin().await.fails(400, "TooManyUploads");
    scene.ask("DELETE", &path, &[("uploadId", &other)], &[], "").await.ok();
    let part = async |number: &str, len: usize| {
        scene.ask("PUT", &path, &[("partNumber", number), ("uploadId", &id)], &[], noise(len, 1)).await
    };
    for number in ["0", "4", "10001"] {
        part(number, 10).await.fails(400, "InvalidArgument");
    }
    part("1", (3 << 20) + 1).await.fails(400, "EntityTooLarge");
    let mut document = String::from("<CompleteMultipartUpload>");
    for number in 1..=2 {
        let etag = part(&number.to_string(), 3 << 20).await.ok().etag();
        document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    document += "</CompleteMultipartUpload>";
    scene.ask("POST", &path, &[("uploadId", &id)], &[], document).await.fails(400, "EntityTooLarge");
    let listed = scene.ask("GET", &path, &[("uploadId", &id)], &[], "").await.ok();
    assert_eq!(listed.tags("PartNumber").len(), 2, "the parts are still there");
    scene.ask("DELETE", &path, &[("uploadId", &id)], &[], "").await.ok();
    eventually("nothing else is left", || files(dir.path()).is_empty()).await;
    assert_eq!(scene.get("k").await.text(), "old");
}

/// A disk of a few megabytes. Dropping it takes it away.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`: this process may not mount.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is free.
    fn fill(&self) {
        let zeros = vec![0; 64 << 10];
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Two pieces of 2 MiB; what `between` does happens after the first.
struct TwoPieces<F> {
    left: u8,
    between: F,
}

impl<F: FnMut() + Unpin> http_body::Body for TwoPieces<F> {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.left == 1 {
            (self.between)();
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(http_body::Frame::data(noise(2 << 20, 9).into()))))
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    let disk = std::sync::Arc::new(disk);
    let scene = Scene::open(disk.path(), limits()).await;
    scene.make_bucket().await;
    let kept = noise(1 << 20, 1);
    scene.put("kept", kept.clone()).await.ok();
    scene.put("small", "old").await.ok();
    // More than there is room for is refused before it is taken in.
    scene.put("kept", noise(40 << 20, 2)).await.fails(507, "InsufficientStorage");
    // Somebody else takes the room while a body arrives.
    let filling = std::sync::Arc::clone(&disk);
    let body = Body::new(TwoPieces { left: 2, between: move || filling.fill() });
    let mut request = Scene::request("PUT", &format!("/{BUCKET}/kept"), &[], &[], body);
    request.headers_mut().insert("content-length", (4 << 20).to_string().parse().unwrap());
    answered(scene.raw(request).await).await.fails(507, "InsufficientStorage");
    // Objects in the database need room too; what is there can be read.
    disk.fill();
    for n in 0..200 {
        let answer = scene.put(&format!("new/{n}"), noise(8000, n)).await;
        if answer.status != 200 {
            answer.fails(507, "InsufficientStorage");
            break;
        }
        assert!(n < 199, "a full disk takes no more");
    }
    assert!(scene.get("kept").await.ok().body == kept);
    assert_eq!(scene.get("small").await.text(), "old");
    // With room again everything goes on, and nothing is damaged.
    disk.empty();
    eventually("what did not fit is gone", || files(disk.path()).len() == 1).await;
    scene.put("small", "new").await.ok();
    scene.put("kept", noise(2 << 20, 3)).await.ok();
    scene.store().close().await;
    let scene = Scene::open(disk.path(), limits()).await;
    assert!(scene.get("kept").await.ok().body == noise(2 << 20, 3));
    assert_eq!(scene.get("small").await.text(), "new");
    assert_eq!(scene.store().scrub().await.unwrap(), 0);
    scene.store().close().await;
}
