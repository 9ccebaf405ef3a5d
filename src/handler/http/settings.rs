//! Where to POST, in what form, with which headers.
//!
//! A header's value may be a secret: it is read when a request is made, so a rotated secret is picked up, and no
//! `Debug` shows it.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::secret::{Secret, SecretError};

/// How long to wait for an answer unless configured.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How many events go into one batch unless configured.
const EVENTS_PER_REQUEST_DEFAULT: usize = 100;

/// Headers that the handler sets itself.
const RESERVED_HEADERS: [HeaderName; 4] = [
    http::header::CONTENT_TYPE,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::CONNECTION,
];

/// How events are put into requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpBatch {
    /// One event a request, `application/cloudevents+json`.
    #[default]
    Single,
    /// Events of one root in a JSON array, `application/cloudevents-batch+json`.
    CloudEventsBatch,
}

/// The settings of an HTTP handler.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// `http` or `https`, with a host, without credentials.
    pub url: String,
    /// From the request to the last byte of the answer; half of it, at most 3 s, for connecting.
    pub timeout: Duration,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// How events are put into requests.
    pub batch: HttpBatch,
    /// The most events in one request of [`HttpBatch::CloudEventsBatch`], at least 1.
    pub events_per_request: usize,
}

impl HttpSettings {
    /// One event a request, no headers, 10 s.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            timeout: TIMEOUT_DEFAULT,
            headers: Vec::new(),
            batch: HttpBatch::default(),
            events_per_request: EVENTS_PER_REQUEST_DEFAULT,
        }
    }
}

/// Leaves out what may be secret: the query of the URL, and header values.
impl fmt::Debug for HttpSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Target::parse(&self.url).map_or_else(|_| "<not a URL>".to_owned(), |target| target.shown);
        formatter
            .debug_struct("HttpSettings")
            .field("url", &url)
            .field("timeout", &self.timeout)
            .field("headers", &self.headers)
            .field("batch", &self.batch)
            .field("events_per_request", &self.events_per_request)
            .finish()
    }
}

/// Why settings make no HTTP handler.
#[derive(Debug, thiserror::Error)]
pub enum HttpSettingsError {
    /// The URL is none, or lacks scheme or host.
    #[error("the url is not of the form http://host:port/path")]
    Url,
    /// The URL holds a user or password.
    #[error(
        "the url must hold no user or password; send them in an authorization header from the environment or a file"
    )]
    UrlCredentials,
    /// The time-out is zero.
    #[error("the timeout must be more than zero")]
    Timeout,
    /// No event a request.
    #[error("events_per_request must be at least 1")]
    EventsPerRequest,
    /// Not the name of a header.
    #[error("`{name}` is not the name of an HTTP header")]
    HeaderName {
        /// What was given.
        name: String,
    },
    /// A header that the handler sets.
    #[error("the header `{name}` is set by the handler and must not be configured")]
    ReservedHeader {
        /// Which.
        name: String,
    },
}

/// A checked URL.
pub(super) struct Target {
    pub(super) uri: Uri,
    /// The URL without its query: what logs and errors may show.
    pub(super) shown: String,
}

/// Leaves out the query.
impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, HttpSettingsError> {
        let uri: Uri = url.parse().map_err(|_| HttpSettingsError::Url)?;
        let scheme =
            uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or(HttpSettingsError::Url)?;
        let authority = uri.authority().ok_or(HttpSettingsError::Url)?;
        if authority.as_str().contains('@') {
            return Err(HttpSettingsError::UrlCredentials);
        }
        if authority.host().is_empty() {
            return Err(HttpSettingsError::Url);
        }
        let shown = format!("{scheme}://{authority}{}", uri.path());
        Ok(Self { uri, shown })
    }
}

/// The headers of every request, with where their values come from.
#[derive(Debug)]
pub(super) struct Headers(Vec<(HeaderName, Secret)>);

/// Why a header has no value just now.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderValueError {
    #[error("there is no value for the header `{header}`")]
    Unread { header: HeaderName, source: SecretError },
    #[error("the value of the header `{header}` holds characters that a header cannot")]
    Characters { header: HeaderName },
}

impl Headers {
    pub(super) fn check(settings: &HttpSettings) -> Result<Self, HttpSettingsError> {
        let mut headers = Vec::with_capacity(settings.headers.len());
        for (name, source) in &settings.headers {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| HttpSettingsError::HeaderName { name: name.clone() })?;
            if RESERVED_HEADERS.contains(&header) {
                return Err(HttpSettingsError::ReservedHeader { name: name.clone() });
            }
            headers.push((header, source.clone()));
        }
        Ok(Self(headers))
    }

    /// The values as they are now, each marked sensitive.
    pub(super) async fn read(&self) -> Result<Vec<(HeaderName, HeaderValue)>, HeaderValueError> {
        let mut values = Vec::with_capacity(self.0.len());
        for (header, source) in &self.0 {
            let text =
                source.read().await.map_err(|source| HeaderValueError::Unread { header: header.clone(), source })?;
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| HeaderValueError::Characters { header: header.clone() })?;
            value.set_sensitive(true);
            values.push((header.clone(), value));
        }
        Ok(values)
    }
}
