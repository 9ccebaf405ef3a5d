//! The settings: one struct per section of the file, read from TOML and the environment, checked as a whole.
//!
//! Every problem is found in one go and named by its key's dotted path; unknown keys are problems. Nothing here
//! connects to anything, reads a secret, or builds a handler: receivers are plain data that `handler` and `relay` make
//! something of. Invariant: a [`Config`] that was loaded is within all bounds stated at its fields.

mod load;
mod storage;
mod kinesis;
mod relay;
mod backfill;
mod telemetry;
mod handlers;
mod subscription;
mod receiver;
mod url;
mod secret;
mod environment;
mod reader;
mod error;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod property_tests;

pub use backfill::BackfillConfig;
pub use environment::Environment;
pub use error::{ConfigError, Fault, Problem};
pub use handlers::HandlerConfig;
pub use kinesis::KinesisConfig;
pub use load::Config;
pub use receiver::{HttpReceiver, JsonlReceiver, JsonlTarget, KinesisReceiver, Receiver};
pub use relay::RelayConfig;
pub use storage::{DynamoConfig, StorageConfig};
pub use subscription::SubscriptionConfig;
pub use telemetry::TelemetryConfig;
pub use url::HttpUrl;
