//! The socket of the admin endpoint: one request a connection, few connections, short times.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections are open, none for longer than [`CONNECTION_TIME_MAX`], so no
//! client can hold the endpoint or its memory; every task is joined before [`AdminServer::serve`] returns.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AdminPages;
use crate::telemetry::LogLimiter;

/// Connections served at once; further ones wait in the listener's backlog.
pub(super) const CONNECTIONS_MAX: usize = 32;
/// How long a client may take for its request's head.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may live, from its first byte to its last.
pub(super) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a stop waits for connections in the middle of an answer.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);
/// The wait after a failed accept: out of file handles, mostly.
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);

/// Why the endpoint could not open its socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody else listens there.
    #[error("the address {listen} is in use: set telemetry.listen to another one")]
    AddressInUse {
        /// The configured address.
        listen: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It cannot listen there for another reason.
    #[error("cannot listen on {listen}: check telemetry.listen")]
    Listen {
        /// The configured address.
        listen: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An admin endpoint whose socket is open.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    pages: AdminPages,
}

impl AdminServer {
    /// Opens the socket; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is in use, not this machine's, or not allowed.
    pub async fn bind(listen: SocketAddr, pages: AdminPages) -> Result<Self, AdminError> {
        let opened = TcpListener::bind(listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match opened {
            Ok((address, listener)) => Ok(Self { listener, address, pages }),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                Err(AdminError::AddressInUse { listen, source })
            }
            Err(source) => Err(AdminError::Listen { listen, source }),
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
        let pages = Arc::new(pages);
        let mut connections = JoinSet::new();
        let repeats = LogLimiter::default();
        loop {
            let room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a page of the admin endpoint failed");
                    }
                }
                accepted = listener.accept(), if room => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(stream, Arc::clone(&pages), cancel.clone()));
                    }
                    Err(error) => {
                        if let Some(suppressed) = repeats.admit("accept", Instant::now()) {
                            tracing::warn!(%error, suppressed, "the admin endpoint cannot take connections");
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

async fn serve_connection(stream: TcpStream, pages: Arc<AdminPages>, cancel: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
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
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the admin endpoint failed"),
        Err(_) => tracing::debug!("a connection to the admin endpoint took too long"),
    }
}
