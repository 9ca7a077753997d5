//! The platform as functions with a role reach it from inside their sandboxes: one socket for HTTP, where the host says which service is
//! meant, and one for names. See `docs/inside.md`.

mod names;

use crate::http::Front;
use crate::objects;
use crate::queues::QueueFront;
use async_trait::async_trait;
use mayfly_gateway::{GatewayLimits, HttpRequest, HttpResponse, Inlet, Inlets, Service, StreamBody, StreamRequest};
use mayfly_model::Lineage;
use mayfly_node::inside::{Caller, Services};
use mayfly_objects::Within;
use mayfly_sandbox::wire::SERVICES_DOMAIN;
use parking_lot::Mutex;
use std::any::Any;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

/// Connections of one instance.
const CONNECTIONS_MAX: usize = 128;
/// Largest request of an instance that is read into memory, in bytes: an event of 6 MB, every byte of which may be escaped.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Memory for such requests of one instance, and of all, in bytes.
const BODIES_BYTES_MAX: usize = 24 << 20;
const ALL_BODIES_BYTES_MAX: usize = 256 << 20;
/// Documents of one instance that the object store reads at a time.
const DOCUMENTS_MAX: usize = 4;
/// Uploads of one instance at a time, and of all: each holds about two MB.
const UPLOADS_MAX: usize = 16;
const ALL_UPLOADS_MAX: usize = 256;
/// How long an upload waits for those of other instances.
const UPLOAD_WAIT: Duration = Duration::from_secs(5);
/// Most connections of all instances, where open files suffice.
const ALL_CONNECTIONS_MAX: usize = 8192;

/// What the sockets lead to. Weak, since all of these hold the node, which holds this.
#[derive(Clone)]
pub struct Rooms {
    pub front: Weak<Front>,
    pub queues: Weak<QueueFront>,
    pub objects: Option<Weak<objects::Door>>,
    pub inlets: Arc<Inlets>,
}

/// Limits of one instance's sockets.
pub fn limits() -> GatewayLimits {
    GatewayLimits {
        connections_max: CONNECTIONS_MAX,
        body_bytes_max: BODY_BYTES_MAX,
        bodies_bytes_max: BODIES_BYTES_MAX,
        idle_time: Duration::from_secs(60),
        body_time: Duration::from_secs(120),
        // The number of connections bounds that of requests.
        http2: false,
        ..GatewayLimits::default()
    }
}

/// Limits of all of them: connections, and bytes of bodies.
pub fn limits_of_all(open_files: usize) -> (usize, usize) {
    (ALL_CONNECTIONS_MAX.min(open_files / 8).max(CONNECTIONS_MAX), ALL_BODIES_BYTES_MAX)
}

/// Serves the sockets in sandboxes. Those that are opened before the platform is ready are served when it is.
pub struct InsideServices {
    rooms: watch::Sender<Option<Rooms>>,
    uploads: Arc<Semaphore>,
    main: tokio::runtime::Handle,
}

impl InsideServices {
    /// To be called on the main runtime.
    pub fn new() -> Self {
        let uploads = Arc::new(Semaphore::new(ALL_UPLOADS_MAX));
        Self { rooms: watch::Sender::new(None), uploads, main: tokio::runtime::Handle::current() }
    }

    /// The platform is ready.
    pub fn ready(&self, rooms: Rooms) {
        self.rooms.send_replace(Some(rooms));
    }
}

/// Sockets that are served.
struct Served {
    inlet: Arc<Mutex<Option<Inlet>>>,
    tasks: [AbortHandle; 2],
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let inlet = self.inlet.lock().take();
        drop(inlet);
    }
}

impl Services for InsideServices {
    fn open(&self, http: TcpListener, names: UdpSocket, caller: Arc<Caller>) -> io::Result<Box<dyn Any + Send + Sync>> {
        // Sockets belong to the runtime that they are registered with, and instances are started on any.
        let _main = self.main.enter();
        let names = tokio::net::UdpSocket::from_std(names)?;
        let answering = tokio::spawn(names::serve(names)).abort_handle();
        let inlet = Arc::new(Mutex::new(None));
        let (place, mut rooms) = (Arc::downgrade(&inlet), self.rooms.subscribe());
        let all_uploads = Arc::clone(&self.uploads);
        let opening = tokio::spawn(async move {
            let Ok(rooms) = rooms.wait_for(Option::is_some).await.map(|rooms| rooms.clone()) else { return };
            let (Some(rooms), Some(place)) = (rooms, place.upgrade()) else { return };
            let inlets = Arc::clone(&rooms.inlets);
            let room = Room {
                rooms,
                caller,
                documents: Arc::new(Semaphore::new(DOCUMENTS_MAX)),
                uploads: Semaphore::new(UPLOADS_MAX),
                all_uploads,
            };
            match inlets.open(http, Arc::new(room)) {
                Ok(inlet) => *place.lock() = Some(inlet),
                Err(error) => tracing::error!(%error, "the services inside a sandbox cannot be served"),
            }
        });
        Ok(Box::new(Served { inlet, tasks: [answering, opening.abort_handle()] }))
    }
}

/// What one instance reaches.
struct Room {
    rooms: Rooms,
    caller: Arc<Caller>,
    documents: Arc<Semaphore>,
    uploads: Semaphore,
    all_uploads: Arc<Semaphore>,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Api,
    Objects,
    Queues,
    Unknown,
}

/// The service that a host means: the last or, before a region, the last but one label below the domain.
fn service_of(host: &str) -> Which {
    // Some clients send the scheme along.
    let host = host.trim_start_matches("http://").to_ascii_lowercase();
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    let Some(labels) = bare.strip_suffix(SERVICES_DOMAIN).and_then(|l| l.strip_suffix('.')) else {
        return Which::Unknown;
    };
    let mut ends = labels.rsplit('.').take(2);
    let found = ends.find_map(|label| match label {
        "scf" | "tdmq" => Some(Which::Api),
        "cos" | "s3" => Some(Which::Objects),
        "cmq" => Some(Which::Queues),
        _ => None,
    });
    found.unwrap_or(Which::Unknown)
}

fn host_of<'a>(headers: &'a http::HeaderMap, uri: &'a http::Uri) -> &'a str {
    let named = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    named.or(uri.authority().map(|authority| authority.as_str())).unwrap_or("")
}

fn nobody() -> HttpResponse {
    HttpResponse::text(503, "The platform is stopping, or has no such service.\n")
}

#[async_trait]
impl Service for Room {
    fn streams(&self, head: &http::request::Parts) -> bool {
        match service_of(host_of(&head.headers, &head.uri)) {
            Which::Objects => self.rooms.objects.is_some(),
            Which::Api => self.rooms.front.upgrade().is_some_and(|front| front.streams(head)),
            Which::Queues | Which::Unknown => false,
        }
    }

    async fn stream(&self, mut call: StreamRequest) -> http::Response<StreamBody> {
        match &self.rooms.objects {
            Some(objects) if !self.is_api(&call.request) => {
                let Some(objects) = objects.upgrade() else { return gone() };
                call.request.extensions_mut().insert(Within {
                    secret_id: self.caller.badge().secret_id().into(),
                    lineage: self.caller.lineage(),
                    documents: Arc::clone(&self.documents),
                });
                if !matches!(*call.request.method(), http::Method::PUT | http::Method::POST) {
                    return objects.stream(call).await;
                }
                // Its own wait as long as it likes; others' must not keep it waiting. A body is not read before that.
                let _own = self.uploads.acquire().await;
                match tokio::time::timeout(UPLOAD_WAIT, self.all_uploads.acquire()).await {
                    Ok(_one) => objects.stream(call).await,
                    Err(_) => busy(),
                }
            }
            _ => {
                let Some(front) = self.rooms.front.upgrade() else { return gone() };
                call.request.extensions_mut().insert(Asker(Arc::clone(&self.caller)));
                front.stream(call).await
            }
        }
    }

    async fn call(&self, request: HttpRequest) -> HttpResponse {
        match service_of(host_of(&request.headers, &request.uri)) {
            Which::Api => match self.rooms.front.upgrade() {
                Some(front) => front.call_inside(request, &self.caller).await,
                None => nobody(),
            },
            Which::Queues => match self.rooms.queues.upgrade() {
                Some(queues) => queues.answer(request, Some(&self.caller)).await,
                None => nobody(),
            },
            Which::Objects => nobody(),
            Which::Unknown => HttpResponse::text(
                404,
                format!(
                    "No service is meant by this host. There are scf.{SERVICES_DOMAIN}, cos.{SERVICES_DOMAIN}, s3.{SERVICES_DOMAIN} and cmq.{SERVICES_DOMAIN}, all on port 80.\n"
                ),
            ),
        }
    }
}

impl Room {
    fn is_api(&self, request: &http::Request<StreamBody>) -> bool {
        service_of(host_of(request.headers(), request.uri())) == Which::Api
    }
}

/// In the words of the object store.
fn busy() -> http::Response<StreamBody> {
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code><Message>Too many uploads of functions are under way; try again later.</Message></Error>";
    let mut response = http::Response::new(mayfly_node::service::whole(text));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/xml"));
    headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

fn gone() -> http::Response<StreamBody> {
    let mut response = http::Response::new(StreamBody::default());
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Among the extensions of a request that comes from inside a function: who asks.
#[derive(Clone)]
pub struct Asker(pub Arc<Caller>);

impl Asker {
    /// What a request comes of.
    pub fn lineage(head: &http::request::Parts) -> Lineage {
        head.extensions.get::<Self>().map(|asker| asker.0.lineage()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_services() {
        for (host, service) in [
            ("scf.mayfly.internal", Which::Api),
            ("http://scf.mayfly.internal", Which::Api),
            ("tdmq.mayfly.internal:80", Which::Api),
            ("COS.mayfly.internal", Which::Objects),
            ("photos-1.cos.mayfly.internal", Which::Objects),
            ("photos-1.cos.ap-guangzhou.mayfly.internal", Which::Objects),
            ("scf.s3.mayfly.internal", Which::Objects),
            ("cmq.mayfly.internal", Which::Queues),
            ("mayfly.internal", Which::Unknown),
            ("cos.example.com", Which::Unknown),
            ("127.0.0.8", Which::Unknown),
            ("", Which::Unknown),
        ] {
            assert_eq!(service_of(host), service, "{host}");
        }
    }
}
