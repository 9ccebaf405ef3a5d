//! `handlers[].kinesis`, `.http` and `.jsonl`: what a handler gives its events to. Plain data; `handler` builds the
//! receivers.

use std::path::PathBuf;
use std::time::Duration;

use super::HttpUrl;
use super::handlers::DELIVER_TIMEOUT;
use super::reader::Section;
use crate::handler::KinesisFormat;
use crate::secret::Secret;

/// The tables of which a handler has exactly one, or none when it is Rust code.
pub(super) const KINDS: [&str; 3] = ["kinesis", "http", "jsonl"];

const STREAM_NAME_CHARS_MAX: usize = 128;
const EVENTS_PER_REQUEST_MAX: usize = 10_000;
const HEADERS_MAX: usize = 64;

/// What a handler gives its events to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// A Kinesis stream.
    Kinesis(KinesisReceiver),
    /// An HTTP service.
    Http(HttpReceiver),
    /// A file, or standard output.
    Jsonl(JsonlReceiver),
    /// Rust code that the program registers under the handler's name.
    InProcess,
}

/// `kinesis = { .. }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisReceiver {
    /// The stream's name.
    pub stream: String,
    /// What a record holds; default CloudEvents.
    pub format: KinesisFormat,
    /// Whether several events of a root share one KPL-aggregated record; default no.
    pub aggregate: bool,
    /// Whether an event larger than the stream takes goes out as a reference to its row; otherwise it fails for good.
    pub references_oversize: bool,
}

/// `http = { .. }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpReceiver {
    /// Where events are posted to.
    pub url: HttpUrl,
    /// How long one request may take; default 5 s, at most 15 minutes; the handler's `deliver_timeout` bounds it too.
    pub timeout: Duration,
    /// Headers of every request, by name; at most 64.
    pub headers: Vec<(String, Secret)>,
    /// Whether several events of a root go in one request, as a CloudEvents batch; default no.
    pub batch: bool,
    /// Events of one batch; default 100, 1 to 10,000.
    pub events_per_request: usize,
}

/// `jsonl = { .. }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonlReceiver {
    /// `path`.
    pub target: JsonlTarget,
}

/// Where lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonlTarget {
    /// Standard output: `path = "-"`.
    Stdout,
    /// A file, never shared with another handler.
    File(PathBuf),
}

impl Receiver {
    /// Reads the one table of the handler that names a receiver; none of them is Rust code. `None` when it is wrong,
    /// which is reported.
    pub(super) fn read(handler: &mut Section<'_>) -> Option<Self> {
        let named: Vec<&str> = KINDS.into_iter().filter(|kind| handler.has(kind)).collect();
        if named.len() > 1 {
            handler.report().wrong(handler.path(), named.join(" and "), "exactly one of kinesis, http, jsonl");
        }
        let kinesis = handler.optional_section("kinesis").map(KinesisReceiver::read);
        let http = handler.optional_section("http").map(HttpReceiver::read);
        let jsonl = handler.optional_section("jsonl").map(JsonlReceiver::read);
        let all =
            [kinesis.flatten().map(Self::Kinesis), http.flatten().map(Self::Http), jsonl.flatten().map(Self::Jsonl)];
        if named.is_empty() { Some(Self::InProcess) } else { all.into_iter().flatten().next() }
    }
}

impl KinesisReceiver {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let expected = format!("a stream's name: 1 to {STREAM_NAME_CHARS_MAX} characters of a-z A-Z 0-9 _ . -");
        let stream = section.required("stream", &expected, |text| {
            let usable = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.' | '-');
            let named = (1..=STREAM_NAME_CHARS_MAX).contains(&text.len()) && text.chars().all(usable);
            named.then(|| text.to_owned())
        });
        let format = section.parsed("format", "\"cloudevents\" or \"payload\"", |text| match text {
            "cloudevents" => Some(KinesisFormat::CloudEvents),
            "payload" => Some(KinesisFormat::Payload),
            _ => None,
        });
        let aggregate = section.flag("aggregate", false);
        let oversize = section.parsed("oversize", "\"park\" or \"reference\"", |text| match text {
            "park" => Some(false),
            "reference" => Some(true),
            _ => None,
        });
        let (format, references_oversize) = (format.unwrap_or_default(), oversize.unwrap_or(false));
        if references_oversize && format == KinesisFormat::Payload {
            let expected = "\"park\": with format = \"payload\" there is no CloudEvent to put a reference in";
            section.wrong("oversize", "\"reference\"", expected);
        }
        section.finish();
        Some(Self { stream: stream?, format, aggregate, references_oversize })
    }
}

impl HttpReceiver {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let url = section.required("url", HttpUrl::EXPECTED, HttpUrl::parse);
        let timeout = section.duration("timeout", Duration::from_secs(5), &DELIVER_TIMEOUT);
        let headers = section.optional_section("headers").map(headers).unwrap_or_default();
        let batch = section.flag("batch", false);
        let events_per_request = section.count("events_per_request", 100, &(1..=EVENTS_PER_REQUEST_MAX));
        section.finish();
        Some(Self { url: url?, timeout, headers, batch, events_per_request })
    }
}

fn headers(mut section: Section<'_>) -> Vec<(String, Secret)> {
    let names = section.keys();
    if names.len() > HEADERS_MAX {
        let report = section.report();
        report.wrong(section.path(), format!("{} headers", names.len()), format!("at most {HEADERS_MAX}"));
    }
    let mut headers = Vec::with_capacity(names.len());
    for name in names {
        if http::HeaderName::try_from(&name).is_err() {
            section.wrong(&name, "a name no HTTP header can have", "letters, digits and -");
        }
        let Some(source) = Secret::take(&mut section, &name) else { continue };
        if matches!(&source, Secret::Literal(value) if http::HeaderValue::try_from(value).is_err()) {
            section.wrong(&name, "a text no HTTP header can hold", Secret::EXPECTED);
        }
        headers.push((name, source));
    }
    headers
}

impl JsonlReceiver {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let target = section.required("path", "the path of a file, or \"-\" for standard output", |text| match text {
            "" => None,
            "-" => Some(JsonlTarget::Stdout),
            path => Some(JsonlTarget::File(path.into())),
        });
        section.finish();
        Some(Self { target: target? })
    }
}
