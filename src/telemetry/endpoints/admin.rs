//! What the admin endpoint answers: the fleet's status, and which lines are logged.
//!
//! Invariants: nothing is changed without the token, and nothing read without it unless the endpoint is on this machine
//! alone; one look at the fleet is under way at a time, and answers everybody who asks within [`STATUS_KEPT`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::server::{Pages, other_than, text};
use crate::secret::{Secret, SecretError};
use crate::telemetry::{LogFilter, LogLimiter, LogSwitch, with_causes};

/// How long a look at the fleet is answered with, so that asking often costs the tables nothing.
const STATUS_KEPT: Duration = Duration::from_secs(2);

/// How long a look may take: less than a connection may live.
const STATUS_TIME_MAX: Duration = Duration::from_secs(8);

/// What `status --json` prints, as it is now; or why it cannot be had.
pub type StatusSource = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// What a look brought, and when.
type Looked = (Instant, Result<String, String>);

/// The secret that whoever changes something has to show.
#[derive(Debug, Clone)]
pub struct AdminToken(pub Secret);

/// The pages for operators.
#[derive(Clone)]
pub struct AdminPages {
    /// Whence `/status` comes.
    pub status: StatusSource,
    /// What `/log-level` changes; none when the program around the relay has logs of its own.
    pub logs: Option<LogSwitch>,
    /// Without one nothing can be changed.
    pub token: Option<AdminToken>,
    /// Whether only this machine can reach the endpoint: then reading needs no token.
    pub local: bool,
    looked: Arc<Mutex<Option<Looked>>>,
    repeats: Arc<LogLimiter>,
}

impl fmt::Debug for AdminPages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AdminPages").field("token", &self.token).finish_non_exhaustive()
    }
}

impl AdminPages {
    /// The pages, nothing looked at yet.
    #[must_use]
    pub fn new(status: StatusSource, logs: Option<LogSwitch>, token: Option<AdminToken>, local: bool) -> Self {
        Self { status, logs, token, local, looked: Arc::default(), repeats: Arc::default() }
    }

    /// Why the request is not answered; none when it is.
    async fn refusal(&self, request: &Request<Bytes>) -> Option<Response<Full<Bytes>>> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && self.local && is_named_here(request.headers()) {
            return None;
        }
        let Some(token) = &self.token else {
            let said = "this needs the token of telemetry.admin_token, which is not set\n";
            return Some(text(StatusCode::FORBIDDEN, said.to_owned()));
        };
        match token.is_shown(request.headers()).await {
            Ok(true) => None,
            Ok(false) => {
                let mut refused =
                    text(StatusCode::UNAUTHORIZED, "this needs the token of telemetry.admin_token\n".to_owned());
                refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                Some(refused)
            }
            Err(error) => {
                if let Some(suppressed) = self.repeats.admit("token", Instant::now()) {
                    let error = with_causes(&error);
                    warn!(error, suppressed, "the token of telemetry.admin_token cannot be read: requests are refused");
                }
                Some(text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the token of telemetry.admin_token cannot be read: see the log\n".to_owned(),
                ))
            }
        }
    }

    async fn status(&self) -> Response<Full<Bytes>> {
        // Waiting for somebody else's look counts, too: whoever asks is answered before the connection's time is over.
        let looking = async {
            let mut looked = self.looked.lock().await;
            if let Some((_, kept)) = looked.as_ref().filter(|(at, _)| at.elapsed() < STATUS_KEPT) {
                return kept.clone();
            }
            let status = (self.status)().await;
            *looked = Some((Instant::now(), status.clone()));
            status
        };
        match timeout(STATUS_TIME_MAX, looking).await {
            Ok(Ok(status)) => json(status),
            Ok(Err(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            Err(_elapsed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("the tables did not answer within {STATUS_TIME_MAX:?}\n"))
            }
        }
    }

    fn log_level(&self, request: &Request<Bytes>) -> Response<Full<Bytes>> {
        let Some(logs) = &self.logs else {
            let said = "this program has set up logs of its own: the relay cannot change them\n";
            return text(StatusCode::CONFLICT, said.to_owned());
        };
        if request.method() != Method::PUT {
            return text(StatusCode::OK, format!("{}\n", logs.now().as_str()));
        }
        let Ok(wanted) = std::str::from_utf8(request.body()) else {
            return text(StatusCode::BAD_REQUEST, "the filter is no text\n".to_owned());
        };
        let filter = match wanted.trim() {
            "" => Ok(logs.first().clone()),
            wanted => LogFilter::parse(wanted),
        };
        // Before and after: one of the two filters may leave the line out.
        let tell = |filter: &str| tracing::error!(filter, "the log filter is changed through the admin endpoint");
        match filter.and_then(|filter| {
            tell(filter.as_str());
            logs.set(filter)
        }) {
            Ok(()) => {
                let now = logs.now();
                tell(now.as_str());
                text(StatusCode::OK, format!("{}\n", now.as_str()))
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

#[async_trait]
impl Pages for AdminPages {
    async fn answer(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let allowed = match request.uri().path() {
            "/status" => "GET, HEAD",
            "/log-level" => "GET, HEAD, PUT",
            _ => return text(StatusCode::NOT_FOUND, "there are /status and /log-level\n".to_owned()),
        };
        if let Some(refused) = other_than(allowed, request.method()) {
            return refused;
        }
        if let Some(refused) = self.refusal(&request).await {
            return refused;
        }
        match request.uri().path() {
            "/status" => self.status().await,
            _ => self.log_level(&request),
        }
    }
}

impl AdminToken {
    /// Whether the request shows the token, as `Authorization: Bearer ..`.
    async fn is_shown(&self, headers: &HeaderMap) -> Result<bool, SecretError> {
        let token = self.0.read().await?;
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        // Of the digests, so that the time it takes says nothing of the token. An empty one would be shown by everybody.
        let same = |shown: &str| Sha256::digest(shown) == Sha256::digest(&token);
        Ok(!token.is_empty() && shown.is_some_and(same))
    }
}

/// Whether a request names this machine: a name that a page of somebody else's has led here is another one.
fn is_named_here(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
