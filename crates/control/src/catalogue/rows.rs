//! How the catalogue is kept: one JSON row for each namespace, function, version, alias, layer, layer version,
//! custom domain and certificate.

use super::state::FunctionState;
use mayfly_model::{
    AliasRecord, CertificateRecord, DomainRecord, FunctionRecord, LayerName, LayerVersionRecord, NamespaceRecord,
    VersionRecord,
};
use mayfly_store::{Change, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAMESPACE: &str = "namespace";
const FUNCTION: &str = "function";
const VERSION: &str = "version";
const ALIAS: &str = "alias";
const LAYER: &str = "layer";
const LAYER_VERSION: &str = "layer_version";
const DOMAIN: &str = "domain";
const CERTIFICATE: &str = "certificate";

/// Why the stored rows cannot be used. Says which row, for the operator; clients never see it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store could not be read.
    #[error("the metadata cannot be read: {0}")]
    Store(#[from] mayfly_store::StoreError),
    /// The log of events could not be read.
    #[error("the pending asynchronous events cannot be read: {0}")]
    Events(mayfly_store::StoreError),
    /// A row of a kind that this release does not know.
    #[error("row `{kind}/{key}`: this release knows no rows of this kind; it was written by a newer one")]
    UnknownKind {
        /// Kind of the row.
        kind: String,
        /// Key of the row.
        key: String,
    },
    /// A row that does not hold what its kind says.
    #[error("row `{kind}/{key}` is damaged: {why}")]
    BadRow {
        /// Kind of the row.
        kind: &'static str,
        /// Key of the row.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The row of a layer: what outlives its versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its name.
    pub name: LayerName,
    /// The number the next version gets.
    pub next_version: u32,
}

/// Everything that was stored, sorted out.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The namespaces.
    pub namespaces: Vec<NamespaceRecord>,
    /// The functions with their versions and aliases.
    pub functions: Vec<FunctionState>,
    /// The layers.
    pub layers: BTreeMap<LayerName, LayerRecord>,
    /// The layer versions.
    pub layer_versions: Vec<LayerVersionRecord>,
    /// The custom domains.
    pub domains: Vec<DomainRecord>,
    /// The certificates.
    pub certificates: Vec<CertificateRecord>,
}

fn parse<T: DeserializeOwned>(kind: &'static str, row: &Row) -> Result<T, LoadError> {
    serde_json::from_str(&row.value).map_err(|e| LoadError::BadRow { kind, key: row.key.clone(), why: e.to_string() })
}

/// Sorts rows out. Errors: [`LoadError`] on a row that is unknown, unreadable, or belongs to nothing.
pub fn sort_out(rows: Vec<Row>) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    let mut functions: BTreeMap<String, FunctionState> = BTreeMap::new();
    let mut versions: Vec<VersionRecord> = Vec::new();
    let mut aliases: Vec<AliasRecord> = Vec::new();
    for row in &rows {
        match row.kind.as_str() {
            NAMESPACE => loaded.namespaces.push(parse(NAMESPACE, row)?),
            FUNCTION => {
                let record: FunctionRecord = parse(FUNCTION, row)?;
                functions.insert(record.id.clone(), FunctionState::new(record));
            }
            VERSION => versions.push(parse(VERSION, row)?),
            ALIAS => aliases.push(parse(ALIAS, row)?),
            LAYER => {
                let record: LayerRecord = parse(LAYER, row)?;
                loaded.layers.insert(record.name.clone(), record);
            }
            DOMAIN => loaded.domains.push(parse(DOMAIN, row)?),
            CERTIFICATE => loaded.certificates.push(parse(CERTIFICATE, row)?),
            LAYER_VERSION => loaded.layer_versions.push(parse(LAYER_VERSION, row)?),
            _ => return Err(LoadError::UnknownKind { kind: row.kind.clone(), key: row.key.clone() }),
        }
    }
    let orphan = |kind, key| LoadError::BadRow { kind, key, why: "what it belongs to is not there".into() };
    for record in versions {
        let key = version_key(&record);
        let state = functions.get_mut(&record.function_id).ok_or_else(|| orphan(VERSION, key))?;
        state.versions.insert(record.number, Arc::new(record));
    }
    for record in aliases {
        let key = alias_key(&record);
        let state = functions.get_mut(&record.function_id).ok_or_else(|| orphan(ALIAS, key.clone()))?;
        if let Some(version) = state.dangling_version(&record) {
            return Err(LoadError::BadRow {
                kind: ALIAS,
                key,
                why: format!("it points at version {version}, which is not there"),
            });
        }
        state.aliases.insert(record.name.clone(), Arc::new(record));
    }
    for record in &loaded.layer_versions {
        if loaded.layers.get(&record.name).is_none_or(|l| l.next_version <= record.version) {
            return Err(orphan(LAYER_VERSION, layer_version_key(record)));
        }
    }
    loaded.functions = functions.into_values().collect();
    Ok(loaded)
}

fn version_key(record: &VersionRecord) -> String {
    format!("{}/{}", record.function_id, record.number)
}

fn alias_key(record: &AliasRecord) -> String {
    format!("{}/{}", record.function_id, record.name)
}

fn layer_version_key(record: &LayerVersionRecord) -> String {
    format!("{}/{}", record.name, record.version)
}

fn put(kind: &'static str, key: String, record: &impl Serialize) -> Change {
    let value = serde_json::to_string(record).expect("records have text keys and serialise");
    Change::Put { kind, key, value }
}

/// The row of a namespace.
pub fn put_namespace(record: &NamespaceRecord) -> Change {
    put(NAMESPACE, record.name.to_string(), record)
}

/// Removes the row of a namespace.
pub fn delete_namespace(name: &str) -> Change {
    Change::Delete { kind: NAMESPACE, key: name.to_owned() }
}

/// The row of a layer.
pub fn put_layer(record: &LayerRecord) -> Change {
    put(LAYER, record.name.to_string(), record)
}

/// The row of a layer version.
pub fn put_layer_version(record: &LayerVersionRecord) -> Change {
    put(LAYER_VERSION, layer_version_key(record), record)
}

/// Removes the row of a layer version.
pub fn delete_layer_version(record: &LayerVersionRecord) -> Change {
    Change::Delete { kind: LAYER_VERSION, key: layer_version_key(record) }
}

/// The row of a custom domain.
pub fn put_domain(record: &DomainRecord) -> Change {
    put(DOMAIN, record.name.clone(), record)
}

/// Removes the row of a custom domain.
pub fn delete_domain(name: String) -> Change {
    Change::Delete { kind: DOMAIN, key: name }
}

/// The row of a certificate.
pub fn put_certificate(record: &CertificateRecord) -> Change {
    put(CERTIFICATE, record.id.clone(), record)
}

/// Removes the row of a certificate.
pub fn delete_certificate(id: String) -> Change {
    Change::Delete { kind: CERTIFICATE, key: id }
}

/// Equality that looks at the content only of what is not shared: most records are, between two states of a function.
fn same<T: PartialEq>(a: Option<&Arc<T>>, b: &Arc<T>) -> bool {
    a.is_some_and(|a| Arc::ptr_eq(a, b) || a == b)
}

/// What has to be written to get from one state of a function to another; `None` is a function that does not exist.
/// Both states, when there are two, are of one function.
pub fn difference(old: Option<&FunctionState>, new: Option<&FunctionState>) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(new) = new {
        if !same(old.map(|old| &old.record), &new.record) {
            changes.push(put(FUNCTION, new.record.id.clone(), &*new.record));
        }
        for (number, record) in &new.versions {
            if !same(old.and_then(|old| old.versions.get(number)), record) {
                changes.push(put(VERSION, version_key(record), &**record));
            }
        }
        for (name, record) in &new.aliases {
            if !same(old.and_then(|old| old.aliases.get(name)), record) {
                changes.push(put(ALIAS, alias_key(record), &**record));
            }
        }
    }
    if let Some(old) = old {
        for (name, record) in &old.aliases {
            if new.is_none_or(|new| !new.aliases.contains_key(name)) {
                changes.push(Change::Delete { kind: ALIAS, key: alias_key(record) });
            }
        }
        for (number, record) in &old.versions {
            if new.is_none_or(|new| !new.versions.contains_key(number)) {
                changes.push(Change::Delete { kind: VERSION, key: version_key(record) });
            }
        }
        if new.is_none() {
            changes.push(Change::Delete { kind: FUNCTION, key: old.record.id.clone() });
        }
    }
    changes
}
