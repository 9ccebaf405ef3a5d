//! What Prometheus and Kubernetes are answered. It only reads.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;

use super::server::{Pages, other_than, text};
use crate::telemetry::{Health, Recorder};

const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The pages of one relay.
#[derive(Clone)]
pub struct ProbePages {
    /// Whence `/metrics` comes.
    pub recorder: Recorder,
    /// Whence `/livez` and `/readyz` come.
    pub health: Health,
    /// Brings gauges up to date; called before every `/metrics`, on the connection's task, so it must be quick.
    pub before_render: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ProbePages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProbePages").field("health", &self.health).finish_non_exhaustive()
    }
}

impl ProbePages {
    fn metrics(&self) -> Response<Full<Bytes>> {
        (self.before_render)();
        let mut response = text(StatusCode::OK, self.recorder.render());
        response.headers_mut().insert(CONTENT_TYPE, PROMETHEUS_TEXT);
        response
    }

    fn livez(&self) -> Response<Full<Bytes>> {
        let stuck: Vec<String> = self.health.stuck().iter().map(|name| format!("stuck: {name}")).collect();
        ok_or_lines(&stuck)
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        ok_or_lines(&self.health.problems())
    }
}

#[async_trait]
impl Pages for ProbePages {
    async fn answer(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let page: fn(&Self) -> Response<Full<Bytes>> = match request.uri().path() {
            "/metrics" => Self::metrics,
            "/livez" => Self::livez,
            "/readyz" => Self::readyz,
            _ => return text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n".to_owned()),
        };
        other_than("GET, HEAD", request.method()).unwrap_or_else(|| page(self))
    }
}

fn ok_or_lines(problems: &[String]) -> Response<Full<Bytes>> {
    if problems.is_empty() {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    text(StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}
