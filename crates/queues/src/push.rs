//! Deliveries to endpoints, and to queues that were full.

use crate::catalogue::Subscription;
use crate::db::{Ask, Delivery, Op};
use crate::error::ErrorKind;
use crate::service::{Queues, random};
use crate::spec::{ENDPOINT_BYTES_MAX, Strategy, Target};
use crate::{QueueError, catalogue::shown};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use mayfly_base::Cidr;
use mayfly_base::shutdown::Shutdown;
use mayfly_model::RequestId;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// From the look-up of an endpoint's name to the head of its answer. Source: "about 15 seconds" in CMQ's page on deliveries.
const PUSH_TIME: Duration = Duration::from_secs(15);
/// Pushes at a time.
const PUSHES_MAX: usize = 64;
/// Pushes at a time for one subscription.
const PUSHES_EACH_MAX: usize = 4;
/// Longest pause between looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Tries after the first with `BACKOFF_RETRY`.
const BACKOFF_TRIES: u32 = 3;
/// Longest pause between tries with `EXPONENTIAL_DECAY_RETRY`, in seconds.
const DECAY_S_MAX: u64 = 512;
/// Longest pause between looks at a queue that was full, in seconds.
const FULL_S_MAX: u64 = 8;

/// Where may be pushed to, and by whom.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Ranges that are not public and may be pushed to all the same.
    pub allow: Vec<Cidr>,
    /// The account's number (APPID), which endpoints are told.
    pub owner: String,
}

impl PushOptions {
    /// Whether an address may be pushed to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allow.iter().any(|range| range.contains(address))
    }
}

/// False for addresses of this machine, of private networks, and for those that name no single machine on the Internet.
fn is_public(address: IpAddr) -> bool {
    let within = |ranges: &[&str]| ranges.iter().any(|r| r.parse::<Cidr>().is_ok_and(|c| c.contains(address)));
    match address {
        // Source: the registries of special-purpose addresses (RFC 6890).
        IpAddr::V4(_) => !within(&[
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ]),
        // Only global unicast, without what leads to IPv4 by another name.
        IpAddr::V6(_) => within(&["2000::/3"]) && !within(&["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]),
    }
}

/// Checks an endpoint as far as it can be checked without looking its name up.
///
/// # Errors
/// [`ErrorKind::Endpoint`].
pub fn check_endpoint(endpoint: &str) -> Result<(), QueueError> {
    let refuse = |why: &str| Err(ErrorKind::Endpoint.says(format!("`{}` {why}.", shown(endpoint))));
    if endpoint.len() > ENDPOINT_BYTES_MAX {
        return refuse("is too long");
    }
    let Ok(uri) = endpoint.parse::<Uri>() else { return refuse("is no URL") };
    if uri.scheme_str() != Some("http") {
        return refuse("does not begin with `http://`");
    }
    match uri.authority() {
        Some(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => Ok(()),
        _ => refuse("has no host, or a user in it"),
    }
}

/// Why a push did not arrive, for the log.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error("the endpoint's name cannot be looked up: {0}")]
    Name(std::io::Error),
    #[error("none of the endpoint's addresses may be pushed to; `queues_push_allow` names private ranges that may")]
    Closed,
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Http(hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(http::Error),
    #[error("the endpoint answered {0}")]
    Status(u16),
    #[error("no answer within 15 s")]
    Slow,
    #[error("the endpoint is no URL")]
    Endpoint,
}

/// Pushes what is due.
pub(crate) struct Pusher {
    queues: Queues,
    options: Arc<PushOptions>,
    room: Arc<Semaphore>,
    /// Deliveries being tried, by outlet.
    trying: Arc<Mutex<HashMap<String, HashSet<i64>>>>,
}

impl Pusher {
    pub fn new(queues: Queues, options: PushOptions) -> Self {
        let room = Arc::new(Semaphore::new(PUSHES_MAX));
        Self { queues, options: Arc::new(options), room, trying: Arc::default() }
    }

    pub async fn run(&self, shutdown: &Shutdown) {
        loop {
            let next = self.look().await;
            tokio::select! {
                () = self.queues.shared().push.notified() => {}
                () = tokio::time::sleep(next) => {}
                () = shutdown.triggered() => return,
            }
        }
    }

    /// Begins what is due, as far as there is room. Returns when to look again.
    async fn look(&self) -> Duration {
        let hot: Vec<(String, Arc<Subscription>)> = {
            let names = self.queues.shared().names.read();
            let all =
                names.topics.values().flat_map(|t| t.subscriptions.values().map(|s| (t.name.clone(), Arc::clone(s))));
            let pending = |s: &Subscription| {
                names.outlets.get(&s.outlet).is_some_and(|o| o.pending.load(std::sync::atomic::Ordering::Acquire) > 0)
            };
            all.filter(|(_, s)| pending(s)).collect()
        };
        let mut next = LOOK_EVERY;
        for (topic, subscription) in hot {
            match self.look_at(&topic, &subscription).await {
                Ok(pause) => next = next.min(pause),
                // Said already where it happened.
                Err(_) => return LOOK_EVERY,
            }
        }
        next
    }

    async fn look_at(&self, topic: &str, subscription: &Arc<Subscription>) -> Result<Duration, QueueError> {
        let outlet = &subscription.outlet;
        let busy = self.trying.lock().get(outlet).map_or(0, HashSet::len);
        if busy >= PUSHES_EACH_MAX {
            // The end of a push rings.
            return Ok(LOOK_EVERY);
        }
        let now_ms = self.queues.now_ms();
        let (name, limit) = (outlet.clone(), PUSHES_EACH_MAX + busy);
        let due = self.queues.ask(|done| Ask::Due { outlet: name, now_ms, limit, done }).await?;
        for delivery in due {
            if self.trying.lock().get(outlet).map_or(0, HashSet::len) >= PUSHES_EACH_MAX {
                return Ok(LOOK_EVERY);
            }
            if !self.trying.lock().entry(outlet.clone()).or_default().insert(delivery.id) {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { break };
            let one = One {
                queues: self.queues.clone(),
                options: Arc::clone(&self.options),
                subscription: Arc::clone(subscription),
                topic: topic.to_owned(),
                _trying: Trying {
                    all: Arc::clone(&self.trying),
                    outlet: outlet.clone(),
                    id: delivery.id,
                    queues: self.queues.clone(),
                },
            };
            tokio::spawn(async move {
                one.attempt(delivery).await;
                drop(permit);
            });
        }
        let name = outlet.clone();
        let next = self.queues.ask(|done| Ask::NextDue { outlet: name, done }).await?;
        let pause = next.map_or(LOOK_EVERY, |ms| Duration::from_millis(ms.saturating_sub(now_ms)));
        // What is being tried is due too, and rings when it ends.
        Ok(if pause.is_zero() { LOOK_EVERY } else { pause })
    }
}

/// A delivery being tried. Dropped when it ends, however it ends.
struct Trying {
    all: Arc<Mutex<HashMap<String, HashSet<i64>>>>,
    outlet: String,
    id: i64,
    queues: Queues,
}

impl Drop for Trying {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(ids) = all.get_mut(&self.outlet) {
            ids.remove(&self.id);
            if ids.is_empty() {
                all.remove(&self.outlet);
            }
        }
        drop(all);
        self.queues.shared().push.notify_one();
    }
}

/// One attempt at one delivery.
struct One {
    queues: Queues,
    options: Arc<PushOptions>,
    subscription: Arc<Subscription>,
    topic: String,
    _trying: Trying,
}

impl One {
    async fn attempt(&self, delivery: Delivery) {
        let outlet = self.subscription.outlet.clone();
        let pause = match &self.subscription.spec.target {
            Target::Queue(queue) => {
                let op = Op::Enqueue { outlet: outlet.clone(), delivery: delivery.id, queue: queue.clone() };
                match self.queues.write(op).await {
                    Ok(_) => return,
                    Err(_) => Some(decay_s(delivery.attempt).min(FULL_S_MAX) * 1000),
                }
            }
            Target::Http(endpoint) => {
                let tried = tokio::time::timeout(PUSH_TIME, self.push(endpoint, &delivery)).await;
                match tried.unwrap_or(Err(Missed::Slow)) {
                    Ok(()) => None,
                    Err(missed) => {
                        let (topic, subscription) = (&self.topic, &self.subscription.name);
                        let attempt = delivery.attempt + 1;
                        tracing::debug!(%missed, topic, subscription, message = delivery.message, attempt, "a push did not arrive");
                        pause_ms(self.subscription.spec.strategy, delivery.attempt)
                    }
                }
            }
        };
        let op = match pause {
            Some(ms) => {
                let due_ms = self.queues.now_ms() + ms;
                Op::Again { id: delivery.id, due_ms, attempt: delivery.attempt.saturating_add(1) }
            }
            None => Op::Finish { outlet, ids: vec![delivery.id] },
        };
        // What cannot be written down is tried again, which is what at-least-once allows.
        if self.queues.write(op).await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn push(&self, endpoint: &str, delivery: &Delivery) -> Result<(), Missed> {
        let uri: Uri = endpoint.parse().map_err(|_| Missed::Endpoint)?;
        let authority = uri.authority().ok_or(Missed::Endpoint)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // The address that is checked is the one that is connected to: a name may lead elsewhere a moment later.
        let found = tokio::net::lookup_host((host, authority.port_u16().unwrap_or(80))).await.map_err(Missed::Name)?;
        let open: Vec<SocketAddr> = found.filter(|a| self.options.allows(a.ip())).collect();
        if open.is_empty() {
            return Err(Missed::Closed);
        }
        let stream = TcpStream::connect(&open[..]).await.map_err(Missed::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Missed::Http)?;
        let request = self.request(&uri, authority.as_str(), delivery)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(Missed::Http)?;
            Ok(answer.status())
        };
        // An endpoint may close the connection right behind its answer: the end of the one is not the lack of the other.
        let driven = async {
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        // The body of the answer is of no interest: with its head, the connection is dropped.
        let status = tokio::select! {
            biased;
            status = answer => status?,
            never = driven => match never {},
        };
        if status.is_success() { Ok(()) } else { Err(Missed::Status(status.as_u16())) }
    }

    fn request(&self, uri: &Uri, authority: &str, delivery: &Delivery) -> Result<Request<Full<Bytes>>, Missed> {
        let body = if self.subscription.spec.simplified {
            delivery.body.clone()
        } else {
            let owner = self.options.owner.parse::<u64>().map_or(json!(self.options.owner), |n| json!(n));
            json!({
                "TopicOwner": owner,
                "topicName": delivery.topic,
                "subscriptionName": self.subscription.name,
                "msgId": delivery.message.to_string(),
                "msgBody": delivery.body,
                "publishTime": delivery.sent_ms / 1000,
                "msgTag": delivery.tags,
            })
            .to_string()
        };
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "text/plain")
            .header(header::USER_AGENT, "Qcloud Notification Service Agent")
            .header("x-cmq-request-id", RequestId::from_random(random()).to_string())
            .header("x-cmq-message-id", delivery.message);
        if !delivery.tags.is_empty() {
            request = request.header("x-cmq-message-tag", delivery.tags.join(",").into_bytes());
        }
        request.body(Full::new(Bytes::from(body))).map_err(Missed::Request)
    }
}

/// The pause before the next try, in milliseconds, after `tried` earlier ones and this. `None`: no more. A topic's retention ends them too.
fn pause_ms(strategy: Strategy, tried: u32) -> Option<u64> {
    match strategy {
        Strategy::Backoff => (tried < BACKOFF_TRIES).then(|| 10_000 + u64::from_le_bytes(random()) % 10_000),
        Strategy::Decay => Some(decay_s(tried) * 1000),
    }
}

fn decay_s(tried: u32) -> u64 {
    1u64.checked_shl(tried).unwrap_or(DECAY_S_MAX).clamp(1, DECAY_S_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_and_those_named_are_open() {
        let usual = PushOptions::default();
        for open in ["1.1.1.1", "114.114.114.114", "2606:4700::1111"] {
            assert!(usual.allows(open.parse().unwrap()), "{open}");
        }
        for closed in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.213.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
        ] {
            assert!(!usual.allows(closed.parse().unwrap()), "{closed}");
        }
        let more = PushOptions { allow: vec!["127.0.0.0/8".parse().unwrap()], owner: String::new() };
        assert!(more.allows("127.0.0.1".parse().unwrap()) && more.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!more.allows("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn endpoints_are_plain_http_urls() {
        for good in ["http://example.com", "http://example.com:8080/a?b=c", "http://[2606:4700::1111]/x"] {
            check_endpoint(good).unwrap();
        }
        let long = format!("http://example.com/{}", "x".repeat(1024));
        for bad in [
            "",
            "example.com",
            "https://example.com",
            "ftp://a",
            "http://",
            "http://user@host/",
            "http://a b/",
            "http://a/\r\nb",
            &long,
        ] {
            assert_eq!(check_endpoint(bad).unwrap_err().kind, ErrorKind::Endpoint, "{bad}");
        }
    }

    #[test]
    fn tries_get_rarer_and_some_end() {
        let decay: Vec<_> = (0..12).map(|n| pause_ms(Strategy::Decay, n).unwrap() / 1000).collect();
        assert_eq!(decay, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512]);
        assert_eq!(pause_ms(Strategy::Decay, u32::MAX), Some(512_000));
        for n in 0..3 {
            assert!((10_000..20_000).contains(&pause_ms(Strategy::Backoff, n).unwrap()));
        }
        assert_eq!(pause_ms(Strategy::Backoff, 3), None);
    }
}
