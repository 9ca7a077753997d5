//! How a cluster is reached.

use crate::KafkaError;
use mayfly_base::{Kafka, KafkaCluster};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Largest file with a password, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// How long a look at a topic may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(3);
/// How long the deletion of a group may take.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);

/// The clusters that the operator named.
#[derive(Clone, Debug, Default)]
pub struct Clusters(BTreeMap<String, Arc<Cluster>>);

impl Clusters {
    /// Those of the options; passwords are read.
    ///
    /// # Errors
    /// When a password cannot be read, or a client cannot be made of the settings: what is wrong, for the operator.
    pub fn new(options: &Kafka, environment: impl Fn(&str) -> Option<String>) -> Result<Self, KafkaError> {
        let mut clusters = BTreeMap::new();
        for (name, settings) in &options.clusters {
            let bad = |why: String| KafkaError(format!("Kafka cluster `{name}`: {why}"));
            let cluster = Cluster::new(settings, &environment).map_err(bad)?;
            // What librdkafka does not know, or files that it cannot read, are told at the start and not by a trigger that never works.
            cluster.config().create::<BaseConsumer>().map_err(|error| bad(error.to_string()))?;
            clusters.insert(name.clone(), Arc::new(cluster));
        }
        Ok(Self(clusters))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.0.get(name)
    }
}

/// Whether a topic is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It is, with so many partitions.
    There(usize),
    /// It is not.
    Missing,
    /// Nobody knows: the cluster does not answer, or not about this.
    Unknown(String),
}

/// A cluster.
pub struct Cluster(ClientConfig);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds a password.
        f.debug_tuple("Cluster").field(&self.0.get("bootstrap.servers")).finish()
    }
}

impl Cluster {
    /// By an operator's settings. Errors: what is wrong with them.
    fn new(settings: &KafkaCluster, environment: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut config = ClientConfig::new();
        // Reconnecting goes on for ever by default; addresses of brokers that moved are looked up anew.
        config
            .set("client.id", "mayfly")
            .set("reconnect.backoff.max.ms", "5000")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("broker.address.ttl", "5000")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in &settings.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", settings.brokers.join(","));
        config.set(
            "security.protocol",
            match (settings.tls, settings.sasl.is_empty()) {
                (false, true) => "plaintext",
                (false, false) => "sasl_plaintext",
                (true, true) => "ssl",
                (true, false) => "sasl_ssl",
            },
        );
        if !settings.sasl.is_empty() {
            config.set("sasl.mechanism", &settings.sasl).set("sasl.username", &settings.user);
            let password = match settings.password_env.as_str() {
                "" => read_password(&settings.password_file)?,
                name => environment(name).ok_or_else(|| format!("`password_env`: {name} is not set"))?,
            };
            config.set("sasl.password", password);
        }
        if settings.tls {
            let files = [
                ("tls_ca", "ssl.ca.location", &settings.tls_ca),
                ("tls_cert", "ssl.certificate.location", &settings.tls_cert),
                ("tls_key", "ssl.key.location", &settings.tls_key),
            ];
            for (name, key, path) in files.into_iter().filter(|(_, _, path)| !path.as_os_str().is_empty()) {
                // The library would not say which file, nor why.
                std::fs::File::open(path)
                    .map_err(|error| format!("`{name}` {} cannot be read: {error}", path.display()))?;
                let path = path.to_str().ok_or_else(|| format!("`{name}` {} is not UTF-8", path.display()))?;
                config.set(key, path);
            }
            if settings.tls_insecure {
                config.set("enable.ssl.certificate.verification", "false");
            }
        }
        Ok(Self(config))
    }

    pub(crate) fn config(&self) -> ClientConfig {
        self.0.clone()
    }

    /// Looks for a topic, for a few seconds at most.
    pub async fn topic(&self, topic: &str) -> TopicState {
        let (config, topic) = (self.config(), topic.to_owned());
        let look = tokio::task::spawn_blocking(move || look_for(&config, &topic));
        look.await.unwrap_or_else(|error| TopicState::Unknown(error.to_string()))
    }

    /// Deletes a consumer group and its offsets, which succeeds when it has no members any more.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn delete_group(&self, group: &str) -> Result<(), KafkaError> {
        let config = self.config();
        let admin = tokio::task::spawn_blocking(move || config.create::<AdminClient<DefaultClientContext>>());
        let admin = admin.await.map_err(|error| KafkaError(error.to_string()))??;
        let options = AdminOptions::new().request_timeout(Some(DELETE_PATIENCE));
        let results = admin.delete_groups(&[group], &options).await;
        // Ending a client may wait for its connections.
        drop(tokio::task::spawn_blocking(move || drop(admin)));
        for result in results? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((_, code)) => return Err(KafkaError(code.to_string())),
            }
        }
        Ok(())
    }
}

pub(crate) fn look_for(config: &ClientConfig, topic: &str) -> TopicState {
    let unknown = |error: rdkafka::error::KafkaError| TopicState::Unknown(error.to_string());
    let client: BaseConsumer = match config.create() {
        Ok(client) => client,
        Err(error) => return unknown(error),
    };
    let metadata = match client.fetch_metadata(Some(topic), CHECK_PATIENCE) {
        Ok(metadata) => metadata,
        Err(error) => return unknown(error),
    };
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
        return TopicState::Missing;
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => TopicState::There(found.partitions().len()),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::InvalidTopic,
        ) => TopicState::Missing,
        Some(code) => TopicState::Unknown(code.to_string()),
    }
}

fn read_password(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("`password_file` {} cannot be read: {error}", path.display()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    match password.is_empty() {
        true => Err(format!("`password_file` {} is empty", path.display())),
        false => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(settings: KafkaCluster) -> Result<Clusters, KafkaError> {
        let settings = KafkaCluster { brokers: vec!["127.0.0.1:1".into()], ..settings };
        let options = Kafka { clusters: BTreeMap::from([("main".to_owned(), settings)]) };
        Clusters::new(&options, |name| (name == "SECRET").then(|| "s3cret".to_owned()))
    }

    #[test]
    fn the_client_has_what_clusters_need() {
        let native = ClientConfig::new().create_native_config().unwrap();
        let features = native.get("builtin.features").unwrap();
        for feature in ["gzip", "snappy", "lz4", "zstd", "ssl", "sasl_plain", "sasl_scram"] {
            assert!(features.contains(feature), "{feature} is not among {features}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_at_the_start() {
        let says = |settings| cluster(settings).expect_err("it cannot work").to_string();
        let login = || KafkaCluster { sasl: "PLAIN".into(), user: "u".into(), ..KafkaCluster::default() };
        let unset = says(KafkaCluster { password_env: "NOBODY".into(), ..login() });
        assert!(unset.starts_with("Kafka cluster `main`:") && unset.contains("NOBODY is not set"), "{unset}");
        let missing = says(KafkaCluster { password_file: "/nowhere/password".into(), ..login() });
        assert!(missing.contains("/nowhere/password"), "{missing}");
        let properties = BTreeMap::from([("no.such.property".to_owned(), "1".to_owned())]);
        assert!(says(KafkaCluster { properties, ..KafkaCluster::default() }).contains("no.such.property"));
        let ca = says(KafkaCluster { tls: true, tls_ca: "/nowhere/ca.pem".into(), ..KafkaCluster::default() });
        assert!(ca.contains("ca.pem"), "{ca}");
        let good = cluster(KafkaCluster { password_env: "SECRET".into(), ..login() }).unwrap();
        assert!(!format!("{good:?}").contains("s3cret"), "{good:?}");
        assert_eq!(good.names().collect::<Vec<_>>(), ["main"]);
    }

    #[test]
    fn passwords_end_before_the_line_does() {
        let file = std::env::temp_dir().join(format!("mayfly-kafka-password-{}", std::process::id()));
        std::fs::write(&file, "a b\r\n").unwrap();
        assert_eq!(read_password(&file).as_deref(), Ok("a b"));
        std::fs::write(&file, "\n").unwrap();
        assert!(read_password(&file).unwrap_err().contains("is empty"));
        std::fs::remove_file(&file).unwrap();
    }
}
