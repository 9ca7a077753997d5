//! Well-formed requests in all the ways clients send them.

mod common;

use common::start;
use mayfly_gateway::GatewayLimits;

#[tokio::test]
async fn the_host_header_of_tccli_is_accepted_and_passed_on() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: http://127.0.0.1:18080\r\nContent-Length: 2\r\n\r\n{}",
            "POST / host=http://127.0.0.1:18080 body=2",
        ),
        ("GET /?a=%24b+c HTTP/1.1\r\nHost: 127.0.0.1:8700\r\n\r\n", "GET /?a=%24b+c host=127.0.0.1:8700 body=0"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / host= body=0"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET / host=[::1]:80 body=0"),
        // A client that takes us for a proxy.
        (
            "GET http://scf.example/x HTTP/1.1\r\nHost: scf.example\r\n\r\n",
            "GET http://scf.example/x host=scf.example body=0",
        ),
    ] {
        client.say(request.as_bytes()).await;
        let heard = client.hear().await.expect(request);
        assert_eq!((heard.status, heard.text()), (200, expected));
    }
    assert_eq!(gateway.stats.accepted(), 1, "all on one connection");
    assert_eq!(gateway.stats.requests(), 5);
}

#[tokio::test]
async fn content_type_is_exactly_what_the_service_says() {
    let gateway = start(GatewayLimits::default()).await;
    let heard =
        gateway.converse(b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}").await;
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    assert!(heard.contains("content-type: application/json\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n{}"), "{heard}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    let mut all = Vec::new();
    for i in 0..20 {
        let body = "x".repeat(i);
        all.extend(format!("POST /n{i} HTTP/1.1\r\nHost: h\r\nContent-Length: {i}\r\n\r\n{body}").bytes());
    }
    client.say(&all).await;
    for i in 0..20 {
        assert_eq!(client.hear().await.unwrap().text(), format!("POST /n{i} host=h body={i}"));
    }
}

#[tokio::test]
async fn chunked_uploads_arrive_whole() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    client.say(b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    client.say(b"1;ext=1\r\n \r\n5\r\nworld\r\n").await;
    client.say(b"0\r\nTrailer: x\r\n\r\n").await;
    assert_eq!(client.hear().await.unwrap().text(), "hello world");
    client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.hear().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_large_body_comes_back_byte_for_byte() {
    let gateway = start(GatewayLimits::default()).await;
    let body: Vec<u8> = (0..9_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    for head in [
        "Content-Length: 9000000\r\n\r\n".to_owned(),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
    ] {
        let mut client = gateway.connect().await;
        client.say(format!("POST /echo HTTP/1.1\r\nHost: h\r\n{head}").as_bytes()).await;
        client.say(&body).await;
        if head.contains("chunked") {
            client.say(b"\r\n0\r\n\r\n").await;
        }
        assert!(client.hear().await.unwrap().body == body);
    }
}

#[tokio::test]
async fn expect_100_continue_is_honoured() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    client.say(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.hear().await.unwrap().status, 100);
    client.say(b"ok").await;
    assert_eq!(client.hear().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    client.say(b"HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /after HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = client.hear_with_body(false).await.unwrap();
    let length = "HEAD /healthz host=h body=0".len();
    assert!(head.head.contains(&format!("content-length: {length}\r\n")), "{}", head.head);
    assert_eq!(client.hear().await.unwrap().text(), "GET /after host=h body=0");
}

#[tokio::test]
async fn http_1_0_and_connection_close_end_the_connection() {
    let gateway = start(GatewayLimits::default()).await;
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"] {
        let heard = gateway.converse(request.as_bytes()).await;
        assert!(heard.contains(" 200 OK\r\n"), "{heard}");
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_still_gets_its_answer() {
    use tokio::io::AsyncWriteExt;
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    client.say(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    gateway.probe.entered.notified().await;
    gateway.probe.release.notify_one();
    assert_eq!(client.hear().await.unwrap().text(), "waited");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn odd_answers_of_the_service_do_no_harm() {
    let gateway = start(GatewayLimits::default()).await;
    let mut client = gateway.connect().await;
    client.say(b"GET /odd-headers HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let heard = client.hear().await.unwrap();
    assert!(heard.head.contains("x-good: 1\r\n") && !heard.head.contains("bad"), "{}", heard.head);
    for path in ["/odd-status", "/panic"] {
        client.say(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
        let heard = client.hear().await.unwrap();
        assert_eq!(heard.status, 200);
        assert!(heard.text().starts_with(r#"{"Response":{"Error":{"Code":"InternalError","#), "{}", heard.text());
    }
    assert_eq!(gateway.stats.panics(), 1);
}
