//! The contract of a receiver, and the ready-made receivers.
//!
//! A handler is given one root's consecutive events and answers how many it accepted. It may be given an event again
//! that it accepted before (after a crash, at most what was accepted since the last position flush), but never a later
//! event of a root before an earlier one. Whether and when to try again is decided in `lane`, never here.

mod contract;
mod name;
mod function;
mod http;
mod jsonl;
mod kinesis;
mod transactional;
#[cfg(test)]
mod testing;

pub use contract::{Accepted, GroupLimits, Handler, HandlerError, RootBatch};
pub use function::{FunctionHandler, handler_fn};
pub use http::{HttpBatch, HttpHandler, HttpSettings, HttpSettingsError};
pub use jsonl::{JsonlError, JsonlHandler};
pub use kinesis::{KinesisFormat, KinesisHandler, KinesisSettings, Oversize};
pub use name::{HandlerKind, HandlerName, HandlerNameError};
pub use transactional::{Projection, Transactional, WRITES_MAX};
