//! Sockets that reach the server inside an instance.

use std::io;
use std::os::fd::OwnedFd;
use tokio::net::{TcpSocket, TcpStream};

/// Connects a socket of a sandbox to the server in it.
pub(super) async fn connect(socket: OwnedFd) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let stream = socket.connect((std::net::Ipv4Addr::LOCALHOST, super::SERVICE_PORT).into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An error with all that caused it.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}
