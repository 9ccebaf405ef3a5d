//! The ready-made handler for an HTTP service: POSTs CloudEvents, one a request or in batches.
//!
//! - `settings`: where to and with which headers; secrets come from the environment or from files
//! - `client`: one POST: connections, time-outs, what a failure to get an answer means
//! - `answer`: what an answer's status means, and `Retry-After`
//! - `sink`: the handler: which events go into which request
//!
//! Neither header values nor bodies, sent or received, are ever logged or put into an error.

mod settings;
mod client;
mod answer;
mod body;
mod sink;
#[cfg(test)]
mod tests;

pub use settings::{HttpBatch, HttpSettings, HttpSettingsError};
pub use sink::HttpHandler;
