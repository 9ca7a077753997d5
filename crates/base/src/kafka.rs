//! The Kafka clusters that an operator names: what triggers may listen to, and the secrets for it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Most clusters.
const CLUSTERS_MAX: usize = 100;
/// Longest name of a cluster, in characters: triggers' names begin with it.
const NAME_CHARS_MAX: usize = 40;
/// Properties of the client that the platform sets itself, and those that would load code.
const OWN_PROPERTIES: [&str; 14] = [
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "plugin.library.paths",
    "sasl.password",
    "sasl.username",
    "ssl.engine.location",
];

/// The clusters, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// The clusters. A trigger's name is that of a cluster, `-`, and that of a topic.
    pub clusters: BTreeMap<String, KafkaCluster>,
}

/// How a cluster is reached. Passwords stand in files or in the environment, never here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaCluster {
    /// Some of its brokers, `host:port`.
    pub brokers: Vec<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty: no login.
    pub sasl: String,
    /// Who logs in.
    pub user: String,
    /// File that holds the password; a line break at its end does not count.
    pub password_file: PathBuf,
    /// Environment variable that holds the password.
    pub password_env: String,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// File with the authorities that brokers' certificates are checked against (PEM); empty: the system's.
    pub tls_ca: PathBuf,
    /// Set to leave brokers' certificates unchecked: whoever is in between can read and change everything.
    pub tls_insecure: bool,
    /// File with the client's own certificate (PEM), where brokers ask for one.
    pub tls_cert: PathBuf,
    /// File with its private key (PEM, not encrypted).
    pub tls_key: PathBuf,
    /// Further properties of the client, as librdkafka names them.
    pub properties: BTreeMap<String, String>,
}

impl Kafka {
    /// Checks what types cannot say. Errors: the part of `kafka` and what is wrong with it.
    pub fn validate(&self) -> Result<(), String> {
        if self.clusters.len() > CLUSTERS_MAX {
            return Err(format!("has more than {CLUSTERS_MAX} clusters"));
        }
        let named = |name: &str| {
            (1..=NAME_CHARS_MAX).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        for (name, cluster) in &self.clusters {
            if !named(name) {
                return Err(format!("`{name}` is not a name of 1 to {NAME_CHARS_MAX} letters, digits, `-` and `_`"));
            }
            cluster.validate().map_err(|why| format!("cluster `{name}`: {why}"))?;
        }
        Ok(())
    }
}

impl KafkaCluster {
    fn validate(&self) -> Result<(), String> {
        let address = |text: &String| {
            let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(1..))) && !text.contains([',', '/']) && !text.contains(char::is_whitespace)
        };
        if self.brokers.is_empty() {
            return Err("`brokers` is empty".into());
        }
        if let Some(bad) = self.brokers.iter().find(|text| !address(text)) {
            return Err(format!("`brokers`: `{bad}` is not host:port"));
        }
        let given = |path: &PathBuf| !path.as_os_str().is_empty();
        match self.sasl.as_str() {
            "" if self.user.is_empty() && !given(&self.password_file) && self.password_env.is_empty() => {}
            "" => return Err("`sasl` is missing: a user or a password is for a login (`PLAIN`, say)".into()),
            "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
                if self.user.is_empty() {
                    return Err("`user` is missing, which `sasl` needs".into());
                }
                if given(&self.password_file) != self.password_env.is_empty() {
                    return Err("`sasl` needs a password, from either `password_file` or `password_env`".into());
                }
            }
            other => return Err(format!("`sasl` is `{other}`; it is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")),
        }
        if !self.tls && (given(&self.tls_ca) || given(&self.tls_cert) || given(&self.tls_key) || self.tls_insecure) {
            return Err("`tls` is not set, and what goes with it is".into());
        }
        if given(&self.tls_cert) != given(&self.tls_key) {
            return Err("`tls_cert` and `tls_key` go together".into());
        }
        match self.properties.keys().find(|key| OWN_PROPERTIES.contains(&key.as_str())) {
            Some(key) => Err(format!("`properties`: `{key}` is not yours to set")),
            None => Ok(()),
        }
    }
}

/// `NAME=host:port,host:port`, with `;` between clusters: those that need neither login nor TLS.
impl FromStr for Kafka {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut clusters = BTreeMap::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, brokers) = part.split_once('=').ok_or_else(|| format!("`{part}` is not NAME=host:port,…"))?;
            let brokers = brokers.split(',').map(|b| b.trim().to_owned()).filter(|b| !b.is_empty()).collect();
            clusters.insert(name.trim().to_owned(), KafkaCluster { brokers, ..KafkaCluster::default() });
        }
        let kafka = Self { clusters };
        kafka.validate()?;
        Ok(kafka)
    }
}

impl fmt::Display for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, cluster)) in self.clusters.iter().enumerate() {
            write!(f, "{}{name}={}", if at == 0 { "" } else { ";" }, cluster.brokers.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_can_stand_in_a_line() {
        let kafka: Kafka = "main=a:9092, b:9092; other=[::1]:9092;".parse().unwrap();
        assert_eq!(kafka.clusters["main"].brokers, ["a:9092", "b:9092"]);
        assert_eq!(kafka.to_string(), "main=a:9092,b:9092;other=[::1]:9092");
        assert_eq!(kafka.to_string().parse::<Kafka>().unwrap(), kafka);
        for bad in ["main", "main=", "main=a", "main=a:0", "ma in=a:1", "main=a:1/x"] {
            assert!(bad.parse::<Kafka>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let says = |text: &str| {
            let text = format!("brokers = [\"a:1\"]\n{text}");
            let cluster: KafkaCluster = toml::from_str(&text).unwrap();
            cluster.validate().err().unwrap_or_default()
        };
        assert_eq!(says(""), "");
        assert_eq!(says("sasl = \"PLAIN\"\nuser = \"u\"\npassword_env = \"P\""), "");
        assert_eq!(says("tls = true\ntls_ca = \"/ca.pem\"\nproperties = { \"fetch.wait.max.ms\" = \"10\" }"), "");
        assert!(says("sasl = \"GSSAPI\"").contains("SCRAM-SHA-512"));
        assert!(says("sasl = \"PLAIN\"\nuser = \"u\"").contains("password_file"));
        assert!(says("sasl = \"PLAIN\"\nuser = \"u\"\npassword_env = \"P\"\npassword_file = \"f\"").contains("either"));
        assert!(says("user = \"u\"").contains("`sasl` is missing"));
        assert!(says("tls_ca = \"/ca.pem\"").contains("`tls` is not set"));
        assert!(says("tls = true\ntls_cert = \"c\"").contains("go together"));
        assert!(says("properties = { \"group.id\" = \"g\" }").contains("group.id"));
        assert!(toml::from_str::<KafkaCluster>("password = \"secret\"").is_err());
    }
}
