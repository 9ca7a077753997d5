//! One function as it is at a moment: the records, and the routes made of them.

use super::urls::Urls;
use mayfly_model::{
    AliasName, AliasRecord, ApiError, Digest, FunctionRecord, InstallState, ProvisionedConfig, Qualifier,
    VersionConfig, VersionKey, VersionMatch, VersionRecord, VersionSpec,
};
use mayfly_plan::route::{Choice, choose};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The records of one function. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionState {
    /// The function and `$LATEST`.
    pub record: Arc<FunctionRecord>,
    /// Published versions.
    pub versions: BTreeMap<u32, Arc<VersionRecord>>,
    /// Aliases.
    pub aliases: BTreeMap<AliasName, Arc<AliasRecord>>,
}

impl FunctionState {
    /// A function without versions and aliases.
    pub fn new(record: FunctionRecord) -> Self {
        Self { record: Arc::new(record), versions: BTreeMap::new(), aliases: BTreeMap::new() }
    }

    /// The settings of a version, by its text: `$LATEST` or a number.
    pub fn config(&self, version: &str) -> Option<&VersionConfig> {
        match version {
            "$LATEST" => Some(&self.record.latest),
            number => self.versions.get(&number.parse::<u32>().ok()?).map(|v| &v.config),
        }
    }

    /// The first version that an alias leads to and that does not exist.
    pub fn dangling_version<'a>(&self, alias: &'a AliasRecord) -> Option<&'a str> {
        versions_of(alias).find(|version| self.config(version).is_none())
    }

    /// Memory that its orders of ready instances can take, in MB.
    pub fn provisioned_mb(&self) -> u64 {
        let mb = |p: &ProvisionedConfig| {
            let memory_mb = self.versions.get(&p.version).map_or(0, |v| v.config.memory_mb);
            u64::from(p.most()) * u64::from(memory_mb)
        };
        self.record.provisioned.iter().map(mb).fold(0, u64::saturating_add)
    }

    /// The digests of code and layers of every version.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        let configs = std::iter::once(&self.record.latest).chain(self.versions.values().map(|v| &v.config));
        let waiting = self.record.install.iter().map(|install| install.source.digest);
        configs.flat_map(digests_of).chain(waiting)
    }

    /// Why nobody may be sent to it: its first install has not ended, or has failed. Errors: `FailedOperation.FunctionStatusError`.
    pub fn check_serving(&self) -> Result<(), ApiError> {
        match &self.record.install {
            Some(install) if !install.serving => Err(self.status_error(install)),
            _ => Ok(()),
        }
    }

    /// Why it cannot be changed now: an install is under way. Errors: `FailedOperation.FunctionStatusError`.
    pub fn check_idle(&self) -> Result<(), ApiError> {
        match &self.record.install {
            Some(install) if install.is_running() => Err(self.status_error(install)),
            _ => Ok(()),
        }
    }

    fn status_error(&self, install: &InstallState) -> ApiError {
        let name = &self.record.name;
        let message = match (&install.failed, install.serving) {
            (None, false) => format!(
                "Function `{name}` is being created: its dependencies are being installed. Try again when its Status is Active."
            ),
            (None, true) => format!(
                "Function `{name}` is being updated: its dependencies are being installed. Try again when its Status is Active."
            ),
            (Some(_), _) => format!(
                "Function `{name}` could not be created: its dependencies could not be installed (StatusReasons of GetFunction tells why). Update its code, or delete it."
            ),
        };
        ApiError::new("FailedOperation.FunctionStatusError", message)
    }
}

/// The digests of a version's code and layers.
pub fn digests_of(config: &VersionConfig) -> impl Iterator<Item = Digest> + '_ {
    let packages = std::iter::once(&config.code).chain(&config.source);
    packages.map(|code| code.digest).chain(config.layers.iter().map(|l| l.code.digest))
}

/// Every version that an alias may lead to, the main one first.
pub fn versions_of(alias: &AliasRecord) -> impl Iterator<Item = &str> {
    let weights = alias.weights.iter().map(|(version, _)| version.as_str());
    let rules = alias.matches.iter().map(|rule| rule.version.as_str());
    std::iter::once(alias.version.as_str()).chain(weights).chain(rules)
}

/// The reserved quota of a function, readable from the hot path. One per function, shared by its versions.
#[derive(Debug)]
pub struct FunctionQuota(AtomicU64);

const UNRESERVED: u64 = u64::MAX;

impl FunctionQuota {
    fn new(reserved_mb: Option<u64>) -> Self {
        Self(AtomicU64::new(reserved_mb.unwrap_or(UNRESERVED)))
    }

    /// The cap and exclusive share, in MB. `None`: the function shares the account's quota.
    pub fn reserved_mb(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            UNRESERVED => None,
            mb => Some(mb),
        }
    }

    fn set(&self, reserved_mb: Option<u64>) {
        self.0.store(reserved_mb.unwrap_or(UNRESERVED), Ordering::Relaxed);
    }
}

/// One runnable version, as the routing table hands it out. The same version is the same `Arc` for as long as it lives.
#[derive(Debug)]
pub struct RouteTarget {
    /// What a node needs to run it.
    pub spec: Arc<VersionSpec>,
    /// The function's quota.
    pub quota: Arc<FunctionQuota>,
    attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl RouteTarget {
    fn new(record: &FunctionRecord, version: String, config: &VersionConfig, quota: &Arc<FunctionQuota>) -> Arc<Self> {
        Self::of(
            VersionSpec {
                key: VersionKey { function_id: record.id.clone(), version, revision: config.revision },
                namespace: record.namespace.clone(),
                function: record.name.clone(),
                config: Arc::new(config.clone()),
            },
            quota.clone(),
        )
    }

    /// A target outside of any catalogue, for the tests of those who receive targets.
    pub fn detached(spec: VersionSpec, reserved_mb: Option<u64>) -> Arc<Self> {
        Self::of(spec, Arc::new(FunctionQuota::new(reserved_mb)))
    }

    fn of(spec: VersionSpec, quota: Arc<FunctionQuota>) -> Arc<Self> {
        Arc::new(Self { spec: Arc::new(spec), quota, attachment: OnceLock::new() })
    }

    /// What the owner of the instances keeps with this version, made on first use. `None` only if a value of another
    /// type was attached before.
    pub fn attachment<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<&T> {
        self.attachment.get_or_init(|| make()).downcast_ref::<T>()
    }

    /// What is attached already.
    pub fn attached<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.attachment.get()?.downcast_ref::<T>()
    }
}

/// An alias with its targets looked up.
#[derive(Debug)]
struct AliasRoute {
    main: Arc<RouteTarget>,
    weights: Vec<(f64, Arc<RouteTarget>)>,
    rules: Vec<VersionMatch>,
    rule_targets: Vec<Arc<RouteTarget>>,
}

/// One function as readers see it: never half of a change.
#[derive(Debug)]
pub struct FunctionEntry {
    /// The records.
    pub state: FunctionState,
    quota: Arc<FunctionQuota>,
    latest: Arc<RouteTarget>,
    versions: BTreeMap<u32, Arc<RouteTarget>>,
    aliases: BTreeMap<AliasName, AliasRoute>,
    /// `$DEFAULT` as long as it is a plain pointer, so that the commonest call needs no second look-up.
    default_plain: Option<Arc<RouteTarget>>,
    pub(super) urls: Urls,
}

impl FunctionEntry {
    /// Makes the routes of `state`; targets of versions that did not change are taken over from `previous`.
    pub(super) fn build(state: FunctionState, previous: Option<&FunctionEntry>) -> Self {
        let previous = previous.filter(|p| p.state.record.id == state.record.id);
        let quota = match previous {
            Some(previous) => {
                previous.quota.set(state.record.reserved_mb);
                previous.quota.clone()
            }
            None => Arc::new(FunctionQuota::new(state.record.reserved_mb)),
        };
        let record = &state.record;
        let latest = match previous {
            // Equal revisions mean that nothing an instance depends on has changed: it keeps its instances.
            Some(p) if p.state.record.latest.revision == record.latest.revision => p.latest.clone(),
            _ => RouteTarget::new(record, "$LATEST".into(), &record.latest, &quota),
        };
        let versions: BTreeMap<u32, Arc<RouteTarget>> = state
            .versions
            .iter()
            .map(|(number, version)| {
                let old = previous.and_then(|p| p.versions.get(number));
                let target = old
                    .cloned()
                    .unwrap_or_else(|| RouteTarget::new(record, number.to_string(), &version.config, &quota));
                (*number, target)
            })
            .collect();
        let find = |version: &str| match version {
            "$LATEST" => latest.clone(),
            // Aliases are checked against the versions whenever either changes.
            number => number.parse().ok().and_then(|n: u32| versions.get(&n)).unwrap_or(&latest).clone(),
        };
        let aliases: BTreeMap<AliasName, AliasRoute> = state
            .aliases
            .iter()
            .map(|(name, alias)| {
                let route = AliasRoute {
                    main: find(&alias.version),
                    weights: alias.weights.iter().map(|(version, share)| (*share, find(version))).collect(),
                    rules: alias.matches.clone(),
                    rule_targets: alias.matches.iter().map(|rule| find(&rule.version)).collect(),
                };
                (name.clone(), route)
            })
            .collect();
        let default_plain = aliases
            .get(&AliasName::default_alias())
            .filter(|route| route.weights.is_empty() && route.rules.is_empty())
            .map(|route| route.main.clone());
        let urls = Urls::of(&state.record.urls);
        Self { quota, latest, versions, aliases, state, default_plain, urls }
    }

    /// The target of a qualifier's text. `random` is uniform in [0, 1). `None`: no such version or alias.
    pub fn route(&self, qualifier: &str, routing_key: &[(String, String)], random: f64) -> Option<Arc<RouteTarget>> {
        if qualifier == "$LATEST" {
            return Some(self.latest.clone());
        }
        if qualifier == "$DEFAULT"
            && let Some(target) = &self.default_plain
        {
            return Some(target.clone());
        }
        match Qualifier::parse(qualifier).ok()? {
            Qualifier::Latest => Some(self.latest.clone()),
            Qualifier::Version(number) => self.versions.get(&number).cloned(),
            Qualifier::Alias(name) => {
                let route = self.aliases.get(&name)?;
                let shares = route.weights.iter().map(|(share, _)| *share);
                Some(match choose(&route.rules, shares, routing_key, random) {
                    Choice::Main => route.main.clone(),
                    Choice::Weight(i) => route.weights[i].1.clone(),
                    Choice::Match(i) => route.rule_targets[i].clone(),
                })
            }
        }
    }

    /// The target that calls without a qualifier reach, or most of them.
    pub fn main(&self) -> &Arc<RouteTarget> {
        self.aliases.get(&AliasName::default_alias()).map_or(&self.latest, |route| &route.main)
    }

    /// The target of a published version.
    pub fn published(&self, number: u32) -> Option<&Arc<RouteTarget>> {
        self.versions.get(&number)
    }

    /// Every target.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<RouteTarget>> {
        std::iter::once(&self.latest).chain(self.versions.values())
    }
}
