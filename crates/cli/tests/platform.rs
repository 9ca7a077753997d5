//! Whole platforms in processes of their own: what functions may rely on, what hostile ones cannot do, and what survives `kill -9`.

use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn platform() -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).start()
}

fn python(platform: &Platform, name: &str, code: &str, more: Value) {
    platform.create(name, "Python3.9", "index.main_handler", &[("index.py", code)], more);
}

/// Groups of this platform's instances that still exist.
fn groups(platform: &Platform) -> usize {
    let id = platform_id(platform);
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .iter()
        .filter_map(|root| std::fs::read_dir(format!("{root}/mayfly-{id}")).ok())
        .flat_map(|dir| dir.flatten().filter(|e| e.path().is_dir()))
        .count()
}

fn links(id: &str) -> usize {
    let prefix = format!("mf{id}");
    let all = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    all.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).count()
}

/// The six characters in the names of its groups and links.
fn platform_id(platform: &Platform) -> String {
    let pid = platform.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let spawner = children.split_whitespace().next().expect("the spawner is the platform's child");
    let mounts = std::fs::read_to_string(format!("/proc/{spawner}/mounts")).unwrap_or_default();
    assert!(mounts.contains("/run/root"), "the spawner has built its root");
    // The name is in the path of any instance's group: ask the processes.
    for root in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix("mayfly-") else { continue };
            if procs_below(&entry.path()).iter().any(|p| descends_from(*p, pid)) {
                return id.to_owned();
            }
        }
    }
    panic!("no group of this platform has a process in it");
}

fn procs_below(dir: &std::path::Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    found
}

fn descends_from(mut pid: i32, ancestor: i32) -> bool {
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
    }
    false
}

#[test]
fn runtimes_keep_their_contract() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let code = "import os, sys, time\nMARK = os.urandom(8).hex()\ndef main_handler(e, c):\n    do = e['do']\n    if do == 'throw': raise ValueError('on purpose')\n    if do == 'exit': os._exit(3)\n    if do == 'hang': time.sleep(60)\n    if do == 'large': return 'x' * (6 * 1024 * 1024 + 1)\n    if do == 'odd': return object()\n    if do == 'print': print('seen', e['text'])\n    return {'event': e, 'mark': MARK, 'cwd': os.getcwd(), 'env': os.environ.get('MY_VALUE'), 'name': c['function_name']}\n";
    python(
        &p,
        "py",
        code,
        json!({ "Timeout": 2, "Environment": { "Variables": [{ "Key": "MY_VALUE", "Value": "42" }] } }),
    );
    let good = p.invoke("py", &json!({ "do": "print", "text": "héllo" }));
    assert_eq!(good.status(), 200, "{:?}", good.result);
    assert_eq!(good.value()["cwd"], "/var/user");
    assert_eq!(good.value()["env"], "42");
    for part in ["START RequestId", "Init Report", "seen héllo", "END RequestId", "Report RequestId"] {
        assert!(good.log().contains(part), "{part} in {}", good.log());
    }
    for (what, status) in [("throw", 430), ("odd", 430), ("large", 407), ("exit", 439), ("hang", 433)] {
        let bad = p.invoke("py", &json!({ "do": what }));
        assert_eq!(bad.status(), status, "{what}: {:?}", bad.result);
    }
    let thrown = p.invoke("py", &json!({ "do": "throw" })).value();
    let stack = thrown["stackTrace"].as_str().unwrap_or("");
    assert!(stack.contains("/var/user/index.py") && stack.contains("on purpose"), "{stack}");
    assert!(!stack.contains("shim"), "the platform's own frames stay out: {stack}");
    // Module-level code ran once, whatever happened to the instances since.
    assert_eq!(p.invoke("py", &json!({ "do": "" })).value()["mark"], good.value()["mark"]);

    python(&p, "missing", "def other(e, c): pass\n", json!({}));
    assert_eq!(p.invoke("missing", &json!(1)).status(), 437);
    python(&p, "broken", "import nonesuch\n", json!({}));
    assert_eq!(p.invoke("broken", &json!(1)).status(), 443);
    python(&p, "slow", "import time\ntime.sleep(30)\n", json!({ "InitTimeout": 1 }));
    assert_eq!(p.invoke("slow", &json!(1)).status(), 450);

    let node = "let n = 0; exports.main_handler = async (e, c) => { n++; if (e.do === 'reject') throw new RangeError('no'); console.log('line'); return { n, id: c.request_id }; };";
    p.create("js", "Nodejs18.15", "index.main_handler", &[("index.js", node)], json!({}));
    assert_eq!(p.invoke("js", &json!({})).value()["n"], 1);
    assert_eq!(p.invoke("js", &json!({ "do": "reject" })).status(), 430);
    let third = p.invoke("js", &json!({}));
    assert_eq!(third.value()["n"], 3, "state is kept, an exception ends nothing");
    assert!(third.log().contains("line"));
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn what_was_initialised_once_is_not_initialised_again() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let code = "import os, random, time, tempfile\nONCE = os.urandom(8).hex()\ndef main_handler(e, c):\n    open('/tmp/mine', 'x').close()\n    time.sleep(0.5)\n    return [ONCE, random.random(), os.urandom(4).hex(), next(tempfile._get_candidate_names())]\n";
    let marks = |name: &str, more: Value| -> Vec<Vec<String>> {
        python(&p, name, code, more);
        let answers: Vec<Value> = std::thread::scope(|s| {
            let calls: Vec<_> = (0..4).map(|_| s.spawn(|| p.invoke(name, &json!(1)).value())).collect();
            calls.into_iter().map(|c| c.join().unwrap()).collect()
        });
        (0..4).map(|i| answers.iter().map(|a| a[i].to_string()).collect()).collect()
    };
    let distinct = |values: &[String]| values.iter().collect::<std::collections::HashSet<_>>().len();
    let forked = marks("forked", json!({}));
    assert_eq!(distinct(&forked[0]), 1, "one initialisation for four instances: {forked:?}");
    for drawn in &forked[1..] {
        assert_eq!(distinct(drawn), 4, "randomness is renewed in each: {forked:?}");
    }
    let own = marks("own", json!({ "ForkMode": "off" }));
    assert_eq!(distinct(&own[0]), 4, "{own:?}");
    let threads = "import threading, time, os\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\ndef main_handler(e, c):\n    return 1\n";
    python(&p, "threads", threads, json!({}));
    let first = p.invoke("threads", &json!(1));
    assert_eq!(first.status(), 200);
    assert!(first.log().contains("instead of being forked: 2 threads"), "{}", first.log());
}

#[test]
fn hundreds_of_instances_come_from_one_template() {
    if !can_sandbox() {
        return;
    }
    const CALLS: usize = 250;
    let p = platform();
    let code =
        "import time, uuid\nONCE = uuid.uuid4().hex\ndef main_handler(e, c):\n    time.sleep(e)\n    return ONCE\n";
    python(&p, "many", code, json!({ "Timeout": 60 }));
    let answers: Vec<Value> = std::thread::scope(|s| {
        let calls: Vec<_> = (0..CALLS).map(|_| s.spawn(|| p.invoke("many", &json!(4)).value())).collect();
        calls.into_iter().map(|c| c.join().unwrap()).collect()
    });
    // What forks keep of the template is charged to its group: with a fixed limit it would have been killed on the way.
    assert!(answers.iter().all(|a| a.is_string() && *a == answers[0]), "{answers:?}");
}

/// Code that tries everything that must fail, and says what succeeded.
const ESCAPES: &str = r#"
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def try_call(name, *args):
    r = libc.syscall(*args)
    return None if r == -1 else f"{name} -> {r}"
def reach(host, port, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(0.3)
    try:
        s.connect((host, port))
        return f"reached {host}:{port}"
    except OSError:
        return None
    finally:
        s.close()
def opened(path, mode="rb"):
    try:
        with open(path, mode) as f:
            data = f.read(64) if "r" in mode else b"w"
        return f"opened {path}" if data else None
    except OSError:
        return None
def socket_of(*args):
    try:
        socket.socket(*args).close()
        return f"socket {args}"
    except OSError:
        return None
def main_handler(e, c):
    found = []
    add = lambda x: found.append(x) if x else None
    buf = ctypes.create_string_buffer(64)
    for name, args in {
        "ptrace": (101, 0, 1, 0, 0), "mount": (165, b"x", b"/tmp", b"tmpfs", 0, 0), "umount": (166, b"/tmp", 2), "unshare user": (272, 0x10000000),
        "unshare ns": (272, 0x20000), "setns": (308, 0, 0), "chroot": (161, b"/tmp"), "pivot_root": (155, b"/", b"/"), "bpf": (321, 0, buf, 64),
        "keyctl": (250, 0, 0), "add_key": (248, b"user", b"a", b"b", 1, -3), "io_uring": (425, 1, buf), "userfaultfd": (323, 0), "perf": (298, buf, 0, -1, -1, 0),
        "process_vm_readv": (310, 1, buf, 1, buf, 1, 0), "open_by_handle": (304, -100, buf, 0), "clone user": (56, 0x10000000, 0, 0, 0, 0),
        "setuid 0": (105, 0), "reboot": (169, 0, 0, 0, 0), "init_module": (175, buf, 64, b""), "swapon": (167, b"/tmp/x", 0), "mknod": (133, b"/tmp/dev", 0o60666, 0x0801),
        "sethostname": (170, b"evil", 4), "settimeofday": (164, buf, 0), "kexec": (246, 0, 0, 0, 0), "quotactl": (179, 0, 0, 0, 0), "kill init": (62, 1, 9) }.items():
        add(try_call(name, *args))
    for family, kind, proto in [(17, 3, 0), (40, 1, 0), (38, 5, 0), (16, 3, 12), (16, 3, 15), (15, 3, 2), (2, 3, 1), (29, 3, 1)]:
        add(socket_of(family, kind, proto))
    for path in ["/proc/1/environ", "/proc/1/mem", "/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/dev/vda", "/etc/shadow", e["secret"], "/proc/1/root/etc/shadow", "/sys/kernel/notes", "/run/mayfly"]:
        add(opened(path))
    for path in ["/var/user/x", "/opt/x", "/usr/x", "/etc/x", "/var/runtime/x", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/home/qcloud/x", "/x"]:
        add(opened(path, "wb"))
    for host, port in [("127.0.0.1", e["port"]), (e["gateway"], e["port"]), (e["host"], e["port"]), (e["gateway"], 22), ("169.254.169.254", 80), ("169.254.0.23", 80), ("192.168.0.1", 80)]:
        add(reach(host, port))
    others = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
    if others:
        found.append(f"processes {others}")
    status = open("/proc/self/status").read()
    for line in status.splitlines():
        if line.startswith(("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")) and int(line.split()[1], 16):
            found.append(line)
    if "NoNewPrivs:\t1" not in status or "Seccomp:\t2" not in status:
        found.append(status)
    os.symlink("/proc/1/root", "/tmp/link")
    add(opened("/tmp/link/etc/shadow"))
    return found
"#;

#[test]
fn no_way_out_of_the_sandbox() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let own = "import socket, struct\ndef main_handler(e, c):\n    for line in open('/proc/net/route').read().splitlines()[1:]:\n        f = line.split()\n        if f[1] == '00000000':\n            return socket.inet_ntoa(struct.pack('<I', int(f[2], 16)))\n";
    python(&p, "route", own, json!({}));
    let gateway = p.invoke("route", &json!(1)).value();
    assert!(gateway.is_string(), "an instance has a way out: {gateway}");
    let port: u16 = p.address.rsplit(':').next().unwrap().parse().unwrap();
    // An address of the host that is not its loopback, with somebody listening on it.
    let host =
        std::net::UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("198.51.100.1:9").and_then(|()| s.local_addr()));
    let host = host.map_or_else(|_| "127.0.0.2".to_owned(), |a| a.ip().to_string());
    let listener = std::net::TcpListener::bind((host.as_str(), 0)).unwrap();
    std::fs::write(p.data.join("secret"), "secret").unwrap();
    let event = json!({
        "port": port, "gateway": gateway, "host": host, "secret": p.data.join("secret"), "listener": listener.local_addr().unwrap().port()
    });
    for (name, more) in
        [("escape", json!({ "Timeout": 30 })), ("escape-unforked", json!({ "Timeout": 30, "ForkMode": "off" }))]
    {
        python(&p, name, ESCAPES, more);
        let answer = p.invoke(name, &event);
        assert_eq!(answer.status(), 200, "{:?}", answer.result);
        assert_eq!(answer.value(), json!([]), "{name} found something");
    }
    // Where the operator of the function says so, there is no way out at all.
    python(
        &p,
        "closed",
        "import socket\ndef main_handler(e, c):\n    s = socket.socket()\n    s.settimeout(0.3)\n    try:\n        s.connect(('198.51.100.1', 80))\n        return 'connected'\n    except OSError as error:\n        return error.errno in (100, 101)\n",
        json!({ "PublicNetConfig": { "PublicNetStatus": "DISABLE", "EipConfig": { "EipStatus": "DISABLE" } } }),
    );
    assert_eq!(p.invoke("closed", &json!(1)).value(), json!(true), "network is unreachable");
}

#[test]
fn neighbours_cannot_reach_each_other() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let listen = "import socket, time\ndef main_handler(e, c):\n    s = socket.socket(); s.bind(('0.0.0.0', 7777)); s.listen(); s.settimeout(e)\n    try:\n        s.accept()\n        return 'reached'\n    except OSError:\n        return 'quiet'\n";
    python(&p, "victim", listen, json!({ "Timeout": 20 }));
    let scan = "import socket\ndef main_handler(e, c):\n    own = None\n    for line in open('/proc/net/fib_trie').read().splitlines():\n        part = line.split()\n        if len(part) == 2 and part[0] == '|--' and part[1].startswith('10.213.'):\n            own = part[1]\n    base, found = own.rsplit('.', 2)[0], []\n    third = int(own.split('.')[2])\n    for last in range(1, 64):\n        host = f'{base}.{third}.{last}'\n        if host == own: continue\n        s = socket.socket(); s.settimeout(0.05)\n        try:\n            s.connect((host, 7777)); found.append(host)\n        except OSError: pass\n        finally: s.close()\n    return found\n";
    python(&p, "scanner", scan, json!({ "Timeout": 30 }));
    std::thread::scope(|s| {
        let victim = s.spawn(|| p.invoke("victim", &json!(6)).value());
        eventually("the victim listens", || {
            p.get("/metrics").1.lines().any(|l| l.starts_with("mayfly_concurrency") && l.ends_with(" 1"))
        });
        assert_eq!(p.invoke("scanner", &json!(1)).value(), json!([]));
        assert_eq!(victim.join().unwrap(), json!("quiet"));
    });
}

#[test]
fn attacks_on_resources_hurt_only_themselves() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    python(&p, "neighbour", "def main_handler(e, c):\n    return e\n", json!({}));
    p.invoke("neighbour", &json!(1));
    let before_groups = groups(&p);
    let latency = |during: &str, calls: usize| {
        let mut times: Vec<Duration> = (0..calls)
            .map(|n| {
                let begun = Instant::now();
                let answer = p.invoke("neighbour", &json!(n));
                assert_eq!(answer.status(), 200, "the neighbour fails during {during}: {:?}", answer.result);
                begun.elapsed()
            })
            .collect();
        times.sort();
        println!("neighbour {during}: p50 {:.2?}, p99 {:.2?}", times[calls / 2], times[calls * 99 / 100]);
    };
    latency("before", 50);
    let attacks: [(&str, &str, &[u64]); 7] = [
        (
            "fork-bomb",
            "import os, time\ndef main_handler(e, c):\n    n = 0\n    end = time.time() + 2\n    while time.time() < end:\n        try:\n            if os.fork() == 0:\n                while True: pass\n            n += 1\n        except OSError:\n            break\n    return n\n",
            &[200, 433, 434, 439],
        ),
        ("memory-hog", "def main_handler(e, c):\n    x = []\n    while True: x.append(bytearray(1 << 20))\n", &[434]),
        (
            "disk-filler",
            "import errno\ndef main_handler(e, c):\n    try:\n        with open('/tmp/full', 'wb') as f:\n            while True: f.write(b'x' * (1 << 20))\n    except OSError as error:\n        return error.errno == errno.ENOSPC\n",
            &[200, 434],
        ),
        (
            "inode-filler",
            "import errno\ndef main_handler(e, c):\n    try:\n        n = 0\n        while True:\n            open(f'/tmp/{n}', 'w').close(); n += 1\n    except OSError as error:\n        return error.errno == errno.ENOSPC\n",
            &[200, 434],
        ),
        (
            "output-flood",
            "import os\ndef main_handler(e, c):\n    line = b'x' * 65536\n    for _ in range(2000): os.write(1, line)\n    return 'done'\n",
            &[200, 433],
        ),
        (
            "spinner",
            "import signal\ndef main_handler(e, c):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    while True: pass\n",
            &[433],
        ),
        (
            "daemon",
            "import os, time\ndef main_handler(e, c):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(1000)\n        os._exit(0)\n    os._exit(1)\n",
            &[433, 439],
        ),
    ];
    for (name, code, expected) in attacks {
        python(&p, name, code, json!({ "Timeout": 3 }));
        std::thread::scope(|s| {
            let attack = s.spawn(|| p.invoke(name, &json!(1)));
            latency(name, 50);
            let ended = attack.join().unwrap();
            assert!(expected.contains(&ended.status()), "{name}: {:?}", ended.result);
            assert!(ended.log().len() <= 4096, "the Tail log is bounded");
        });
        p.must("DeleteFunction", json!({ "FunctionName": name }));
    }
    latency("after", 50);
    // The stock (four Python sandboxes with a spare each, two of Node.js, two for custom runtimes) and the neighbour's three are
    // what there can be; it may have been smaller when the test began.
    let full = 4 * 2 + 2 + 2 + 3;
    assert!(before_groups <= full);
    eventually("nothing is left of the attackers", || groups(&p) <= full);
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn lies_to_the_platform_end_only_the_liar() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let code = "import os, struct\ndef main_handler(e, c):\n    if e == 'garbage': os.write(3, b'\\xff' * 64)\n    if e == 'huge': os.write(3, struct.pack('<IB3x', 0xfffffff0, 0x84))\n    if e == 'close': os.close(3)\n    if e == 'hello': os.write(3, struct.pack('<IB3x', 2, 0x81) + b'{}')\n    import time; time.sleep(1)\n    return e\n";
    python(&p, "liar", code, json!({ "Timeout": 5 }));
    for lie in ["garbage", "huge", "close", "hello"] {
        let status = p.invoke("liar", &json!(lie)).status();
        assert_eq!(status, 439, "{lie}");
    }
    assert_eq!(p.invoke("liar", &json!("truth")).value(), json!("truth"));
    // A template that takes the messages meant for its forker: it harms its own version's starts and nothing else.
    let hijack = "import os, threading\ndef main_handler(e, c):\n    return 1\ntry:\n    os.close(4)\nexcept OSError:\n    pass\n";
    python(&p, "hijack", hijack, json!({ "Timeout": 5, "InitTimeout": 5 }));
    let status = p.invoke("hijack", &json!(1)).status();
    assert!([200, 439, 445, 450, 500].contains(&status), "{status}");
    assert_eq!(p.invoke("liar", &json!("truth")).value(), json!("truth"));
}

#[test]
fn kill_nine_loses_nothing_that_was_acknowledged() {
    if !can_sandbox() {
        return;
    }
    const ROUNDS: usize = 20;
    let data = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut deleted: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).start();
        let listed = p.must("ListFunctions", json!({ "Limit": 100 }));
        let names: Vec<&str> =
            listed["Functions"].as_array().unwrap().iter().filter_map(|f| f["FunctionName"].as_str()).collect();
        for name in &acknowledged {
            assert!(names.contains(&name.as_str()), "round {round}: {name} was acknowledged and is gone");
        }
        for name in &deleted {
            assert!(!names.contains(&name.as_str()), "round {round}: {name} was deleted and is back");
        }
        for name in &names {
            let shown = p.must("GetFunction", json!({ "FunctionName": name }));
            assert_eq!(shown["Status"], "Active", "round {round}: half a function");
        }
        if let Some(name) = names.last() {
            assert_eq!(p.invoke(name, &json!(round)).value(), json!(round), "{name} runs after the kill");
        }
        let client = p.client.clone();
        let (done, worked) = std::sync::mpsc::channel();
        let worker = std::thread::spawn(move || {
            for n in 0.. {
                let name = format!("f-{round}-{n}");
                let zip = mayfly_testkit::zip_base64(&[("index.py", "def main_handler(e, c):\n    return e\n")]);
                let request = json!({ "FunctionName": name, "Runtime": "Python3.9", "Handler": "index.main_handler", "Code": { "ZipFile": zip } });
                let made = std::panic::catch_unwind(|| client.call("CreateFunction", &request));
                match made {
                    Ok(answer) if answer.get("Error").is_none() => drop(done.send((name, false))),
                    _ => return,
                }
                if n % 3 == 2 {
                    let name = format!("f-{round}-{}", n - 1);
                    let request = json!({ "FunctionName": name });
                    match std::panic::catch_unwind(|| client.call("DeleteFunction", &request)) {
                        Ok(answer) if answer.get("Error").is_none() => drop(done.send((name, true))),
                        // The answer was lost: the deletion may have happened or not.
                        _ => drop(done.send((name, true))),
                    }
                }
            }
        });
        let mut seen = 0;
        let stop_after = 2 + round % 4;
        let mut unsure = None;
        while seen < stop_after {
            let Ok((name, gone)) = worked.recv_timeout(Duration::from_secs(10)) else { break };
            seen += 1;
            if gone {
                acknowledged.retain(|n| *n != name);
                deleted.push(name);
            } else {
                acknowledged.push(name);
            }
        }
        p.kill();
        worker.join().unwrap();
        for (name, gone) in worked.try_iter() {
            if gone {
                acknowledged.retain(|n| *n != name);
                // Sent while the platform died: nobody was told.
                unsure = Some(name);
            } else {
                acknowledged.push(name);
            }
        }
        deleted.retain(|n| Some(n) != unsure.as_ref());
        // A hundred are listed at once; old ones make room.
        if acknowledged.len() > 60 {
            let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).start();
            for name in acknowledged.drain(..) {
                p.must("DeleteFunction", json!({ "FunctionName": name }));
            }
            p.stop();
        }
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).start();
    let id = {
        python(&p, "last", "def main_handler(e, c):\n    return e\n", json!({}));
        p.invoke("last", &json!(1));
        platform_id(&p)
    };
    let pid = p.pid();
    let tree: Vec<i32> = procs_of(pid);
    assert!(tree.len() > 2);
    p.kill();
    eventually("every process of a killed platform ends", || tree.iter().all(|p| !alive(*p)));
    eventually("its links go", || links(&id) == 0);
    eventually("its groups go", || !std::path::Path::new(&format!("/sys/fs/cgroup/pids/mayfly-{id}")).exists());
}

fn alive(pid: i32) -> bool {
    // A zombie has ended; it is gone once its parent looks.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

fn procs_of(pid: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(|p| *p != pid && descends_from(*p, pid)).collect()
}

#[test]
fn accepted_events_survive_a_kill_and_a_stop_lets_work_finish() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let start = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).start();
    let p = start();
    python(
        &p,
        "slow",
        "import time\ndef main_handler(e, c):\n    time.sleep(e)\n    return 'done'\n",
        json!({ "Timeout": 20 }),
    );
    let ids: Vec<String> = (0..10)
        .map(|_| {
            let request = json!({ "FunctionName": "slow", "InvocationType": "Event", "ClientContext": "1.5" });
            p.must("Invoke", request)["Result"]["FunctionRequestId"].as_str().unwrap().to_owned()
        })
        .collect();
    p.kill();
    let p = start();
    for id in &ids {
        eventually("the event runs after the restart", || {
            let status = p.call("GetRequestStatus", &json!({ "FunctionName": "slow", "FunctionRequestId": id }));
            status["Data"][0]["RetCode"] == 0
        });
    }
    let client = p.client.clone();
    let running = std::thread::spawn(move || client.invoke("slow", &json!(1.5)).value());
    eventually("it runs", || {
        p.get("/metrics").1.lines().any(|l| l.starts_with("mayfly_concurrency") && l.ends_with(" 1"))
    });
    assert_eq!(p.stop(), Some(0));
    assert_eq!(running.join().unwrap(), json!("done"), "a stop lets running work finish");
}

#[test]
fn the_platform_says_so_when_its_spawner_dies() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    python(&p, "hello", "def main_handler(e, c):\n    return e\n", json!({}));
    assert_eq!(p.invoke("hello", &json!(1)).status(), 200);
    let pid = p.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let spawner: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: signals the child of a platform that this test started.
    unsafe { libc::kill(spawner, libc::SIGKILL) };
    eventually("the platform ends", || !alive(pid));
    assert_eq!(p.stop(), Some(1), "with an error");
}
