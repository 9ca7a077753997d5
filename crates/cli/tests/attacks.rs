//! Hostile functions on whole platforms: what they try, that it stays in their sandbox, that nothing of it is left behind, and what a
//! neighbour feels meanwhile. `platform.rs` holds the plain list of refused calls, files and addresses; here are the elaborate ones.
//! Attacks on what is particular to this platform, its templates and its lines to runtimes, are in `attacks_within.rs`.

#[path = "support/host.rs"]
mod host;
#[path = "support/scene.rs"]
mod scene;

use host::Process;
use mayfly_testkit::eventually;
use scene::{INDEX, PLATFORM_GROWTH_MAX, Scene};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Mutex;

#[test]
fn fork_bombs_and_spinners_end_with_their_time() {
    let Some(scene) = Scene::new() else { return };
    let bomb = "import os\ndef attack(e):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass\n";
    let bomb = scene.arm("fork-bomb", bomb, json!({ "Timeout": 3, "MemorySize": 1024 }));
    let most = Mutex::new(0);
    let ended = scene.during("fork-bomb", || {
        std::thread::scope(|s| {
            let call = s.spawn(|| scene.platform.invoke("fork-bomb", &json!(1)));
            while !call.is_finished() {
                let now = scene.host.members(Some(&bomb.group)).len();
                let mut most = most.lock().unwrap();
                *most = now.max(*most);
            }
            call.join().unwrap()
        })
    });
    assert_eq!(ended.status(), 433, "{:?}", ended.result);
    let most = most.into_inner().unwrap();
    assert!((100..=1024).contains(&most), "{most} processes at once");
    bomb.is_gone();

    let deaf = "import signal, time\ndef attack(e):\n    for n in range(1, 65):\n        try:\n            signal.signal(n, signal.SIG_IGN)\n        except (OSError, ValueError):\n            pass\n    time.sleep(600)\n";
    let deaf = scene.arm("deaf", deaf, json!({ "Timeout": 1 }));
    assert_eq!(deaf.strike(&json!(1)).status(), 433);
    deaf.is_gone();
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn memory_disk_and_log_have_an_end() {
    let Some(scene) = Scene::new() else { return };
    let resident = scene.host.resident_bytes();

    let hog = "def attack(e):\n    held = []\n    while True:\n        held.append(bytearray(1 << 20))\n";
    let hog = scene.arm("memory-hog", hog, json!({ "Timeout": 20 }));
    assert_eq!(hog.strike(&json!(1)).status(), 434);
    hog.is_gone();

    // With memory enough, the size of the file system is the limit; with the usual 128 MB, memory is.
    let filler = r"
import errno, os
def attack(e):
    sizes = {}
    for folder in ('/tmp', '/dev/shm', '/var/user', '/opt', '/', '/home/qcloud', '/var/tmp', '/run', '/dev'):
        size = 0
        try:
            with open(folder + '/filler', 'wb', buffering=0) as f:
                while size < 1 << 30:
                    size += f.write(bytes(1 << 20))
        except OSError as error:
            sizes[folder] = [size >> 20, errno.errorcode[error.errno]]
    return sizes
";
    let disk = scene.arm("disk-filler", filler, json!({ "Timeout": 30, "MemorySize": 1024 }));
    let sizes = disk.strike(&json!(1)).value();
    assert_eq!(sizes["/tmp"], json!([512, "ENOSPC"]), "{sizes}");
    assert_eq!(sizes["/dev/shm"], json!([64, "ENOSPC"]), "{sizes}");
    for (folder, size) in sizes.as_object().unwrap().iter().filter(|(f, _)| *f != "/tmp" && *f != "/dev/shm") {
        assert!(size[0] == 0 && ["EROFS", "EACCES", "EPERM"].iter().any(|e| size[1] == *e), "{folder}: {size}");
    }
    assert_eq!(sizes.as_object().unwrap().len(), 9, "{sizes}");
    disk.end();
    let small = scene.arm("disk-filler-small", filler, json!({ "Timeout": 30 }));
    assert_eq!(small.strike(&json!(1)).status(), 434);
    small.is_gone();

    let inodes = r"
import errno
def attack(e):
    n = 0
    try:
        while n < 1_000_000:
            open(f'/tmp/{n}', 'w').close()
            n += 1
    except OSError as error:
        return [n, errno.errorcode[error.errno]]
";
    let inodes = scene.arm("inode-filler", inodes, json!({ "Timeout": 60, "MemorySize": 1024 }));
    let ended = inodes.strike(&json!(1)).value();
    assert_eq!(ended[1], "ENOSPC", "{ended}");
    assert!(ended[0].as_u64().unwrap() < 65_536, "{ended}");
    inodes.end();

    let flood = "import os\ndef attack(e):\n    line = b'x' * 65535 + b'\\n'\n    for _ in range(16384):\n        os.write(1, line)\n    return 'done'\n";
    let flood = scene.arm("output-flood", flood, json!({ "Timeout": 120 }));
    let ended = flood.strike(&json!(1));
    assert_eq!(ended.value(), "done", "{:?}", ended.result);
    assert!(ended.log().len() <= 4096 && ended.log().contains("output cut"), "{}", ended.log());
    let id = ended.result["FunctionRequestId"].clone();
    let mut kept = Value::Null;
    eventually("the log is kept", || {
        let query = json!({ "FunctionName": "output-flood", "FunctionRequestId": id });
        kept = scene.platform.must("GetFunctionLogs", query)["Data"][0].clone();
        !kept.is_null()
    });
    let kept = kept["Log"].as_str().unwrap();
    assert!(kept.len() < (1 << 20) + 8192, "{} bytes of 1 GiB", kept.len());
    assert!(kept.contains("output cut"), "a notice says so");
    flood.end();

    let answer = "def attack(e):\n    return 'x' * (100 << 20)\n";
    let answer = scene.arm("huge-answer", answer, json!({ "Timeout": 30, "MemorySize": 1024 }));
    assert_eq!(answer.strike(&json!(1)).status(), 407);
    answer.end();

    let grown = scene.host.resident_bytes().saturating_sub(resident);
    println!("the platform grew by {:.1} MiB", grown as f64 / 1048576.0);
    assert!(grown < PLATFORM_GROWTH_MAX, "{grown} bytes");
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn what_stays_behind_an_answer_goes_with_the_instance() {
    let Some(scene) = Scene::new() else { return };
    let daemon = r"
import os, signal, time
def attack(e):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(n, signal.SIG_IGN)
        if os.fork() == 0:
            os.write(writer, b'here')
            time.sleep(100000)
        os._exit(0)
    os.wait()
    return os.read(reader, 4).decode()
";
    let daemon = scene.arm("daemon", daemon, json!({ "Timeout": 5 }));
    assert_eq!(daemon.strike(&json!(1)).value(), "here");
    let with_daemon = scene.host.members(Some(&daemon.group));
    assert!(with_daemon.len() > daemon.members.len(), "the daemon is among {with_daemon:?}");
    daemon.end();

    let killer = r"
import os, signal
def attack(e):
    done = []
    for pid in (1, -1) + tuple(p for p in range(2, 300) if p != os.getpid()):
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
            try:
                os.kill(pid, number)
                done.append([pid, int(number)])
            except OSError:
                pass
    return done
";
    let killer = scene.arm("killer", killer, json!({ "Timeout": 5 }));
    let spared: BTreeSet<Process> = scene.host.processes().into_iter().filter(|p| p.is_alive()).collect();
    assert_eq!(killer.strike(&json!(1)).value(), json!([]), "nobody but itself can be signalled");
    let dead: Vec<_> =
        killer.members.iter().chain([&scene.host.spawner()]).filter(|p| !p.is_alive()).copied().collect();
    assert_eq!(dead, [], "of {} processes", spared.len());
    killer.end();
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn programs_of_the_system_give_no_privilege_and_tell_no_secret() {
    let Some(scene) = Scene::new() else { return };
    let code = r"
import os, subprocess
def run(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, env={'PATH': '/usr/bin:/bin:/usr/sbin'})
    return done.returncode, done.stdout.decode('utf-8', 'replace')
def attack(e):
    found = []
    setuid = []
    for folder in ('/usr/bin', '/usr/sbin', '/usr/lib', '/usr/libexec', '/usr/local/bin'):
        for root, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(root, name)
                try:
                    mode = os.lstat(path).st_mode
                except OSError:
                    continue
                if mode & 0o6000 and mode & 0o111 and (mode & 0o170000) == 0o100000:
                    setuid.append(path)
    for path in setuid:
        # Each is started as it is: none must come up as anybody but us.
        pid = os.fork()
        if pid == 0:
            null = os.open('/dev/null', os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            try:
                os.execv(path, [path, '--version'])
            finally:
                os._exit(99)
        os.waitpid(pid, 0)
    for argv in (('su', '-c', 'id'), ('mount', '-t', 'tmpfs', 'x', '/tmp'), ('umount', '/tmp'), ('unshare', '-Ur', 'id'), ('chroot', '/tmp', '/bin/true'),
                 ('nsenter', '-t', '1', '-m', 'true'), ('mknod', '/tmp/disk', 'b', '8', '0'), ('hostname', 'evil'), ('sysctl', '-w', 'kernel.hostname=evil'),
                 ('dmesg',), ('iptables', '-L'), ('nft', 'list', 'ruleset'), ('ip', 'link', 'set', 'eth0', 'down'), ('ip', 'addr', 'add', '10.213.0.9/31', 'dev', 'eth0'),
                 ('setpriv', '--reuid', '0', 'id'), ('capsh', '--print')):
        try:
            code, text = run(*argv)
        except OSError:
            continue
        if code == 0 and argv[0] != 'capsh':
            found.append([argv, text])
        if 'uid=0' in text:
            found.append([argv, text])
    fds = sorted(int(f) for f in os.listdir('/proc/self/fd'))
    # The last one is the folder that is being listed.
    if fds[:-1] != [0, 1, 2, 3]:
        found.append({f: os.readlink('/proc/self/fd/%d' % f) for f in fds[:-1]})
    for path in ('/proc/self/environ', '/proc/self/cmdline'):
        text = open(path, 'rb').read()
        if e['secret'].encode() in text or e['data'].encode() in text:
            found.append([path, repr(text)])
    if e['secret'] in repr(dict(os.environ)):
        found.append('environment')
    for key in ('/proc/keys', '/proc/sched_debug', '/proc/timer_list', '/proc/kallsyms'):
        try:
            text = open(key).read(4096)
        except OSError:
            continue
        if key == '/proc/kallsyms' and any(int(l.split()[0], 16) for l in text.splitlines()[:20]):
            found.append('kernel addresses')
    try:
        os.listdir(e['data'])
        found.append('the data directory')
    except OSError:
        pass
    return [len(setuid), found]
";
    let arms = [
        ("with-template", json!({ "Timeout": 60, "MemorySize": 256 })),
        ("without", json!({ "Timeout": 60, "MemorySize": 256, "ForkMode": "off" })),
    ];
    for (name, more) in arms {
        let attacker = scene.arm(name, code, more);
        let event = json!({ "secret": mayfly_testkit::SECRET_KEY, "data": scene.platform.data });
        let answer = attacker.strike(&event);
        assert_eq!(answer.status(), 200, "{:?}", answer.result);
        assert_eq!(answer.value()[1], json!([]), "{name}");
        println!("{name}: {} setuid and setgid programs were tried", answer.value()[0]);
        attacker.end();
    }
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn packages_with_tricks_are_refused() {
    let Some(scene) = Scene::new() else { return };
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    type Make = fn(&mut zip::ZipWriter<std::io::Cursor<Vec<u8>>>, zip::write::SimpleFileOptions);
    let tricks: [(&str, Make); 5] = [
        ("absolute-link", |zip, options| zip.add_symlink("index.py", "/etc/shadow", options).unwrap()),
        ("escaping-link", |zip, options| zip.add_symlink("a/b", "../../../../etc", options).unwrap()),
        ("escaping-name", |zip, options| zip.start_file("../../evil.py", options).unwrap()),
        ("absolute-name", |zip, options| zip.start_file("/tmp/evil.py", options).unwrap()),
        ("through-a-link", |zip, options| {
            zip.add_symlink("dir", "/tmp", options).unwrap();
            zip.start_file("dir/evil.py", options).unwrap();
        }),
    ];
    for (name, trick) in tricks {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("other.py", options).unwrap();
        zip.write_all(b"pass\n").unwrap();
        trick(&mut zip, options);
        let bytes = zip.finish().unwrap().into_inner();
        let code = json!({ "ZipFile": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes) });
        let request =
            json!({ "FunctionName": name, "Runtime": "Python3.9", "Handler": "index.main_handler", "Code": code });
        let refused = scene.platform.fails("CreateFunction", request);
        assert!(refused.starts_with("InvalidParameterValue"), "{name}: {refused}");
        let missing = scene.platform.fails("GetFunction", json!({ "FunctionName": name }));
        assert!(missing.starts_with("ResourceNotFound"), "{name}: {missing}");
        // A layer is a package, too.
        let layer = json!({ "LayerName": name, "CompatibleRuntimes": ["Python3.9"], "Content": code });
        let refused = scene.platform.fails("PublishLayerVersion", layer);
        assert!(refused.starts_with("InvalidParameterValue"), "{name} as a layer: {refused}");
    }
    assert!(!std::path::Path::new("/tmp/evil.py").exists());
    assert_eq!(scene.platform.stop(), Some(0));
}

/// A network that this test has made: a namespace with one address of TEST-NET-3, linked to the host.
struct FarAway {
    name: String,
    address: String,
}

impl FarAway {
    fn make() -> Self {
        let pid = std::process::id();
        let name = format!("far{}", pid % 1_000_000);
        let first = pid % 63 * 4;
        let far = Self { address: format!("203.0.113.{}", first + 2), name };
        let (link, peer) = (far.link(), format!("{}p", far.name));
        ip(&["netns", "add", &far.name]);
        ip(&["link", "add", &link, "type", "veth", "peer", "name", &peer, "netns", &far.name]);
        ip(&["addr", "add", &format!("203.0.113.{}/30", first + 1), "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        ip(&["-n", &far.name, "addr", "add", &format!("{}/30", far.address), "dev", &peer]);
        ip(&["-n", &far.name, "link", "set", &peer, "up"]);
        far
    }

    fn link(&self) -> String {
        format!("{}h", self.name)
    }

    /// A listener in there that tells each guest its address.
    fn listen(&self) -> u16 {
        let path = format!("/run/netns/{}", self.name);
        // A thread of its own enters the namespace, makes the socket, and ends; the socket stays where it was made.
        let listener = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            // SAFETY: changes the network namespace of this thread only.
            let entered = unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&namespace), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
            std::net::TcpListener::bind("0.0.0.0:0").unwrap()
        });
        let listener = listener.join().unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (mut guest, from) in listener.incoming().flatten().filter_map(|g| g.peer_addr().ok().map(|a| (g, a))) {
                let _ = guest.write_all(from.ip().to_string().as_bytes());
            }
        });
        port
    }
}

impl Drop for FarAway {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["link", "delete", &self.link()]).status();
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    let status = std::process::Command::new("ip").args(arguments).status().expect("`ip` runs");
    assert!(status.success(), "ip {arguments:?}");
}

#[test]
fn the_way_out_is_a_door_with_a_switch() {
    let Some(scene) = Scene::new() else { return };
    let far = FarAway::make();
    let port = far.listen();
    // The host itself reaches it, so that a failure below is the platform's.
    let mut text = String::new();
    std::net::TcpStream::connect((far.address.as_str(), port)).unwrap().read_to_string(&mut text).unwrap();
    let host_side = text;

    let visit = "import errno, socket\ndef attack(e):\n    s = socket.socket()\n    s.settimeout(3)\n    try:\n        s.connect((e['host'], e['port']))\n        return s.recv(64).decode()\n    except OSError as error:\n        return errno.errorcode.get(error.errno, 'timeout')\n";
    let event = json!({ "host": far.address, "port": port });
    let open = scene.arm("open", visit, json!({ "Timeout": 10 }));
    assert_eq!(open.strike(&event).value(), json!(host_side), "it comes from the host's address, not from its own");
    open.end();

    let closed = json!({ "PublicNetStatus": "DISABLE", "EipConfig": { "EipStatus": "DISABLE" } });
    let files = [("index.py", INDEX), ("attack.py", visit)];
    let more = json!({ "Timeout": 10, "PublicNetConfig": closed });
    scene.platform.create("closed", "Python3.9", "index.main_handler", &files, more);
    for n in 0..2 {
        let answer = scene.platform.invoke("closed", &event).value();
        assert!(["ENETUNREACH", "ENETDOWN"].iter().any(|e| answer == *e), "call {n}: {answer}");
    }
    // Switched by an update, too, in both directions.
    let switch = |status: &str| {
        let config = json!({ "PublicNetStatus": status, "EipConfig": { "EipStatus": "DISABLE" } });
        scene
            .platform
            .must("UpdateFunctionConfiguration", json!({ "FunctionName": "closed", "PublicNetConfig": config }));
        scene.platform.invoke("closed", &event).value()
    };
    assert_eq!(switch("ENABLE"), json!(host_side));
    assert!(["ENETUNREACH", "ENETDOWN"].contains(&switch("DISABLE").as_str().unwrap()));
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn functions_see_nothing_of_each_other() {
    let Some(scene) = Scene::new() else { return };
    let secret = "s3cr3t-of-a";
    let teller = r"
import builtins, ctypes, json, os, time
builtins.LEFT = json.LEFT = 'module state of A'
libc = ctypes.CDLL(None, use_errno=True)
def attack(e):
    os.environ['SET_LATER'] = 'environment of A'
    json.dumps = None
    for folder in ('/tmp', '/dev/shm'):
        with open(folder + '/a', 'w') as f:
            f.write('file of A')
    shared = libc.shmget(0x4d59, 4096, 0o1666)
    time.sleep(e)
    return shared >= 0
";
    let looker = r"
import builtins, ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def attack(e):
    seen = [f'{folder}/{name}' for folder in ('/tmp', '/dev/shm', '/home/qcloud', '/var/tmp') for name in os.listdir(folder)]
    seen += [name for name in ('LEFT',) if hasattr(builtins, name) or hasattr(json, name)]
    seen += [] if callable(json.dumps) else ['json.dumps']
    seen += ['shared memory'] if libc.shmget(0x4d59, 0, 0) >= 0 else []
    seen += [f'{k}={v}' for k, v in os.environ.items() if 's3cr3t' in v or k in ('SET_LATER', 'SECRET_OF_A')]
    seen += [p for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]
    seen += [line for line in open('/proc/self/mountinfo') if ' /var/user ' in line and e in line]
    return seen
";
    let own = json!({ "Environment": { "Variables": [{ "Key": "SECRET_OF_A", "Value": secret }] }, "Timeout": 20 });
    let a = scene.arm("teller", teller, own);
    std::thread::scope(|s| {
        let telling = s.spawn(|| scene.platform.invoke("teller", &json!(2)).value());
        let b = scene.arm("looker", looker, json!({}));
        // While the other runs, and after it.
        assert_eq!(scene.platform.invoke("looker", &json!("teller")).value(), json!([]));
        assert_eq!(telling.join().unwrap(), json!(true));
        assert_eq!(scene.platform.invoke("looker", &json!("teller")).value(), json!([]));
        b.end();
    });
    a.end();
    assert_eq!(scene.platform.stop(), Some(0));
}
