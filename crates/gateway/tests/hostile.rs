//! Slow, cut, oversized and senseless requests, and the end of the listener.

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, start, until};
use mayfly_gateway::{Gateway, GatewayLimits};
use tokio::io::AsyncWriteExt;

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let gateway = start(GatewayLimits { header_time: SHORT, ..GatewayLimits::default() }).await;
    let mut client = gateway.connect().await;
    let begun = Instant::now();
    client.say(b"GET / HTTP/1.1\r\nHost: h\r\n").await;
    // A drip does not extend the time.
    let (mut read, mut write) = client.stream.into_split();
    let drip = tokio::spawn(async move {
        while write.write_all(b"X-Drip: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut scrap = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut scrap);
    let _ = tokio::time::timeout(PATIENCE, end).await.expect("closed");
    assert!(begun.elapsed() >= SHORT);
    drip.await.unwrap();
    assert_eq!((gateway.stats.header_timeouts(), gateway.calls()), (1, 0));
}

#[tokio::test]
async fn idle_connections_are_closed_quietly() {
    let gateway = start(GatewayLimits { idle_time: SHORT, ..GatewayLimits::default() }).await;
    let mut never_used = gateway.connect().await;
    let mut used = gateway.connect().await;
    for _ in 0..3 {
        used.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(used.hear().await.is_some());
    }
    let begun = Instant::now();
    assert!(used.is_closed().await);
    assert!(begun.elapsed() >= SHORT / 2);
    assert!(never_used.is_closed().await);
    until("both are counted out", || gateway.stats.connections() == 0).await;
    assert_eq!(gateway.stats.header_timeouts(), 0);
}

#[tokio::test]
async fn a_long_answer_outlives_the_idle_time() {
    let gateway = start(GatewayLimits { idle_time: SHORT, header_time: SHORT, ..GatewayLimits::default() }).await;
    let mut client = gateway.connect().await;
    client.say(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    gateway.probe.entered.notified().await;
    tokio::time::sleep(SHORT * 3).await;
    gateway.probe.release.notify_one();
    assert_eq!(client.hear().await.unwrap().text(), "waited");
}

#[tokio::test]
async fn slow_bodies_get_408() {
    let limits = GatewayLimits { body_window: SHORT, body_window_bytes_min: 100, ..GatewayLimits::default() };
    let gateway = start(limits).await;
    let mut silent = gateway.connect().await;
    silent.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc").await;
    let heard = silent.hear().await.unwrap();
    assert_eq!(heard.status, 408);
    assert!(heard.text().contains("too slowly"));
    assert!(silent.is_closed().await);
    assert_eq!((gateway.stats.body_timeouts(), gateway.calls()), (1, 0));
}

#[tokio::test]
async fn steady_bodies_pass_many_windows_and_end_at_the_total() {
    let limits = GatewayLimits {
        body_window: SHORT,
        // That too few bytes are noticed is another test's; a busy machine may stall this one for a window.
        body_window_bytes_min: 0,
        body_time: Duration::from_secs(30),
        ..GatewayLimits::default()
    };
    let gateway = start(limits.clone()).await;
    let mut client = gateway.connect().await;
    client.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\n").await;
    for _ in 0..30 {
        client.say(b"x").await;
        tokio::time::sleep(SHORT / 10).await;
    }
    assert_eq!(client.hear().await.unwrap().text(), "POST / host=h body=30");

    let gateway = start(GatewayLimits { body_time: SHORT * 2, ..limits }).await;
    let client = gateway.connect().await;
    let (mut read, mut write) = client.stream.into_split();
    write.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n").await.unwrap();
    let drip = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let mut scrap = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut scrap);
    let _ = tokio::time::timeout(PATIENCE, end).await.expect("given up");
    assert_eq!((gateway.stats.body_timeouts(), gateway.calls()), (1, 0));
    drip.await.unwrap();
}

#[tokio::test]
async fn oversized_bodies_get_the_envelope_with_200() {
    let gateway = start(GatewayLimits { body_bytes_max: 1000, ..GatewayLimits::default() }).await;
    let stated = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n{}", "x".repeat(3_000_000));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        3_000_000,
        "x".repeat(3_000_000)
    );
    // The client says all before it listens, as most do: it must still get the answer.
    for request in [stated, chunked] {
        let mut client = gateway.connect().await;
        client.say(request.as_bytes()).await;
        let heard = client.hear().await.unwrap();
        assert_eq!(heard.status, 200);
        assert!(heard.head.contains("content-type: application/json\r\n"));
        assert!(heard.text().contains(r#""Code":"RequestSizeLimitExceeded""#), "{}", heard.text());
        assert!(heard.text().contains(r#""RequestId":""#));
        assert!(client.is_closed().await);
    }
    let mut asking = gateway.connect().await;
    asking.say(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n").await;
    assert!(asking.hear().await.unwrap().text().contains("RequestSizeLimitExceeded"), "no 100, the answer at once");
    assert_eq!((gateway.stats.bodies_too_large(), gateway.calls()), (3, 0));
    let exact = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000));
    let mut client = gateway.connect().await;
    client.say(exact.as_bytes()).await;
    assert_eq!(client.hear().await.unwrap().text(), "POST / host=h body=1000");
}

#[tokio::test]
async fn truncated_bodies_never_reach_the_service() {
    let gateway = start(GatewayLimits::default()).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx",
    ] {
        let mut client = gateway.connect().await;
        client.say(request.as_bytes()).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.hear_all().await, "", "{request}");
    }
    assert_eq!((gateway.stats.bodies_broken(), gateway.calls()), (4, 0));
}

#[tokio::test]
async fn garbage_gets_400_or_nothing_and_harms_nobody() {
    let gateway = start(GatewayLimits::default()).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"GET / HTTP/1.1\r\n: novalue\r\n\r\n",
        b"\0\0\0\0\xff\xff",
    ] {
        let mut client = gateway.connect().await;
        client.say(garbage).await;
        client.stream.shutdown().await.unwrap();
        let heard = client.hear_all().await;
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 400 "), "{garbage:?}: {heard}");
    }
    // What begins as HTTP/2 and goes on as nothing.
    let mut client = gateway.connect().await;
    client.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, and rather a long one at that").await;
    client.stream.shutdown().await.unwrap();
    assert!(!client.hear_all().await.contains("HTTP/1.1"));
    assert_eq!(gateway.calls(), 0);
    let heard = gateway.converse(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(heard.contains("200 OK"));
}

#[tokio::test]
async fn doubled_hosts_and_signatures_are_refused() {
    let gateway = start(GatewayLimits::default()).await;
    for header in ["Host: a\r\nHost: b", "Host: a\r\nAuthorization: x\r\nauthorization: y"] {
        let heard = gateway.converse(format!("GET / HTTP/1.1\r\n{header}\r\n\r\n").as_bytes()).await;
        assert!(heard.starts_with("HTTP/1.1 400 ") && heard.contains("given twice"), "{heard}");
    }
    assert_eq!(gateway.calls(), 0);
}

#[tokio::test]
async fn headers_have_limits() {
    let gateway = start(GatewayLimits { header_bytes_max: 8192, ..GatewayLimits::default() }).await;
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    for request in [long, many, endless] {
        let heard = gateway.converse(request.as_bytes()).await;
        // The rest of what was sent may reset the connection before the answer is read.
        let refused = heard.is_empty() || heard.starts_with("HTTP/1.1 431 ") || heard.starts_with("HTTP/1.1 414 ");
        assert!(refused, "{heard}");
    }
    assert_eq!(gateway.calls(), 0);
    let fits = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(8000));
    assert!(gateway.converse(fits.as_bytes()).await.contains("200 OK"));
}

#[tokio::test]
async fn connections_beyond_the_cap_get_503() {
    let gateway = start(GatewayLimits { connections_max: 2, ..GatewayLimits::default() }).await;
    let mut first = gateway.connect().await;
    let mut second = gateway.connect().await;
    for client in [&mut first, &mut second] {
        client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(client.hear().await.unwrap().status, 200);
    }
    let mut third = gateway.connect().await;
    third.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let heard = third.hear().await.unwrap();
    assert_eq!(heard.status, 503);
    assert!(heard.text().contains(r#""Code":"ServiceUnavailable""#), "{}", heard.text());
    assert!(third.is_closed().await);
    assert_eq!((gateway.stats.refused(), gateway.stats.connections()), (1, 2));
    drop(first);
    until("a seat is free", || gateway.stats.connections() == 1).await;
    // The seat itself is given back a moment after the count.
    let served = async {
        loop {
            let mut fourth = gateway.connect().await;
            fourth.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            if fourth.hear().await.unwrap().status == 200 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("a free seat is given to the next");
    second.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(second.hear().await.unwrap().status, 200);
}

#[tokio::test]
async fn bodies_in_flight_share_a_bounded_memory() {
    let limits = GatewayLimits {
        bodies_bytes_max: 1024 * 1024,
        bodies_wait: Duration::from_millis(10),
        ..GatewayLimits::default()
    };
    let gateway = start(limits).await;
    let body = "x".repeat(900_000);
    let mut holder = gateway.connect().await;
    holder.say(format!("POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n{body}").as_bytes()).await;
    gateway.probe.entered.notified().await;
    let mut other = gateway.connect().await;
    other
        .say(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n{}", "x".repeat(400_000)).as_bytes())
        .await;
    assert!(other.hear().await.unwrap().text().contains(r#""Code":"ServiceUnavailable""#));
    let mut small = gateway.connect().await;
    small.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(small.hear().await.unwrap().text(), "POST / host=h body=3", "small bodies need none of it");
    gateway.probe.release.notify_one();
    assert_eq!(holder.hear().await.unwrap().text(), "waited");
    let mut again = gateway.connect().await;
    again.say(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n{body}").as_bytes()).await;
    assert_eq!(again.hear().await.unwrap().text(), "POST / host=h body=900000", "given back");
    assert_eq!(gateway.stats.bodies_no_memory(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let gateway = start(GatewayLimits { write_stall_time: SHORT, ..GatewayLimits::default() }).await;
    let mut client = gateway.connect().await;
    client.say(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("the stall is noticed", || gateway.stats.write_stalls() == 1).await;
    until("the connection is gone", || gateway.stats.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_is_dropped_over_http2_too() {
    let gateway = start(GatewayLimits { write_stall_time: SHORT, ..GatewayLimits::default() }).await;
    let mut client = gateway.connect().await;
    client.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // Empty settings, then GET /endless on stream 1 (RFC 7541: two indexed fields, two literals with indexed names).
    client.say(b"\0\0\0\x04\0\0\0\0\0").await;
    let fields = b"\x82\x86\x04\x08/endless\x01\x01h";
    client.say(&[&[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1], &fields[..]].concat()).await;
    // It reads all that comes, and never says that it would take more.
    let (mut read, _write) = client.stream.into_split();
    let mut heard = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut heard);
    let _ = tokio::time::timeout(PATIENCE, end).await.expect("closed");
    assert!(heard.len() > 60_000, "the first window came: {} bytes", heard.len());
    assert_eq!((gateway.calls(), gateway.stats.write_stalls()), (1, 1));
    until("the connection is gone", || gateway.stats.connections() == 0).await;
}

#[tokio::test]
async fn a_slow_reader_is_not_taken_for_an_idle_one() {
    let gateway = start(GatewayLimits { idle_time: SHORT, ..GatewayLimits::default() }).await;
    let mut client = gateway.connect().await;
    client.say(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("the answer is on its way", || gateway.calls() == 1).await;
    tokio::time::sleep(SHORT * 3).await;
    assert_eq!(client.hear().await.unwrap().body.len(), 32 * 1024 * 1024);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_its_call() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    client.say(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    gateway.probe.entered.notified().await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    gateway.probe.release.notify_one();
    until("the call ends", || gateway.probe.finished.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    until("the connection is gone", || gateway.stats.connections() == 0).await;
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_closes_the_idle() {
    let gateway = start(GatewayLimits::default()).await;
    let mut idle = gateway.connect().await;
    idle.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(idle.hear().await.is_some());
    let mut fresh = gateway.connect().await;
    let mut busy = gateway.connect().await;
    busy.say(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    gateway.probe.entered.notified().await;
    until("all are accepted", || gateway.stats.connections() == 3).await;

    gateway.shutdown.trigger();
    assert!(idle.is_closed().await);
    assert!(fresh.is_closed().await);
    until("nobody listens", || std::net::TcpStream::connect(gateway.address).is_err()).await;
    assert!(!gateway.ended.is_finished());
    gateway.probe.release.notify_one();
    let heard = busy.hear().await.unwrap();
    assert_eq!(heard.text(), "waited");
    assert!(heard.head.contains("connection: close\r\n"), "{}", heard.head);
    let drained = tokio::time::timeout(PATIENCE, gateway.ended).await.unwrap().unwrap();
    assert_eq!(drained.cut, 0);
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end_in_time() {
    let gateway = start(GatewayLimits { drain_time: SHORT, ..GatewayLimits::default() }).await;
    let mut busy = gateway.connect().await;
    busy.say(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    gateway.probe.entered.notified().await;
    gateway.shutdown.trigger();
    let drained = tokio::time::timeout(PATIENCE, gateway.ended).await.unwrap().unwrap();
    assert_eq!(drained.cut, 1);
    assert!(busy.is_closed().await);
    assert_eq!(gateway.stats.connections(), 0);
}

#[tokio::test]
async fn a_taken_address_is_a_typed_error() {
    let first = Gateway::bind(([127, 0, 0, 1], 0).into(), GatewayLimits::default()).await.unwrap();
    let second = Gateway::bind(first.local_addr(), GatewayLimits::default()).await;
    let error = second.err().expect("taken");
    assert_eq!(error.address, first.local_addr());
    assert!(error.to_string().contains("cannot listen on 127.0.0.1:"), "{error}");
}
