//! What becomes of what is published.

mod common;

use common::{Scene, T, into_queue, kind};
use mayfly_queues::spec::{FilterType, QueueChange, TopicChange};
use mayfly_queues::{Delivery, ErrorKind, FunctionSubscription, Lag, SubscriptionChange};
use std::time::Duration;

fn tags(all: &[&str]) -> Vec<String> {
    all.iter().map(|t| (*t).to_owned()).collect()
}

fn function(id: &str, filter_type: FilterType, keys: &[&str]) -> FunctionSubscription {
    FunctionSubscription { id: id.into(), filter_type, filter_keys: tags(keys) }
}

#[tokio::test]
async fn queues_get_what_their_filters_let_through() {
    let mut s = Scene::new().await;
    s.queues.create_topic("News", TopicChange::default()).await.unwrap();
    assert_eq!(kind(s.queues.publish("news", "x", vec![]).await), ErrorKind::NobodySubscribed);
    for queue in ["all", "sport", "both"] {
        s.queue(queue, QueueChange::default()).await;
    }
    s.queues.subscribe("news", "sport", into_queue("sport", &["sport"])).await.unwrap();
    assert_eq!(kind(s.queues.publish("news", "x", tags(&["arts"])).await), ErrorKind::NobodyMatches);
    s.queues.subscribe("news", "all", into_queue("all", &[])).await.unwrap();
    s.queues.subscribe("news", "both", into_queue("both", &["arts", "sport"])).await.unwrap();
    s = s.reopen().await;
    s.queues.publish("NEWS", "1", tags(&["sport"])).await.unwrap();
    s.queues.publish("news", "2", tags(&["arts", "x"])).await.unwrap();
    s.queues.publish("news", "3", vec![]).await.unwrap();
    assert_eq!(s.drain("all").await, ["1", "2", "3"]);
    assert_eq!(s.drain("sport").await, ["1"]);
    assert_eq!(s.drain("both").await, ["1", "2"]);

    let change = SubscriptionChange { filters: Some(tags(&["arts"])), ..SubscriptionChange::default() };
    s.queues.set_subscription("news", "SPORT", change).await.unwrap();
    s.queues.publish("news", "4", tags(&["arts"])).await.unwrap();
    assert_eq!(s.drain("sport").await, ["4"]);
    assert_eq!(kind(s.queues.delete_topic("news").await), ErrorKind::TopicInUse);
    for name in ["all", "sport", "both"] {
        s.queues.unsubscribe("news", name).await.unwrap();
    }
    assert_eq!(kind(s.queues.unsubscribe("news", "all").await), ErrorKind::NoSubscription);
    s.queues.delete_topic("news").await.unwrap();
    assert_eq!(kind(s.queues.publish("news", "x", vec![]).await), ErrorKind::NoTopic);
}

#[tokio::test]
async fn binding_keys_choose_by_routing_key() {
    let s = Scene::new().await;
    let change = TopicChange { filter: Some(FilterType::Routing), ..TopicChange::default() };
    s.queues.create_topic("t", change).await.unwrap();
    for (queue, key) in [("eu", "order.eu.#"), ("new", "order.*.new")] {
        s.queue(queue, QueueChange::default()).await;
        s.queues.subscribe("t", queue, into_queue(queue, &[key])).await.unwrap();
    }
    for key in ["order.eu.new", "order.us.new", "order.eu", "order.eu.new.x"] {
        s.queues.publish_batch("t", vec![key.into()], vec![], key).await.unwrap();
    }
    assert_eq!(s.drain("eu").await, ["order.eu.new", "order.eu", "order.eu.new.x"]);
    assert_eq!(s.drain("new").await, ["order.eu.new", "order.us.new"]);
    assert_eq!(
        kind(s.queues.publish_batch("t", vec!["x".into()], vec![], "order.us.old").await),
        ErrorKind::NobodyMatches
    );
}

fn bound(topic: &str, functions: Vec<FunctionSubscription>) -> Vec<(String, FunctionSubscription)> {
    functions.into_iter().map(|f| (topic.to_owned(), f)).collect()
}

fn bodies(found: &[Delivery]) -> Vec<String> {
    found.iter().map(|d| d.body.clone()).collect()
}

#[tokio::test]
async fn functions_have_an_outbox_that_survives() {
    let mut s = Scene::new().await;
    let both = || bound("T", vec![function("f1", FilterType::Tag, &["a"]), function("f2", FilterType::Tag, &[])]);
    s.queues.set_function_subscriptions(both());
    s.queues.create_topic("t", TopicChange::default()).await.unwrap();
    assert_eq!(kind(s.queues.delete_topic("t").await), ErrorKind::TopicInUse);
    s.queues.publish("t", "1", tags(&["a"])).await.unwrap();
    s.queues.publish("t", "2", tags(&["b"])).await.unwrap();
    s.queues.publish("t", "3", tags(&["a", "b"])).await.unwrap();
    {
        let one = s.queues.consumer("f1");
        let first = one.next(1).await.unwrap();
        assert_eq!((first[0].body.as_str(), first[0].tags.clone(), first[0].sent_ms), ("1", tags(&["a"]), T));
        assert_eq!(bodies(&one.next(10).await.unwrap()), ["1", "3"], "the same, until they are acknowledged");
        one.ack(vec![first[0].id, first[0].id, 999]).await.unwrap();
        s.clock.advance(5000);
        assert_eq!(one.lag(), Lag { count: 1, age: Duration::from_secs(5) });
    }
    s = s.reopen().await;
    s.queues.set_function_subscriptions(both());
    let (one, two) = (s.queues.consumer("f1"), s.queues.consumer("f2"));
    let left = one.next(10).await.unwrap();
    assert_eq!(bodies(&left), ["3"], "what was not acknowledged comes again");
    assert_eq!(bodies(&two.next(10).await.unwrap()), ["1", "2", "3"]);
    one.ack(vec![left[0].id]).await.unwrap();
    assert_eq!(one.lag(), Lag::default());

    // A trigger that is gone takes what is on its way with it; a topic forgets what is too old.
    s.queues.set_function_subscriptions(bound("t", vec![function("f1", FilterType::Tag, &["a"])]));
    tokio::task::yield_now().await;
    s.queues.publish("t", "4", tags(&["a"])).await.unwrap();
    assert!(two.peek(10).await.unwrap().is_empty());
    assert_eq!(two.lag(), Lag::default());
    assert_eq!(bodies(&one.peek(10).await.unwrap()), ["4"]);
    s.clock.advance(86_400_000);
    s.sweep().await;
    assert_eq!(one.lag().count, 0);
    assert!(one.peek(10).await.unwrap().is_empty());
    s.queues.set_function_subscriptions(Vec::new());
    s.queues.delete_topic("t").await.unwrap();
}

#[tokio::test]
async fn a_waiting_consumer_is_woken() {
    let s = Scene::new().await;
    s.queues.create_topic("t", TopicChange::default()).await.unwrap();
    s.queues.set_function_subscriptions(bound("t", vec![function("f", FilterType::Routing, &["x.#"])]));
    let consumer = s.queues.consumer("f");
    let waiting = tokio::spawn(async move { consumer.next(10).await.unwrap() });
    tokio::task::yield_now().await;
    assert_eq!(kind(s.queues.publish_batch("t", vec!["miss".into()], vec![], "y").await), ErrorKind::NobodyMatches);
    s.queues.publish_batch("t", vec!["hit".into()], vec![], "x.y").await.unwrap();
    let found = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it is woken").unwrap();
    assert_eq!((found[0].body.as_str(), found[0].routing_key.as_str()), ("hit", "x.y"));
}

#[tokio::test]
async fn topics_are_bounded() {
    let s = Scene::new().await;
    s.queues.create_topic("t", TopicChange { message_bytes_max: Some(1024), ..TopicChange::default() }).await.unwrap();
    s.queue("q", QueueChange::default()).await;
    assert_eq!(kind(s.queues.create_topic("T", TopicChange::default()).await), ErrorKind::TopicExists);
    assert_eq!(kind(s.queues.create_topic("a b", TopicChange::default()).await), ErrorKind::TopicName);
    assert_eq!(kind(s.queues.subscribe("t", "s", into_queue("none", &[])).await), ErrorKind::NoQueue);
    let six: Vec<String> = (0..6).map(|i| i.to_string()).collect();
    let six: Vec<&str> = six.iter().map(String::as_str).collect();
    assert_eq!(kind(s.queues.subscribe("t", "s", into_queue("q", &six)).await), ErrorKind::TooManyTags);
    s.queues.subscribe("t", "s", into_queue("q", &[])).await.unwrap();
    assert_eq!(kind(s.queues.subscribe("t", "S", into_queue("q", &[])).await), ErrorKind::SubscriptionExists);
    assert_eq!(kind(s.queues.publish("t", "x", tags(&six)).await), ErrorKind::TooManyTags);
    assert_eq!(kind(s.queues.publish("t", "x".repeat(1025), vec![]).await), ErrorKind::MessageSize);
    assert_eq!(kind(s.queues.publish("t", "", vec![]).await), ErrorKind::EmptyMessage);
    assert_eq!(kind(s.queues.publish_batch("t", vec!["x".into()], vec![], &"x".repeat(65)).await), ErrorKind::Invalid);
}
