//! The server: its port, its tasks, its end.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use http::Uri;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::control::{ORDERS_MAX, Order, ShardControl};
use super::options::StreamsOptions;
use super::saved::SavedLayouts;
use super::served::ServedStreams;
use super::service::answer;
use super::upstream::Upstream;
use crate::local::server::{LocalError, Server};

const SERVICE: &str = "DynamoDB Streams";

/// No request of the four operations is larger.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// DynamoDB Streams with many shards in front of a DynamoDB that has one; it stops when it is dropped, which waits
/// until it has.
#[derive(Debug)]
pub struct EmbeddedStreams {
    server: Server,
    orders: mpsc::Sender<Order>,
}

impl EmbeddedStreams {
    /// Starts it on a free loopback port, in front of the DynamoDB at `upstream` (plain HTTP).
    ///
    /// # Errors
    /// When the port or the data cannot be had, or `upstream` is no URL.
    pub fn start(upstream: &str, options: StreamsOptions) -> Result<Self, LocalError> {
        let unusable = |at: String, source: Box<dyn std::error::Error + Send + Sync>| LocalError::Data {
            service: SERVICE,
            directory: at,
            source,
        };
        let uri: Uri =
            upstream.parse().map_err(|error: http::uri::InvalidUri| unusable(upstream.into(), error.into()))?;
        let saved = options.data.as_deref().map(|folder| {
            SavedLayouts::open(folder).map_err(|error| unusable(folder.display().to_string(), error.into()))
        });
        let saved = saved.transpose()?;
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let server = Server::start(SERVICE, move |listener, stop| async move {
            let streams = Arc::new(ServedStreams::new(Upstream::new(uri), options, saved));
            serve(listener, stop, streams.clone(), ordered).await;
            streams.stop().await;
        })?;
        Ok(Self { server, orders })
    }

    /// Its URL, such as `http://127.0.0.1:43019`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.server.endpoint()
    }

    /// A way to the shards of a table's latest stream.
    #[must_use]
    pub fn shards(&self, table: &str) -> ShardControl {
        ShardControl { table: table.to_owned(), orders: self.orders.clone() }
    }
}

async fn serve(
    listener: TcpListener,
    stop: CancellationToken,
    streams: Arc<ServedStreams>,
    mut ordered: mpsc::Receiver<Order>,
) {
    let app = Router::new().fallback(post(answer)).with_state(streams.clone());
    let app = app.layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    let serving = async { axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned()).await };
    let carrying_out = async {
        while let Some(order) = ordered.recv().await {
            order(streams.clone()).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::error!(%error, "the embedded DynamoDB Streams failed");
            }
        }
        () = carrying_out => {}
    }
}
