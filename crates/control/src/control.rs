//! The control API as one object: a verified call goes in, an answer comes out.

use crate::actions::invoke::{self, Kind};
use crate::actions::packages::Links;
use crate::actions::{CallCx, dispatch};
use crate::api::envelope::ApiResponse;
use crate::callers::{Caller, Chains};
use crate::catalogue::{Catalogue, DomainEntry, LoadError, RouteTarget, UrlRoute, clip};
use crate::deliveries::Deliveries;
use crate::endings::{Account, Endings};
use crate::events::{EventConcurrency, EventParts, Events};
use crate::installs::Installs;
use crate::ports::{ApiTriggers, Destinations, Installer, InvokeRequest, Invoker, KafkaTopics, Logs};
use crate::provisioned::ProvisionedOrder;
use crate::replays::Replays;
use crate::triggered::{BoundTrigger, CallEnd, TriggeredCall, TriggeredEvent};
use bytes::Bytes;
use mayfly_base::Clock;
use mayfly_model::{ApiError, Digest, InvokeOutcome, Lineage, RequestId, ScalingConfig, TriggerKind, limits};
use mayfly_sign::{Params, Verified};
use mayfly_store::failures::FailureUsage;
use mayfly_store::{BlobStore, EventLog, FailureLog, MetaStore};
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The one version of the API.
pub const API_VERSION: &str = "2018-04-16";

/// Settings of the control API.
#[derive(Clone, Debug)]
pub struct Options {
    /// The region that this platform says it is.
    pub region: String,
    /// Hosts below it are functions' own URLs; custom domains are none of them. In lower case.
    pub domain: String,
    /// Namespaces that may exist.
    pub namespaces_max: usize,
    /// Functions that a namespace may have.
    pub functions_per_namespace_max: usize,
    /// Memory quota of the account's instances, in MB.
    pub account_mb: u64,
    /// `AppId` and `Uin` that dead letters name.
    pub account: Account,
    /// Asynchronous events running at once.
    pub events: EventConcurrency,
    /// Largest asynchronous event, in bytes.
    pub event_bytes_max: usize,
    /// Longest chain of invocations that call each other; 0: any.
    pub call_depth_max: u32,
    /// How long events that run may go on after a stop was asked for; what is cut short runs again after the next start.
    pub drain: Duration,
    /// Installs of dependencies that may be under way or waiting.
    pub installs_max: usize,
    /// Of those, the ones whose packages may be held in memory.
    pub installs_loaded_max: usize,
    /// What events can come from on this platform.
    pub trigger_kinds: Vec<TriggerKind>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            region: "ap-guangzhou".into(),
            domain: "fn.localhost".into(),
            namespaces_max: limits::NAMESPACES_MAX,
            functions_per_namespace_max: limits::FUNCTIONS_PER_NAMESPACE_DEFAULT,
            account_mb: limits::CONCURRENCY_MB_DEFAULT,
            account: Account { app_id: 1_250_000_000, uin: 100_000_000_001 },
            events: EventConcurrency { total: 256, per_function: 32 },
            event_bytes_max: limits::EVENT_ASYNC_BYTES_MAX,
            call_depth_max: limits::CALL_DEPTH_MAX,
            drain: Duration::from_secs(30),
            installs_max: 64,
            installs_loaded_max: 4,
            trigger_kinds: vec![TriggerKind::Timer],
        }
    }
}

/// The stores and siblings that the control API works with.
#[derive(Clone)]
pub struct Ports {
    /// What exists.
    pub meta: Arc<dyn MetaStore>,
    /// Code and layers.
    pub blobs: Arc<dyn BlobStore>,
    /// Accepted asynchronous events.
    pub events: Arc<dyn EventLog>,
    /// Failures, replay jobs, messages about ends of events.
    pub failures: Arc<dyn FailureLog>,
    /// Queues and topics.
    pub destinations: Arc<dyn Destinations>,
    /// Runs invocations.
    pub invoker: Arc<dyn Invoker>,
    /// Records of invocations.
    pub logs: Arc<dyn Logs>,
    /// Installs dependencies; `None`: packages come with theirs.
    pub installer: Option<Arc<dyn Installer>>,
    /// The Kafka clusters that triggers may name; `None`: the platform cannot reach any.
    pub kafka: Option<Arc<dyn KafkaTopics>>,
    /// The API gateway; `None`: there is none.
    pub apis: Option<Arc<dyn ApiTriggers>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// A call whose signature is right.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the signature proved.
    pub verified: Verified,
    /// The `Host` header, for URLs that lead back here; a scheme in it is tolerated.
    pub host: String,
    /// Id of the request; also the id of the invocation that it may start.
    pub request_id: RequestId,
    /// Who asks.
    pub caller: Caller,
}

pub(crate) struct Inner {
    pub catalogue: Catalogue,
    pub blobs: Arc<dyn BlobStore>,
    pub invoker: Arc<dyn Invoker>,
    pub logs: Arc<dyn Logs>,
    pub clock: Arc<dyn Clock>,
    pub kafka: Option<Arc<dyn KafkaTopics>>,
    pub events: Arc<Events>,
    pub failures: Arc<dyn FailureLog>,
    pub destinations: Arc<dyn Destinations>,
    pub endings: Arc<Endings>,
    pub replays: Arc<Replays>,
    pub deliveries: Arc<Deliveries>,
    pub installs: Arc<Installs>,
    pub apis: Option<Arc<dyn ApiTriggers>>,
    pub links: Links,
    pub chains: Arc<Chains>,
    pub options: Options,
}

/// The control API. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

/// A way to the control API that does not keep it alive.
#[derive(Clone)]
pub struct WeakControl(Weak<Inner>);

impl WeakControl {
    /// The control API, if it still is.
    pub fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(Control)
    }
}

/// What a download link leads to.
#[derive(Clone, Debug)]
pub struct Download {
    /// The zip.
    pub bytes: Bytes,
    /// A file name to offer.
    pub file_name: String,
}

impl Control {
    /// Loads the catalogue and makes the API ready; events run once [`Control::run_events`] is called. Errors: see [`LoadError`].
    pub async fn start(ports: Ports, options: Options) -> Result<Self, LoadError> {
        let Ports { meta, blobs, events, failures, destinations, invoker, logs, installer, kafka, apis, clock } = ports;
        let catalogue = Catalogue::load(meta, invoker.clone(), clock.now_ms()).await?;
        let endings = Arc::new(Endings::new(failures.clone(), catalogue.clone(), clock.clone(), options.account));
        let chains = Arc::new(Chains::new(options.call_depth_max));
        let event_parts = EventParts {
            chains: chains.clone(),
            log: events,
            catalogue: catalogue.clone(),
            invoker: invoker.clone(),
            records: logs.clone(),
            endings: endings.clone(),
            clock: clock.clone(),
        };
        let events = Arc::new(Events::new(event_parts, options.events, options.drain));
        // Before the first question for them: what is pending must not look as if it had never been.
        events.recover().await.map_err(LoadError::Events)?;
        let replays = Arc::new(Replays::new(failures.clone(), events.clone(), clock.clone()));
        let deliveries = Arc::new(Deliveries::new(
            failures.clone(),
            destinations.clone(),
            events.clone(),
            catalogue.clone(),
            clock.clone(),
            endings.posted.clone(),
        ));
        let installs = Installs::new(
            catalogue.clone(),
            blobs.clone(),
            installer,
            clock.clone(),
            options.installs_max,
            options.installs_loaded_max,
        );
        installs.resume();
        let links = Links::new();
        Ok(Self(Arc::new(Inner {
            catalogue,
            blobs,
            invoker,
            logs,
            clock,
            kafka,
            events,
            failures,
            destinations,
            endings,
            replays,
            deliveries,
            installs,
            apis,
            links,
            chains,
            options,
        })))
    }

    /// For those that it holds itself.
    pub fn downgrade(&self) -> WeakControl {
        WeakControl(Arc::downgrade(&self.0))
    }

    /// What exists.
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.catalogue
    }

    /// Where a request to a function's URL goes, and who may send it; see [`Catalogue::resolve_url`]. An alias that splits its traffic does so
    /// anew with each call.
    pub fn resolve_url(&self, namespace: &str, function: &str, qualifier: Option<&str>) -> Result<UrlRoute, ApiError> {
        self.0.catalogue.resolve_url(namespace, function, qualifier, crate::ids::random_unit())
    }

    /// A custom domain by its host, in ASCII and lower case.
    pub fn domain(&self, host: &str) -> Option<Arc<DomainEntry>> {
        self.0.catalogue.domain(host)
    }

    /// The orders to keep instances ready, as they are stored: for whoever keeps them, at the start. Later ones come as
    /// [`RouteChange::Provisioned`](crate::RouteChange::Provisioned).
    pub fn provisioned(&self) -> Vec<(Arc<RouteTarget>, Arc<ProvisionedOrder>)> {
        self.0.catalogue.provisioned()
    }

    /// The bounds of functions' numbers of instances, as they are stored, each with the version that the minimum is kept of. Later changes
    /// come as [`RouteChange::Scaling`](crate::RouteChange::Scaling).
    pub fn scaling(&self) -> Vec<(Arc<RouteTarget>, ScalingConfig)> {
        self.0.catalogue.scaling()
    }

    /// Every trigger that hands over events, closed ones too. Whoever carries them out asks again after each
    /// [`RouteChange::Triggers`](crate::RouteChange::Triggers).
    pub fn triggers(&self) -> Vec<BoundTrigger> {
        self.0.catalogue.triggers()
    }

    /// Takes in an event that a trigger hands over: durable when it returns, and run as an asynchronous invocation. An event whose id is known
    /// (it waits, runs, or ran not long ago) is not taken in again, which is no error.
    ///
    /// Errors: those of an asynchronous Invoke; `RequestLimitExceeded` when there is no room for the moment.
    pub async fn accept_event(&self, event: TriggeredEvent) -> Result<(), ApiError> {
        crate::triggered::accept(&self.0, event).await
    }

    /// Makes a synchronous call of a trigger, which holds to all that holds for invocations. What it gives up is kept as a failure, and told
    /// to whom failures are told, before this returns.
    pub async fn call_for_trigger(&self, call: TriggeredCall) -> CallEnd {
        crate::triggered::call(&self.0, call).await
    }

    /// The asynchronous events.
    pub fn events(&self) -> &Arc<Events> {
        &self.0.events
    }

    /// Runs asynchronous events, and what follows their ends, until `shutdown`, then until those that run have ended.
    pub async fn run_events(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.0.replays.recover() => {}
            () = shutdown.cancelled() => return,
        }
        tokio::join!(
            self.0.events.clone().run(shutdown.clone()),
            self.0.replays.clone().run(shutdown.clone()),
            self.0.deliveries.clone().run(shutdown),
        );
    }

    /// Refuses a request that is too deep in a chain of functions that call each other; for requests that come another way than as an
    /// action. Error: `LimitExceeded.CallDepth`.
    pub fn check_depth(&self, lineage: &Lineage, request_id: RequestId) -> Result<(), ApiError> {
        self.0.chains.check(lineage, request_id)
    }

    /// Calls and events that were too deep in a chain, since the start.
    pub fn too_deep(&self) -> u64 {
        self.0.chains.ended()
    }

    /// Runs a synchronous request that came another way than as an action; its failure is kept if the function's owner wants that.
    pub async fn invoke(&self, target: &Arc<RouteTarget>, request: InvokeRequest, source: &str) -> InvokeOutcome {
        self.0.endings.invoke(&*self.0.invoker, target, request, source).await
    }

    /// What keeps failures of requests that came another way than as an action.
    pub fn endings(&self) -> &Arc<Endings> {
        &self.0.endings
    }

    /// Figures of the failure store, and how many failures of synchronous requests could not be kept. `None`: it cannot be read.
    pub async fn failure_usage(&self) -> Option<(FailureUsage, u64)> {
        let usage = self.0.failures.usage().await;
        usage.ok().map(|usage| (usage, self.0.endings.unkept()))
    }

    /// Ends the installs of dependencies that are under way. They begin again when the platform starts the next time.
    pub fn interrupt_installs(&self) {
        self.0.installs.interrupt();
    }

    /// Digests that must be kept; see [`Catalogue::live_digests`].
    pub fn live_digests(&self) -> HashSet<Digest> {
        self.0.catalogue.live_digests()
    }

    /// The package that a download link's token names. `None` when the token is forged, too old, or the package is gone.
    pub async fn download(&self, token: &str) -> Option<Download> {
        let digest = self.0.links.read(token, self.0.clock.now_ms())?;
        match self.0.blobs.get(&digest).await {
            Ok(bytes) => Some(Download { bytes, file_name: format!("{}.zip", &digest.to_string()[..16]) }),
            Err(error) => {
                tracing::warn!(%error, "a download link leads to a package that cannot be read");
                None
            }
        }
    }

    /// Does what a call asks for. Checks the action's name, then the version, the parameters, and the resource. Never fails: an error is an
    /// answer, and a panic is caught and answered with `InternalError`.
    pub async fn handle(&self, call: Call) -> ApiResponse {
        let request_id = call.request_id;
        let action = match Kind::of(&call.verified.action) {
            Some(_) => String::new(),
            None => call.verified.action.clone(),
        };
        let result = match (CatchPanic { inner: Box::pin(self.answer(call)) }).await {
            Ok(result) => result,
            Err(what) => {
                tracing::error!(%request_id, action, what, "an action panicked");
                Err(ApiError::internal("The platform failed on this request; see the server's log."))
            }
        };
        match result {
            Ok(answer) => answer,
            Err(error) => {
                if error.is_internal() {
                    tracing::error!(%request_id, action, code = error.code, message = %error.message, "action failed");
                }
                ApiResponse::error(request_id, &error)
            }
        }
    }

    async fn answer(&self, call: Call) -> Result<ApiResponse, ApiError> {
        let Call { verified, host, request_id, caller } = call;
        let Verified { action, version, region, params, .. } = verified;
        let cx = CallCx {
            control: &self.0,
            request_id,
            region: region.as_deref().unwrap_or_default(),
            host: bare_host(&host),
            caller: &caller,
        };
        let kind = Kind::of(&action);
        if kind.is_none() && !crate::actions::BUILT.iter().any(|spec| spec.name == action) {
            return Err(crate::actions::invalid_action(&action));
        }
        caller.may(&action)?;
        if version != API_VERSION {
            let message = format!("There is no version `{}` of SCF; the version is {API_VERSION}.", clip(&version));
            return Err(ApiError::new("NoSuchVersion", message));
        }
        if let Params::Json(body) = &params
            && body.len() > limits::API_BODY_BYTES_MAX
        {
            let message = format!("The request has {} bytes; the limit is {}.", body.len(), limits::API_BODY_BYTES_MAX);
            return Err(ApiError::new("RequestSizeLimitExceeded", message));
        }
        match kind {
            Some(kind) => invoke::invoke(cx, kind, params).await,
            None => dispatch(cx, &action, params).await.map(|fields| ApiResponse::ok(request_id, fields)),
        }
    }
}

/// A host without the scheme that some clients put before it, and without anything that is no host.
fn bare_host(host: &str) -> &str {
    let bare = host.trim().trim_start_matches("http://").trim_start_matches("https://");
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if bare.is_empty() || bare.len() > 255 || !bare.bytes().all(good) { "127.0.0.1" } else { bare }
}

/// A future whose panic is a value.
struct CatchPanic<F> {
    inner: Pin<Box<F>>,
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is not polled again after a panic, and what it shared is guarded by locks that do not poison.
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.inner.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Poll::Ready(Err(text.unwrap_or_else(|| "no message".into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_stripped_to_what_a_url_can_hold() {
        assert_eq!(bare_host("http://127.0.0.1:8700"), "127.0.0.1:8700");
        assert_eq!(bare_host("scf.example.com"), "scf.example.com");
        for bad in ["", "a/b", "a b", "x\"y", &"a".repeat(300)] {
            assert_eq!(bare_host(bad), "127.0.0.1", "{bad}");
        }
    }

    #[tokio::test]
    async fn panics_become_values() {
        let caught = CatchPanic {
            inner: Box::pin(async {
                if true {
                    panic!("boom {}", 1)
                }
            }),
        }
        .await;
        assert_eq!(caught, Err("boom 1".into()));
        assert_eq!(CatchPanic { inner: Box::pin(async { 7 }) }.await, Ok(7));
    }
}
