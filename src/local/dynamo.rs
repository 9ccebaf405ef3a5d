//! The embedded DynamoDB with Streams (dynoxide), in memory or in one SQLite file.
//!
//! What dynoxide leaves to its host is done here: two indexes on its change log, without which every write reads the
//! whole log; and the trimming of the log, which nothing else ever shortens. Time to live is not swept: rows of these
//! tables never expire.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::server::{LocalError, Server};
use crate::time::Clock;

const SERVICE: &str = "DynamoDB";

/// The file in the data directory.
const FILE: &str = "dynamodb.sqlite";

/// How long the stream keeps a record, as AWS's does.
const STREAM_RETENTION: Duration = Duration::from_hours(24);
/// How often older records are trimmed.
const TRIM_INTERVAL: Duration = Duration::from_hours(1);
/// Records trimmed in one statement, so that writers wait shortly.
const TRIM_RECORDS_MAX: usize = 1000;

const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS relay_by_shard
        ON _stream_records (table_name, shard_id, CAST(sequence_number AS INTEGER));
    CREATE INDEX IF NOT EXISTS relay_by_table
        ON _stream_records (table_name, CAST(sequence_number AS INTEGER));";

const TRIM: &str =
    "DELETE FROM _stream_records WHERE id IN (SELECT id FROM _stream_records WHERE created_at < ?1 LIMIT ?2)";

/// Tells the in-memory databases of one process apart.
static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// An embedded DynamoDB; it stops when it is dropped, which waits until it has.
#[derive(Debug)]
pub struct EmbeddedDynamo {
    server: Server,
}

impl EmbeddedDynamo {
    /// Starts it on a free loopback port: in memory, or with its tables in the directory `data`, which is made if it is
    /// missing. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the port or the data cannot be had.
    pub fn start(data: Option<&Path>) -> Result<Self, LocalError> {
        let Some(directory) = data else {
            let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
            let name = format!("file:angzarr-{}-{instance}?mode=memory&cache=shared", std::process::id());
            // In memory the log lives no longer than the rows it tells of: it is not trimmed, because a second
            // connection of a shared cache makes writers fail that meet it.
            return Self::open(&name, None);
        };
        std::fs::create_dir_all(directory).map_err(|error| unusable(directory, error))?;
        let path = directory.join(FILE);
        let Some(name) = path.to_str() else { return Err(unusable(directory, "the path is no valid text")) };
        Self::open(name, Some(directory))
    }

    fn open(name: &str, directory: Option<&Path>) -> Result<Self, LocalError> {
        let shown = directory.unwrap_or(Path::new("memory"));
        let database = dynoxide::Database::new(name).map_err(|error| unusable(shown, error.to_string()))?;
        let connection = Connection::open(name).map_err(|error| unusable(shown, error))?;
        connection.execute_batch(INDEXES).map_err(|error| unusable(shown, error))?;
        let trimmed = directory.map(|_| connection);
        let server = Server::start(SERVICE, move |listener, stop| serve(listener, stop, database, trimmed))?;
        Ok(Self { server })
    }

    /// Its URL, such as `http://127.0.0.1:43017`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.server.endpoint()
    }
}

fn unusable(directory: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LocalError {
    LocalError::Data { service: SERVICE, directory: directory.display().to_string(), source: error.into() }
}

async fn serve(listener: TcpListener, stop: CancellationToken, database: dynoxide::Database, log: Option<Connection>) {
    let serving = dynoxide::server::serve_with_shutdown(listener, database, stop.clone().cancelled_owned());
    let trimming = async {
        if let Some(log) = log {
            trim(&log).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::error!(error, "the embedded DynamoDB failed");
            }
        }
        () = trimming => {}
    }
}

/// Removes records older than the stream keeps, now and then every [`TRIM_INTERVAL`].
async fn trim(log: &Connection) {
    let clock = Clock::system();
    let mut ticks = tokio::time::interval(TRIM_INTERVAL);
    loop {
        ticks.tick().await;
        let oldest = clock.now().unix_millis() / 1000 - i64::try_from(STREAM_RETENTION.as_secs()).unwrap_or(i64::MAX);
        loop {
            match log.execute(TRIM, (oldest, TRIM_RECORDS_MAX)) {
                Ok(TRIM_RECORDS_MAX) => tokio::task::yield_now().await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old records of the embedded stream were not trimmed");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trims_what_is_older_than_the_stream_keeps() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        drop(dynoxide::Database::new(path.to_str().unwrap()).unwrap());
        let log = Connection::open(&path).unwrap();
        let now = Clock::system().now().unix_millis() / 1000;
        let insert =
            "INSERT INTO _stream_records (table_name, event_name, keys_json, sequence_number, shard_id, created_at)
                      VALUES ('t', 'INSERT', '{}', '1', 's', ?1)";
        for age_secs in (0..2500).map(|number| 86_400 + 60 + number).chain([0, 86_000]) {
            log.execute(insert, [now - age_secs]).unwrap();
        }
        let trimming = tokio::time::timeout(TRIM_INTERVAL / 2, trim(&log));
        assert!(trimming.await.is_err(), "trimming goes on for ever");
        let left: usize = log.query_row("SELECT COUNT(*) FROM _stream_records", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 2);
    }
}
