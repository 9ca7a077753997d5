//! Attacks on what is particular to this platform: module-level code that takes over the template it runs in, and programs that
//! misuse the lines by which runtimes talk to the node.
//!
//! The templates are taken over from within: user code finds the runtime's own modules in the frames below it and replaces their
//! functions. The platform must hold although nothing that the template says or does can be believed.

#[path = "support/host.rs"]
mod host;
#[path = "support/scene.rs"]
mod scene;

use mayfly_testkit::eventually;
use scene::{PLATFORM_GROWTH_MAX, Scene};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// For the start of an attack: the modules of the runtime, and all that must fail even with the capabilities of a template.
const WITHIN: &str = r"
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def parts():
    frame = sys._getframe()
    while frame is not None:
        if 'forker' in frame.f_globals and 'soundness' in frame.f_globals:
            return frame.f_globals
        frame = frame.f_back
    raise RuntimeError('the runtime is not where this attack looks for it')
def capabilities():
    line = next(l for l in open('/proc/self/status') if l.startswith('CapEff'))
    return int(line.split()[1], 16)
def attempts(processes=True):
    found = []
    buffer = ctypes.create_string_buffer(256)
    kinds = {kind: os.open('/proc/self/ns/' + kind, os.O_RDONLY) for kind in ('user', 'mnt', 'cgroup')}
    if os.uname().machine == 'x86_64':
        for name, number, *args in (
            ('mount', 165, b'x', b'/tmp', b'tmpfs', 0, 0), ('mount proc', 165, b'x', b'/tmp', b'proc', 0, 0), ('bind', 165, b'/', b'/tmp', None, 4096, 0),
            ('remount', 165, None, b'/usr', None, 0x1020, 0), ('umount', 166, b'/tmp', 2), ('unshare mnt', 272, 0x20000), ('unshare net', 272, 0x40000000),
            ('unshare user', 272, 0x10000000), ('clone mnt', 56, 0x20011, 0, 0, 0, 0), ('clone user', 56, 0x10000011, 0, 0, 0, 0), ('clone3', 435, buffer, 88),
            ('pivot_root', 155, b'/tmp', b'/tmp'), ('chroot', 161, b'/tmp'), ('sethostname', 170, b'evil', 4), ('setdomainname', 171, b'evil', 4),
            ('open_tree', 428, -100, b'/', 1), ('move_mount', 429, -100, b'/tmp', -100, b'/opt', 0), ('fsopen', 430, b'tmpfs', 0), ('fspick', 433, -100, b'/', 0),
            ('mount_setattr', 442, -100, b'/usr', 0, buffer, 32), ('swapon', 167, b'/tmp', 0), ('bpf', 321, 0, buffer, 64), ('perf', 298, buffer, 0, -1, -1, 0),
            ('keyctl', 250, 0, 0), ('add_key', 248, b'user', b'a', b'b', 1, -3), ('quotactl', 179, 0, 0, 0, 0), ('open_by_handle', 304, -100, buffer, 0),
            ('name_to_handle', 303, -100, b'/', buffer, buffer, 0), ('ptrace', 101, 0, 1, 0, 0), ('process_vm_readv', 310, 1, buffer, 1, buffer, 1, 0),
            ('pidfd_getfd', 438, 3, 0, 0), ('init_module', 175, buffer, 64, b''), ('io_uring', 425, 1, buffer), ('mknod', 133, b'/tmp/disk', 0o60666, 0x0801),
            ('setns user', 308, kinds['user'], 0x10000000), ('setns any', 308, kinds['mnt'], 0),
            ('setns cgroup', 308, kinds['cgroup'], 0x02000000), ('iopl', 172, 3), ('syslog', 103, 3, buffer, 256),
            ('settimeofday', 164, buffer, 0), ('reboot', 169, 0, 0, 0, 0), ('fanotify', 300, 0, 0), ('lookup_dcookie', 212, 0, buffer, 64), ('acct', 163, b'/tmp/acct')):
            result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
            if result == 0 and name.startswith('clone'):
                os._exit(0)
            if result != -1:
                found.append('%s -> %d' % (name, result))
    for fd in kinds.values():
        os.close(fd)
    # A copy still sees its template's processes, which are its own kind, before it has entered its sandbox.
    for pid in [p for p in os.listdir('/proc') if processes and p.isdigit() and int(p) != os.getpid()]:
        for name in ('ns/mnt', 'ns/net', 'ns/pid', 'root/etc/shadow', 'environ', 'mem', 'cwd'):
            try:
                os.close(os.open('/proc/%s/%s' % (pid, name), os.O_RDONLY))
                found.append('/proc/%s/%s' % (pid, name))
            except OSError:
                pass
    for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger', '/proc/self/uid_map',
                 '/proc/self/setgroups', '/var/user/x', '/opt/x', '/usr/x', '/etc/passwd', '/etc/x', '/x', '/dev/sda', '/sys/x', '/var/runtime/python/zygote.py'):
        try:
            with open(path, 'r+b' if os.path.exists(path) else 'wb') as file:
                file.write(b'0 0 1\n')
                file.flush()
            found.append('wrote ' + path)
        except OSError:
            pass
    return found
AT_IMPORT = {'capabilities': capabilities(), 'attempts': attempts(), 'is_template': os.path.exists('/proc/self/fd/4')}
";

fn within(rest: &str) -> String {
    format!("{WITHIN}{rest}")
}

/// CAP_SYS_ADMIN and CAP_SYS_CHROOT.
const TEMPLATE_CAPABILITIES: u64 = 1 << 21 | 1 << 18;

#[test]
fn a_template_s_capabilities_reach_nothing() {
    let Some(scene) = Scene::new() else { return };
    // While it is loaded, and in the copy before the runtime has given the capabilities up.
    let polite = within(
        r"
IN_COPY = []
os.register_at_fork(after_in_child=lambda: IN_COPY.append([capabilities(), attempts(False)]))
def attack(e):
    return [AT_IMPORT, IN_COPY, capabilities(), attempts()]
",
    );
    let polite = scene.arm("polite", &polite, json!({ "Timeout": 20 }));
    let answer = polite.strike(&json!(1));
    let seen = answer.value();
    assert_eq!(seen[0]["is_template"], true, "{:?}", answer.result);
    assert_eq!(seen[0]["capabilities"], TEMPLATE_CAPABILITIES);
    assert_eq!(seen[0]["attempts"], json!([]));
    assert_eq!(seen[1], json!([[TEMPLATE_CAPABILITIES, []]]), "in the copy");
    assert_eq!((&seen[2], &seen[3]), (&json!(0), &json!([])), "as an instance");
    polite.end();

    // A copy that gives nothing up: it serves with a template's powers.
    let rude = within(
        r"
kernel = parts()['kernel']
kernel.reduce_capabilities = kernel.restrict_with_landlock = lambda *a: None
kernel.Filter.install = lambda self: None
def attack(e):
    return [capabilities(), attempts()]
",
    );
    let rude = scene.arm("rude", &rude, json!({ "Timeout": 20 }));
    let answer = rude.strike(&json!(1));
    assert_eq!(answer.value()[0], TEMPLATE_CAPABILITIES, "the runtime was taken over: {:?}", answer.result);
    assert_eq!(answer.value()[1], json!([]));
    rude.end();
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn a_template_that_keeps_what_it_was_lent_leaves_nothing_in_the_end() {
    let Some(scene) = Scene::new() else { return };
    let links = scene.host.links().len();
    // The namespaces and control groups that fork requests bring are kept open. (Who keeps the lines too cannot even crash: 433.)
    let hoarder = within(
        r"
forker = parts()['forker']
parts()['soundness'].renew_files = lambda: None
KEPT = []
close = forker._close
def keep(fd):
    kind = os.readlink('/proc/self/fd/%d' % fd)
    if kind.startswith(('pid:', 'mnt:', 'net:', 'ipc:', 'uts:')) or kind.endswith('cgroup.procs'):
        KEPT.append(os.dup(fd))
    close(fd)
forker._close = keep
def attack(e):
    if e == 'crash':
        os._exit(1)
    return len(KEPT)
",
    );
    let hoarder = scene.arm("hoarder", &hoarder, json!({ "Timeout": 20 }));
    let mut groups = BTreeSet::from([hoarder.group.clone()]);
    scene.during("hoarder", || {
        for _ in 0..10 {
            assert_eq!(scene.platform.invoke("hoarder", &json!("crash")).status(), 439);
            let gateway = scene.platform.invoke("hoarder", &json!("who")).value();
            groups.extend(scene.host.group_behind(gateway.as_str().unwrap()));
        }
    });
    let kept = scene.platform.invoke("hoarder", &json!(1)).value();
    assert!(kept.as_u64().unwrap() > 20, "it does keep descriptors: {kept}");
    let last = scene.platform.invoke("hoarder", &json!("who")).value();
    let last = scene.host.group_behind(last.as_str().unwrap()).unwrap();
    groups.remove(&last);
    assert!(groups.len() >= 10, "{groups:?}");
    eventually("groups of ended instances go although the template holds on to them", || {
        groups.is_disjoint(&scene.host.groups())
    });
    println!("{} links while the hoarder lives, {links} before", scene.host.links().len());
    hoarder.end();
    // The stock may be filling: more by what one platform keeps ready, not by what the hoarder had.
    eventually("links that the hoarder kept go with it", || scene.host.links().len() <= links.max(12) + 4);
    assert_eq!(scene.platform.stop(), Some(0));
}

/// Threads that the soundness check does not get to see write to the forker's line for ever; each fork makes the spawner read it.
const FLOODER: &str = r#"
import threading
parts()['soundness'].reasons_against_forking = lambda names: []
def flood():
    while True:
        try:
            os.write(4, b'{"id":0,"pid":1}')
        except OSError:
            return
if os.path.exists('/proc/self/fd/4'):
    for _ in range(8):
        threading.Thread(target=flood, daemon=True).start()
def attack(e):
    os._exit(1)
"#;

/// Hundreds of processes leave the init of the template's sandbox, which makes the place for each fork, no time to do so.
const STARVER: &str = r"
import time
parts()['soundness'].reasons_against_forking = lambda names: []
if os.path.exists('/proc/self/fd/4'):
    for _ in range(400):
        if os.fork() == 0:
            for fd in (1, 2, 3, 4):
                os.close(fd)
            time.sleep(1)
            while True:
                pass
def attack(e):
    os._exit(1)
";

#[test]
fn a_template_that_misbehaves_holds_nobody_up() {
    let Some(scene) = Scene::new() else { return };
    let code = "def main_handler(e, c):\n    return e\n";
    for (name, attack) in [("flooder", FLOODER), ("starver", STARVER)] {
        let attacker = scene.arm(name, &within(attack), json!({ "Timeout": 5, "InitTimeout": 10, "MemorySize": 3072 }));
        let begun = Instant::now();
        let mut starts = Vec::new();
        std::thread::scope(|s| {
            s.spawn(|| {
                // Each crash makes the next call fork once more.
                while begun.elapsed() < Duration::from_secs(3) {
                    let status = scene.platform.invoke(name, &json!(1)).status();
                    assert!([429, 433, 439, 445, 450, 500].contains(&status), "{status}");
                }
            });
            for n in 0..8 {
                let name = format!("beside-{name}-{n}");
                scene.platform.create(&name, "Python3.9", "index.main_handler", &[("index.py", code)], json!({}));
                let begun = Instant::now();
                assert_eq!(scene.platform.invoke(&name, &json!(n)).value(), json!(n), "others can start instances");
                starts.push(begun.elapsed());
            }
        });
        println!("cold starts beside the {name}: {starts:.2?}");
        attacker.end();
    }
    assert_eq!(scene.platform.stop(), Some(0));
}

#[test]
fn half_a_frame_and_half_a_hundred_answers_are_not_kept_for_ever() {
    let Some(scene) = Scene::new() else { return };
    let resident = scene.host.resident_bytes();
    let half = "import os, struct, time\ndef attack(e):\n    os.write(3, struct.pack('<IB3x', (16 << 20) - 1, 0x84))\n    sent = 0\n    while sent < 15 << 20:\n        sent += os.write(3, bytes(1 << 20))\n    time.sleep(60)\n";
    let half = scene.arm("half-a-frame", half, json!({ "Timeout": 2, "MemorySize": 256 }));
    assert_eq!(half.strike(&json!(1)).status(), 433);
    half.is_gone();

    // A custom runtime that answers on sixty connections at once, none of them to the end.
    let bootstrap = r#"#!/usr/bin/python3 -S
import http.client, os, socket, time
host, port = os.environ['SCF_RUNTIME_API'], int(os.environ['SCF_RUNTIME_API_PORT'])
def ask(method, path, body=None):
    line = http.client.HTTPConnection(host, port)
    line.request(method, path, body)
    return line.getresponse().read()
ask('POST', '/runtime/init/ready', ' ')
ask('GET', '/runtime/invocation/next')
size = 6 << 20
lines = []
for _ in range(60):
    line = socket.create_connection((host, port))
    line.setblocking(False)
    lines.append([line, b'POST /runtime/invocation/response HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % size, size - 1])
chunk = b'1' * 65536
end = time.time() + 4
while time.time() < end:
    for entry in lines:
        line, head, left = entry
        try:
            if head:
                entry[1] = head[line.send(head):]
            elif left:
                entry[2] = left - line.send(chunk[:left])
        except BlockingIOError:
            pass
    time.sleep(0)
print('left to send:', [left for _, _, left in lines])
time.sleep(1000)
"#;
    let most = std::sync::Mutex::new(0);
    scene.platform.create("sixty", "CustomRuntime", "", &[("bootstrap", bootstrap)], json!({ "Timeout": 6 }));
    let ended = scene.during("sixty-answers", || {
        std::thread::scope(|s| {
            let call = s.spawn(|| scene.platform.invoke("sixty", &json!(1)));
            while !call.is_finished() {
                let grown = scene.host.resident_bytes().saturating_sub(resident);
                let mut most = most.lock().unwrap();
                *most = grown.max(*most);
                drop(most);
                std::thread::sleep(Duration::from_millis(10));
            }
            call.join().unwrap()
        })
    });
    assert_eq!(ended.status(), 433, "{:?}", ended.result);
    let most = most.into_inner().unwrap();
    println!("the platform grew by {:.1} MiB", most as f64 / 1048576.0);
    assert!(most < PLATFORM_GROWTH_MAX, "{most} bytes for one hostile instance");
    assert_eq!(scene.platform.stop(), Some(0));
}
