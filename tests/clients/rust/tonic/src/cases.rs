//! The client.

use crate::MESSAGE_MAX;
use crate::demo::demo_client::DemoClient;
use crate::messages::{Reply, Request};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Client = DemoClient<Channel>;

/// Fails with both values.
macro_rules! equal {
    ($got:expr, $wanted:expr) => {{
        let (got, wanted) = ($got, $wanted);
        if got != wanted {
            return Err(format!("{}:{}: got {got:?}, wanted {wanted:?}", file!(), line!()).into());
        }
    }};
}

fn question(text: &str, number: i64) -> Request {
    Request { text: text.into(), number, data: Vec::new() }
}

pub async fn run(address: &str, authority: &str) -> Outcome {
    // The address is where it connects to, the authority is what it asks for: a name below `localhost` needs no resolver so.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.origin(format!("http://{authority}").parse()?);
    let client = DemoClient::new(endpoint.connect().await?)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    let patience = Duration::from_secs(60);
    let mut done = Vec::new();
    macro_rules! case {
        ($name:ident) => {{
            let result = tokio::time::timeout(patience, $name(client.clone())).await;
            result
                .map_err(|_| format!("{}: nothing within {patience:?}", stringify!($name)))?
                .map_err(|e| format!("{}: {e}", stringify!($name)))?;
            done.push(stringify!($name));
        }};
    }
    case!(unary);
    case!(server_stream);
    case!(client_stream);
    case!(both_ways);
    case!(large);
    case!(errors);
    case!(deadline);
    case!(cancel);
    case!(many);
    println!("{} cases: {}", done.len(), done.join(", "));
    Ok(())
}

async fn unary(mut client: Client) -> Outcome {
    let mut request = tonic::Request::new(question("größer", 41));
    request.metadata_mut().insert("x-own", MetadataValue::from_static("a b"));
    request.metadata_mut().insert_bin("x-own-bin", MetadataValue::from_bytes(b"\x00\xff\x0a"));
    let response = client.get(request).await?;
    let first = response.metadata();
    equal!(first.get("x-first").map(|v| v.as_bytes().to_vec()), Some(b"1".to_vec()));
    let binary = first.get_bin("x-first-bin").and_then(|v| v.to_bytes().ok());
    equal!(binary.as_deref(), Some(&b"\x01\xfe"[..]));
    equal!(first.contains_key("x-scf-request-id"), true);
    let reply = response.into_inner();
    equal!((reply.text.as_str(), reply.number), ("größer", 42));
    equal!((reply.metadata["x-own"].as_str(), reply.metadata["x-own-bin"].as_str()), ("a b", "00ff0a"));
    equal!(reply.metadata.contains_key("x-scf-name"), true);
    Ok(())
}

async fn server_stream(mut client: Client) -> Outcome {
    for n in [0, 1, 50, 30_000] {
        let replies: Vec<Reply> = client.list(question("l", n)).await?.into_inner().collect::<Result<_, _>>().await?;
        equal!(replies.iter().map(|r| r.number).collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
    }
    Ok(())
}

async fn client_stream(mut client: Client) -> Outcome {
    let all = (0..1000).map(|n| Request { number: n, data: vec![7; 100], ..Request::default() });
    let reply = client.sum(tokio_stream::iter(all)).await?.into_inner();
    equal!((reply.number, reply.text.as_str()), (499_500, "100000"));
    Ok(())
}

async fn both_ways(mut client: Client) -> Outcome {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(question("q0", 0)).await?;
    let mut replies = client.chat(ReceiverStream::new(receiver)).await?.into_inner();
    // Each answer comes before the next question is asked.
    for n in 0..50 {
        let reply = replies.message().await?.ok_or("it ended early")?;
        equal!((reply.text, reply.number), (format!("Q{n}"), n));
        sender.send(question(&format!("q{}", n + 1), n + 1)).await?;
    }
    drop(sender);
    equal!(replies.message().await?.map(|r| r.number), Some(50));
    equal!(replies.message().await?, None);
    equal!(client.chat(tokio_stream::empty()).await?.into_inner().message().await?, None);
    Ok(())
}

async fn large(client: Client) -> Outcome {
    let data: Vec<u8> = (0..20_480_000).map(|n: u32| (n % 251) as u8).collect();
    for mut client in [client.clone(), client.send_compressed(CompressionEncoding::Gzip)] {
        let reply = client.get(Request { data: data.clone(), ..Request::default() }).await?.into_inner();
        equal!(reply.data.len(), data.len());
        equal!(reply.data == data, true);
    }
    Ok(())
}

async fn errors(mut client: Client) -> Outcome {
    let error = client.get(question("fail", 7)).await.err().ok_or("it did not fail")?;
    equal!((error.code(), error.message()), (Code::FailedPrecondition, "asked to fail: größer\n100%"));
    equal!(error.details().is_empty(), false);
    let error = client.get(question("trail", 0)).await.err().ok_or("it did not fail")?;
    equal!((error.code(), error.message()), (Code::Aborted, ""));
    equal!(error.metadata().get("x-trail").map(|v| v.as_bytes().to_vec()), Some(b"end".to_vec()));
    let binary = error.metadata().get_bin("x-trail-bin").and_then(|v| v.to_bytes().ok());
    equal!(binary.as_deref(), Some(&b"\x00\xff\r\n"[..]));
    let error = client.nothing(question("", 0)).await.err().ok_or("it did not fail")?;
    equal!(error.code(), Code::Unimplemented);
    Ok(())
}

/// Waits until a call's fate is told, and returns it.
async fn fate(client: &mut Client, text: &str, at_least: i64) -> Result<i64, Box<dyn std::error::Error>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let number = client.fate(question(text, 0)).await?.into_inner().number;
        if number >= at_least {
            return Ok(number);
        }
        if Instant::now() > deadline {
            return Err(format!("the server did not notice the end of `{text}`: {number}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A deadline ends the call here and frees the server.
async fn deadline(mut client: Client) -> Outcome {
    let begun = Instant::now();
    let mut request = tonic::Request::new(tokio_stream::once(question("slow", 0)));
    request.set_timeout(Duration::from_millis(700));
    let error = client.sum(request).await.err();
    let error = error.ok_or("it did not fail")?;
    // This library says `Cancelled` when its own clock ends a call, and `DeadlineExceeded` when a server's does.
    equal!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), true);
    equal!(begun.elapsed() >= Duration::from_millis(600), true);
    fate(&mut client, "slow", 0).await?;
    Ok(())
}

/// What is dropped is cancelled: a server's stream, and a call that waits.
async fn cancel(mut client: Client) -> Outcome {
    let mut replies = client.list(question("endless", -1)).await?.into_inner();
    replies.message().await?;
    replies.message().await?;
    drop(replies);
    fate(&mut client, "endless", 2).await?;
    let (open, receiver) = tokio::sync::mpsc::channel(2);
    open.send(question("first", 0)).await?;
    let mut replies = client.chat(ReceiverStream::new(receiver)).await?.into_inner();
    equal!(replies.message().await?.map(|r| r.text), Some("FIRST".to_owned()));
    open.send(question("wait", 102)).await?;
    let call = tokio::spawn(async move { replies.message().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // This library resets a stream when neither side of it is held any more.
    call.abort();
    drop(open);
    let waited = fate(&mut client, "102", 0).await?;
    equal!(waited < 15_000, true);
    Ok(())
}

/// Two thousand calls over one connection, fifty at a time.
async fn many(client: Client) -> Outcome {
    let tasks = (0..50i64).map(|lane| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for n in 0..40 {
                let number = lane * 40 + n;
                let reply = client.get(question("", number)).await.map_err(|e| e.to_string())?.into_inner();
                if reply.number != number + 1 {
                    return Err(format!("{number} came back as {}", reply.number));
                }
            }
            Ok::<_, String>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}
