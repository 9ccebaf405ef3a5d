//! The embedded Kinesis (ferrokinesis), in memory or with its streams in a directory.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use ferrokinesis::store::{DurableStateOptions, StoreOptions};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::server::{LocalError, Server};

const SERVICE: &str = "Kinesis";

/// The folder in the data directory.
const FOLDER: &str = "kinesis";

/// The largest request: the service's 10 MiB of data, as base64, with room for the keys.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// How often records older than a stream's retention are dropped, in seconds.
const RETENTION_CHECK_SECS: u64 = 60;
/// How often the durable state is written anew as a whole, in seconds; between, a log is appended to.
const SNAPSHOT_SECS: u64 = 60;

/// How the embedded Kinesis behaves.
#[derive(Debug, Clone)]
pub struct KinesisOptions {
    /// Refuse records beyond 1000 records/s and 1 MB/s a shard, in part as AWS does.
    pub enforce_limits: bool,
    /// Open shards of all streams together.
    pub shards_max: u32,
    /// The directory to keep streams and records in; none for memory only.
    pub data: Option<PathBuf>,
}

impl Default for KinesisOptions {
    fn default() -> Self {
        Self { enforce_limits: false, shards_max: 1000, data: None }
    }
}

/// An embedded Kinesis; it stops when it is dropped, which waits until it has.
#[derive(Debug)]
pub struct EmbeddedKinesis {
    server: Server,
}

impl EmbeddedKinesis {
    /// Starts it on a free loopback port. Streams are ACTIVE at once.
    ///
    /// # Errors
    /// When the port or the data cannot be had.
    pub fn start(options: &KinesisOptions) -> Result<Self, LocalError> {
        let durable = match &options.data {
            None => None,
            Some(directory) => {
                let state_dir = directory.join(FOLDER);
                // The store itself answers every request with an error when it cannot use the directory: say it now.
                std::fs::create_dir_all(&state_dir).map_err(|error| LocalError::Data {
                    service: SERVICE,
                    directory: directory.display().to_string(),
                    source: error.into(),
                })?;
                Some(DurableStateOptions { state_dir, snapshot_interval_secs: SNAPSHOT_SECS, max_retained_bytes: None })
            }
        };
        let store = StoreOptions {
            create_stream_ms: 0,
            delete_stream_ms: 0,
            update_stream_ms: 0,
            shard_limit: options.shards_max,
            enforce_limits: options.enforce_limits,
            retention_check_interval_secs: RETENTION_CHECK_SECS,
            durable,
            ..StoreOptions::default()
        };
        Ok(Self { server: Server::start(SERVICE, move |listener, stop| serve(listener, stop, store))? })
    }

    /// Its URL, such as `http://127.0.0.1:43018`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.server.endpoint()
    }
}

async fn serve(listener: TcpListener, stop: CancellationToken, store: StoreOptions) {
    // Made here, inside the runtime: it starts a task that drops old records.
    let (app, store) = ferrokinesis::create_app(store);
    if let Err(error) = store.check_ready() {
        tracing::error!(%error, "the embedded Kinesis cannot use its data and refuses every request");
    }
    let app = app.layer(from_fn_with_state(Arc::default(), one_reader_or_many_writers));
    let app = app.layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the embedded Kinesis failed");
    }
}

/// GetRecords of ferrokinesis 0.7 holds a lock across a wait, for which PutRecords blocks its thread: side by side the
/// two can stand still for good. A reader may also pass a record whose write is not over. So a read goes alone.
async fn one_reader_or_many_writers(turns: State<Arc<RwLock<()>>>, request: Request, next: Next) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    if target.ends_with(".GetRecords") {
        let _alone = turns.write().await;
        next.run(request).await
    } else {
        let _shared = turns.read().await;
        next.run(request).await
    }
}
