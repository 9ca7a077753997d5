//! Consumers over librdkafka's mock cluster: brokers on real sockets in this process.

mod common;

use common::{Mood, Rig, until};
use mayfly_kafka::{Settings, Start, TopicState};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::time::Duration;

type Test = Result<(), Box<dyn std::error::Error>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_arrives_in_order_and_once() -> Test {
    let rig = Rig::new(3)?;
    rig.produce(0..60).await?;
    let member = rig.join(rig.settings());
    until("what was there arrives", || rig.seen().len() == 60).await;
    rig.produce(60..90).await?;
    until("what comes now arrives", || rig.seen().len() == 90).await;
    until("nothing waits", || member.lag().messages == 0).await;
    until("the group has said that it knows", || member.is_settled()).await;
    assert_eq!(rig.committed(), 90);
    member.stop().await;
    assert!(rig.in_order());
    // The next member begins where this one ended.
    let member = rig.join(rig.settings());
    rig.produce(90..93).await?;
    until("what comes after a restart arrives", || rig.seen().len() == 93).await;
    assert_eq!(rig.handed(), 93, "nothing comes twice");
    member.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_cut_where_it_is_full() -> Test {
    let rig = Rig::new(1)?;
    // Nobody waits for a minute here: what is full goes at once.
    let settings = Settings { messages_max: 5, wait: Duration::from_secs(60), ..rig.settings() };
    let member = rig.join(settings.clone());
    rig.produce(0..15).await?;
    until("full batches arrive", || rig.seen().len() == 15).await;
    assert!(rig.batches().iter().all(|batch| batch.messages == 5));
    member.stop().await;
    // By size; and what is not full goes when it has waited.
    let member = rig.join(Settings { bytes_max: 400, wait: Duration::from_secs(1), messages_max: 100, ..settings });
    rig.produce(15..25).await?;
    until("the rest arrives too", || rig.seen().len() == 25).await;
    assert!(rig.batches()[3..].iter().all(|batch| batch.event.len() <= 400 && batch.messages > 1));
    member.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_waits_and_is_not_committed() -> Test {
    let rig = Rig::new(2)?;
    rig.set(Mood::Later);
    rig.produce(0..10).await?;
    let member = rig.join(rig.settings());
    until("it is tried, and tried again", || rig.attempts() >= 4).await;
    until("it waits", || member.lag().messages == 10).await;
    assert!(member.lag().oldest_ms > 0);
    member.stop().await;
    let member = rig.join(rig.settings());
    until("the next member tries too", || rig.attempts() >= 6).await;
    rig.set(Mood::Open);
    until("everything arrives", || rig.seen().len() == 10).await;
    member.stop().await;
    assert!(rig.in_order());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing() -> Test {
    let rig = Rig::new(2)?;
    rig.produce(0..20).await?;
    rig.set(Mood::Hangs);
    let member = rig.join(rig.settings());
    until("it is being handed over", || rig.attempts() == 2).await;
    member.kill().await;
    rig.set(Mood::Open);
    let member = rig.join(rig.settings());
    until("everything arrives", || rig.seen().len() == 20).await;
    member.stop().await;
    assert!(rig.in_order());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_tried_again_then_given_up_and_hold_up_nothing_else() -> Test {
    let rig = Rig::new(2)?;
    // Of partition 0, the batch with message 0 fails for ever.
    rig.set(Mood::FailsOn(0));
    rig.produce(0..16).await?;
    let settings = Settings { retries: 3, messages_max: 4, wait: Duration::from_secs(60), ..rig.settings() };
    let member = rig.join(settings);
    until("the others arrive", || rig.seen().len() == 12).await;
    until("nothing waits", || member.lag().messages == 0).await;
    member.stop().await;
    assert_eq!(rig.run_errors_before_the_end(), Some(3), "the fourth attempt is the last");
    assert_eq!(rig.committed(), 16);
    assert!(rig.in_order());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_share_the_work_and_take_it_over() -> Test {
    let rig = Rig::new(4)?;
    let first = rig.join(rig.settings());
    rig.produce(0..20).await?;
    until("one member has everything", || rig.seen().len() == 20).await;
    let second = rig.join(rig.settings());
    let mut next = 20;
    // Until both have partitions, messages go on coming.
    for _ in 0..200 {
        if first.partitions() == 2 && second.partitions() == 2 {
            break;
        }
        rig.produce(next..next + 4).await?;
        next += 4;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((first.partitions(), second.partitions()), (2, 2));
    rig.produce(next..next + 40).await?;
    next += 40;
    until("both hand over", || rig.seen().len() == next).await;
    first.stop().await;
    rig.produce(next..next + 20).await?;
    until("the one that stays has everything", || rig.seen().len() == next + 20).await;
    second.stop().await;
    assert!(rig.in_order());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_may_go_and_come_back() -> Test {
    let rig = Rig::new(2)?;
    let member = rig.join(rig.settings());
    rig.produce(0..10).await?;
    until("it works", || rig.seen().len() == 10).await;
    rig.cluster.broker_down(1)?;
    // Somebody else has noticed by now.
    assert!(matches!(rig.topic().await, TopicState::Unknown(_)));
    assert!(!member.ended(), "it waits for the broker");
    rig.cluster.broker_up(1)?;
    rig.produce(10..20).await?;
    until("it works again", || rig.seen().len() == 20).await;
    member.stop().await;
    assert!(rig.in_order());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_is_made_again() -> Test {
    let rig = Rig::new(1)?;
    rig.produce(0..5).await?;
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    rig.cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refused; 3]);
    let member = rig.join(rig.settings());
    until("everything arrives", || rig.seen().len() == 5).await;
    until("it is committed", || member.is_settled()).await;
    assert_eq!(rig.committed(), 5);
    member.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_group_begins_is_kept() -> Test {
    let rig = Rig::new(1)?;
    rig.produce(0..5).await?;
    let settings = Settings { start: Start::At(u64::MAX >> 1), ..rig.settings() };
    let member = rig.join(settings.clone());
    // It has handed over nothing, and yet is known to have begun behind what was there.
    until("the beginning is committed", || rig.committed() == 5).await;
    member.stop().await;
    rig.produce(5..8).await?;
    let member = rig.join(settings);
    until("what came while nobody was there arrives", || rig.seen().len() == 3).await;
    member.stop().await;
    assert_eq!(rig.seen(), [5, 6, 7]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_whatever_goes_on() -> Test {
    let rig = Rig::new(1)?;
    rig.produce(0..3).await?;
    for mood in [Mood::Later, Mood::FailsOn(0), Mood::Hangs] {
        rig.set(mood);
        let before = rig.attempts();
        let member = rig.join(rig.settings());
        until("it is handed over", || rig.attempts() > before).await;
        member.stop().await;
    }
    // Without a topic, and without a broker.
    let member = rig.join(Settings { topic: "nothing".into(), ..rig.settings() });
    member.stop().await;
    rig.cluster.broker_down(1)?;
    let member = rig.join(rig.settings());
    assert!(matches!(rig.topic().await, TopicState::Unknown(_)));
    member.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_found_or_not() -> Test {
    let rig = Rig::new(2)?;
    let cluster = rig.clusters.get("mock").ok_or("the cluster")?;
    assert_eq!(rig.topic().await, TopicState::There(2));
    rig.cluster.topic_error("refunds", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)?;
    assert_eq!(cluster.topic("refunds").await, TopicState::Missing);
    rig.cluster.broker_down(1)?;
    assert!(matches!(rig.topic().await, TopicState::Unknown(_)));
    Ok(())
}
