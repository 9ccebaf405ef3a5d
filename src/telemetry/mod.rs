//! What can be seen from outside: metric names, health, logs, and the endpoints that show them.
//!
//! Every metric name is in [`names`], and the README's table is held to it by a test. Labels come from small fixed sets
//! and the configured handlers; no root, shard or correlation id is ever a label, and no payload is ever logged.

mod metrics;
mod recorder;
mod health;
mod logs;
mod rate_limit;
mod causes;
mod traces;
mod endpoints;

pub(crate) use causes::with_causes;
pub use endpoints::{AdminPages, AdminToken, EndpointError, EndpointServer, Pages, ProbePages, StatusSource};
pub use health::{Beat, Health};
pub use logs::{LOG_VARIABLE, LogError, LogFilter, LogFormat, LogLayer, LogSwitch, init_logs};
pub(crate) use metrics::counted;
pub use metrics::{METRICS, MetricKind, describe_all, names, record_aws_call, record_capacity};
pub use rate_limit::{LOG_INTERVAL, LOG_KEYS_MAX, LogLimiter};
pub use recorder::Recorder;
pub(crate) use traces::{SPANS, current_traceparent, follow};
pub use traces::{Traces, TracesError};
