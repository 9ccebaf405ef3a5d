//! DynamoDB Streams with many shards: stands in front of any DynamoDB whose stream has one shard, reads that, and serves
//! it as many virtual shards that roll, split, expire and are trimmed on order; and misbehaves on order, as the real
//! service and the network before it do.
//!
//! No emulator splits shards. A record belongs to a shard by the hash of its partition key; a change of the shards lies
//! between two records, so that each is in exactly one shard and an item's records keep their order from parent to
//! child. Pure: names, numbers, keys, ranges, the layout, the log, iterators, requests, rates, what goes wrong, and what a
//! stream answers; the rest speaks HTTP. Memory is bounded by `log_bytes_max` a stream, the shards by 100,000, the streams by 32.

mod name;
mod number;
mod key;
mod range;
mod layout;
mod log;
mod cursor;
mod request;
mod fault;
mod operation;
mod mischief;
mod misbehaviour;
mod stream;
mod rates;
mod upstream;
mod follower;
mod keeper;
mod saved;
mod options;
mod served;
mod cut;
mod service;
mod error;
mod control;
mod server;

pub use control::{ShardControl, VirtualShard};
pub use error::ShardsError;
pub use key::KeyPart;
pub use misbehaviour::Struck;
pub use mischief::{Mischief, MischiefPlan};
pub use operation::Operation;
pub use options::StreamsOptions;
pub use rates::Calls;
pub use server::EmbeddedStreams;
pub use upstream::UpstreamError;
