//! Pushes to endpoints, and to queues that were full.

mod common;

use common::{into_queue, kind};
use mayfly_base::{Shutdown, SystemClock};
use mayfly_queues::push::PushOptions;
use mayfly_queues::spec::{QueueChange, Strategy, Target, TopicChange};
use mayfly_queues::{ErrorKind, NewSubscription, QueueLimits, Queues};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(120);

struct Running {
    queues: Queues,
    stop: Shutdown,
    task: tokio::task::JoinHandle<()>,
    _dir: TempDir,
}

impl Running {
    async fn new(allow: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let queues = Queues::open(&path, QueueLimits::default(), Arc::new(SystemClock)).await.unwrap();
        let options = PushOptions { allow: allow.iter().map(|c| c.parse().unwrap()).collect(), owner: "125".into() };
        let stop = Shutdown::new();
        let task = tokio::spawn({
            let (queues, stop) = (queues.clone(), stop.clone());
            async move { queues.run(options, stop).await }
        });
        queues.create_topic("t", TopicChange::default()).await.unwrap();
        Self { queues, stop, task, _dir: dir }
    }

    async fn subscribe(&self, name: &str, endpoint: &str, simplified: bool) {
        let new = NewSubscription {
            target: Target::Http(endpoint.into()),
            strategy: Strategy::Decay,
            simplified,
            filters: vec![],
        };
        self.queues.subscribe("t", name, new).await.unwrap();
    }

    fn pending(&self, name: &str) -> u64 {
        self.queues.pending(&self.queues.subscription("t", name).unwrap())
    }

    async fn until_pending(&self, name: &str, count: u64) {
        let there = async {
            while self.pending(name) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.expect("what is pending is pushed");
    }

    async fn stop(self) {
        self.stop.trigger();
        self.task.await.unwrap();
        self.queues.close().await.unwrap();
    }
}

/// An endpoint that answers with these statuses in turn, the last one for ever, and tells what it got: head and body.
async fn endpoint(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in?x=1", listener.local_addr().unwrap());
    let (told, got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut statuses = statuses.iter();
        let mut status = 200;
        while let Ok((mut stream, _)) = listener.accept().await {
            status = statuses.next().copied().unwrap_or(status);
            let mut data = Vec::new();
            let head = loop {
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.unwrap();
                data.extend_from_slice(&chunk[..n]);
                if let Some(at) = data.windows(4).position(|w| w == b"\r\n\r\n") {
                    break at;
                }
                assert!(n > 0, "a whole head comes");
            };
            let text = String::from_utf8(data[..head].to_vec()).unwrap().to_ascii_lowercase();
            let length =
                text.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
            while data.len() < head + 4 + length {
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.unwrap();
                data.extend_from_slice(&chunk[..n]);
            }
            let body = String::from_utf8(data[head + 4..].to_vec()).unwrap();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:1/\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            told.send((text, body)).unwrap();
        }
    });
    (url, got)
}

async fn next(got: &mut mpsc::UnboundedReceiver<(String, String)>) -> (String, String) {
    tokio::time::timeout(PATIENCE, got.recv()).await.expect("a push comes").unwrap()
}

#[tokio::test]
async fn endpoints_get_messages_in_both_formats() {
    let running = Running::new(&["127.0.0.0/8"]).await;
    let (url, mut got) = endpoint(&[200]).await;
    running.subscribe("json", &url, false).await;
    let tags = vec!["a".to_owned(), "b".to_owned()];
    let id = running.queues.publish("t", "hello 你好", tags.clone()).await.unwrap();
    let (head, body) = next(&mut got).await;
    assert!(head.starts_with("post /in?x=1 http/1.1"), "{head}");
    for header in
        [&format!("x-cmq-message-id: {id}"), "x-cmq-message-tag: a,b", "x-cmq-request-id: ", "content-type: text/plain"]
    {
        assert!(head.contains(header), "{header} in {head}");
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["TopicOwner"], &body["topicName"], &body["subscriptionName"]),
        (&125.into(), &"t".into(), &"json".into())
    );
    assert_eq!((&body["msgId"], &body["msgBody"]), (&id.to_string().into(), &"hello 你好".into()));
    assert!(body["publishTime"].as_u64().unwrap() > 1_700_000_000);
    running.until_pending("json", 0).await;

    running.queues.unsubscribe("t", "json").await.unwrap();
    running.subscribe("plain", &url, true).await;
    running.queues.publish("t", "as it is", vec![]).await.unwrap();
    let (head, body) = next(&mut got).await;
    assert_eq!(body, "as it is");
    assert!(!head.contains("x-cmq-message-tag"));
    running.until_pending("plain", 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_push_that_fails_is_tried_again_and_redirects_are_failures() {
    let running = Running::new(&["127.0.0.0/8"]).await;
    let (url, mut got) = endpoint(&[500, 302, 204]).await;
    running.subscribe("s", &url, true).await;
    running.queues.publish("t", "once more", vec![]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut got).await.1, "once more");
    }
    running.until_pending("s", 0).await;
    running.stop().await;
}

#[tokio::test]
async fn closed_addresses_get_nothing_and_a_dead_endpoint_holds_nobody_up() {
    let running = Running::new(&[]).await;
    let (url, mut got) = endpoint(&[200]).await;
    running.subscribe("loopback", &url, true).await;
    running.subscribe("name", &url.replace("127.0.0.1", "localhost"), true).await;
    for _ in 0..20 {
        running.queues.publish("t", "secret", vec![]).await.unwrap();
    }
    running.queues.create_queue("q", QueueChange::default()).await.unwrap();
    running.queues.subscribe("t", "queue", into_queue("q", &[])).await.unwrap();
    running.queues.publish("t", "for all", vec![]).await.unwrap();
    assert_eq!(running.queues.receive("q", 1, Some(30)).await.unwrap()[0].body, "for all");
    assert_eq!((running.pending("loopback"), running.pending("name")), (21, 21));
    assert!(got.try_recv().is_err(), "nothing came to the endpoint");
    // What is on its way to a subscription goes with it.
    for name in ["loopback", "name", "queue"] {
        running.queues.unsubscribe("t", name).await.unwrap();
    }
    running.queues.delete_topic("t").await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_full_queue_gets_its_messages_when_it_has_room() {
    let running = Running::new(&[]).await;
    running.queues.create_queue("q", QueueChange { heap_max: Some(1), ..QueueChange::default() }).await.unwrap();
    running.queues.subscribe("t", "s", into_queue("q", &[])).await.unwrap();
    for body in ["1", "2", "3"] {
        running.queues.publish("t", body, vec![]).await.unwrap();
    }
    assert_eq!(kind(running.queues.send("q", "x").await), ErrorKind::Full);
    assert_eq!(running.pending("s"), 2);
    let mut all = Vec::new();
    while all.len() < 3 {
        let got = running.queues.receive("q", 1, Some(30)).await.unwrap();
        all.push(got[0].body.clone());
        running.queues.delete("q", &[got[0].handle.clone()]).await.unwrap();
    }
    all.sort();
    assert_eq!(all, ["1", "2", "3"]);
    running.until_pending("s", 0).await;
    running.stop().await;
}
