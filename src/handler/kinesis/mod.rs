//! The ready-made handler for a Kinesis data stream.
//!
//! One record (or one KPL-aggregated record) a root in each PutRecords call, the root's key as partition key:
//! PutRecords promises no order within a call and fails in part, so a root never has two records on the way and nothing
//! of it overtakes a failure.
//! - `sink`: the handler: which records go into which call
//! - `record`: the record of one root's events
//! - `aggregation`: the KPL's format for several events in one record
//! - `answer`: what an answer of Kinesis means

mod aggregation;
mod record;
mod answer;
mod sink;

pub use record::KinesisFormat;
pub use sink::{KinesisHandler, KinesisSettings, Oversize};
