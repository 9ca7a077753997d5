//! Control's way to the node.

use crate::ahead::Memory;
use crate::provisioned::Orders;
use crate::url::kept;
use async_trait::async_trait;
use mayfly_base::{Clock, SystemClock};
use mayfly_control::{
    Control, DemandQuery, DemandRow, ForecastReport, InvokeRequest, Invoker, LogError, ProvisionedOrder,
    ProvisionedState, RouteChange, RouteTarget,
};
use mayfly_model::{InvokeOutcome, ScalingConfig, Status};
use mayfly_node::pool::Pool;
use mayfly_node::service::{self, AsEvent, Ended, ServiceCall, StreamBody};
use mayfly_node::{Invocation, Node, Refusal};
use mayfly_observe::{FunctionMetrics, Metrics};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Runs invocations on a node.
pub struct NodeInvoker {
    node: Node,
    metrics: Metrics,
    /// Functions whose `$LATEST` was replaced and not called since: their next start is due to that.
    replaced: Mutex<HashSet<String>>,
    orders: Orders,
    memory: Arc<Memory>,
    triggers_changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What is kept with each version: found once, used on each call.
struct Attachment {
    pool: Arc<Pool>,
    metrics: Arc<FunctionMetrics>,
}

impl NodeInvoker {
    /// An invoker over `node`.
    pub fn new(node: Node, metrics: Metrics, memory: Arc<Memory>) -> Self {
        Self {
            node,
            metrics,
            replaced: Mutex::default(),
            orders: Orders::default(),
            memory,
            triggers_changed: OnceLock::new(),
        }
    }

    /// Who hears, from now on, that triggers have changed; must not block. Only the first is told.
    pub fn on_triggers(&self, changed: impl Fn() + Send + Sync + 'static) {
        let _ = self.triggers_changed.set(Box::new(changed));
    }

    fn attach(&self, target: &RouteTarget) -> Arc<Attachment> {
        let spec = &target.spec;
        let replaces = self.replaced.lock().remove(&spec.key.function_id);
        self.node.set_reserved(&spec.key.function_id, target.quota.reserved_mb());
        let metrics = self.metrics.function(spec.namespace.as_str(), spec.function.as_str());
        Arc::new(Attachment { pool: self.node.pool(spec, replaces), metrics })
    }
}

impl NodeInvoker {
    /// Carries out an order to keep instances ready, or ends it.
    pub fn provision(&self, target: &Arc<RouteTarget>, order: Option<Arc<ProvisionedOrder>>) {
        let Some(attached) = target.attachment(|| self.attach(target)) else {
            unreachable!("only this type attaches anything to targets");
        };
        let attached: &Attachment = attached;
        self.orders.set(&self.node, target, Arc::clone(&attached.pool), order, SystemClock.now_ms());
    }

    /// The pool of a version.
    pub fn pool(&self, target: &Arc<RouteTarget>) -> Arc<Pool> {
        let Some(attached) = target.attachment(|| self.attach(target)) else {
            unreachable!("only this type attaches anything to targets");
        };
        let attached: &Attachment = attached;
        Arc::clone(&attached.pool)
    }

    /// Keeps to the bounds of a function's number of instances. `main`: the version that its minimum is kept of.
    pub fn scale(&self, main: &Arc<RouteTarget>, scaling: ScalingConfig) {
        let id = &main.spec.key.function_id;
        self.node.set_maximum(id, scaling.max_instances);
        self.memory.set_own(id, scaling.forecast);
        let minimum = (scaling.min_instances > 0).then(|| (self.pool(main), scaling.min_instances));
        self.orders.set_minimum(&self.node, id, minimum);
    }

    /// One look at all such orders. Call it about once a second.
    pub fn tend(&self) {
        self.orders.tend(&self.node, SystemClock.now_ms());
    }

    /// Runs one request for a service.
    pub async fn serve(&self, target: &Arc<RouteTarget>, mut call: ServiceCall) -> http::Response<StreamBody> {
        let Some(attached) = target.attachment(|| self.attach(target)) else {
            unreachable!("only this type attaches anything to targets");
        };
        let attached: &Attachment = attached;
        // It counts until the last byte has left.
        call.keep = Box::new(attached.metrics.running());
        let response = self.node.serve(&attached.pool, call).await;
        if response.status() == http::StatusCode::TOO_MANY_REQUESTS && response.headers().contains_key("x-scf-status") {
            attached.metrics.throttled();
        }
        response
    }

    /// Makes a request to an HTTP function again.
    async fn visit(&self, target: &Arc<RouteTarget>, mut request: InvokeRequest) -> InvokeOutcome {
        let (told, end) = oneshot::channel();
        let ended: Ended = Box::new(move |record, answer| drop(told.send((record.clone(), answer))));
        let (id, made) = (request.request_id, kept::again(&request.event));
        let event = request.event_mark.map(|mark| AsEvent { mark, origin: request.origin, retry: request.retry });
        let mut call = ServiceCall {
            request_id: id,
            request: http::Request::new(service::nothing()),
            upgrade: None,
            qualifier: request.qualifier,
            keep: Box::new(()),
            lineage: request.lineage,
            event,
            ended: Some(ended),
        };
        let shown = match made {
            Ok(made) => {
                call.request = made;
                let visiting = async { kept::answered(self.serve(target, call).await).await };
                // Dropping it ends the request, whose record then says that it was canceled.
                tokio::select! {
                    shown = visiting => Some(shown),
                    _ = mayfly_base::abort::asked(&mut request.abort) => None,
                }
            }
            Err(why) => {
                let refusal = Refusal::new(Status::INVALID_EVENT, format!("The request cannot be made again: {why}"));
                self.node.refuse(&self.pool(target), call, &refusal);
                None
            }
        };
        match end.await {
            Ok((record, answer)) => kept::outcome(&record, answer, shown),
            Err(_) => {
                let refusal = Refusal::internal(&"a request to an HTTP function ended without a record");
                refusal.outcome(id)
            }
        }
    }
}

#[async_trait]
impl Invoker for NodeInvoker {
    async fn invoke(&self, target: &Arc<RouteTarget>, request: InvokeRequest) -> InvokeOutcome {
        let Some(attached) = target.attachment(|| self.attach(target)) else {
            unreachable!("only this type attaches anything to targets");
        };
        let attached: &Attachment = attached;
        if target.spec.config.service.is_some() {
            return self.visit(target, request).await;
        }
        let invocation = Invocation {
            request_id: request.request_id,
            event: request.event,
            want_log: request.want_log,
            log_failure: request.log_failure,
            retry: request.retry,
            event_mark: request.event_mark,
            abort: request.abort,
            origin: request.origin,
            qualifier: request.qualifier,
            lineage: request.lineage,
        };
        let running = attached.metrics.running();
        let outcome = self.node.invoke(&attached.pool, invocation).await;
        drop(running);
        if matches!(outcome.status, Status::CONCURRENCY_EXCEEDED | Status::RESOURCE_LIMIT) {
            attached.metrics.throttled();
        }
        outcome
    }

    fn forecasts(&self) -> Vec<ForecastReport> {
        self.memory.reports()
    }

    async fn demand(&self, query: DemandQuery) -> Result<(u64, Vec<DemandRow>), LogError> {
        self.memory.demand(query).await
    }

    fn provisioned(&self, target: &Arc<RouteTarget>) -> Option<ProvisionedState> {
        self.orders.state(&self.node, &target.spec.key)
    }

    fn catalogue_changed(&self, change: &RouteChange) {
        match change {
            RouteChange::Retired { target, replaced, force } => {
                let key = &target.spec.key;
                if *replaced {
                    self.replaced.lock().insert(key.function_id.clone());
                }
                self.orders.forget(key);
                if !*replaced || *force {
                    self.node.revoke(key);
                }
                self.node.retire(key, *force);
                if !*replaced && key.version == "$LATEST" {
                    self.replaced.lock().remove(&key.function_id);
                    self.orders.set_minimum(&self.node, &key.function_id, None);
                    self.memory.set_own(&key.function_id, None);
                    self.node.forget_function(&key.function_id);
                    self.metrics.forget_function(target.spec.namespace.as_str(), target.spec.function.as_str());
                }
            }
            RouteChange::Quota { function_id, reserved_mb } => self.node.set_reserved(function_id, *reserved_mb),
            RouteChange::Provisioned { target, order } => self.provision(target, order.clone()),
            RouteChange::Triggers => {
                if let Some(changed) = self.triggers_changed.get() {
                    changed();
                }
            }
            RouteChange::Scaling { main, scaling } => self.scale(main, *scaling),
            RouteChange::Added { target } => {
                if self.node.parks() {
                    self.node.park(&self.pool(target));
                }
            }
        }
    }
}

/// Tells the node the quotas that were stored: a reservation is kept for a function also before its first call.
pub fn restore_quotas(control: &Control, node: &Node) {
    let catalogue = control.catalogue();
    for namespace in catalogue.namespaces().keys() {
        for function in catalogue.functions(namespace) {
            let record = &function.state.record;
            if record.reserved_mb.is_some() {
                node.set_reserved(&record.id, record.reserved_mb);
            }
        }
    }
}

/// Parks the versions that calls without a qualifier reach, those first that were changed last, as many as are to be parked.
pub fn park(control: &Control, invoker: &NodeInvoker, count: usize) {
    if count == 0 {
        return;
    }
    let catalogue = control.catalogue();
    let mut found = Vec::new();
    for namespace in catalogue.namespaces().keys() {
        let functions = catalogue.functions(namespace);
        found.extend(functions.iter().map(|f| (f.state.record.mod_time_ms, Arc::clone(f.main()))));
    }
    found.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    for (_, target) in found.iter().take(count) {
        invoker.node.park(&invoker.pool(target));
    }
}
