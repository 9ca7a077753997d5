//! The process backend against the machine it runs on: what a program in a sandbox sees, may do, and costs.
//!
//! Needs root. As somebody else the tests say loudly that they were skipped; where `CI` is set that is a failure.

use mayfly_sandbox::net::NetOptions;
use mayfly_sandbox::process::ProcessBackend;
use mayfly_sandbox::wire::{RuntimeConfig, SpawnerConfig, Start};
use mayfly_sandbox::{Backend, Binding, Instance, Mount};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn may_run() -> bool {
    // SAFETY: takes no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(std::env::var_os("CI").is_none(), "sandbox tests need root, and CI has it");
        eprintln!("SKIPPED: sandbox tests need root");
    }
    root
}

struct Platform {
    backend: ProcessBackend,
    dir: tempfile::TempDir,
    id: String,
}

async fn platform() -> Platform {
    let dir = tempfile::tempdir().unwrap();
    // A name of this directory alone, as every platform on a machine needs one.
    let id: String = dir
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .bytes()
        .filter(u8::is_ascii_alphanumeric)
        .rev()
        .take(6)
        .map(|b| char::from(b).to_ascii_lowercase())
        .collect();
    std::fs::create_dir(dir.path().join("runtimes")).unwrap();
    let config = SpawnerConfig {
        id: id.clone(),
        run_dir: dir.path().join("run"),
        lock_dir: std::env::temp_dir().join("mayfly-test-locks"),
        runtimes_dir: dir.path().join("runtimes"),
        runtimes: vec![RuntimeConfig { id: "custom".into(), start: Start::Bootstrap, zygote: vec![], command: vec![] }],
        network: Some(NetOptions { pool: "10.213.0.0/16".into(), allow: vec![], build_allow: vec![] }),
    };
    let backend = ProcessBackend::start(Command::new(env!("CARGO_BIN_EXE_mayfly-spawner")), config).await.unwrap();
    assert_eq!(backend.started().network_error, None);
    Platform { backend, dir, id }
}

impl Platform {
    /// A package with one executable script named `bootstrap`.
    fn package(&self, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.join("bootstrap"), script).unwrap();
        std::fs::set_permissions(dir.join("bootstrap"), std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    async fn bound(&self, code: &Path, egress: bool) -> Box<dyn Instance> {
        let instance = self.backend.prepare("custom").await.unwrap();
        let mounts = vec![Mount { sources: vec![code.to_owned()], target: "/var/user".into() }];
        instance.bind(Binding { mounts, memory_mb: 128, egress, inside: false }).await.unwrap();
        instance
    }

    /// Runs a script in a sandbox of its own and returns all it printed.
    async fn run(&self, script: &str) -> String {
        let code = self.package(script);
        let mut instance = self.bound(&code, true).await;
        let output = instance.take_output().unwrap();
        instance
            .launch(vec!["/var/user/bootstrap".into()], vec!["PATH=/usr/bin:/bin".into(), "X=y".into()])
            .await
            .unwrap();
        read_all(output).await
    }
}

async fn read_all(fd: OwnedFd) -> String {
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).map(|_| text)
    });
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("output ends in time").unwrap().unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_sees_its_own_small_world() {
    if !may_run() {
        return;
    }
    let p = platform().await;
    let text = p
        .run("#!/bin/sh\nid -u; pwd; echo $X; hostname | cut -c1-3; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
              ls /proc | grep -cE '^[0-9]+$'; ls /sys | wc -l; ls /home; touch /var/user/x 2>&1; touch /etc/x 2>&1; touch /tmp/ok && echo tmp; \
              cat /sys/class/net/*/address 2>&1 | head -1; ip -o addr 2>/dev/null | wc -l; mount -t tmpfs x /tmp 2>&1 | head -1; cat /proc/1/environ 2>&1 | head -c 60; echo end\n")
        .await;
    println!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..4], ["1000", "/var/user", "y", "fn-"]);
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
    assert!(text.contains("CapBnd:\t0000000000000000"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    assert!(text.contains("Seccomp:\t2"), "{text}");
    assert!(text.contains("touch: cannot touch '/var/user/x'"), "{text}");
    assert!(text.contains("touch: cannot touch '/etc/x'"), "{text}");
    assert!(text.contains("\ntmp\n"), "{text}");
    assert!(text.ends_with("end\n"), "{text}");
    p.backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_sandbox_that_is_dropped() {
    if !may_run() {
        return;
    }
    let p = platform().await;
    let code = p.package("#!/bin/sh\n(sleep 1000 &) ; trap '' TERM; sleep 1000\n");
    let instance = p.bound(&code, true).await;
    instance.launch(vec!["/var/user/bootstrap".into()], vec![]).await.unwrap();
    let id = p.id.clone();
    let groups = move || {
        ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
            .iter()
            .filter_map(|r| std::fs::read_dir(format!("{r}/mayfly-{id}")).ok())
            .flat_map(|d| d.flatten().filter(|e| e.path().is_dir()))
            .count()
    };
    let links = {
        let prefix = format!("mf{}", p.id);
        move || {
            std::fs::read_dir("/sys/class/net")
                .unwrap()
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
                .count()
        }
    };
    assert!(groups() > 0);
    assert_eq!(links(), 1);
    drop(instance);
    eventually("groups are removed", || groups() == 0).await;
    eventually("links are removed", || links() == 0).await;
    p.backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sandboxes_cost() {
    if !may_run() {
        return;
    }
    let p = platform().await;
    let code = p.package("#!/bin/sh\nexit 0\n");
    let mut prepare = Vec::new();
    let mut bind = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..20 {
        let t = Instant::now();
        let instance = p.backend.prepare("custom").await.unwrap();
        prepare.push(t.elapsed());
        let t = Instant::now();
        let mounts = vec![Mount { sources: vec![code.clone()], target: "/var/user".into() }];
        instance.bind(Binding { mounts, memory_mb: 128, egress: true, inside: false }).await.unwrap();
        bind.push(t.elapsed());
        kept.push(instance);
    }
    prepare.sort();
    bind.sort();
    println!("prepare p50 {:?}, bind p50 {:?}", prepare[10], bind[10]);
    p.backend.stop().await;
    assert!(p.backend.prepare("custom").await.is_err(), "a stopped backend makes nothing");
}
