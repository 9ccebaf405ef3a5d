//! The export over OTLP: protobuf over HTTP, through the HTTP client that the handlers use.
//!
//! Invariants: spans are queued within the SDK's bounds (`OTEL_BSP_*`) and dropped beyond them, so a collector that is
//! down costs deliveries nothing; a request has [`REQUEST_TIME_MAX`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer as _;

use super::{SPANS, TracesError};
use crate::event::TraceParent;
use crate::telemetry::{LogLayer, LogLimiter, with_causes};

/// How long one request to the collector may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the end waits until everything is sent.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// How much of a collector's answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Traces that a span is linked with besides its own, at most.
const LINKS_MAX: usize = 32;

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const TRACEPARENT: &str = "traceparent";

/// What exports the spans of this process.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    pub(super) fn new() -> Result<(Self, LogLayer), TracesError> {
        let connector = Arc::new(Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).build());
        let client = Client { connector, runtime: Handle::current(), repeats: LogLimiter::default() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let exporter = exporter.map_err(|error| TracesError::Settings(error.into()))?;
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        let layer = OpenTelemetryLayer::new(tracer).with_location(false).with_threads(false).with_target(false);
        let spans = Targets::new().with_target(SPANS, tracing::Level::TRACE);
        Ok((Self(provider), layer.with_filter(spans).boxed()))
    }

    pub(super) async fn end(self) {
        // It waits for its own thread, which needs this runtime to send.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(END_TIME_MAX)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last traces were not sent: the collector does not answer");
        }
    }
}

/// What is told of this process; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&SERVICE_NAME.into()).map(|name| name.to_string());
    let own = match name.as_deref() {
        // What the SDK says when it was not told.
        Some(name) if !name.is_empty() && !name.starts_with("unknown_service") => None,
        _ => Some(KeyValue::new(SERVICE_NAME, env!("CARGO_PKG_NAME"))),
    };
    let version = KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
    let version = told.get(&SERVICE_VERSION.into()).is_none().then_some(version);
    Resource::builder().with_attributes(own.into_iter().chain(version)).build()
}

/// Makes a span part of the first of these traces, and links it with the others.
pub(crate) fn follow<'a>(span: &Span, traces: impl Iterator<Item = &'a TraceParent>) {
    let mut distinct: Vec<&TraceParent> = Vec::new();
    for trace in traces {
        if !distinct.contains(&trace) && distinct.len() <= LINKS_MAX {
            distinct.push(trace);
        }
    }
    for (index, trace) in distinct.into_iter().enumerate() {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), trace.to_string())]);
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        if index == 0 {
            // Where no exporter takes the span there is nothing to be part of.
            span.set_parent(context).ok();
        } else {
            span.add_link(context.span().span_context().clone());
        }
    }
}

/// The trace that a request made now belongs to.
pub(crate) fn current_traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// The HTTP client, usable from the exporter's own thread: requests run on the runtime.
#[derive(Debug)]
struct Client {
    connector: Arc<Connector>,
    runtime: Handle,
    repeats: LogLimiter,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let request = HttpRequest::try_from(Request::from_parts(head, SdkBody::from(body)))?;
        let connector = self.connector.clone();
        // Within the runtime: the exporter's own thread has no timer either.
        let sent = self.runtime.spawn(async move {
            let sending = async {
                let response = connector.call(request).await?;
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::builder().status(status).body(body)?)
            };
            timeout(REQUEST_TIME_MAX, sending).await?
        });
        let answer = sent.await.map_err(HttpError::from).flatten();
        let failed = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(with_causes(&**error)),
        };
        if let Some(error) = failed
            && let Some(suppressed) = self.repeats.admit("export", Instant::now())
        {
            tracing::warn!(error, suppressed, "traces could not be sent: what stays so is lost");
        }
        answer
    }
}
