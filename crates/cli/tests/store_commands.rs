//! `mayfly objects`, `mayfly queue` and `mayfly topic` against a whole platform, and bodies that wait to be asked for.

use mayfly_sign::{CosToSign, sign_cos};
use mayfly_testkit::{Platform, SECRET_ID, SECRET_KEY, Setup, can_sandbox};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn queues(p: &Platform) -> &str {
    p.queues()
}

struct Cli<'a> {
    platform: &'a Platform,
    folder: &'a Path,
}

impl Cli<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command
            .args(arguments)
            .current_dir(self.folder)
            .env("MAYFLY_ENDPOINT", format!("http://{}", self.platform.address))
            .env("MAYFLY_OBJECTS_ENDPOINT", format!("http://{}", self.platform.objects))
            .env("MAYFLY_QUEUES_ENDPOINT", format!("http://{}", queues(self.platform)))
            .env("MAYFLY_SECRET_ID", SECRET_ID)
            .env("MAYFLY_SECRET_KEY", SECRET_KEY)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str], input: Option<&[u8]>) -> Output {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        if let Some(input) = input {
            child.stdin.take().unwrap().write_all(input).unwrap();
        }
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Vec<u8> {
        self.ok_with(arguments, None)
    }

    #[track_caller]
    fn ok_with(&self, arguments: &[&str], input: Option<&[u8]>) -> Vec<u8> {
        let done = self.run(arguments, input);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.ok(arguments)).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, text: &str) {
        let done = self.run(arguments, None);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(text) && error.contains("hint: "), "{arguments:?}: {error}");
    }
}

#[test]
fn objects_go_in_and_out_by_the_command_line() {
    if !can_sandbox() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    let cli = Cli { platform: &p, folder: folder.path() };
    let bucket = "files-1250000000";
    cli.fails(&["objects", "ls", bucket], 2, "NoSuchBucket");
    cli.ok(&["objects", "buckets", "mb", bucket]);
    assert!(cli.text(&["objects", "buckets", "ls"]).contains(bucket));
    assert_eq!(cli.json(&["objects", "buckets", "ls"])[0]["Name"], bucket);

    // A small file, a name that needs to be encoded, and one that takes parts.
    std::fs::write(folder.path().join("a b+ü.txt"), "hello").unwrap();
    let big: Vec<u8> = (0..40_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    std::fs::write(folder.path().join("big.bin"), &big).unwrap();
    cli.ok(&["objects", "put", "a b+ü.txt", &format!("{bucket}/in/"), "--meta", "who=me"]);
    let put = cli.json(&["objects", "put", "big.bin", &format!("{bucket}/in/big")]);
    assert_eq!(put["Size"], 40_000_000);
    assert!(put["ETag"].as_str().unwrap().ends_with("-3"), "{put}");
    cli.ok_with(&["objects", "put", "-", &format!("{bucket}/stdin")], Some(&big));
    cli.fails(&["objects", "put", "-", &format!("{bucket}/in/")], 1, "names no object");
    cli.fails(&["objects", "put", ".", &format!("{bucket}/x")], 1, "is a folder");
    cli.fails(&["objects", "put", "big.bin", &format!("{bucket}/in/big"), "--no-overwrite"], 2, "PreconditionFailed");
    let listed = cli.json(&["objects", "ls", bucket]);
    assert_eq!(listed["Prefixes"], serde_json::json!(["in/"]));
    assert_eq!(listed["Objects"][0]["Key"], "stdin");
    assert_eq!(cli.json(&["objects", "ls", &format!("{bucket}/in/"), "-r"])["Objects"].as_array().unwrap().len(), 2);

    assert_eq!(cli.ok(&["objects", "get", &format!("{bucket}/in/a b+ü.txt"), "-"]), b"hello");
    for key in ["in/big", "stdin"] {
        cli.ok(&["objects", "get", &format!("{bucket}/{key}"), "back"]);
        assert!(std::fs::read(folder.path().join("back")).unwrap() == big, "{key}");
    }
    cli.fails(&["objects", "get", &format!("{bucket}/none"), "back"], 2, "NoSuchKey");
    assert!(std::fs::read(folder.path().join("back")).unwrap() == big, "what failed left what was there");
    cli.ok(&["objects", "cp", &format!("{bucket}/in/a b+ü.txt"), &format!("{bucket}/out/")]);
    let url = cli.text(&["objects", "presign", &format!("{bucket}/out/a b+ü.txt"), "--expires", "5m"]);
    let opened = ureq::get(url.trim()).call().unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(opened, "hello");
    let wrong = url.trim().replace("/out/", "/in/");
    assert!(ureq::get(wrong).call().is_err(), "a URL opens one object");

    // Versions.
    assert_eq!(cli.text(&["objects", "buckets", "versions", bucket]).trim(), "off");
    cli.ok(&["objects", "buckets", "versions", bucket, "on"]);
    cli.ok_with(&["objects", "put", "-", &format!("{bucket}/out/v")], Some(b"one"));
    cli.ok_with(&["objects", "put", "-", &format!("{bucket}/out/v")], Some(b"two"));
    cli.ok(&["objects", "rm", &format!("{bucket}/out/v")]);
    cli.fails(&["objects", "get", &format!("{bucket}/out/v"), "-"], 2, "NoSuchKey");
    let versions = cli.json(&["objects", "ls", "--versions", &format!("{bucket}/out/v")])["Objects"].clone();
    let versions = versions.as_array().unwrap();
    assert_eq!(versions.iter().filter(|v| v["DeleteMarker"] == true).count(), 1, "{versions:?}");
    let of = |v: &Value| {
        let id = v["VersionId"].as_str().unwrap().to_owned();
        cli.text(&["objects", "get", &format!("{bucket}/out/v"), "-", "--version", &id])
    };
    let mut bodies: Vec<String> = versions.iter().filter(|v| v["DeleteMarker"] == false).map(of).collect();
    bodies.sort();
    assert_eq!(bodies, ["one", "two"]);

    cli.fails(&["objects", "buckets", "rb", bucket], 2, "BucketNotEmpty");
    cli.fails(&["objects", "rm", "-r", &format!("{bucket}/")], 1, "no terminal");
    cli.ok(&["objects", "rm", "-r", "--versions", "-y", &format!("{bucket}/")]);
    cli.ok(&["objects", "buckets", "rb", bucket]);
    let done = cli.command(&["objects", "buckets", "ls"]).env("MAYFLY_SECRET_KEY", "wrong").output().unwrap();
    assert!(String::from_utf8_lossy(&done.stderr).contains("SignatureDoesNotMatch"));
    cli.fails(&["objects", "buckets", "ls", "--objects-endpoint", "http://127.0.0.1:1"], 4, "no object store listens");
}

#[test]
fn messages_go_in_and_out_by_the_command_line() {
    if !can_sandbox() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    let cli = Cli { platform: &p, folder: folder.path() };
    cli.fails(&["queue", "send", "q", "text"], 2, "4440");
    cli.ok(&["queue", "create", "dead"]);
    cli.ok(&["queue", "create", "q", "--visibility", "600", "--dead-letter", "dead", "--receives", "5"]);
    assert_eq!(cli.text(&["queue", "ls"]), "dead\nq\n");
    cli.ok(&["queue", "send", "q", "first"]);
    cli.ok_with(&["queue", "send", "q", "-f", "-"], Some("second\nü & = @".as_bytes()));
    assert!(cli.text(&["queue", "show", "q"]).contains("dead"));
    assert_eq!(cli.text(&["queue", "receive", "q", "--delete"]), "first\n");
    let message = cli.json(&["queue", "receive", "q", "--wait", "5"])[0].clone();
    assert_eq!(message["msgBody"], "second\nü & = @");
    assert_eq!(cli.text(&["queue", "receive", "q"]), "", "it is hidden");
    cli.ok(&["queue", "delete", "q", message["receiptHandle"].as_str().unwrap()]);
    cli.fails(&["queue", "delete", "q", message["receiptHandle"].as_str().unwrap()], 2, "60");
    for n in 0..20 {
        cli.ok(&["queue", "send", "q", &n.to_string()]);
    }
    assert_eq!(cli.json(&["queue", "receive", "q", "--max", "16", "--delete"]).as_array().unwrap().len(), 16);
    cli.fails(&["queue", "purge", "q"], 1, "no terminal");
    cli.ok(&["queue", "purge", "q", "--yes"]);
    assert_eq!(cli.json(&["queue", "show", "q"])["activeMsgNum"], 0);

    cli.fails(&["topic", "publish", "t", "text"], 2, "mayfly topic create");
    cli.ok(&["topic", "create", "t"]);
    cli.fails(&["topic", "publish", "t", "text"], 2, "6030");
    cli.ok(&["topic", "subscribe", "t", "to-q", "--queue", "q", "--tag", "red", "--tag", "blue"]);
    cli.ok(&["topic", "publish", "t", "tagged", "--tag", "blue"]);
    assert_eq!(cli.text(&["queue", "receive", "q", "--delete", "--wait", "5"]), "tagged\n");
    assert!(cli.text(&["topic", "subscriptions", "t"]).contains("to-q"));
    assert_eq!(cli.text(&["topic", "ls"]), "t\n");
    cli.ok(&["topic", "unsubscribe", "t", "to-q"]);
    cli.ok(&["topic", "rm", "t", "-y"]);
    cli.ok(&["queue", "rm", "q", "-y"]);
    cli.ok(&["queue", "rm", "dead", "-y"]);
    assert_eq!(cli.text(&["queue", "ls"]), "");
    cli.fails(&["queue", "ls", "--queues-endpoint", "http://127.0.0.1:1"], 4, "no queues are at");
}

/// Sends a head that asks whether its body is wanted, and returns the first line of the answer, with the rest of the connection.
fn expecting(p: &Platform, path: &str, secret: &str, length: usize) -> (String, BufReader<TcpStream>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let host = p.objects.as_str();
    let authorization = sign_cos(&CosToSign {
        secret_id: SECRET_ID,
        secret_key: secret,
        span_s: (now - 60, now + 600),
        method: "PUT",
        path,
        params: &[],
        headers: &[("host", host)],
    });
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (line, reader)
}

#[test]
fn bodies_are_asked_for_only_where_they_are_wanted() {
    if !can_sandbox() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    let cli = Cli { platform: &p, folder: folder.path() };
    cli.ok(&["objects", "buckets", "mb", "b-1250000000"]);
    let body = vec![b'x'; 3 << 20];
    let (line, mut reader) = expecting(&p, "/b-1250000000/k", SECRET_KEY, body.len());
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    reader.get_mut().write_all(&body).unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(cli.ok(&["objects", "get", "b-1250000000/k", "-"]), body);
    // What is refused is refused before its body is sent.
    for (path, secret, status) in [("/b-1250000000/k", "wrong", 403), ("/none-1250000000/k", SECRET_KEY, 404)] {
        let (line, _) = expecting(&p, path, secret, body.len());
        assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{line}");
    }
    let (line, _) = expecting(&p, "/b-1250000000/k", SECRET_KEY, 6 << 30);
    assert!(line.starts_with("HTTP/1.1 400"), "more than a body may have: {line}");
}
