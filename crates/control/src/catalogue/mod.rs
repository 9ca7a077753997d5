//! What exists: namespaces, functions with versions and aliases, layers. Kept durable, read without locks.
//!
//! Every change goes one way: lock what it touches, compute the new state from the old one, write the difference
//! in one atomic batch, and only then publish the new state to readers. A reader takes one `Arc` and never sees
//! half of a change; after a crash the rows are the truth and [`Catalogue::load`] gives the same state back.

mod domains;
mod key;
mod rows;
mod state;
mod uploads;
mod urls;

pub use domains::{CertificateEntry, DomainChange, DomainEntry, Domains};
pub use rows::{LayerRecord, LoadError};
pub use state::{FunctionEntry, FunctionQuota, FunctionState, RouteTarget, digests_of, versions_of};
pub use uploads::UploadGuard;
pub use urls::UrlRoute;

use crate::ports::{Invoker, RouteChange};
use crate::provisioned::ProvisionedOrder;
use crate::triggered::BoundTrigger;
use arc_swap::ArcSwap;
use key::{FunctionKey, PairKey, shard_of};
use mayfly_model::{
    ApiError, Digest, FunctionName, LayerName, LayerVersionRecord, NamespaceName, NamespaceRecord, ScalingConfig,
};
use mayfly_store::{Change, MetaStore, StoreError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};
use uploads::Uploads;

/// Shards of the function table: changes of functions in one shard wait for each other, and a change copies one shard's map.
const SHARDS: usize = 64;

/// A namespace as readers see it.
#[derive(Debug)]
pub struct NamespaceEntry {
    /// Its record.
    pub record: NamespaceRecord,
    functions: Arc<AtomicUsize>,
}

impl NamespaceEntry {
    /// Functions in it.
    pub fn functions(&self) -> usize {
        self.functions.load(Ordering::Relaxed)
    }
}

/// A layer as readers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerEntry {
    /// Its record.
    pub record: LayerRecord,
    /// Its versions.
    pub versions: BTreeMap<u32, Arc<LayerVersionRecord>>,
}

type Functions = HashMap<FunctionKey, Arc<FunctionEntry>>;
type Namespaces = BTreeMap<NamespaceName, Arc<NamespaceEntry>>;
type Layers = BTreeMap<LayerName, Arc<LayerEntry>>;

#[derive(Debug, Default)]
struct Shard {
    functions: ArcSwap<Functions>,
    writer: Arc<Mutex<()>>,
}

/// What a change of a function decides.
#[derive(Debug)]
pub struct Next<R> {
    /// The new state; `None` deletes the function.
    pub state: Option<FunctionState>,
    /// End the instances of versions that go away at once.
    pub force: bool,
    /// What the caller wants back.
    pub result: R,
}

impl<R> Next<R> {
    /// Keeps or creates the function in this state.
    pub fn state(state: FunctionState, result: R) -> Self {
        Self { state: Some(state), force: false, result }
    }
}

struct Inner {
    meta: Arc<dyn MetaStore>,
    listener: Arc<dyn Invoker>,
    shards: Vec<Shard>,
    namespaces: ArcSwap<Namespaces>,
    layers: ArcSwap<Layers>,
    /// Read by who creates functions, written by who deletes or creates namespaces: a namespace stays while functions are put into it.
    namespaces_lock: Arc<RwLock<()>>,
    layers_lock: Arc<Mutex<()>>,
    domains: ArcSwap<Domains>,
    domains_lock: Arc<Mutex<()>>,
    /// Held while a reservation or an order of ready instances changes: their sums have limits.
    reservations_lock: Mutex<()>,
    reserved_mb: AtomicU64,
    ids: parking_lot::Mutex<HashSet<String>>,
    uploads: Arc<Uploads>,
}

/// The catalogue. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue(Arc<Inner>);

impl Catalogue {
    /// Reads everything from the store, and creates the namespace `default` where there is none. Errors: [`LoadError`], when the store
    /// cannot be read or holds rows that make no sense.
    pub async fn load(meta: Arc<dyn MetaStore>, listener: Arc<dyn Invoker>, now_ms: u64) -> Result<Self, LoadError> {
        let mut loaded = rows::sort_out(meta.load().await?)?;
        let default = NamespaceName::default_namespace();
        if !loaded.namespaces.iter().any(|n| n.name == default) {
            let record = NamespaceRecord {
                name: default,
                description: "The default namespace".into(),
                add_time_ms: now_ms,
                mod_time_ms: now_ms,
            };
            meta.apply(vec![rows::put_namespace(&record)]).await?;
            loaded.namespaces.push(record);
        }
        let namespaces: Namespaces = loaded
            .namespaces
            .into_iter()
            .map(|record| (record.name.clone(), Arc::new(NamespaceEntry { record, functions: Arc::default() })))
            .collect();
        let mut ids = HashSet::new();
        let mut reserved_mb = 0;
        let mut tables = vec![Functions::new(); SHARDS];
        for state in loaded.functions {
            let record = state.record.clone();
            let bad = |why: &str| LoadError::BadRow { kind: "function", key: record.id.clone(), why: why.into() };
            let namespace = namespaces.get(&record.namespace).ok_or_else(|| bad("its namespace is not there"))?;
            namespace.functions.fetch_add(1, Ordering::Relaxed);
            reserved_mb += record.reserved_mb.unwrap_or(0);
            ids.insert(record.id.clone());
            let key = FunctionKey { namespace: record.namespace.clone(), function: record.name.clone() };
            let entry = Arc::new(FunctionEntry::build(state, None));
            if tables[shard_of(&key)].insert(key, entry).is_some() {
                return Err(bad("another function has its name"));
            }
        }
        let mut layers: BTreeMap<LayerName, LayerEntry> = loaded
            .layers
            .into_iter()
            .map(|(name, record)| (name, LayerEntry { record, versions: BTreeMap::new() }))
            .collect();
        for record in loaded.layer_versions {
            if let Some(layer) = layers.get_mut(&record.name) {
                layer.versions.insert(record.version, Arc::new(record));
            }
        }
        let shards = tables.into_iter().map(|t| Shard { functions: ArcSwap::from_pointee(t), writer: Arc::default() });
        Ok(Self(Arc::new(Inner {
            meta,
            listener,
            shards: shards.collect(),
            namespaces: ArcSwap::from_pointee(namespaces),
            layers: ArcSwap::from_pointee(layers.into_iter().map(|(name, l)| (name, Arc::new(l))).collect()),
            namespaces_lock: Arc::default(),
            layers_lock: Arc::default(),
            domains: ArcSwap::from_pointee(Domains::of(loaded.domains, loaded.certificates)),
            domains_lock: Arc::default(),
            reservations_lock: Mutex::default(),
            reserved_mb: AtomicU64::new(reserved_mb),
            ids: parking_lot::Mutex::new(ids),
            uploads: Arc::default(),
        })))
    }

    /// A function as it is now. No lock; one hash look-up.
    pub fn function(&self, namespace: &str, function: &str) -> Option<Arc<FunctionEntry>> {
        let key: &dyn PairKey = &(namespace, function);
        self.0.shards[shard_of(key)].functions.load().get(key).cloned()
    }

    /// The target of a call. `random` is uniform in [0, 1); `routing_key` holds the pairs of the caller's `RoutingKey`.
    ///
    /// Errors: `ResourceNotFound.Namespace`, `ResourceNotFound.Function`, `ResourceNotFound.Qualifier`.
    pub fn resolve(
        &self,
        namespace: &str,
        function: &str,
        qualifier: &str,
        routing_key: &[(String, String)],
        random: f64,
    ) -> Result<Arc<RouteTarget>, ApiError> {
        let key: &dyn PairKey = &(namespace, function);
        let table = self.0.shards[shard_of(key)].functions.load();
        let Some(entry) = table.get(key) else { return Err(self.no_function(namespace, function)) };
        entry.state.check_serving()?;
        entry
            .route(qualifier, routing_key, random)
            .ok_or_else(|| no_version("ResourceNotFound.Qualifier", function, qualifier))
    }

    /// The error for a function that is not there.
    pub fn no_function(&self, namespace: &str, function: &str) -> ApiError {
        if !self.0.namespaces.load().keys().any(|name| name.as_str() == namespace) {
            return no_namespace(namespace);
        }
        ApiError::new(
            "ResourceNotFound.Function",
            format!("Function `{}` does not exist in namespace `{namespace}`.", clip(function)),
        )
    }

    /// Every function of a namespace, in no order.
    pub fn functions(&self, namespace: &NamespaceName) -> Vec<Arc<FunctionEntry>> {
        let mut found = Vec::new();
        for shard in &self.0.shards {
            let table = shard.functions.load();
            found.extend(table.iter().filter(|(key, _)| key.namespace == *namespace).map(|(_, entry)| entry.clone()));
        }
        found
    }

    /// Functions whose install has not ended.
    pub fn installing(&self) -> Vec<Arc<FunctionEntry>> {
        let mut found = Vec::new();
        for shard in &self.0.shards {
            let table = shard.functions.load();
            let running = |e: &&Arc<FunctionEntry>| e.state.check_idle().is_err();
            found.extend(table.values().filter(running).cloned());
        }
        found
    }

    /// Every order to keep instances ready.
    pub fn provisioned(&self) -> Vec<(Arc<RouteTarget>, Arc<ProvisionedOrder>)> {
        let mut found = Vec::new();
        for shard in &self.0.shards {
            for entry in shard.functions.load().values() {
                found.extend(entry.state.record.provisioned.iter().filter_map(|config| {
                    let target = entry.published(config.version)?.clone();
                    Some((target, Arc::new(ProvisionedOrder::new(config.clone()))))
                }));
            }
        }
        found
    }

    /// Every trigger that hands over events; see [`Control::triggers`](crate::Control::triggers).
    pub fn triggers(&self) -> Vec<BoundTrigger> {
        let mut found = Vec::new();
        for shard in &self.0.shards {
            for entry in shard.functions.load().values() {
                found.extend(BoundTrigger::of(&entry.state.record));
            }
        }
        found
    }

    /// Every function whose number of instances has bounds or a mode of its own, with the version that its minimum is kept of.
    pub fn scaling(&self) -> Vec<(Arc<RouteTarget>, ScalingConfig)> {
        let mut found = Vec::new();
        for shard in &self.0.shards {
            let table = shard.functions.load();
            let set = table.values().filter(|entry| !entry.state.record.scaling.is_default());
            found.extend(set.map(|entry| (entry.main().clone(), entry.state.record.scaling)));
        }
        found
    }

    /// Changes the orders of a function under the lock that keeps the memory of all orders within a limit. `decide` also gets the memory that
    /// the orders of other functions can take, in MB.
    pub async fn order_provisioned(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        decide: impl FnOnce(&FunctionState, u64) -> Result<FunctionState, ApiError> + Send,
    ) -> Result<(), ApiError> {
        let _sum = self.0.reservations_lock.lock().await;
        let mut total_mb = 0u64;
        for shard in &self.0.shards {
            let table = shard.functions.load();
            total_mb = table.values().map(|e| e.state.provisioned_mb()).fold(total_mb, u64::saturating_add);
        }
        self.change_existing(namespace, name, |state| {
            let next = decide(state, total_mb.saturating_sub(state.provisioned_mb()))?;
            Ok(Next::state(next, ()))
        })
        .await
    }

    /// The namespaces by name.
    pub fn namespaces(&self) -> Arc<BTreeMap<NamespaceName, Arc<NamespaceEntry>>> {
        self.0.namespaces.load_full()
    }

    /// The layers by name. A layer without versions is one whose versions were all deleted.
    pub fn layers(&self) -> Arc<BTreeMap<LayerName, Arc<LayerEntry>>> {
        self.0.layers.load_full()
    }

    /// All reservations together, in MB.
    pub fn reserved_mb(&self) -> u64 {
        self.0.reserved_mb.load(Ordering::Relaxed)
    }

    /// Keeps a digest from being collected until the guard is dropped. Taken before the blob is put, and kept until the row that names it is published.
    pub fn protect(&self, digests: impl IntoIterator<Item = Digest>) -> UploadGuard {
        Uploads::protect(&self.0.uploads, digests)
    }

    /// Every digest that something refers to: versions of functions, layer versions, and uploads that are not finished. What is not among them may be
    /// deleted, if it is also older than the grace period of the collector.
    pub fn live_digests(&self) -> HashSet<Digest> {
        // Uploads first: one that is published meanwhile is then found in the tables.
        let mut live = self.0.uploads.digests();
        for shard in &self.0.shards {
            for entry in shard.functions.load().values() {
                live.extend(entry.state.digests());
            }
        }
        for layer in self.0.layers.load().values() {
            live.extend(layer.versions.values().map(|v| v.code.digest));
        }
        live
    }

    /// Changes one function. `decide` sees its state (`None`: no such function) and gives the next one; its error changes nothing. Changes
    /// of one function run one after another. Durable and visible when it returns; goes on when the caller goes away.
    ///
    /// Errors: those of `decide`; `ResourceNotFound.Namespace` when a function is created in a namespace that is not there;
    /// `LimitExceeded.Function`; a code of [`store_error`] when it cannot be made durable.
    pub async fn change_function<R: Send>(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        functions_max: usize,
        decide: impl FnOnce(Option<&FunctionState>) -> Result<Next<R>, ApiError> + Send,
    ) -> Result<R, ApiError> {
        let key = FunctionKey { namespace: namespace.clone(), function: name.clone() };
        let shard = shard_of(&key);
        let namespaces_guard = self.0.namespaces_lock.clone().read_owned().await;
        let writer = self.0.shards[shard].writer.clone().lock_owned().await;
        let entry = self.0.namespaces.load().get(namespace).cloned();
        let entry = entry.ok_or_else(|| no_namespace(namespace.as_str()))?;
        let old = self.0.shards[shard].functions.load().get(&key).cloned();
        let Next { state, force, result } = decide(old.as_deref().map(|e| &e.state))?;
        let seat = match (&old, &state) {
            (None, Some(_)) => Some(Seat::take(&entry, functions_max)?),
            _ => None,
        };
        let changes = rows::difference(old.as_deref().map(|e| &e.state), state.as_ref());
        let commit = Commit { key, shard, old, state, force, seat, writer, namespaces_guard };
        self.commit(commit, entry, changes).await?;
        Ok(result)
    }

    /// As [`Catalogue::change_function`], for a function that must be there; the locks are not taken for one that is not. Errors: those,
    /// and `ResourceNotFound.{Namespace,Function}`.
    pub async fn change_existing<R: Send>(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        decide: impl FnOnce(&FunctionState) -> Result<Next<R>, ApiError> + Send,
    ) -> Result<R, ApiError> {
        let missing = || self.no_function(namespace.as_str(), name.as_str());
        if self.function(namespace.as_str(), name.as_str()).is_none() {
            return Err(missing());
        }
        self.change_function(namespace, name, 0, |state| decide(state.ok_or_else(missing)?)).await
    }

    /// Writes and publishes, on a task of its own: a caller that hangs up must not leave the rows ahead of the tables.
    async fn commit(
        &self,
        commit: Commit,
        namespace: Arc<NamespaceEntry>,
        changes: Vec<Change>,
    ) -> Result<(), ApiError> {
        let inner = self.0.clone();
        run_to_end(async move {
            if !changes.is_empty() {
                inner.meta.apply(changes).await.map_err(store_error)?;
            }
            inner.publish(commit, &namespace);
            Ok(())
        })
        .await
    }

    /// Changes the reserved quota of a function under the lock that keeps their sum within its limit. `limit_mb` is what all together may reserve.
    pub async fn reserve(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        reserved_mb: Option<u64>,
        limit_mb: u64,
    ) -> Result<(), ApiError> {
        let _sum = self.0.reservations_lock.lock().await;
        let total = self.0.reserved_mb.load(Ordering::Relaxed);
        self.change_existing(namespace, name, |state| {
            let others = total.saturating_sub(state.record.reserved_mb.unwrap_or(0));
            if reserved_mb.is_some_and(|mb| others.saturating_add(mb) > limit_mb) {
                return Err(ApiError::new(
                    "LimitExceeded.FunctionReservedConcurrencyMemory",
                    format!(
                        "All reservations together may have {limit_mb} MB; {others} MB are reserved by other functions."
                    ),
                ));
            }
            let mut next = state.clone();
            Arc::make_mut(&mut next.record).reserved_mb = reserved_mb;
            Ok(Next::state(next, ()))
        })
        .await
    }

    /// Changes the namespaces. `decide` sees them and gives the record to write, or `Err(name)`'s twin in [`NamespaceChange`].
    pub async fn change_namespace(
        &self,
        decide: impl FnOnce(&BTreeMap<NamespaceName, Arc<NamespaceEntry>>) -> Result<NamespaceChange, ApiError> + Send,
    ) -> Result<(), ApiError> {
        let guard = self.0.namespaces_lock.clone().write_owned().await;
        let mut next = Namespaces::clone(&self.0.namespaces.load());
        let row = match decide(&next)? {
            NamespaceChange::Put(record) => {
                let functions = next.get(&record.name).map(|e| e.functions.clone()).unwrap_or_default();
                let row = rows::put_namespace(&record);
                next.insert(record.name.clone(), Arc::new(NamespaceEntry { record, functions }));
                row
            }
            NamespaceChange::Delete(name) => {
                next.remove(&name);
                rows::delete_namespace(name.as_str())
            }
        };
        let inner = self.0.clone();
        run_to_end(async move {
            inner.meta.apply(vec![row]).await.map_err(store_error)?;
            inner.namespaces.store(Arc::new(next));
            drop(guard);
            Ok(())
        })
        .await
    }

    /// Changes one layer. `decide` sees all layers and gives the new state of one of them.
    pub async fn change_layer<R: Send>(
        &self,
        decide: impl FnOnce(&BTreeMap<LayerName, Arc<LayerEntry>>) -> Result<(LayerEntry, R), ApiError> + Send,
    ) -> Result<R, ApiError> {
        let guard = self.0.layers_lock.clone().lock_owned().await;
        let mut next = Layers::clone(&self.0.layers.load());
        let (layer, result) = decide(&next)?;
        let old = next.get(&layer.record.name);
        let mut changes = Vec::new();
        if old.is_none_or(|old| old.record != layer.record) {
            changes.push(rows::put_layer(&layer.record));
        }
        let old_versions = old.map(|old| old.versions.clone()).unwrap_or_default();
        for (number, record) in &layer.versions {
            if old_versions.get(number) != Some(record) {
                changes.push(rows::put_layer_version(record));
            }
        }
        let gone = old_versions.iter().filter(|(number, _)| !layer.versions.contains_key(number));
        changes.extend(gone.map(|(_, record)| rows::delete_layer_version(record)));
        next.insert(layer.record.name.clone(), Arc::new(layer));
        let inner = self.0.clone();
        run_to_end(async move {
            inner.meta.apply(changes).await.map_err(store_error)?;
            inner.layers.store(Arc::new(next));
            drop(guard);
            Ok(())
        })
        .await?;
        Ok(result)
    }

    /// A function id that no function has.
    pub fn new_function_id(&self) -> String {
        let ids = self.0.ids.lock();
        loop {
            let id = crate::ids::function_id();
            if !ids.contains(&id) {
                return id;
            }
        }
    }
}

/// A change of the namespaces.
#[derive(Debug)]
pub enum NamespaceChange {
    /// Creates or replaces this one.
    Put(NamespaceRecord),
    /// Removes this one.
    Delete(NamespaceName),
}

/// A place for one more function in a namespace, given back when the change fails.
struct Seat(Option<Arc<AtomicUsize>>);

impl Seat {
    fn take(namespace: &NamespaceEntry, functions_max: usize) -> Result<Self, ApiError> {
        let functions = namespace.functions.clone();
        let taken =
            functions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < functions_max).then_some(n + 1));
        match taken {
            Ok(_) => Ok(Self(Some(functions))),
            Err(_) => Err(ApiError::new(
                "LimitExceeded.Function",
                format!("Namespace `{}` has {functions_max} functions, which is the limit.", namespace.record.name),
            )),
        }
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(functions) = &self.0 {
            functions.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A change of a function that is decided and not yet published, with the locks it holds.
struct Commit {
    key: FunctionKey,
    shard: usize,
    old: Option<Arc<FunctionEntry>>,
    state: Option<FunctionState>,
    force: bool,
    seat: Option<Seat>,
    writer: OwnedMutexGuard<()>,
    namespaces_guard: OwnedRwLockReadGuard<()>,
}

impl Inner {
    fn publish(&self, commit: Commit, namespace: &NamespaceEntry) {
        let Commit { key, shard, old, state, force, seat, writer, namespaces_guard } = commit;
        let new = state.map(|state| Arc::new(FunctionEntry::build(state, old.as_deref())));
        let mut table = Functions::clone(&self.shards[shard].functions.load());
        match &new {
            Some(entry) => table.insert(key, entry.clone()),
            None => table.remove(&key),
        };
        let old_mb = old.as_ref().and_then(|e| e.state.record.reserved_mb);
        let new_mb = new.as_ref().and_then(|e| e.state.record.reserved_mb);
        self.reserved_mb.fetch_add(new_mb.unwrap_or(0).wrapping_sub(old_mb.unwrap_or(0)), Ordering::Relaxed);
        if let Some(new) = &new {
            self.ids.lock().insert(new.state.record.id.clone());
        } else if let Some(old) = &old {
            namespace.functions.fetch_sub(1, Ordering::AcqRel);
            self.ids.lock().remove(&old.state.record.id);
        }
        if let Some(seat) = seat {
            seat.keep();
        }
        self.shards[shard].functions.store(Arc::new(table));
        if let Some(old) = &old {
            let kept: HashSet<_> = new.iter().flat_map(|e| e.targets()).map(Arc::as_ptr).collect();
            for target in old.targets().filter(|target| !kept.contains(&Arc::as_ptr(target))) {
                let replaced = new.is_some() && target.spec.key.version == "$LATEST";
                self.listener.catalogue_changed(&RouteChange::Retired { target: target.clone(), replaced, force });
            }
            for (target, order) in changed_orders(old, new.as_deref()) {
                self.listener.catalogue_changed(&RouteChange::Provisioned { target, order });
            }
            if new.is_none() && !old.state.record.triggers.is_empty() {
                self.listener.catalogue_changed(&RouteChange::Triggers);
            }
            if new.is_some() && old_mb != new_mb {
                let function_id = old.state.record.id.clone();
                self.listener.catalogue_changed(&RouteChange::Quota { function_id, reserved_mb: new_mb });
            }
        }
        // What comes after what goes: who makes instances then knows why.
        if let Some(new) = &new {
            let before: HashSet<_> = old.iter().flat_map(|e| e.targets()).map(Arc::as_ptr).collect();
            for target in new.targets().filter(|target| !before.contains(&Arc::as_ptr(target))) {
                self.listener.catalogue_changed(&RouteChange::Added { target: target.clone() });
            }
            let triggers = |entry: &Arc<FunctionEntry>| entry.state.record.triggers == new.state.record.triggers;
            if !old.as_ref().map_or(new.state.record.triggers.is_empty(), triggers) {
                self.listener.catalogue_changed(&RouteChange::Triggers);
            }
            let scaling = new.state.record.scaling;
            let same = |old: &Arc<FunctionEntry>| {
                old.state.record.scaling == scaling && (scaling.is_default() || Arc::ptr_eq(old.main(), new.main()))
            };
            if !old.as_ref().map_or(scaling.is_default(), same) {
                self.listener.catalogue_changed(&RouteChange::Scaling { main: new.main().clone(), scaling });
            }
        }
        drop((writer, namespaces_guard));
    }
}

/// The versions whose order is another than before, a withdrawn one included.
fn changed_orders(
    old: &FunctionEntry,
    new: Option<&FunctionEntry>,
) -> Vec<(Arc<RouteTarget>, Option<Arc<ProvisionedOrder>>)> {
    let before = &old.state.record.provisioned;
    let after = new.map_or(&[][..], |entry| &entry.state.record.provisioned);
    let gone = before.iter().filter(|b| !after.iter().any(|a| a.version == b.version));
    let withdrawn = gone.filter_map(|b| old.published(b.version)).map(|target| (target.clone(), None));
    let given = after.iter().filter(|a| !before.contains(a)).filter_map(|config| {
        let target = new?.published(config.version)?;
        Some((target.clone(), Some(Arc::new(ProvisionedOrder::new(config.clone())))))
    });
    withdrawn.chain(given).collect()
}

/// Runs a change to its end whatever happens to the caller.
async fn run_to_end(work: impl Future<Output = Result<(), ApiError>> + Send + 'static) -> Result<(), ApiError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "a change of the catalogue did not end");
            Err(ApiError::internal("The change could not be completed; look at the resource before you try again."))
        }
    }
}

/// What a client sees of a store's failure: the kind, never the detail, which goes to the log.
pub fn store_error(error: StoreError) -> ApiError {
    tracing::error!(%error, "store failed");
    match error {
        StoreError::Full(_) => ApiError::new(
            "FailedOperation.InsufficientResources",
            "The platform has no room left to store this; nothing was changed.",
        ),
        _ => ApiError::new(
            "InternalError.System",
            "The platform could not store or read its data; see the server's log.",
        ),
    }
}

/// `ResourceNotFound.Namespace`.
pub fn no_namespace(name: &str) -> ApiError {
    ApiError::new("ResourceNotFound.Namespace", format!("Namespace `{}` does not exist.", clip(name)))
}

/// The error for a version that is not there, with the code that the action promises.
pub fn no_version(code: &'static str, function: &str, qualifier: &str) -> ApiError {
    ApiError::new(code, format!("Function `{function}` has no version or alias `{}`.", clip(qualifier)))
}

/// The beginning of a text that a client sent, for messages.
pub fn clip(text: &str) -> &str {
    match text.char_indices().nth(100) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
