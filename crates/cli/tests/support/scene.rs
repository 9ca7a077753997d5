//! A stage for attacks: a platform, a well-behaved neighbour that is measured, and attackers whose instances are known by name.

// Each test binary takes the part that it needs.
#![allow(dead_code)]

use crate::host::{Host, Process};
use mayfly_testkit::{Invoked, Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a platform may grow by while somebody attacks it, in bytes: buffers of the instances that run, and the log.
pub const PLATFORM_GROWTH_MAX: u64 = 96 << 20;
/// Calls to the neighbour before an attack, and at least as many during it.
const NEIGHBOUR_CALLS: usize = 60;
/// One attack at a time: they are measured.
static TURN: Mutex<()> = Mutex::new(());

/// Goes before each attack: tells the test which instance it is, then attacks.
pub const INDEX: &str = r"
import socket, struct
from attack import attack
def gateway():
    for line in open('/proc/net/route').read().splitlines()[1:]:
        fields = line.split()
        if fields[1] == '00000000':
            return socket.inet_ntoa(struct.pack('<I', int(fields[2], 16)))
def main_handler(event, context):
    return gateway() if event == 'who' else attack(event)
";

/// A platform with a well-behaved function on it.
pub struct Scene {
    pub platform: Platform,
    pub host: Host,
    _turn: MutexGuard<'static, ()>,
}

/// A hostile function with an instance that is known.
pub struct Attacker<'a> {
    scene: &'a Scene,
    name: String,
    /// The host's side of its link.
    pub gateway: String,
    /// Its control group.
    pub group: String,
    /// Its processes before it attacked.
    pub members: BTreeSet<Process>,
}

impl Scene {
    /// Starts a platform, when it is this test's turn. `None`: sandboxes cannot be made here.
    pub fn new() -> Option<Self> {
        if !can_sandbox() {
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let platform = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
        let host = Host::of(&platform);
        let code = "def main_handler(e, c):\n    return e\n";
        platform.create(
            "neighbour",
            "Python3.9",
            "index.main_handler",
            &[("index.py", code)],
            json!({ "Timeout": 10 }),
        );
        let scene = Self { platform, host, _turn: turn };
        // Its cold start is not what is compared.
        scene.platform.invoke("neighbour", &json!(0));
        scene.listen_to_neighbour("before", NEIGHBOUR_CALLS, || true);
        Some(scene)
    }

    /// Calls the neighbour at least `least` times and until `enough`, and prints how long that took.
    fn listen_to_neighbour(&self, when: &str, least: usize, enough: impl Fn() -> bool) {
        let mut times = Vec::new();
        while times.len() < least || !enough() {
            let begun = Instant::now();
            let answer = self.platform.invoke("neighbour", &json!(times.len()));
            assert_eq!(answer.value(), json!(times.len()), "the neighbour during `{when}`: {:?}", answer.result);
            times.push(begun.elapsed());
        }
        times.sort();
        let n = times.len();
        println!("neighbour {when}: p50 {:.2?}, p99 {:.2?}, {n} calls", times[n / 2], times[n * 99 / 100]);
    }

    /// Does something while the neighbour is called.
    pub fn during<T: Send>(&self, what: &str, attack: impl FnOnce() -> T + Send) -> T {
        let over = AtomicBool::new(false);
        let result = std::thread::scope(|s| {
            let attacking = s.spawn(|| {
                let result = attack();
                over.store(true, Ordering::Release);
                result
            });
            let is_over = || over.load(Ordering::Acquire) || attacking.is_finished();
            self.listen_to_neighbour(what, NEIGHBOUR_CALLS / 2, is_over);
            attacking.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Deploys an attack (Python with a function `attack(event)`) and finds its instance on the machine.
    pub fn arm(&self, name: &str, attack: &str, more: Value) -> Attacker<'_> {
        let files = [("index.py", INDEX), ("attack.py", attack)];
        self.platform.create(name, "Python3.9", "index.main_handler", &files, more);
        let answer = self.platform.invoke(name, &json!("who"));
        let gateway = answer.value().as_str().unwrap_or_else(|| panic!("{name}: {:?}", answer.result)).to_owned();
        let group = self.host.group_behind(&gateway).expect("a running instance has a group");
        let members = self.host.members(Some(&group));
        assert!(!members.is_empty() && self.host.has_link(&gateway));
        Attacker { scene: self, name: name.to_owned(), gateway, group, members }
    }
}

impl Attacker<'_> {
    /// Lets it attack, while the neighbour is called.
    pub fn strike(&self, event: &Value) -> Invoked {
        self.scene.during(&self.name, || self.scene.platform.invoke(&self.name, event))
    }

    /// Nothing is left of the instance that attacked.
    pub fn is_gone(&self) {
        let host = &self.scene.host;
        eventually(&format!("{}: its processes end", self.name), || self.members.iter().all(|p| !p.is_alive()));
        eventually(&format!("{}: its group goes", self.name), || !host.groups().contains(&self.group));
        eventually(&format!("{}: its link goes", self.name), || !host.has_link(&self.gateway));
    }

    /// Deletes the function; nothing is left of it.
    pub fn end(mut self) {
        self.members.extend(self.scene.host.members(Some(&self.group)));
        self.scene.platform.must("DeleteFunction", json!({ "FunctionName": self.name }));
        self.is_gone();
    }
}
