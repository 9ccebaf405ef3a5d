//! One POST: pooled connections with TLS, time-outs, and what it means when no answer comes.
//!
//! It is the SDK's own HTTP connector (hyper, rustls), so no second HTTP stack is in the program. Redirections are not
//! followed. The body of an answer is read to its end when it is short, so that the connection can be used again, and
//! thrown away.

use std::error::Error;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::body::EventsBody;
use super::settings::Target;
use crate::handler::HandlerError;
use crate::telemetry::current_traceparent;

/// The longest time for connecting, whatever the time-out.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// How much of an answer's body is read so that its connection can be used again.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Idle connections kept to the receiver.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// The trace that a request belongs to (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Sends to one URL.
#[derive(Debug)]
pub(super) struct Client {
    connector: Connector,
    timeout: Duration,
}

impl Client {
    /// `timeout` is for a whole request. Connecting has half of it at most, so that a receiver out of reach is told
    /// from one that does not answer.
    pub(super) fn new(target: &Target, timeout: Duration) -> Self {
        let settings = HttpConnectorSettings::builder().connect_timeout((timeout / 2).min(CONNECT_TIMEOUT_MAX)).build();
        let mut builder = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .connector_settings(settings)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        // Without TLS the system's certificates are not loaded: they need not even be there.
        if target.uri.scheme_str() == Some("http") {
            let no_roots = TlsContext::builder().with_trust_store(TrustStore::empty()).build();
            if let Ok(no_roots) = no_roots {
                builder = builder.tls_context(no_roots);
            }
        }
        Self { connector: builder.build(), timeout }
    }

    /// POSTs `body` and gives back the answer, whatever its status.
    pub(super) async fn post(
        &self,
        target: &Target,
        content_type: &'static str,
        headers: &[(HeaderName, HeaderValue)],
        body: EventsBody,
    ) -> Result<Answer, HandlerError> {
        let request = request(target, content_type, headers, body).map_err(|source| HandlerError::Unavailable {
            reason: format!("no request to {} can be made with the configured headers", target.shown),
            after: None,
            source: Some(source),
        })?;
        let deadline = Instant::now() + self.timeout;
        let response = match timeout_at(deadline, self.connector.call(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(no_answer(&target.shown, error.into())),
            Err(elapsed) => {
                return Err(HandlerError::Retry {
                    reason: format!("{} did not answer within {:?}", target.shown, self.timeout),
                    after: None,
                    source: Some(elapsed.into()),
                });
            }
        };
        let answer = Answer {
            status: response.status().as_u16(),
            retry_after: response.headers().get(header::RETRY_AFTER).map(str::to_owned),
        };
        // The status has decided: a body that does not come costs the connection, not the answer.
        let _drained = timeout_at(deadline, drain(response)).await;
        Ok(answer)
    }
}

fn request(
    target: &Target,
    content_type: &'static str,
    headers: &[(HeaderName, HeaderValue)],
    body: EventsBody,
) -> Result<HttpRequest, Box<dyn Error + Send + Sync>> {
    let mut request = Request::post(target.uri.clone())
        .header(header::CONTENT_TYPE, content_type)
        .header(header::USER_AGENT, concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_LENGTH, body.bytes_left())
        .body(SdkBody::from_body_1_x(body))?;
    if let Some(Ok(trace)) = current_traceparent().map(HeaderValue::try_from) {
        request.headers_mut().insert(TRACEPARENT, trace);
    }
    for (name, value) in headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(HttpRequest::try_from(request)?)
}

/// Connecting (name, address, TLS, time-out) failed: nobody saw the event. Anything later may be the event's doing.
fn no_answer(url: &str, error: Box<dyn Error + Send + Sync>) -> HandlerError {
    let connecting = {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
        std::iter::from_fn(|| {
            let this = cause?;
            cause = this.source();
            Some(this)
        })
        .filter_map(|cause| cause.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(hyper_util::client::legacy::Error::is_connect)
    };
    if connecting {
        let reason = format!("{url} cannot be reached");
        HandlerError::Unavailable { reason, after: None, source: Some(error) }
    } else {
        let reason = format!("the connection to {url} broke before the answer");
        HandlerError::Retry { reason, after: None, source: Some(error) }
    }
}

async fn drain(response: HttpResponse) {
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > BODY_BYTES_MAX {
            return;
        }
    }
}
