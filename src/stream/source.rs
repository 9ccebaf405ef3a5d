//! The port to a stream: list its shards, open an iterator, read records.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{Shard, ShardId, StreamPoint, StreamSequence};
use crate::event::{Event, InvalidRow, Root, RowError, Timestamp};

/// So long the stream keeps a record (`aws-facts` A).
pub const STREAM_RETENTION: Duration = Duration::from_hours(24);

/// What a record says.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new event row.
    Inserted(Event),
    /// A new row with a good key that is no event: it stops its root.
    Invalid(InvalidRow),
    /// A new row whose key is no event key: somebody else's.
    ForeignKey {
        /// The key found and what is wrong with it.
        problem: String,
    },
    /// A new row that holds a part of an event's payload: read with its event, when that is delivered.
    Chunk,
    /// A row was changed. Events are immutable: not an event.
    Modified,
    /// A row was removed, by somebody or by its time to live: not an event. Its root, where it was an event's row.
    Removed(Option<Root>),
}

impl Change {
    /// A new row, as decoding found it.
    pub(crate) fn of_row(decoded: Result<Event, RowError>) -> Self {
        match decoded {
            Ok(event) => Self::Inserted(event),
            Err(RowError::Body(invalid)) => Self::Invalid(invalid),
            Err(RowError::Chunk) => Self::Chunk,
            Err(RowError::Key { key, reason }) => {
                tracing::debug!(key, reason, "a row that is no event was passed");
                Self::ForeignKey { problem: format!("`{key}`: {reason}") }
            }
        }
    }
}

/// One record of a shard, decoded.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its number in the shard.
    pub sequence: StreamSequence,
    /// When DynamoDB says it happened: rounded to seconds by AWS, to minutes by DynamoDB Local.
    pub happened_at: Timestamp,
    /// What it says.
    pub change: Change,
}

/// A page of the shard list.
#[derive(Debug, Clone, Default)]
pub struct ShardPage {
    /// The shards on it.
    pub shards: Vec<Shard>,
    /// Where the next page begins; none when this was the last.
    pub next: Option<ShardId>,
}

/// A page of records.
#[derive(Debug, Clone)]
pub struct RecordPage {
    /// The records in shard order; an empty page is never the end.
    pub records: Vec<Record>,
    /// Their size on the stream, in bytes, about.
    pub bytes: usize,
    /// Where to read on; none, and only none, is the end of the shard.
    pub next: Option<ShardIterator>,
}

/// What a read brought, its records not decoded yet: enough to begin the next read at once.
pub struct Fetched {
    /// Where to read on; none, and only none, is the end of the shard.
    pub next: Option<ShardIterator>,
    /// The number of the last record; none when there is no record.
    pub last: Option<StreamSequence>,
    /// The number of records.
    pub records: usize,
    /// Their size on the stream, in bytes, about.
    pub bytes: usize,
    /// The source says that there is more right behind; else it is judged by the records.
    pub more: bool,
    decode: Decode,
}

type Decode = Box<dyn FnOnce() -> Result<Vec<Record>, StreamError> + Send>;

impl Fetched {
    /// A page that `decode` decodes when it is asked for.
    pub(crate) fn new(
        next: Option<ShardIterator>,
        (last, records, bytes): (Option<StreamSequence>, usize, usize),
        decode: Decode,
    ) -> Self {
        Self { next, last, records, bytes, more: false, decode }
    }

    /// With the source's word on whether there is more right behind.
    pub(crate) fn with_more(self, more: bool) -> Self {
        Self { more, ..self }
    }

    /// The records in shard order.
    ///
    /// # Errors
    /// [`StreamError::Unavailable`] when one is no stream record.
    pub fn decode(self) -> Result<Vec<Record>, StreamError> {
        (self.decode)()
    }
}

impl From<RecordPage> for Fetched {
    fn from(page: RecordPage) -> Self {
        let last = page.records.last().map(|record| record.sequence.clone());
        Self::new(page.next, (last, page.records.len(), page.bytes), Box::new(|| Ok(page.records)))
    }
}

/// An opaque place in a shard; it expires 15 minutes after it was given out.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardIterator(pub String);

impl fmt::Debug for ShardIterator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ShardIterator")
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the stream could not be read, as its reader must tell it apart.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The iterator is too old: open another behind the last record read.
    #[error("the shard iterator has expired")]
    ExpiredIterator,
    /// The records at this place were trimmed from the stream (it keeps 24 hours).
    #[error("the records at this place were trimmed from the stream")]
    Trimmed,
    /// The shard or the stream does not exist, or not any more.
    #[error("the shard or the stream does not exist any more")]
    Gone,
    /// The service asks for fewer calls.
    #[error("{operation} was throttled")]
    Throttled {
        /// The API operation.
        operation: &'static str,
    },
    /// The credentials do not allow the action.
    #[error("access denied: {action} is not allowed; allow it in the IAM policy of this role")]
    Denied {
        /// The IAM action, such as `dynamodb:GetRecords`.
        action: &'static str,
        /// What AWS said.
        #[source]
        source: Source,
    },
    /// The table has no stream that carries new images.
    #[error("{reason}")]
    NoStream {
        /// What is missing and the command that mends it.
        reason: String,
    },
    /// Anything else: connection, time-out, a fault of the service.
    #[error("{operation} failed")]
    Unavailable {
        /// The API operation.
        operation: &'static str,
        /// What the SDK said.
        #[source]
        source: Source,
    },
}

/// Reads shards, wherever they are.
#[async_trait]
pub trait ShardSource: Send + Sync {
    /// An iterator at a place in a shard.
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError>;
    /// The records at an iterator, at most 1000 and about 1 MB, not decoded yet: whoever reads on does so at once, and
    /// decodes meanwhile.
    async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError>;
    /// The same, decoded.
    async fn read(&self, iterator: &ShardIterator) -> Result<RecordPage, StreamError> {
        let fetched = self.fetch(iterator).await?;
        let (next, bytes) = (fetched.next.clone(), fetched.bytes);
        Ok(RecordPage { records: fetched.decode()?, bytes, next })
    }
}

/// Reads one stream, and knows its shards.
#[async_trait]
pub trait StreamSource: ShardSource {
    /// The stream's name, its ARN: another one is another stream of the same table.
    fn name(&self) -> String;
    /// A page of the shard list, beginning behind `after`.
    async fn shards(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError>;
    /// The children of a closed shard, as far as the service knows them; services without the filter may answer with
    /// others too.
    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, StreamError>;
}
