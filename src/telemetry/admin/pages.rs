//! What the admin endpoint answers, by method and path.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::telemetry::{Health, Recorder};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The pages of one relay.
#[derive(Clone)]
pub struct AdminPages {
    /// Whence `/metrics` comes.
    pub recorder: Recorder,
    /// Whence `/livez` and `/readyz` come.
    pub health: Health,
    /// Brings gauges up to date; called before every `/metrics`, on the connection's task, so it must be quick.
    pub before_render: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for AdminPages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AdminPages").field("health", &self.health).finish_non_exhaustive()
    }
}

impl AdminPages {
    pub(super) fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let page: fn(&Self) -> Response<Full<Bytes>> = match path {
            "/metrics" => Self::metrics,
            "/livez" => Self::livez,
            "/readyz" => Self::readyz,
            _ => return text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n".to_owned()),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        page(self)
    }

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

fn ok_or_lines(problems: &[String]) -> Response<Full<Bytes>> {
    if problems.is_empty() {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    text(StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
