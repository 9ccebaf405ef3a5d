//! The socket of an endpoint: one request a connection, few connections, short times, small bodies.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections are open, none for longer than [`CONNECTION_TIME_MAX`], so no
//! client can hold an endpoint or its memory; every task is joined before [`EndpointServer::serve`] returns.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::LogLimiter;

/// Connections served at once; further ones wait in the listener's backlog.
pub(super) const CONNECTIONS_MAX: usize = 32;
/// How long a client may take for its request's head.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may live, from its first byte to its last.
pub(super) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// What a request may bring along: nobody needs more than a log filter.
const BODY_BYTES_MAX: usize = 4 << 10;
/// How long a stop waits for connections in the middle of an answer.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);
/// The wait after a failed accept: out of file handles, mostly.
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);

/// Why the endpoint could not open its socket.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Somebody else listens there.
    #[error("the address {listen} is in use: set {setting} to another one")]
    AddressInUse {
        /// The configured address.
        listen: SocketAddr,
        /// The setting's key.
        setting: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It cannot listen there for another reason.
    #[error("cannot listen on {listen}: check {setting}")]
    Listen {
        /// The configured address.
        listen: SocketAddr,
        /// The setting's key.
        setting: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An endpoint whose socket is open.
pub struct EndpointServer {
    listener: TcpListener,
    address: SocketAddr,
    pages: Arc<dyn Pages>,
}

impl EndpointServer {
    /// Opens the socket at this setting's address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is in use, not this machine's, or not allowed.
    pub async fn bind((setting, listen): (&'static str, SocketAddr), pages: impl Pages) -> Result<Self, EndpointError> {
        let opened = TcpListener::bind(listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match opened {
            Ok((address, listener)) => Ok(Self { listener, address, pages: Arc::new(pages) }),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                Err(EndpointError::AddressInUse { listen, setting, source })
            }
            Err(source) => Err(EndpointError::Listen { listen, setting, source }),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until cancelled, then closes the socket, lets running answers end and joins every connection.
    pub async fn serve(self, cancel: CancellationToken) {
        let Self { listener, pages, .. } = self;
        let mut connections = JoinSet::new();
        let repeats = LogLimiter::default();
        loop {
            let room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a page failed");
                    }
                }
                accepted = listener.accept(), if room => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(stream, Arc::clone(&pages), cancel.clone()));
                    }
                    Err(error) => {
                        if let Some(suppressed) = repeats.admit("accept", Instant::now()) {
                            tracing::warn!(%error, suppressed, "an endpoint cannot take connections");
                        }
                        tokio::time::sleep(ACCEPT_RETRY_WAIT).await;
                    }
                },
            }
        }
        drop(listener);
        let joined = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME_MAX, joined).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// What an endpoint answers.
#[async_trait]
pub trait Pages: Send + Sync + 'static {
    /// Answers one request, within the time a connection has.
    async fn answer(&self, request: Request<Bytes>) -> Response<Full<Bytes>>;
}

async fn answer(pages: &dyn Pages, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => pages.answer(Request::from_parts(head, body.to_bytes())).await,
        Err(_) => text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {BODY_BYTES_MAX} bytes\n")),
    }
}

/// A text as an answer that nobody keeps.
pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Refuses any method but these, which are given as the header `Allow` lists them.
pub(super) fn other_than(allowed: &'static str, method: &Method) -> Option<Response<Full<Bytes>>> {
    if allowed.split(", ").any(|known| known == method.as_str()) {
        return None;
    }
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Some(refused)
}

async fn serve_connection(stream: TcpStream, pages: Arc<dyn Pages>, cancel: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&*pages, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::time::timeout(CONNECTION_TIME_MAX, async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => connection.as_mut().graceful_shutdown(),
            served = connection.as_mut() => return served,
        }
        connection.await
    });
    match served.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to an endpoint failed"),
        Err(_) => tracing::debug!("a connection to an endpoint took too long"),
    }
}
