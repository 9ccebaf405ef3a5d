//! The handler: which events go into which request.
//!
//! Requests of one root go one after the other, so order is the receiver's to keep. Invariant: what is answered as
//! accepted is a prefix of the batch that the receiver answered 2xx for. A batch that is refused as a whole is sent
//! again in halves, so that the events before the one at fault are accepted and the failure names that one; the
//! receiver sees those events again and drops them by `source` + `id`.

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};

use super::answer::judge;
use super::body::EventsBody;
use super::client::Client;
use super::settings::{HeaderValueError, Headers, HttpBatch, HttpSettings, HttpSettingsError, Target};
use crate::event::{CLOUDEVENTS_CONTENT_TYPE, Event};
use crate::handler::{Accepted, GroupLimits, Handler, HandlerError, RootBatch};
use crate::time::Clock;

/// The media type of a JSON array of CloudEvents.
const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// How many requests of one event each a delivery makes at most: what a clean stop waits for.
const SINGLE_EVENTS_PER_DELIVERY: usize = 10;

/// The payload bytes of one delivery.
const BYTES_MAX: usize = 1 << 20;

/// POSTs events as CloudEvents.
#[derive(Debug)]
pub struct HttpHandler {
    client: Client,
    target: Target,
    headers: Headers,
    batch: HttpBatch,
    events_per_request: usize,
    clock: Clock,
}

impl HttpHandler {
    /// A handler that POSTs to the URL of `settings`. Header values are read when a request is made, not here.
    ///
    /// # Errors
    /// When the URL is none or holds credentials, a header's name is none or reserved, or a number is zero.
    pub fn new(settings: &HttpSettings) -> Result<Self, HttpSettingsError> {
        let target = Target::parse(&settings.url)?;
        let headers = Headers::check(settings)?;
        if settings.timeout.is_zero() {
            return Err(HttpSettingsError::Timeout);
        }
        if settings.events_per_request == 0 {
            return Err(HttpSettingsError::EventsPerRequest);
        }
        let events_per_request = match settings.batch {
            HttpBatch::Single => 1,
            HttpBatch::CloudEventsBatch => settings.events_per_request,
        };
        let client = Client::new(&target, settings.timeout);
        Ok(Self { client, target, headers, batch: settings.batch, events_per_request, clock: Clock::system() })
    }

    /// The same handler on another clock; it is asked what a `Retry-After` with a date means.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    async fn send(
        &self,
        events: &[std::sync::Arc<Event>],
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<(), HandlerError> {
        let content_type = match self.batch {
            HttpBatch::Single => CLOUDEVENTS_CONTENT_TYPE,
            HttpBatch::CloudEventsBatch => BATCH_CONTENT_TYPE,
        };
        let body = EventsBody::new(self.batch, events);
        let answer = self.client.post(&self.target, content_type, headers, body).await?;
        judge(&answer, &self.target.shown, self.clock.now())
    }
}

/// A secret that is not there is not the event's fault.
fn no_headers(error: HeaderValueError) -> HandlerError {
    let reason = error.to_string();
    let source = match error {
        HeaderValueError::Unread { source, .. } => Some(source.into()),
        HeaderValueError::Characters { .. } => None,
    };
    HandlerError::Unavailable { reason, after: None, source }
}

#[async_trait]
impl Handler for HttpHandler {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        let headers = self.headers.read().await.map_err(no_headers)?;
        let mut size = self.events_per_request;
        let mut rest = batch.events.as_slice();
        let accepted = |rest: &[_]| Accepted { events: batch.events.len() - rest.len() };
        while !rest.is_empty() {
            let (events, later) = rest.split_at(size.min(rest.len()));
            match self.send(events, &headers).await {
                Ok(()) => rest = later,
                Err(HandlerError::Permanent { .. }) if events.len() > 1 => size = events.len() / 2,
                Err(error) if accepted(rest).events == 0 => return Err(error),
                // The error is about a later event than the first: it comes again when that one is the first.
                Err(_) => break,
            }
        }
        Ok(accepted(rest))
    }

    fn limits(&self) -> GroupLimits {
        let events_per_root = match self.batch {
            HttpBatch::Single => SINGLE_EVENTS_PER_DELIVERY,
            HttpBatch::CloudEventsBatch => self.events_per_request,
        };
        GroupLimits { events_per_root, bytes_per_root: BYTES_MAX, bytes: BYTES_MAX, ..GroupLimits::default() }
    }
}
