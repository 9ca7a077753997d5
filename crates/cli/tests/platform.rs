//! Whole platforms in processes of their own: what functions may rely on, what hostile ones cannot do, and how the platform ends.

#[path = "support/host.rs"]
mod host;

use host::Host;
use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn platform() -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).start()
}

fn python(platform: &Platform, name: &str, code: &str, more: Value) {
    platform.create(name, "Python3.9", "index.main_handler", &[("index.py", code)], more);
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
fn a_dead_spawner_ends_the_platform_and_leaves_nothing() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let host = Host::of(&p);
    python(&p, "hello", "def main_handler(e, c):\n    return e\n", json!({}));
    assert_eq!(p.invoke("hello", &json!(1)).status(), 200);
    let all = host.processes();
    assert!(all.len() > 3 && host.tables() == 1, "there is something to leave");
    assert!(host.spawner().kill());
    assert_eq!(p.wait(), Some(1), "an error");
    assert_eq!((host.parents(), host.links(), host.tables()), (vec![], BTreeSet::new(), 0));
    eventually("its processes end", || all.iter().all(|process| !process.is_alive()));
}
