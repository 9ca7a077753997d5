//! The listener with a trivial service, to measure what it costs: answers every request with its body, or `{}`.
//!
//! `cargo run --release -p mayfly-gateway --example echo -- 127.0.0.1:8701`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use mayfly_base::EventLoops;
use mayfly_base::Shutdown;
use mayfly_gateway::{Gateway, GatewayLimits, HttpRequest, HttpResponse, Service};

struct Echo;

#[async_trait]
impl Service for Echo {
    async fn call(&self, request: HttpRequest) -> HttpResponse {
        HttpResponse::json(if request.body.is_empty() { "{}".into() } else { request.body })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address: SocketAddr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8701".into()).parse()?;
    let mut stop = mayfly_base::shutdown::StopSignal::install()?;
    let gateway = Gateway::bind(address, GatewayLimits::default()).await?;
    println!("listening on {}", gateway.local_addr());
    let shutdown = Shutdown::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            stop.wait().await;
            shutdown.trigger();
        }
    });
    gateway.run(Arc::new(Echo), shutdown, Arc::new(EventLoops::start()?)).await;
    Ok(())
}
