//! `bootstrap` serves on port 9000; `bootstrap ADDRESS AUTHORITY` goes through all cases against a server, and ends with the reason when one fails.

mod cases;
mod messages;
mod server;

/// What is generated: a client and a server.
mod demo {
    include!(concat!(env!("OUT_DIR"), "/demo.Demo.rs"));
}

/// Longest message, in bytes.
const MESSAGE_MAX: usize = 64 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => server::serve().await,
        [address, authority] => cases::run(address, authority).await,
        _ => Err("usage: bootstrap [ADDRESS AUTHORITY]".into()),
    }
}
