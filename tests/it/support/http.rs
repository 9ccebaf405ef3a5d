//! One HTTP request over a plain socket: enough to ask a component on loopback whether it is there, without a client of
//! its own.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The status and the body of the answer.
pub(crate) async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    ask(port, "GET", path, None, "").await
}

/// The same for any method, with a bearer's token and a body.
pub(crate) async fn ask(
    port: u16,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> io::Result<(u16, String)> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    // HTTP/1.0: the answer is not chunked and ends with the connection.
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n{authorization}Content-Length: {length}\r\n\r\n{body}");
    timeout(REQUEST_MAX, exchange(port, &request)).await.map_err(io::Error::from)?
}

async fn exchange(port: u16, request: &str) -> io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}
