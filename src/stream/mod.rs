//! Reading the events table's DynamoDB Stream: shards, their lineage, and the records of each.
//!
//! The port is [`StreamSource`], with an adapter for AWS and one in memory. Arrival order is never trusted: DynamoDB orders records per
//! item only. What a handler makes of a record is left to `lane`.

mod aws;
mod memory;
mod page;
mod sequence;
mod shard;
mod source;

pub use aws::DynamoStream;
pub use memory::MemoryStream;
pub use page::{Ignored, Page, Run, RunRow};
pub use sequence::{StreamPoint, StreamSequence};
pub use shard::{Shard, ShardId};
pub use source::{Change, Record, RecordPage, ShardIterator, ShardPage, StreamError, StreamSource};
