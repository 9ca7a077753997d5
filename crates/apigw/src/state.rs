//! Everything that is configured, kept durable and read without locks.
//!
//! Every change goes one way: wait for the one before, compute the next state from the old one, write the difference in one atomic
//! batch, and only then publish it. After a crash the rows are the truth.

use crate::limits::LimiterSet;
use crate::records::{
    ApiRecord, Auth, Binding, ConnectionRecord, KeyRecord, PlanRecord, ReleaseRecord, ServiceRecord, Stage, UsageRecord,
};
use crate::route::Table;
use arc_swap::ArcSwap;
use mayfly_model::ApiError;
use mayfly_store::{Change, MetaStore, Row, StoreError};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SERVICE: &str = "apigw_service";
const API: &str = "apigw_api";
const RELEASE: &str = "apigw_release";
const KEY: &str = "apigw_key";
const PLAN: &str = "apigw_plan";
const USAGE: &str = "apigw_usage";
const CONNECTION: &str = "apigw_connection";

/// Releases of a service that are kept for going back to, beside those that are served.
pub const RELEASES_KEPT: usize = 10;

/// All that is configured at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The services by id.
    pub services: BTreeMap<String, Arc<ServiceRecord>>,
    /// The APIs by id.
    pub apis: BTreeMap<String, Arc<ApiRecord>>,
    /// The releases by service and name.
    pub releases: BTreeMap<(String, String), Arc<ReleaseRecord>>,
    /// The keys by id.
    pub keys: BTreeMap<String, Arc<KeyRecord>>,
    /// The usage plans by id.
    pub plans: BTreeMap<String, Arc<PlanRecord>>,
    /// What visitors reach, made of the releases.
    tables: HashMap<(String, Stage), Arc<Table>>,
}

impl State {
    /// What visitors of a service's environment reach. `None`: nothing is released there.
    pub fn table(&self, service: &str, stage: Stage) -> Option<&Arc<Table>> {
        // Only services that are there have tables, so the allocation is that of the key alone.
        self.tables.get(&(service.to_owned(), stage))
    }

    /// The APIs of a service, by id.
    pub fn apis_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Arc<ApiRecord>> {
        self.apis.values().filter(move |api| api.service == service)
    }

    /// An API of a service. Errors: `ResourceNotFound.InvalidApi`.
    pub fn api(&self, service: &str, id: &str) -> Result<&Arc<ApiRecord>, ApiError> {
        self.apis.get(id).filter(|api| api.service == service).ok_or_else(|| {
            let message = format!("The service `{}` has no API `{}`.", clip(service), clip(id));
            ApiError::new("ResourceNotFound.InvalidApi", message)
        })
    }

    /// A service. Errors: `ResourceNotFound.InvalidService`.
    pub fn service(&self, id: &str) -> Result<&Arc<ServiceRecord>, ApiError> {
        self.services.get(id).ok_or_else(|| {
            ApiError::new("ResourceNotFound.InvalidService", format!("There is no service `{}`.", clip(id)))
        })
    }

    /// A key. Errors: `ResourceNotFound.InvalidAccessKeyId`.
    pub fn key(&self, id: &str) -> Result<&Arc<KeyRecord>, ApiError> {
        self.keys.get(id).ok_or_else(|| {
            ApiError::new("ResourceNotFound.InvalidAccessKeyId", format!("There is no key `{}`.", clip(id)))
        })
    }

    /// A usage plan. Errors: `ResourceNotFound.InvalidUsagePlan`.
    pub fn plan(&self, id: &str) -> Result<&Arc<PlanRecord>, ApiError> {
        self.plans.get(id).ok_or_else(|| {
            ApiError::new("ResourceNotFound.InvalidUsagePlan", format!("There is no usage plan `{}`.", clip(id)))
        })
    }

    /// Environments that serve an API, with the release that does.
    pub fn stages_of(&self, api: &ApiRecord) -> Vec<Stage> {
        let Some(service) = self.services.get(&api.service) else { return Vec::new() };
        let serves =
            |stage: &&Stage| self.released(service, **stage).is_some_and(|r| r.apis.iter().any(|a| a.id == api.id));
        service.stages.keys().filter(serves).copied().collect()
    }

    /// The release that an environment of a service serves.
    pub fn released(&self, service: &ServiceRecord, stage: Stage) -> Option<&Arc<ReleaseRecord>> {
        let version = &service.stages.get(&stage)?.version;
        self.releases.get(&(service.id.clone(), version.clone()))
    }

    /// The plan, if any, that lets `key` into an API in an environment: one bound to the API itself before one bound to its service.
    pub fn plan_for(&self, key: &str, api: &ApiRecord, stage: Stage) -> Option<&Arc<PlanRecord>> {
        let own = Binding { service: api.service.clone(), stage, api: Some(api.id.clone()) };
        let whole = Binding { api: None, ..own.clone() };
        let bound =
            |binding: &Binding| self.plans.values().find(|p| p.keys.contains(key) && p.bindings.contains(binding));
        bound(&own).or_else(|| bound(&whole))
    }

    /// The rules by which a business API's tokens are verified, if its authorising API is there.
    pub fn token_rules(&self, issuer: &str) -> Option<&crate::records::TokenRules> {
        match &self.apis.get(issuer)?.auth {
            Auth::Issuer(rules) => Some(rules),
            _ => None,
        }
    }

    /// Makes the tables of a service anew.
    fn rebuild(&mut self, service: &str) {
        for stage in Stage::ALL {
            let key = (service.to_owned(), stage);
            let release = self.services.get(service).and_then(|s| self.released(s, stage));
            let table = release.map(|release| {
                // What has been deleted since is no longer served; settings that hold without a release are the newest.
                let living = release.apis.iter().filter_map(|released| {
                    let now = self.apis.get(&released.id)?;
                    let mut api = released.clone();
                    api.limits = now.limits.clone();
                    api.push_token = now.push_token.clone();
                    Some(Arc::new(api))
                });
                Arc::new(Table::new(living.collect()))
            });
            match table {
                Some(table) => drop(self.tables.insert(key, table)),
                None => drop(self.tables.remove(&key)),
            }
        }
    }
}

/// A text of a client's, short enough for a message.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// One step of a change.
#[derive(Debug)]
pub enum Edit {
    /// Creates or replaces a service.
    Service(ServiceRecord),
    /// Removes a service, with its releases.
    DropService(String),
    /// Creates or replaces an API.
    Api(Box<ApiRecord>),
    /// Removes an API.
    DropApi(String),
    /// Keeps a release.
    Release(ReleaseRecord),
    /// Creates or replaces a key.
    Key(KeyRecord),
    /// Removes a key.
    DropKey(String),
    /// Creates or replaces a plan.
    Plan(PlanRecord),
    /// Removes a plan.
    DropPlan(String),
}

fn put(kind: &'static str, key: String, record: &impl Serialize) -> Change {
    let value = serde_json::to_string(record).expect("records have text keys and serialise");
    Change::Put { kind, key, value }
}

impl State {
    /// Does one step, and says which rows that changes and which service's tables.
    fn apply(&mut self, edit: Edit, rows: &mut Vec<Change>) -> Option<String> {
        match edit {
            Edit::Service(record) => {
                let id = record.id.clone();
                rows.push(put(SERVICE, id.clone(), &record));
                self.services.insert(id.clone(), Arc::new(record));
                Some(id)
            }
            Edit::DropService(id) => {
                rows.push(Change::Delete { kind: SERVICE, key: id.clone() });
                self.services.remove(&id);
                let versions: Vec<_> = self.releases.keys().filter(|(s, _)| *s == id).cloned().collect();
                for (service, version) in versions {
                    rows.push(Change::Delete { kind: RELEASE, key: format!("{service}/{version}") });
                    self.releases.remove(&(service, version));
                }
                Some(id)
            }
            Edit::Api(record) => {
                rows.push(put(API, record.id.clone(), &*record));
                let service = record.service.clone();
                self.apis.insert(record.id.clone(), Arc::new(*record));
                Some(service)
            }
            Edit::DropApi(id) => {
                rows.push(Change::Delete { kind: API, key: id.clone() });
                self.apis.remove(&id).map(|api| api.service.clone())
            }
            Edit::Release(record) => {
                let service = record.service.clone();
                rows.push(put(RELEASE, format!("{service}/{}", record.version), &record));
                self.releases.insert((service.clone(), record.version.clone()), Arc::new(record));
                Some(service)
            }
            Edit::Key(record) => {
                rows.push(put(KEY, record.id.clone(), &record));
                self.keys.insert(record.id.clone(), Arc::new(record));
                None
            }
            Edit::DropKey(id) => {
                rows.push(Change::Delete { kind: KEY, key: id.clone() });
                self.keys.remove(&id);
                None
            }
            Edit::Plan(record) => {
                rows.push(put(PLAN, record.id.clone(), &record));
                self.plans.insert(record.id.clone(), Arc::new(record));
                None
            }
            Edit::DropPlan(id) => {
                rows.push(Change::Delete { kind: PLAN, key: id.clone() });
                self.plans.remove(&id);
                None
            }
        }
    }

    /// Lets go of releases that nobody can want any more.
    fn forget_releases(&mut self, service: &str, rows: &mut Vec<Change>) {
        let Some(record) = self.services.get(service).cloned() else { return };
        let mut by_stage: HashMap<Stage, Vec<String>> = HashMap::new();
        for ((of, version), release) in &self.releases {
            let served = record.stages.values().any(|s| s.version == *version);
            if of == service && !served {
                by_stage.entry(release.stage).or_default().push(version.clone());
            }
        }
        for mut versions in by_stage.into_values() {
            versions.sort_unstable();
            versions.truncate(versions.len().saturating_sub(RELEASES_KEPT));
            for version in versions {
                rows.push(Change::Delete { kind: RELEASE, key: format!("{service}/{version}") });
                self.releases.remove(&(service.to_owned(), version));
            }
        }
    }
}

/// The gateway's configuration. Share it by `Arc`.
pub struct Gateway {
    meta: Arc<dyn MetaStore>,
    state: ArcSwap<State>,
    writer: Arc<tokio::sync::Mutex<()>>,
    /// The buckets of rate limits.
    pub limits: LimiterSet,
    /// What keys have used of their totals, by plan and key; `true`: not written yet.
    usage: Mutex<HashMap<(String, String), (u64, bool)>>,
    connections: Mutex<Vec<ConnectionRecord>>,
}

/// The error for a change that could not be made durable; what it was stays in the log.
pub fn store_error(error: StoreError) -> ApiError {
    tracing::error!(%error, "a change of the API gateway could not be stored");
    ApiError::new("InternalError.DbException", "The platform could not store this; see its log.")
}

impl Gateway {
    /// Reads everything. Errors: those of the store; [`StoreError::Corrupt`] on a row that makes no sense.
    pub async fn load(meta: Arc<dyn MetaStore>) -> Result<Self, StoreError> {
        fn read<T: DeserializeOwned>(row: &Row) -> Result<T, StoreError> {
            serde_json::from_str(&row.value).map_err(|error| {
                tracing::error!(kind = row.kind, key = row.key, %error, "a row of the API gateway is damaged");
                StoreError::Corrupt("a row of the API gateway")
            })
        }
        let mut state = State::default();
        let (mut usage, mut connections) = (HashMap::new(), Vec::new());
        for row in meta.load().await? {
            match row.kind.as_str() {
                SERVICE => drop(state.services.insert(row.key.clone(), Arc::new(read(&row)?))),
                API => drop(state.apis.insert(row.key.clone(), Arc::new(read(&row)?))),
                RELEASE => {
                    let release: ReleaseRecord = read(&row)?;
                    let key = (release.service.clone(), release.version.clone());
                    state.releases.insert(key, Arc::new(release));
                }
                KEY => drop(state.keys.insert(row.key.clone(), Arc::new(read(&row)?))),
                PLAN => drop(state.plans.insert(row.key.clone(), Arc::new(read(&row)?))),
                USAGE => {
                    let UsageRecord { plan, key, used } = read(&row)?;
                    usage.insert((plan, key), (used, false));
                }
                CONNECTION => connections.push(read(&row)?),
                kind => {
                    tracing::error!(kind, "the API gateway's file was written by a newer release");
                    return Err(StoreError::Corrupt("a row of a kind that this release does not know"));
                }
            }
        }
        let services: Vec<String> = state.services.keys().cloned().collect();
        services.iter().for_each(|service| state.rebuild(service));
        Ok(Self {
            meta,
            state: ArcSwap::from_pointee(state),
            writer: Arc::default(),
            limits: LimiterSet::default(),
            usage: Mutex::new(usage),
            connections: Mutex::new(connections),
        })
    }

    /// All that is configured now. No lock.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Changes something. `decide` sees all there is and says what is to be done. Durable and visible when it returns.
    ///
    /// # Errors
    /// Those of `decide`, which change nothing; `InternalError.DbException`.
    pub async fn change<R: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&State) -> Result<(Vec<Edit>, R), ApiError> + Send,
    ) -> Result<R, ApiError> {
        let guard = Arc::clone(&self.writer).lock_owned().await;
        let mut next = State::clone(&self.state.load());
        let (edits, result) = decide(&next)?;
        let mut rows = Vec::new();
        let mut touched: Vec<String> = edits.into_iter().filter_map(|edit| next.apply(edit, &mut rows)).collect();
        touched.sort_unstable();
        touched.dedup();
        for service in &touched {
            next.forget_releases(service, &mut rows);
            next.rebuild(service);
        }
        let this = Arc::clone(self);
        // A caller that hangs up must not leave the rows ahead of what readers see.
        let task = tokio::spawn(async move {
            if !rows.is_empty() {
                this.meta.apply(rows).await.map_err(store_error)?;
            }
            this.limits.keep(&next);
            this.usage.lock().retain(|(plan, key), _| next.plans.get(plan).is_some_and(|plan| plan.keys.contains(key)));
            this.state.store(Arc::new(next));
            drop(guard);
            Ok(result)
        });
        task.await.unwrap_or_else(|_| Err(ApiError::internal("The platform is stopping.")))
    }

    /// Counts a request of `key` under a plan with a total. False: the total is used up, and nothing was counted.
    pub fn spend(&self, plan: &str, key: &str, total: u64) -> bool {
        let mut usage = self.usage.lock();
        let (used, dirty) = usage.entry((plan.to_owned(), key.to_owned())).or_default();
        if *used >= total {
            return false;
        }
        *used += 1;
        *dirty = true;
        true
    }

    /// What the keys of a plan have used in all.
    pub fn used(&self, plan: &str) -> u64 {
        self.usage.lock().iter().filter(|((p, _), _)| p == plan).map(|(_, (used, _))| *used).sum()
    }

    /// Writes what was counted. A crash loses what was counted since the last time.
    pub async fn flush_usage(&self) -> Result<(), StoreError> {
        let rows: Vec<Change> = {
            let mut usage = self.usage.lock();
            let dirty = usage.iter_mut().filter(|(_, (_, dirty))| *dirty);
            dirty
                .map(|((plan, key), (used, dirty))| {
                    *dirty = false;
                    let record = UsageRecord { plan: plan.clone(), key: key.clone(), used: *used };
                    put(USAGE, format!("{plan}/{key}"), &record)
                })
                .collect()
        };
        if rows.is_empty() { Ok(()) } else { self.meta.apply(rows).await }
    }

    /// Notes that a WebSocket is open. Durable when it returns.
    pub async fn connection_opened(&self, record: &ConnectionRecord) -> Result<(), StoreError> {
        self.meta.apply(vec![put(CONNECTION, record.id.clone(), record)]).await
    }

    /// Forgets a WebSocket whose end was told.
    pub async fn connection_ended(&self, id: &str) -> Result<(), StoreError> {
        self.meta.apply(vec![Change::Delete { kind: CONNECTION, key: id.to_owned() }]).await
    }

    /// The WebSockets that a process before this one left open. Given out once.
    pub fn take_left_connections(&self) -> Vec<ConnectionRecord> {
        std::mem::take(&mut *self.connections.lock())
    }
}
