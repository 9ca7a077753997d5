//! The way of an install over a backend that runs nothing: what is laid out, what is believed, what is kept, and how it ends.

use async_trait::async_trait;
use bytes::Bytes;
use mayfly_build::{BuildError, Builder, Built, Job, Options, Progress};
use mayfly_model::RuntimeId;
use mayfly_sandbox::{Backend, Binding, Instance, SandboxError, Workspace};
use mayfly_store::blobs::digest_of;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What a fake has seen.
#[derive(Default)]
struct Seen {
    prepared: AtomicUsize,
    alive: AtomicUsize,
    laid_out: Mutex<Vec<Vec<String>>>,
    environment: Mutex<Vec<String>>,
}

/// Does what the first line of requirements.txt says.
#[derive(Clone, Default)]
struct Fake(Arc<Seen>);

struct FakeInstance {
    seen: Arc<Seen>,
    dir: tempfile::TempDir,
    code: Mutex<PathBuf>,
    output: Option<OwnedFd>,
    writer: Mutex<Option<File>>,
    ended: Arc<AtomicBool>,
    starved: AtomicBool,
}

#[async_trait]
impl Backend for Fake {
    async fn prepare(&self, runtime: &str) -> Result<Box<dyn Instance>, SandboxError> {
        assert_eq!(runtime, "custom", "nothing of ours may run where something is built");
        self.0.prepared.fetch_add(1, Ordering::SeqCst);
        self.0.alive.fetch_add(1, Ordering::SeqCst);
        let (reader, writer) = std::io::pipe().unwrap();
        Ok(Box::new(FakeInstance {
            seen: Arc::clone(&self.0),
            dir: tempfile::tempdir().unwrap(),
            code: Mutex::default(),
            output: Some(reader.into()),
            writer: Mutex::new(Some(OwnedFd::from(writer).into())),
            ended: Arc::default(),
            starved: AtomicBool::new(false),
        }))
    }

    async fn fork(&self, _: &dyn Instance) -> Result<Box<dyn Instance>, SandboxError> {
        Err(SandboxError::Stopped)
    }

    fn guarantees(&self) -> Vec<(String, Result<String, String>)> {
        Vec::new()
    }

    async fn stop(&self) {}
}

impl Drop for FakeInstance {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.seen.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Instance for FakeInstance {
    fn id(&self) -> u64 {
        1
    }

    async fn bind(&self, _: Binding) -> Result<(), SandboxError> {
        Err(SandboxError::Stopped)
    }

    async fn bind_workspace(&self, binding: Binding, workspace: Workspace) -> Result<OwnedFd, SandboxError> {
        assert_eq!((binding.memory_mb, workspace.disk_mb, binding.egress), (256, 128, true));
        let code = binding.mounts.iter().find(|m| m.target == "/var/user").expect("the package is shown");
        *self.code.lock() = code.sources[0].clone();
        Ok(File::open(self.dir.path()).unwrap().into())
    }

    async fn listen_inside(&self) -> Result<(std::net::TcpListener, std::net::UdpSocket), SandboxError> {
        Err(SandboxError::Stopped)
    }

    async fn launch(&self, argv: Vec<String>, environment: Vec<String>) -> Result<(), SandboxError> {
        let code = self.code.lock().clone();
        let mut names: Vec<String> =
            fs::read_dir(&code).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        self.seen.laid_out.lock().push(names);
        *self.seen.environment.lock() = environment;
        let text = fs::read_to_string(code.join("requirements.txt")).unwrap();
        let wanted = text.lines().next().unwrap_or_default().to_owned();
        self.starved.store(wanted == "starve", Ordering::SeqCst);
        let (out, end) = (self.dir.path().join("out"), argv[3].clone());
        let mut writer = self.writer.lock().take().expect("one program");
        let ended = Arc::clone(&self.ended);
        std::thread::spawn(move || {
            let _ = act(&wanted, &out, &end, &mut writer, &ended);
        });
        Ok(())
    }

    fn take_stream(&mut self) -> Option<OwnedFd> {
        None
    }

    fn take_output(&mut self) -> Option<OwnedFd> {
        self.output.take()
    }

    fn take_listener(&mut self) -> Option<OwnedFd> {
        None
    }

    async fn open_socket(&self) -> Result<OwnedFd, SandboxError> {
        Err(SandboxError::Stopped)
    }

    fn terminate(&self) {}

    fn kill(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn memory_peak_bytes(&self) -> u64 {
        0
    }

    fn ran_out_of_memory(&self) -> bool {
        self.starved.load(Ordering::SeqCst)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn act(wanted: &str, out: &Path, end: &str, writer: &mut File, ended: &AtomicBool) -> std::io::Result<()> {
    fs::create_dir_all(out.join("pkg"))?;
    fs::write(out.join("pkg/mod.py"), "made")?;
    writeln!(writer, "\x1b[31mfetching\x1b[0m {wanted}")?;
    match wanted {
        "silent" | "starve" => return Ok(()),
        "forged" => writeln!(writer, "0123 0")?,
        "fail" => {
            writeln!(writer, "no such thing\n{end} 7")?;
            return Ok(());
        }
        "clash" => {
            fs::write(out.join("a.py"), "x")?;
            fs::write(out.join("A.py"), "x")?;
        }
        "flood" => loop {
            writer.write_all(&[b'x'; 65536])?;
        },
        "hang" => {
            while !ended.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(());
        }
        _ => {}
    }
    writeln!(writer, "\n{end} 0")
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn line(&self, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

fn options(dir: &Path, time: Duration) -> Options {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    Options {
        dir: dir.to_owned(),
        memory_mb: 256,
        disk_mb: 128,
        time,
        concurrency: 2,
        cache_bytes: 1 << 20,
        config: None,
        environment: vec![pair("PIP_INDEX_URL", "https://example.com/simple"), pair("MAYFLY_SECRET_KEY", "secret")],
    }
}

fn job(requirements: &str, code: &str) -> Job {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [("index.py", code), ("requirements.txt", requirements)] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    let zip = Bytes::from(zip.finish().unwrap().into_inner());
    Job { digest: digest_of(&zip), zip, runtime: RuntimeId::Python, handler: "index.f".into(), service: false }
}

fn read(built: &Built, name: &str) -> String {
    let mut archive = zip::ZipArchive::new(Cursor::new(built.zip.as_ref().expect("a package"))).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn is_tidy(dir: &Path, fake: &Fake) -> bool {
    fs::read_dir(dir.join("work")).unwrap().count() == 0 && fake.0.alive.load(Ordering::SeqCst) == 0
}

#[tokio::test]
async fn what_was_installed_is_put_beside_the_code_and_kept() {
    if !Path::new("/usr/bin/python3").exists() {
        return;
    }
    let (dir, fake, heard) = (tempfile::tempdir().unwrap(), Fake::default(), Heard::default());
    let open = || Builder::open(Arc::new(fake.clone()), options(dir.path(), Duration::from_secs(60))).unwrap();
    let builder = open();
    let built = builder.build(job("six\n", "one"), &heard).await.unwrap();
    assert_eq!(
        (read(&built, "index.py"), read(&built, "pkg/mod.py"), built.cached),
        ("one".into(), "made".into(), false)
    );
    assert!(heard.0.lock().contains(&"fetching six".to_owned()), "{:?}", heard.0.lock());
    assert_eq!(fake.0.laid_out.lock()[..], [["requirements.txt"]], "the code does not matter, so it is not there");
    let environment = fake.0.environment.lock().join(" ");
    assert!(environment.contains("PIP_INDEX_URL=https") && !environment.contains("secret"), "{environment}");

    let again = builder.build(job("six\n", "two"), &heard).await.unwrap();
    assert_eq!((read(&again, "index.py"), again.cached), ("two".into(), true));
    // Of several at once for the same, one is run.
    let (a, b) = (job("other\n", "a"), job("other\n", "b"));
    let both = tokio::join!(builder.build(a, &heard), builder.build(b, &heard));
    assert_eq!([both.0.unwrap().cached, both.1.unwrap().cached].iter().filter(|c| **c).count(), 1);
    assert_eq!(fake.0.prepared.load(Ordering::SeqCst), 2);
    // What needs the package sees it.
    builder.build(job("ok\n./lib\n", "c"), &heard).await.unwrap();
    assert_eq!(fake.0.laid_out.lock()[2], ["index.py", "requirements.txt"]);
    assert!(is_tidy(dir.path(), &fake));
    fs::create_dir(dir.path().join("work/install-old")).unwrap();
    let reopened = open();
    assert!(is_tidy(dir.path(), &fake), "what a killed platform laid out goes at the next start");
    assert!(reopened.build(job("six\n", "three"), &heard).await.unwrap().cached);
}

#[tokio::test]
async fn every_bad_end_is_told_and_leaves_nothing() {
    if !Path::new("/usr/bin/python3").exists() {
        return;
    }
    let (dir, fake, heard) = (tempfile::tempdir().unwrap(), Fake::default(), Heard::default());
    let builder = Builder::open(Arc::new(fake.clone()), options(dir.path(), Duration::from_secs(60))).unwrap();
    for (wanted, why) in [
        ("fail", "the installer ended with 7.\nfetching fail\nno such thing"),
        ("silent", "before it was done"),
        ("flood", "printed more than 16 MB"),
        ("starve", "more than 384 MB"),
        ("clash", "cannot be used"),
    ] {
        match builder.build(job(&format!("{wanted}\n"), ""), &heard).await {
            Err(BuildError::Failed(said)) => assert!(said.contains(why), "{wanted}: {said}"),
            other => panic!("{wanted}: {other:?}"),
        }
        assert!(is_tidy(dir.path(), &fake), "{wanted}");
    }
    // A line that only looks like the end is a line.
    builder.build(job("forged\n", ""), &heard).await.unwrap();
    assert!(heard.0.lock().contains(&"0123 0".to_owned()));

    let hasty = Builder::open(Arc::new(fake.clone()), options(dir.path(), Duration::from_millis(200))).unwrap();
    match hasty.build(job("hang\n", ""), &heard).await {
        Err(BuildError::Failed(said)) => assert!(said.contains("took longer"), "{said}"),
        other => panic!("{other:?}"),
    }
    // Whoever goes away takes the install with him.
    let heard = Arc::new(Heard::default());
    let (worker, listener) = (builder.clone(), Arc::clone(&heard));
    let task = tokio::spawn(async move { worker.build(job("hang\n", ""), listener.as_ref()).await });
    while !heard.0.lock().contains(&"fetching hang".to_owned()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(is_tidy(dir.path(), &fake));
}
