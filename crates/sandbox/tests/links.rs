//! Links of instances on the host, where somebody keeps links of ended ones alive.

use mayfly_sandbox::net::{NetOptions, Network};
use std::process::{Child, Command, Stdio};

/// A process in a network namespace of its own; gone when dropped.
struct Inside(Child);

impl Inside {
    fn start() -> Self {
        // `unshare` becomes `cat`, which ends with its input: no process stays behind whatever happens to this one.
        let child = Command::new("unshare").args(["-n", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let inside = Self(child.expect("`unshare` runs"));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let begun = std::time::Instant::now();
        while std::fs::read_link(format!("/proc/{}/ns/net", inside.0.id())).unwrap() == own {
            assert!(begun.elapsed().as_secs() < 10, "it gets its namespace");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn links_that_somebody_keeps_alive_do_not_use_the_addresses_up() {
    // SAFETY: takes no arguments.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("CI").is_none(), "sandbox tests need root, and CI has it");
        eprintln!("SKIPPED: sandbox tests need root");
        return;
    }
    let id = format!("{:06x}", std::process::id() & 0xff_ffff);
    let locks = std::env::temp_dir().join("mayfly-test-locks");
    let options = NetOptions { pool: "10.213.0.0/16".into(), allow: vec![], build_allow: vec![] };
    let mut network = Network::start(&id, &options, &locks).unwrap();
    // As if a template held the namespaces of the first twenty ended instances.
    let stale = 20;
    for n in 0..stale {
        let (name, peer) = (format!("mf{id}{n:x}"), format!("mp{id}{n:x}"));
        let made = Command::new("ip").args(["link", "add", &name, "type", "veth", "peer", "name", &peer]).status();
        assert!(made.unwrap().success());
    }
    let count = || {
        let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        links.filter(|l| l.file_name().to_string_lossy().starts_with(&format!("mf{id}"))).count()
    };
    let inside = Inside::start();
    let (index, endpoint) = network.link(inside.0.id() as i32).unwrap();
    assert_eq!(index, 16, "some are passed over, then one is replaced");
    assert_eq!(u32::from(endpoint.address), u32::from(endpoint.gateway) + 1);
    assert_eq!(count(), stale);
    let more = Inside::start();
    let (next, _) = network.link(more.0.id() as i32).unwrap();
    assert_ne!(next, index);
    drop((inside, more));
    mayfly_sandbox::net::sweep(&id);
    assert_eq!(count(), 0);
    network.stop();
}

#[test]
fn what_only_builds_may_reach_goes_with_the_link_and_is_taken_back() {
    // SAFETY: takes no arguments.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("CI").is_none(), "sandbox tests need root, and CI has it");
        eprintln!("SKIPPED: sandbox tests need root");
        return;
    }
    let id = format!("{:06x}", (std::process::id() & 0xff_ffff) ^ 0x80_0000);
    let locks = std::env::temp_dir().join("mayfly-test-locks");
    let build_allow = vec!["10.99.1.0/24".to_owned()];
    let options = NetOptions { pool: "10.213.0.0/16".into(), allow: vec![], build_allow };
    let mut network = Network::start(&id, &options, &locks).unwrap();
    let table = format!("mayfly_{id}");
    let listed = |what: &[&str]| {
        let output = Command::new("nft").args(["list"]).args(what).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (builder, function) = (Inside::start(), Inside::start());
    let (index, endpoint) = network.link(builder.0.id() as i32).unwrap();
    let (_, other) = network.link(function.0.id() as i32).unwrap();
    network.open_to_builds(index).unwrap();
    let set = listed(&["set", "inet", &table, "builders"]);
    assert!(set.contains(&endpoint.address.to_string()) && !set.contains(&other.address.to_string()), "{set}");
    // The exception stands behind the rules that keep instances apart, and before the ones that close private ranges.
    let out = listed(&["chain", "inet", &table, "out"]);
    let at = |text: &str| out.find(text).unwrap_or_else(|| panic!("no `{text}` in {out}"));
    assert!(at("oifname \"mf*\" drop") < at("@builders") && at("@builders") < at("127.0.0.0/8"), "{out}");
    network.release(index);
    let set = listed(&["set", "inet", &table, "builders"]);
    assert!(!set.contains("elements"), "the next instance with this address must not have it: {set}");
    drop((builder, function));
    mayfly_sandbox::net::sweep(&id);
    network.stop();
}
