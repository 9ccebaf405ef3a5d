//! An embedded DynamoDB and an embedded Kinesis on loopback ports, for `angzarr-relay local` and the tests (cargo
//! feature `local`); and DynamoDB Streams with many shards, which stands in front of a DynamoDB.
//!
//! Each runs on a thread and runtime of its own, because both work synchronously under locks of theirs, and each stops
//! when it is stopped or dropped. They accept any credentials. What they answer differently from AWS is met where their
//! answers are read.

mod dynamo;
mod kinesis;
mod server;
mod streams;

pub use dynamo::EmbeddedDynamo;
pub use kinesis::{EmbeddedKinesis, KinesisOptions};
pub use server::LocalError;
pub use streams::{
    Calls, EmbeddedStreams, KeyPart, Mischief, MischiefPlan, Operation, ShardControl, ShardsError, StreamsOptions,
    Struck, UpstreamError, VirtualShard,
};
