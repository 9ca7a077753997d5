//! A nats-server of a test's own, which can be killed and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// A server on a port of its own, with its files in a directory of its own.
pub struct NatsServer {
    dir: TempDir,
    port: u16,
    secure: bool,
    child: Option<Child>,
}

/// What a server asks of its clients.
pub struct Secured<'a> {
    /// Its certificate, in PEM.
    pub certificate: &'a str,
    /// The key of it, in PEM.
    pub key: &'a str,
    /// The one user.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a str,
}

/// The program, from Debian's package of the same name. `None`, told loudly: it is not installed.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/bin")])
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "nats-server is missing: tests of the event log need it, and CI has it"
        );
        eprintln!(
            "SKIPPED: nats-server is not installed (`apt-get install nats-server`); events in NATS are not tested"
        );
    }
    found
}

impl NatsServer {
    /// Starts a server that lets everybody in. `None`: there is no program.
    pub fn start() -> Option<Self> {
        let mut server = Self { dir: tempfile::tempdir().unwrap(), port: 0, secure: false, child: None };
        server.launch().then_some(server)
    }

    /// Starts one that speaks TLS only, with one user. `None`: there is no program.
    pub fn start_secured(secured: &Secured<'_>) -> Option<Self> {
        let mut server = Self { dir: tempfile::tempdir().unwrap(), port: 0, secure: true, child: None };
        let file = |name: &str| server.dir.path().join(name);
        std::fs::write(file("server.pem"), secured.certificate).unwrap();
        std::fs::write(file("server.key"), secured.key).unwrap();
        let Secured { user, password, .. } = secured;
        let (certificate, key) = (file("server.pem"), file("server.key"));
        let config = format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\nauthorization {{ user: {user:?}, password: {password:?} }}\n"
        );
        std::fs::write(file("secure.conf"), config).unwrap();
        server.launch().then_some(server)
    }

    fn launch(&mut self) -> bool {
        let Some(program) = program() else { return false };
        let listen = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let dir = self.dir.path().display();
        // Payloads as large as the log takes; JetStream's own ceiling as small as the test needs.
        let mut config = format!(
            "listen: \"127.0.0.1:{listen}\"\nmax_payload: 16777216\nports_file_dir: \"{dir}\"\njetstream {{ store_dir: \"{dir}/js\", max_memory_store: 67108864, max_file_store: 1073741824 }}\n"
        );
        if self.secure {
            config.push_str("include secure.conf\n");
        }
        let file = self.dir.path().join("nats.conf");
        std::fs::write(&file, config).unwrap();
        // Dies with the test, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ports = self.dir.path().join(format!("nats-server_{}.ports", child.id()));
        self.child = Some(child);
        let begun = Instant::now();
        loop {
            // The file is written once the server listens.
            let port = std::fs::read_to_string(&ports).ok().and_then(|text| {
                let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
                ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
            });
            if let Some(port) = port {
                self.port = port;
                return true;
            }
            assert!(begun.elapsed() < DEADLINE, "nats-server does not start");
            assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none(), "nats-server ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its address, for those who need no password.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, at the same address, with the same files.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch());
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
