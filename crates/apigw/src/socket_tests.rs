//! Connections over a pair of buffers, with functions that are recorded.

use super::*;
use mayfly_store::MemoryMeta;
use tokio::io::DuplexStream;
use tokio::sync::Notify;

#[derive(Default)]
struct Recorded {
    calls: Mutex<Vec<Value>>,
    told: Mutex<Vec<(String, bool)>>,
    later: std::sync::atomic::AtomicBool,
    changed: Notify,
    /// What the transport function returns, made of its event.
    reply: Option<fn(&Value) -> Value>,
}

#[async_trait]
impl Caller for Recorded {
    async fn call(&self, _: &FunctionRef, event: String) -> Result<Vec<u8>, String> {
        let event: Value = serde_json::from_str(&event).unwrap();
        tokio::task::yield_now().await;
        self.calls.lock().push(event.clone());
        self.changed.notify_waiters();
        Ok(self.reply.map_or(Value::Null, |reply| reply(&event)).to_string().into_bytes())
    }

    async fn tell(&self, record: &ConnectionRecord, again: bool) -> Result<(), Untold> {
        if self.later.load(Ordering::Relaxed) {
            return Err(Untold::Later("no room".into()));
        }
        self.told.lock().push((record.id.clone(), again));
        self.changed.notify_waiters();
        Ok(())
    }
}

fn function(name: &str) -> FunctionRef {
    FunctionRef { namespace: "default".into(), name: name.into(), qualifier: "$LATEST".into() }
}

const LIMITS: SocketLimits =
    SocketLimits { connections_max: 2, idle: Duration::from_secs(60), life: Duration::from_secs(600) };

struct Scene {
    sockets: Arc<Sockets>,
    gateway: Arc<Gateway>,
    meta: MemoryMeta,
    caller: Arc<Recorded>,
}

impl Scene {
    async fn new(caller: Recorded) -> Self {
        let meta = MemoryMeta::new();
        let gateway = Arc::new(Gateway::load(Arc::new(meta.clone())).await.unwrap());
        Self { sockets: Sockets::new(LIMITS, Vec::new()), gateway, meta, caller: Arc::new(caller) }
    }

    /// A visitor's end of a new connection, its id, and its task.
    async fn connect(&self) -> (WebSocketStream<DuplexStream>, String, tokio::task::JoinHandle<()>) {
        let place = self.sockets.place("api-1").expect("there is room");
        let id = place.id.clone();
        let record =
            ConnectionRecord { id: id.clone(), api: "api-1".into(), cleanup: function("bye"), event: "{}".into() };
        self.gateway.connection_opened(&record).await.unwrap();
        let (here, there) = tokio::io::duplex(4 << 20);
        let carrier = Carrier {
            gateway: Arc::clone(&self.gateway),
            caller: Arc::clone(&self.caller) as _,
            transport: function("transport"),
            context: json!({ "stage": "release" }),
            record: Some(record),
        };
        let task = tokio::spawn(carry(place, Some(there), carrier));
        (WebSocketStream::from_raw_socket(here, Role::Client, None).await, id, task)
    }

    async fn until(&self, holds: impl Fn(&Recorded) -> bool) {
        let wait = async {
            loop {
                let changed = self.caller.changed.notified();
                if holds(&self.caller) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in time");
    }

    async fn push(&self, api: &str, id: &str, more: Value) -> u16 {
        let mut websocket = json!({ "action": "data send", "secConnectionID": id, "data": "x" });
        for (key, value) in more.as_object().unwrap() {
            websocket[key] = value.clone();
        }
        self.sockets.push(api, json!({ "websocket": websocket }).to_string().as_bytes()).await.0
    }
}

#[tokio::test]
async fn messages_come_in_order_and_the_end_is_told_once() {
    let scene = Scene::new(Recorded::default()).await;
    let (mut visitor, id, task) = scene.connect().await;
    for i in 0..20 {
        visitor.send(Message::text(i.to_string())).await.unwrap();
    }
    visitor.send(Message::binary(vec![0xff, 0])).await.unwrap();
    scene.until(|r| r.calls.lock().len() == 21).await;
    let calls = scene.caller.calls.lock().clone();
    for (i, call) in calls.iter().take(20).enumerate() {
        assert_eq!(
            call["websocket"],
            json!({ "action": "data recv", "secConnectionID": id, "dataType": "text", "data": i.to_string() })
        );
        assert_eq!(call["requestContext"]["stage"], "release");
    }
    assert_eq!(
        (&calls[20]["websocket"]["dataType"], &calls[20]["websocket"]["data"]),
        (&json!("binary"), &json!("/wA="))
    );
    visitor.close(None).await.unwrap();
    task.await.unwrap();
    assert_eq!(*scene.caller.told.lock(), [(id.clone(), false)]);
    assert_eq!(scene.sockets.open(), 0);
    assert_eq!(scene.push("api-1", &id, json!({})).await, 404);
    // Nothing is left that a later process would tell.
    let later = Gateway::load(Arc::new(scene.meta.clone())).await.unwrap();
    assert_eq!(later.take_left_connections(), []);
}

#[tokio::test]
async fn functions_push_and_close() {
    let scene = Scene::new(Recorded::default()).await;
    let (mut visitor, id, task) = scene.connect().await;
    assert_eq!(scene.push("api-1", &id, json!({ "data": "hello" })).await, 200);
    assert_eq!(visitor.next().await.unwrap().unwrap(), Message::text("hello"));
    assert_eq!(scene.push("api-1", &id, json!({ "data": "/wA=", "dataType": "binary" })).await, 200);
    assert_eq!(visitor.next().await.unwrap().unwrap(), Message::binary(vec![0xff, 0]));
    for (api, more, status) in [
        ("api-2", json!({}), 404),
        ("api-1", json!({ "action": "else" }), 400),
        ("api-1", json!({ "dataType": "binary", "data": "*" }), 400),
        ("api-1", json!({ "data": null }), 400),
        ("api-1", json!({ "data": "x".repeat(MESSAGE_BYTES_MAX + 1) }), 400),
    ] {
        assert_eq!(scene.push(api, &id, more.clone()).await, status);
    }
    assert_eq!(scene.sockets.push("api-1", b"no json").await.0, 400);
    assert_eq!(scene.push("api-1", &id, json!({ "action": "closing" })).await, 200);
    assert!(matches!(visitor.next().await, Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Normal));
    drop(visitor);
    task.await.unwrap();
    assert_eq!(scene.caller.told.lock().len(), 1);
}

#[tokio::test]
async fn a_return_value_that_is_a_push_is_one() {
    let echo = |event: &Value| {
        let id = &event["websocket"]["secConnectionID"];
        json!({ "websocket": { "action": "data send", "secConnectionID": id, "dataType": "text", "data": event["websocket"]["data"] } })
    };
    let scene = Scene::new(Recorded { reply: Some(echo), ..Recorded::default() }).await;
    let (mut visitor, _, _task) = scene.connect().await;
    visitor.send(Message::text("again")).await.unwrap();
    assert_eq!(visitor.next().await.unwrap().unwrap(), Message::text("again"));
    // The event itself, as some demonstrations return it, is none.
    assert!(replied(br#"{"websocket":{"action":"data recv","secConnectionID":"a","data":"x"}}"#, "a").is_none());
}

#[tokio::test]
async fn connections_and_messages_have_limits() {
    let scene = Scene::new(Recorded::default()).await;
    let (mut visitor, _, task) = scene.connect().await;
    let (_other, _, _task) = scene.connect().await;
    assert!(scene.sockets.place("api-1").is_none(), "two are the most");
    visitor.send(Message::binary(vec![0; MESSAGE_BYTES_MAX + 1])).await.unwrap();
    let heard = visitor.next().await;
    assert!(matches!(&heard, Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Size), "{heard:?}");
    drop(visitor);
    task.await.unwrap();
    assert!(scene.caller.calls.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection() {
    let scene = Scene::new(Recorded::default()).await;
    let (mut visitor, _, task) = scene.connect().await;
    let heard = visitor.next().await;
    assert!(matches!(&heard, Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Away), "{heard:?}");
    drop(visitor);
    task.await.unwrap();
    assert_eq!(scene.caller.told.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ends_that_a_killed_process_did_not_tell_are_told_by_the_next() {
    let scene = Scene::new(Recorded::default()).await;
    let (_visitor, id, task) = scene.connect().await;
    // As a kill does: nothing more is run.
    task.abort();
    let _ = task.await;
    let next = Gateway::load(Arc::new(scene.meta.clone())).await.unwrap();
    let sockets = Sockets::new(LIMITS, next.take_left_connections());
    let told = Recorded::default();
    told.later.store(true, Ordering::Relaxed);
    let told = Arc::new(told);
    let (caller, settled) = (Arc::clone(&told), Arc::new(next));
    let gateway = Arc::clone(&settled);
    let settling = tokio::spawn(async move { sockets.settle(&gateway, &*caller).await });
    tokio::time::sleep(RETRY_EVERY / 2).await;
    assert!(told.told.lock().is_empty(), "there was no room for it yet");
    told.later.store(false, Ordering::Relaxed);
    tokio::time::sleep(RETRY_EVERY * 2).await;
    assert_eq!(*told.told.lock(), [(id, true)]);
    settling.abort();
    let third = Gateway::load(Arc::new(scene.meta.clone())).await.unwrap();
    assert_eq!(third.take_left_connections(), []);
}

#[test]
fn register_functions_accept_or_refuse() {
    assert_eq!(
        registered(br#"{"errNo":0,"errMsg":"ok","websocket":{"action":"connecting","secConnectionID":"x"}}"#),
        Ok(None)
    );
    let chosen = registered(br#"{"errNo":0,"websocket":{"secWebSocketProtocol":"chat, binary"}}"#);
    assert_eq!(chosen, Ok(Some("chat".into())));
    assert!(registered(br#"{"errNo":102,"errMsg":"not found web socket"}"#).unwrap_err().contains("102 not found"));
    assert!(registered(b"null").is_err());
    assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
