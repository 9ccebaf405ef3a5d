//! Reading the events table's DynamoDB Stream: shards, their lineage, and the records of each.
//!
//! The port is [`StreamSource`], with an adapter for AWS and one in memory. Arrival order is never trusted: DynamoDB
//! orders records per item only. What a handler makes of a record is left to `lane`.

mod sequence;
mod shard;
mod source;
mod aws;
mod memory;
mod lineage;
mod pace;
mod page;
mod budget;
mod window;
mod feed;
mod ahead;
mod reader;

pub use aws::DynamoStream;
pub use budget::Budget;
pub use feed::{Feed, LaneFeed};
pub use lineage::Lineage;
pub use memory::MemoryStream;
pub(crate) use page::row_sequence;
pub use page::{Ignored, Page, Run, RunRow};
pub use reader::{Lost, ReaderEnd, ReaderParts, ShardReader};
pub use sequence::{StreamPoint, StreamSequence};
pub use shard::{Branch, Shard, ShardId};
pub use source::{
    Change, Fetched, Record, RecordPage, STREAM_RETENTION, ShardIterator, ShardPage, ShardSource, StreamError,
    StreamSource,
};
pub use window::LaneId;
