//! The platform's options: one list of names for the file, the environment and the command line.
//!
//! Precedence: flag, then environment (`MAYFLY_<NAME>` in capitals), then file, then default. Each source is a
//! [`PlatformOverlay`], in which every option may be absent.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use mayfly_model::Forecast;
use mayfly_model::limits;
use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::kafka::Kafka;
use crate::listen::Listen;
use crate::telemetry;

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How log lines of the platform look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is neither `plain` nor `json`")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Json => "json",
        })
    }
}

/// An option's value in the environment.
trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, String>;
}

macro_rules! from_text_by_from_str {
    ($($type:ty),*) => {$(
        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse::<Self>().map_err(|e| e.to_string())
            }
        }
    )*};
}

from_text_by_from_str!(String, PathBuf, SocketAddr, LogFormat, Forecast, Cidr, Listen, Kafka, u32, u64, usize);

impl FromText for Option<SocketAddr> {
    fn from_text(text: &str) -> Result<Self, String> {
        SocketAddr::from_text(text).map(Some)
    }
}

impl FromText for Vec<Cidr> {
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(Cidr::from_text).collect()
    }
}

/// Defines the options once: the struct, its defaults, the overlay, the names, and how each source is read.
macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr;)+) => {
        /// What the platform is told when it starts. Every option has a default.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct PlatformOptions {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Default for PlatformOptions {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        /// The options that one source (file, environment, command line) sets; see [`PlatformOptions`].
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct PlatformOverlay {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)+
        }

        impl PlatformOptions {
            /// The name of every option, as in the file; `_` is `-` in flags.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// These options with those that `overlay` sets put over them.
            pub fn with(mut self, overlay: PlatformOverlay) -> Self {
                $(if let Some(value) = overlay.$name { self.$name = value; })+
                self
            }
        }

        impl PlatformOverlay {
            /// What the environment sets. `lookup` is `|name| std::env::var(name).ok()`; an empty variable is unset.
            ///
            /// # Errors
            /// [`ConfigError::Value`] that names the variable.
            pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
                let mut overlay = Self::default();
                $({
                    let variable = format!("MAYFLY_{}", stringify!($name).to_ascii_uppercase());
                    if let Some(text) = lookup(&variable).filter(|t| !t.is_empty()) {
                        let value = <$type as FromText>::from_text(&text);
                        overlay.$name = Some(value.map_err(|why| ConfigError::Value { name: variable, why })?);
                    }
                })+
                Ok(overlay)
            }

            fn take(table: &mut BTreeMap<String, toml::Value>) -> Result<Self, ConfigError> {
                let mut overlay = Self::default();
                $(if let Some(value) = table.remove(stringify!($name)) {
                    overlay.$name = Some(value.try_into::<$type>().map_err(|e| ConfigError::Value {
                        name: stringify!($name).into(),
                        why: e.to_string().trim_end().replace('\n', " "),
                    })?);
                })+
                Ok(overlay)
            }
        }
    };
}

options! {
    /// Directory of everything that must survive a restart. Made when absent, with mode 0700.
    data: PathBuf = PathBuf::from("/var/lib/mayfly");
    /// Address that the API listens on.
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8700));
    /// Address that is listened on for TLS too, with the same API and URLs. Empty in the environment: none.
    tls_listen: Option<SocketAddr> = None;
    /// Address that the object store listens on, for the COS XML API and S3. `off`: there is no object store.
    objects_listen: Listen = Listen(Some(SocketAddr::from(([127, 0, 0, 1], 8701))));
    /// File with the certificate chain for the platform's own names (PEM). Read again when it changes. Custom domains bring their own.
    tls_cert: PathBuf = PathBuf::new();
    /// File with the private key of `tls_cert` (PEM, not encrypted).
    tls_key: PathBuf = PathBuf::new();
    /// Functions also have URLs by host: `http://<function>.<namespace>.<domain>/`. Names below `localhost` lead to this machine by themselves.
    domain: String = "fn.localhost".into();
    /// Services of the API gateway have addresses by host: `http://<service>.<apigw_domain>/<environment>/`.
    apigw_domain: String = "apigw.localhost".into();
    /// Seconds without traffic after which a WebSocket of the API gateway is closed.
    apigw_idle_s: u64 = 900;
    /// WebSockets that the API gateway holds at once.
    apigw_connections: usize = 10_000;
    /// Level of the platform's own log lines: `error`, `warn`, `info`, `debug`, `trace`, `off`, or directives such as `info,mayfly_node=debug`.
    log_level: String = "info".into();
    /// Form of the platform's own log lines: `plain` or `json`.
    log_format: LogFormat = LogFormat::Plain;
    /// Memory that all instances together may be promised, in MB of configured memory. 0: SCF's account quota, 128,000 MB. Promises may exceed
    /// the machine's memory, since few instances use all of theirs; what they really use is held below nine tenths of it.
    memory_ceiling_mb: u64 = 0;
    /// What instances of one namespace may hold of that together, in MB. 0: as much as there is.
    namespace_ceiling_mb: u64 = 0;
    /// How long an instance without calls is kept, in seconds.
    keep_alive_s: u64 = 600;
    /// Whether instances are made and kept ahead of demand, by each function's own past: `off`, `conservative` or `eager`. Unless it is off, it
    /// decides in the place of `keep_alive_s`.
    forecast: Forecast = Forecast::Off;
    /// Versions that have an instance initialised and parked from their deployment on, so that their first call is a fork and not an
    /// initialisation; where there are more, those called last. Each holds the memory that its module-level code takes. 0: none.
    park: usize = 0;
    /// Region that the platform says it is.
    region: String = "ap-guangzhou".into();
    /// Account number (APPID) that functions and clients see.
    app_id: u64 = 1_250_000_000;
    /// Account id (UIN) that functions and clients see.
    uin: u64 = 100_000_000_001;
    /// Addresses that instances get theirs from (IPv4, /8 to /24).
    network: Cidr = Cidr::new(IpAddr::from([10, 213, 0, 0]), 16).expect("a /16 is a range");
    /// Private address ranges that functions may reach all the same. Loopback, link-local and `network` itself are never open.
    network_allow: Vec<Cidr> = Vec::new();
    /// Python instances kept ready for functions that have none yet.
    precreate_python: usize = 4;
    /// Node.js instances kept ready for functions that have none yet.
    precreate_node: usize = 2;
    /// PHP instances kept ready, once a PHP function has run.
    precreate_php: usize = 1;
    /// Sandboxes kept ready for Java, once a Java function has run. The JVM in them is started when the function is known.
    precreate_java: usize = 1;
    /// Most functions in one namespace.
    functions_per_namespace: usize = limits::FUNCTIONS_PER_NAMESPACE_DEFAULT;
    /// How long logs of functions are kept, in hours.
    log_retention_hours: u64 = 168;
    /// Where asynchronous events are kept until they are done: empty for a file in `data`, or `nats://[user:password@]host:port[/STREAM]` (`tls://`
    /// with TLS) for a stream of a NATS server with JetStream.
    events: String = String::new();
    /// File with credentials for that server (`.creds`: JWT and seed). Empty: what the address says.
    events_credentials: PathBuf = PathBuf::new();
    /// Most asynchronous events that are pending; the next is refused with `RequestLimitExceeded`.
    events_max: u64 = 100_000;
    /// Most space that pending asynchronous events take, in MB.
    events_mb: u64 = 1024;
    /// Largest asynchronous event, in bytes.
    event_bytes_max: usize = limits::EVENT_ASYNC_BYTES_MAX;
    /// Invocations that may call each other in a row before the next is taken for part of a loop and not run; 0: any number.
    call_depth_max: u32 = limits::CALL_DEPTH_MAX;
    /// What kept failures may take, in MB (16 to 1048576); beyond it the oldest go.
    failure_disk_mb: u64 = 1024;
    /// Most calls of one function that wait for an instance; the next is refused with 429.
    waiting_room: usize = 1000;
    /// How long a call waits for an instance before it is refused with 429, in seconds.
    waiting_s: u64 = 10;
    /// How long calls may go on after the platform was told to stop, in seconds.
    drain_s: u64 = 30;
    /// How long streams and WebSockets on a service's old version may go on after an update, in seconds.
    streams_after_update_s: u64 = 900;
    /// Installs of dependencies at a time; 0: none are installed on the platform.
    install_concurrency: usize = 2;
    /// Memory of what runs in an install, in MB (256 to 65536).
    install_memory_mb: u64 = 1024;
    /// What an install may write, in MB (64 to 65536). It is held in memory, on top of `install_memory_mb`.
    install_disk_mb: u64 = 2048;
    /// Longest install, in seconds (10 to 3600).
    install_time_s: u64 = 600;
    /// What the cache of installed dependencies may hold, in MB.
    install_cache_mb: u64 = 4096;
    /// Directory with `pip.conf`, `npmrc`, `go.env` and `composer-auth.json` for the installers, each if it is there. Empty: none. Install scripts
    /// can read what is in them.
    install_config: PathBuf = PathBuf::new();
    /// Private address ranges that installs may reach and functions may not: a mirror of packages, say. As `network_allow`.
    install_allow: Vec<Cidr> = Vec::new();
    /// Address that the message queues listen on (CMQ's API, and TDMQ's); `off`: none. TDMQ's is answered at `listen` too.
    queues_listen: Listen = Listen(Some(SocketAddr::from(([127, 0, 0, 1], 8702))));
    /// Ranges that are not public and that topics may push messages to all the same, loopback among them.
    queues_push_allow: Vec<Cidr> = Vec::new();
    /// Kafka clusters that triggers may listen to, by name; in the environment and as a flag `NAME=host:port,…;NAME=…`.
    kafka: Kafka = Kafka::default();
}

/// Why the options cannot be used. Shown to whoever starts the platform.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// The file sets something that does not exist.
    #[error("unknown option `{key}`{}", nearest.map_or_else(
        || format!("; the options are {}", PlatformOptions::NAMES.join(", ")),
        |n| format!("; did you mean `{n}`?"),
    ))]
    UnknownKey {
        /// What the file says.
        key: String,
        /// The option that looks most like it, if one does.
        nearest: Option<&'static str>,
    },
    /// A value is of the wrong type or cannot be read.
    #[error("`{name}`: {why}")]
    Value {
        /// The option, or the environment variable.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A value can be read and makes no sense.
    #[error("`{name}`: {why}")]
    Range {
        /// The option.
        name: &'static str,
        /// What is wrong and what is allowed.
        why: String,
    },
}

impl PlatformOverlay {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read, is not TOML, sets an unknown option, or a value of a wrong type.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(read)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::Syntax { path: path.to_owned(), why: "it is larger than 1 MiB".into() });
        }
        Self::from_toml(&text).map_err(|e| match e {
            ConfigError::Syntax { why, .. } => ConfigError::Syntax { path: path.to_owned(), why },
            other => other,
        })
    }

    /// Reads TOML text.
    ///
    /// # Errors
    /// As [`PlatformOverlay::from_file`]; a syntax error has an empty path.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: PathBuf::new(),
            why: e.to_string().trim_end().to_owned(),
        })?;
        let mut table: BTreeMap<String, toml::Value> = table.into_iter().collect();
        if let Some(key) = table.keys().find(|k| !PlatformOptions::NAMES.contains(&k.as_str())) {
            return Err(ConfigError::UnknownKey { key: key.clone(), nearest: nearest(key) });
        }
        Self::take(&mut table)
    }
}

impl PlatformOptions {
    /// The options of a file over the defaults, checked. Without a file: the defaults.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::resolve(file, PlatformOverlay::default(), PlatformOverlay::default())
    }

    /// All sources by precedence (flags over environment over file over defaults), checked.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn resolve(
        file: Option<&Path>,
        environment: PlatformOverlay,
        flags: PlatformOverlay,
    ) -> Result<Self, ConfigError> {
        let file = file.map(PlatformOverlay::from_file).transpose()?.unwrap_or_default();
        let options = Self::default().with(file).with(environment).with(flags);
        options.validate()?;
        Ok(options)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Range`] for the first option that makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        fn between<T: PartialOrd + fmt::Display>(
            name: &'static str,
            value: T,
            low: T,
            high: T,
        ) -> Result<(), ConfigError> {
            if value >= low && value <= high {
                return Ok(());
            }
            Err(ConfigError::Range { name, why: format!("{value} is not between {low} and {high}") })
        }
        let range = |name, why: String| Err(ConfigError::Range { name, why });
        if self.data.as_os_str().is_empty() {
            return range("data", "is empty".into());
        }
        if let Err(e) = telemetry::parse_level(&self.log_level) {
            return range("log_level", e.to_string());
        }
        if self.memory_ceiling_mb != 0 {
            between("memory_ceiling_mb", self.memory_ceiling_mb, 256, 1 << 24)?;
        }
        if self.namespace_ceiling_mb != 0 {
            between("namespace_ceiling_mb", self.namespace_ceiling_mb, 64, 1 << 24)?;
        }
        between("park", self.park, 0, 10_000)?;
        between("keep_alive_s", self.keep_alive_s, 0, 7 * 86_400)?;
        let given = |path: &Path| !path.as_os_str().is_empty();
        match (given(&self.tls_cert), given(&self.tls_key)) {
            (true, false) => return range("tls_key", "is missing: a certificate (`tls_cert`) needs its key".into()),
            (false, true) => return range("tls_cert", "is missing: a key (`tls_key`) needs its certificate".into()),
            (true, true) if self.tls_listen.is_none() => {
                return range("tls_listen", "is missing: a certificate is of use only with an address for TLS".into());
            }
            _ => {}
        }
        if self.tls_listen.is_some_and(|address| address == self.listen && address.port() != 0) {
            return range("tls_listen", format!("is {} like `listen`; each needs its own port", self.listen));
        }
        if let Some(address) = self.queues_listen.0.filter(|a| a.port() != 0)
            && (address == self.listen || Some(address) == self.tls_listen)
        {
            return range(
                "queues_listen",
                format!("is {address} like `listen` or `tls_listen`; each needs its own port"),
            );
        }
        if self.queues_push_allow.len() > 64 {
            return range("queues_push_allow", "has more than 64 ranges".into());
        }
        let others = [Some(self.listen), self.tls_listen];
        if self.objects_listen.0.is_some_and(|address| address.port() != 0 && others.contains(&Some(address))) {
            let why = format!("is {} like `listen` or `tls_listen`; each needs its own port", self.objects_listen);
            return range("objects_listen", why);
        }
        let label = |l: &str| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
        };
        for (name, domain) in [("domain", &self.domain), ("apigw_domain", &self.apigw_domain)] {
            if domain.len() > 150 || !domain.split('.').all(label) {
                return range(name, format!("`{domain}` is not a domain in lower case"));
            }
        }
        if self.domain == self.apigw_domain {
            return range("apigw_domain", "is `domain` too; each needs its own".into());
        }
        between("apigw_idle_s", self.apigw_idle_s, 1, 86_400)?;
        between("apigw_connections", self.apigw_connections as u64, 0, 1_000_000)?;
        let region_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&self.region.len()) || !self.region.bytes().all(region_char) {
            return range("region", "is not 1 to 32 of a-z, 0-9 and `-`".into());
        }
        between("app_id", self.app_id, 1, 99_999_999_999)?;
        between("uin", self.uin, 1, 999_999_999_999_999)?;
        self.validate_networks()?;
        between("precreate_python", self.precreate_python, 0, 256)?;
        between("precreate_node", self.precreate_node, 0, 256)?;
        between("precreate_php", self.precreate_php, 0, 256)?;
        between("precreate_java", self.precreate_java, 0, 256)?;
        between("functions_per_namespace", self.functions_per_namespace, 1, 1_000_000)?;
        between("log_retention_hours", self.log_retention_hours, 1, 10 * 8760)?;
        // The address is read whole, and its secrets kept out of messages, by what connects to it.
        if !self.events.is_empty() && !["nats://", "tls://"].iter().any(|scheme| self.events.starts_with(scheme)) {
            return range("events", "is neither empty nor an address that begins with nats:// or tls://".into());
        }
        if self.events.is_empty() && given(&self.events_credentials) {
            return range("events", "is missing: credentials (`events_credentials`) are for a NATS server".into());
        }
        between("events_max", self.events_max, 1, 10_000_000)?;
        between("events_mb", self.events_mb, 16, 1 << 20)?;
        between("event_bytes_max", self.event_bytes_max, 1024, limits::EVENT_SYNC_BYTES_MAX)?;
        between("call_depth_max", self.call_depth_max, 0, 10_000)?;
        between("failure_disk_mb", self.failure_disk_mb, 16, 1 << 20)?;
        if let Err(why) = self.kafka.validate() {
            return range("kafka", why);
        }
        between("waiting_room", self.waiting_room, 0, 1_000_000)?;
        between("waiting_s", self.waiting_s, 1, u64::from(limits::TIMEOUT_S_MAX))?;
        between("drain_s", self.drain_s, 0, 3600)?;
        between("streams_after_update_s", self.streams_after_update_s, 0, 30 * 86400)
    }

    fn validate_networks(&self) -> Result<(), ConfigError> {
        // Ranges that no instance may be in or reach, whatever the operator says: the host itself, its metadata
        // service, and addresses that do not name one machine.
        const CLOSED: [(&str, &str); 7] = [
            ("127.0.0.0/8", "loopback"),
            ("::1/128", "loopback"),
            ("::ffff:0:0/96", "IPv4 in disguise"),
            ("169.254.0.0/16", "link-local"),
            ("fe80::/10", "link-local"),
            ("224.0.0.0/3", "multicast and reserved"),
            ("0.0.0.0/8", "this network"),
        ];
        let closed = |range: &Cidr| {
            CLOSED
                .iter()
                .find(|(text, _)| text.parse::<Cidr>().is_ok_and(|c| c.overlaps(range)))
                .map(|(text, what)| format!("{range} reaches into {text} ({what}), which is never open to functions"))
        };
        let range = |name, why: String| Err(ConfigError::Range { name, why });
        if !self.network.address().is_ipv4() || !(8..=24).contains(&self.network.prefix()) {
            return range("network", format!("{} is not an IPv4 range between /8 and /24", self.network));
        }
        if let Some(why) = closed(&self.network) {
            return range("network", why);
        }
        for (name, value, from, to) in [
            ("install_memory_mb", self.install_memory_mb, 256, 65_536),
            ("install_disk_mb", self.install_disk_mb, 64, 65_536),
            ("install_time_s", self.install_time_s, 10, 3600),
        ] {
            if !(from..=to).contains(&value) {
                return range(name, format!("{value} is not between {from} and {to}"));
            }
        }
        if self.install_concurrency > 64 {
            return range("install_concurrency", "more than 64 installs at a time are not supported".into());
        }
        for (name, ranges) in [("network_allow", &self.network_allow), ("install_allow", &self.install_allow)] {
            if ranges.len() > 64 {
                return range(name, "has more than 64 ranges".into());
            }
            for allowed in ranges {
                if let Some(why) = closed(allowed) {
                    return range(name, why);
                }
                if allowed.overlaps(&self.network) {
                    let network = self.network;
                    return range(
                        name,
                        format!("{allowed} overlaps `network` ({network}): instances may not reach each other"),
                    );
                }
            }
        }
        Ok(())
    }
}

/// The option whose name is closest to `key`, if it is close.
fn nearest(key: &str) -> Option<&'static str> {
    let key: String = key.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect();
    let (distance, name) = PlatformOptions::NAMES.iter().map(|n| (edits(&key, n), *n)).min()?;
    (distance <= 1 + name.len() / 4).then_some(name)
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
