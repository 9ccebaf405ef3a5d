//! Traces: the spans of deliveries, exported over OTLP with the cargo feature `otel`. The spans are made in `lane`.
//!
//! The spans are `tracing`'s, so a program around the relay that exports traces of its own has them without the feature.
//! Invariants: where nobody takes them they cost nothing but a check; they hold keys and correlation ids, never a payload.

#[cfg(feature = "otel")]
mod exporter;

#[cfg(feature = "otel")]
pub(crate) use exporter::{current_traceparent, follow};

use super::LogLayer;

/// What the spans of deliveries are picked by. Their level is TRACE: log filters leave them out.
pub(crate) const SPANS: &str = "angzarr_relay::deliver";

/// The variables that name a collector; without one nothing is exported.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The variables that name a protocol, and the one there is.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const PROTOCOL: &str = "http/protobuf";

/// Why traces cannot be exported as the environment asks.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// Another protocol.
    #[error("{variable} is {protocol}: traces are sent by {PROTOCOL} alone, to port 4318 of most collectors")]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// Its value.
        protocol: String,
    },
    /// The exporter refuses the settings.
    #[error("the settings of OTEL_EXPORTER_OTLP_* are wrong")]
    Settings(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is not built in.
    #[error(
        "{variable} is set, and this program was built without the feature otel: unset it, or take the container image"
    )]
    NotBuilt {
        /// The variable.
        variable: &'static str,
    },
}

/// The export of this process' traces.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    exporter: Option<exporter::Exporter>,
}

impl Traces {
    /// Begins to export where `OTEL_EXPORTER_OTLP_ENDPOINT` says, unless `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER=none`
    /// forbids it; what is to be told of every span, if so. To be called on the runtime.
    ///
    /// # Errors
    /// When the environment asks for what is not there.
    pub fn of_environment() -> Result<(Self, Vec<LogLayer>), TracesError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let forbidden = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let endpoint = ENDPOINTS.into_iter().find(|name| variable(name).is_some());
        let Some(endpoint) = endpoint.filter(|_| !forbidden) else { return Ok((Self::default(), Vec::new())) };
        let protocol = PROTOCOLS.into_iter().find_map(|name| variable(name).map(|protocol| (name, protocol)));
        if let Some((variable, protocol)) = protocol.filter(|(_, protocol)| protocol != PROTOCOL) {
            return Err(TracesError::Protocol { variable, protocol });
        }
        Self::export(endpoint)
    }

    #[cfg(feature = "otel")]
    fn export(_endpoint: &'static str) -> Result<(Self, Vec<LogLayer>), TracesError> {
        let (exporter, layer) = exporter::Exporter::new()?;
        Ok((Self { exporter: Some(exporter) }, vec![layer]))
    }

    #[cfg(not(feature = "otel"))]
    fn export(endpoint: &'static str) -> Result<(Self, Vec<LogLayer>), TracesError> {
        Err(TracesError::NotBuilt { variable: endpoint })
    }

    /// Sends what was not sent yet, and ends.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_async, reason = "there is nothing to wait for without it"))]
    pub async fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(exporter) = self.exporter {
            exporter.end().await;
        }
    }
}

/// Makes a span part of a trace; there is none without the feature.
#[cfg(not(feature = "otel"))]
pub(crate) fn follow<'a>(_span: &tracing::Span, _traces: impl Iterator<Item = &'a crate::event::TraceParent>) {}

/// The trace that a request made now belongs to; none without the feature.
#[cfg(not(feature = "otel"))]
pub(crate) fn current_traceparent() -> Option<String> {
    None
}
