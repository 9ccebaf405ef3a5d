//! `angzarr-relay` turns a DynamoDB event store into dependable projections, sagas and Kinesis streams.
//!
//! It reads the DynamoDB Streams shards of the events table, delivers every event to each configured handler in order
//! per aggregate root, and records in the positions table how far each handler has come. The table is the log; the
//! stream is only the fast path: what the stream reorders, repeats or has lost is repaired with a query of the table.
//!
//! # Layout, in the order an event takes
//! - [`event`]: what a row means: the root, the sequence, the event, its CloudEvents form
//! - [`storage`]: the three tables: events, positions, snapshots; their creation and check
//! - [`relay_table`]: the relay's own table: checkpoints and the handler registry
//! - [`stream`]: shards, lineage, the shard reader and its page window
//! - [`backfill`]: the table scanned in segments, for new handlers and for what the stream lost
//! - [`lane`]: one handler's way through its shards: subscription, sequencer, watermark, retry, flush
//! - [`handler`]: the contract of a receiver, and the ready-made ones: kinesis, http, jsonl
//! - [`fleet`]: which replica reads which shard: members, view, assignment, leases
//! - [`audit`]: the table compared with what handlers have durably done
//! - `status`: the fleet at one look, and what is wrong with it
//! - [`relay`]: the only place that wires, spawns and stops
//! - [`telemetry`], [`config`], [`cli`]: metrics and logs, settings, the commands
//! - [`secret`]: texts that must not be shown, and where they come from
//! - `failpoint`: mistakes that tests make on purpose (builds with debug assertions alone)
//! - `shell`: commands as they are shown to an operator
//! - [`time`]: the one clock, the one source of randomness, retry intervals
//! - [`aws`]: the AWS SDK's clients and what its errors mean
//! - `local`: an embedded DynamoDB and Kinesis, and a stream with many shards (cargo feature `local`)

#![cfg_attr(not(test), deny(clippy::unwrap_used))]

#[doc(hidden)]
pub mod failpoint;
pub mod time;
pub mod secret;
mod shell;
pub mod aws;
pub mod event;
pub mod storage;
pub mod relay_table;
pub mod stream;
pub mod backfill;
pub mod lane;
pub mod handler;
pub mod fleet;
pub mod audit;
mod status;
pub mod relay;
pub mod telemetry;
pub mod config;
pub mod cli;
#[cfg(feature = "local")]
pub mod local;
