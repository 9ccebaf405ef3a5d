//! What can be seen from outside: metric names, health, logs, the admin endpoint.
//!
//! Every metric name is in [`names`], and the README's table is held to it by a test. Labels come from small fixed sets and the
//! configured handlers; no root, shard or correlation id is ever a label, and no payload is ever logged.

mod metrics;
mod health;

pub use health::{Beat, Health};
pub use metrics::{METRICS, MetricKind, describe_all, names, record_aws_call, record_capacity};
