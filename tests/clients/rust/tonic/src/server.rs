//! The server.

use crate::MESSAGE_MAX;
use crate::demo::demo_server::{Demo, DemoServer};
use crate::messages::{Reply, Request};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::CompressionEncoding;
use tonic::metadata::{KeyAndValueRef, MetadataValue};
use tonic::{Code, Response, Status, Streaming};

type Replies = Pin<Box<dyn Stream<Item = Result<Reply, Status>> + Send>>;

/// What became of calls, by their text.
#[derive(Clone, Default)]
struct Service {
    fates: Arc<Mutex<HashMap<String, i64>>>,
}

/// Notes the end of a call that is dropped.
struct Noted {
    fates: Arc<Mutex<HashMap<String, i64>>>,
    text: String,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.fates.lock().unwrap().insert(std::mem::take(&mut self.text), 0);
    }
}

#[tonic::async_trait]
impl Demo for Service {
    async fn get(&self, request: tonic::Request<Request>) -> Result<Response<Reply>, Status> {
        let mut metadata = HashMap::new();
        for pair in request.metadata().iter() {
            match pair {
                KeyAndValueRef::Ascii(name, value) => {
                    metadata.insert(name.to_string(), value.to_str().unwrap_or("?").to_owned());
                }
                KeyAndValueRef::Binary(name, value) => {
                    let bytes = value.to_bytes().map_err(|_| Status::invalid_argument("not base64"))?;
                    metadata.insert(name.to_string(), bytes.iter().map(|b| format!("{b:02x}")).collect());
                }
            }
        }
        let request = request.into_inner();
        match request.text.as_str() {
            "fail" => {
                return Err(Status::with_details(
                    Code::FailedPrecondition,
                    "asked to fail: größer\n100%",
                    b"why".to_vec().into(),
                ));
            }
            "trail" => {
                let mut status = Status::new(Code::Aborted, "");
                status.metadata_mut().insert("x-trail", MetadataValue::from_static("end"));
                status.metadata_mut().insert_bin("x-trail-bin", MetadataValue::from_bytes(b"\x00\xff\r\n"));
                return Err(status);
            }
            _ => {}
        }
        let reply = Reply { text: request.text, number: request.number + 1, data: request.data, metadata };
        let mut response = Response::new(reply);
        response.metadata_mut().insert("x-first", MetadataValue::from_static("1"));
        response.metadata_mut().insert_bin("x-first-bin", MetadataValue::from_bytes(b"\x01\xfe"));
        Ok(response)
    }

    type ListStream = Replies;

    async fn list(&self, request: tonic::Request<Request>) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let fates = Arc::clone(&self.fates);
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut n = 0;
            while request.number < 0 || n < request.number {
                let reply = Reply { text: request.text.clone(), number: n, ..Reply::default() };
                if sender.send(Ok(reply)).await.is_err() {
                    fates.lock().unwrap().insert(request.text, n);
                    return;
                }
                n += 1;
                if request.number < 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn sum(&self, request: tonic::Request<Streaming<Request>>) -> Result<Response<Reply>, Status> {
        let mut requests = request.into_inner();
        let (mut total, mut size) = (0, 0);
        while let Some(request) = requests.message().await? {
            if request.text == "slow" {
                // The call's end drops this before the second is over.
                let noted = Noted { fates: Arc::clone(&self.fates), text: request.text };
                tokio::time::sleep(Duration::from_secs(1)).await;
                std::mem::forget(noted);
            }
            total += request.number;
            size += request.data.len();
        }
        Ok(Response::new(Reply { number: total, text: size.to_string(), ..Reply::default() }))
    }

    type ChatStream = Replies;

    async fn chat(&self, request: tonic::Request<Streaming<Request>>) -> Result<Response<Replies>, Status> {
        let mut requests = request.into_inner();
        let fates = Arc::clone(&self.fates);
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if request.text == "wait" {
                    let begun = Instant::now();
                    sender.closed().await;
                    fates.lock().unwrap().insert(request.number.to_string(), begun.elapsed().as_millis() as i64);
                    return;
                }
                let reply = Reply { text: request.text.to_uppercase(), number: request.number, ..Reply::default() };
                if sender.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fate(&self, request: tonic::Request<Request>) -> Result<Response<Reply>, Status> {
        let number = self.fates.lock().unwrap().get(&request.get_ref().text).copied().unwrap_or(-1);
        Ok(Response::new(Reply { number, ..Reply::default() }))
    }

    async fn nothing(&self, _: tonic::Request<Request>) -> Result<Response<Reply>, Status> {
        Err(Status::unimplemented("no such method"))
    }
}

pub async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let demo = DemoServer::new(Service::default())
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    tonic::transport::Server::builder().add_service(demo).serve("0.0.0.0:9000".parse()?).await?;
    Ok(())
}
