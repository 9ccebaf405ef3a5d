//! A handler's job, and the port to where jobs are kept: they are durable and go on where they stopped.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Scanned;
use crate::event::Timestamp;
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::stream::ShardId;

/// What a scan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKind {
    /// To build a new handler's state: its shards are not read meanwhile.
    Backfill,
    /// To find what the stream lost: the stream is read beside it.
    Reconcile,
}

impl JobKind {
    /// The word for it, in rows, names and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Reconcile => "reconcile",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Backfill, Self::Reconcile].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One scan of the table for one handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it is for.
    pub kind: JobKind,
    /// When it began.
    pub started_at: Timestamp,
    /// Its parallel parts.
    pub segments: u32,
    /// Why it was begun, for operators.
    pub reason: String,
    /// The stream there was when it began.
    pub stream: String,
    /// When it was done; none while it runs.
    pub finished_at: Option<Timestamp>,
}

impl Job {
    /// A job that begins now.
    #[must_use]
    pub fn new(kind: JobKind, started_at: Timestamp, segments: u32, reason: &str, stream: &str) -> Self {
        let (reason, stream) = (reason.to_owned(), stream.to_owned());
        Self { kind, started_at, segments, reason, stream, finished_at: None }
    }
}

/// When a handler last followed a stream, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The moment.
    pub at: Timestamp,
    /// The stream's name, its ARN.
    pub stream: String,
}

/// Keeps the jobs.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// A handler's last job.
    async fn job(&self, handler: &HandlerName) -> Result<Option<Job>, StorageError>;
    /// Writes a job that begins or was done, in place of the handler's last.
    async fn put_job(&self, handler: &HandlerName, job: &Job) -> Result<(), StorageError>;
    /// How much the segments of a handler's jobs have scanned.
    async fn progress(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Scanned>, StorageError>;
    /// Notes how much a segment has scanned.
    async fn put_progress(
        &self,
        handler: &HandlerName,
        segment: &ShardId,
        scanned: &Scanned,
    ) -> Result<(), StorageError>;
    /// Forgets how much a segment of an earlier job has scanned.
    async fn forget_progress(&self, handler: &HandlerName, segment: &ShardId) -> Result<(), StorageError>;
    /// When the handler last followed a stream.
    async fn seen(&self, handler: &HandlerName) -> Result<Option<Seen>, StorageError>;
    /// Notes that the handler follows a stream.
    async fn put_seen(&self, handler: &HandlerName, seen: &Seen) -> Result<(), StorageError>;
    /// Why the handler needs a reconcile, as the replica noted that met the loss; none when it needs none.
    async fn need(&self, handler: &HandlerName) -> Result<Option<String>, StorageError>;
    /// Notes it, and lets the replicas look.
    async fn put_need(&self, handler: &HandlerName, reason: &str) -> Result<(), StorageError>;
    /// Forgets it: a job does what is needed.
    async fn forget_need(&self, handler: &HandlerName) -> Result<(), StorageError>;
}
