//! The spans of one call of a handler: one for each batch, with what it holds and what became of it.

use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Level, Span, field, span_enabled, trace_span};

use crate::handler::{Accepted, HandlerError, HandlerName, RootBatch};
use crate::telemetry::{SPANS, follow};

/// Correlation ids of one batch that its span names; of more, the first ones.
const CORRELATION_IDS_MAX: usize = 10;

/// Characters of one of them, and of a failure's reason: spans are queued beside the memory limit.
const CORRELATION_ID_CHARS_MAX: usize = 256;
const REASON_CHARS_MAX: usize = 1024;

/// The spans of a group of batches; none where nobody takes them.
pub(crate) struct BatchSpans(Vec<Span>);

impl BatchSpans {
    /// Begins them.
    pub(crate) fn begin(handler: &HandlerName, group: &[RootBatch]) -> Self {
        if !span_enabled!(target: SPANS, Level::TRACE, "deliver") {
            return Self(Vec::new());
        }
        Self(group.iter().map(|batch| begin(handler, batch)).collect())
    }

    /// The call of the handler: within the span where there is one batch, so that a request it makes belongs to it.
    pub(crate) fn around<F: Future>(&self, call: F) -> Instrumented<F> {
        let span = match &self.0[..] {
            [span] => span.clone(),
            _ => Span::none(),
        };
        call.instrument(span)
    }

    /// Ends them with what was answered, in the order of the batches.
    pub(crate) fn end<'a>(self, answers: impl Iterator<Item = &'a Result<Accepted, HandlerError>>) {
        for (span, answer) in self.0.iter().zip(answers) {
            match answer {
                Ok(accepted) => {
                    span.record("accepted", accepted.events).record("outcome", "accepted");
                }
                Err(error) => {
                    span.record("outcome", error.outcome());
                    span.record("otel.status_code", "ERROR");
                    span.record("otel.status_description", cut(&error.to_string(), REASON_CHARS_MAX));
                }
            }
        }
    }
}

fn begin(handler: &HandlerName, batch: &RootBatch) -> Span {
    let (first, last) = (batch.events.first(), batch.events.last());
    let span = trace_span!(
        target: SPANS,
        "deliver",
        otel.name = %format_args!("deliver {handler}"),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
        handler = %handler,
        domain = &*batch.root.domain(),
        edition = &*batch.root.edition(),
        root = batch.root.id(),
        events = batch.events.len(),
        first_sequence = first.map(|event| event.sequence.0),
        last_sequence = last.map(|event| event.sequence.0),
        correlation_id = correlation_ids(batch),
        accepted = field::Empty,
        outcome = field::Empty,
    );
    follow(&span, batch.events.iter().filter_map(|event| event.traceparent.as_ref()));
    span
}

fn correlation_ids(batch: &RootBatch) -> Option<String> {
    let mut ids: Vec<&str> = Vec::new();
    for id in batch.events.iter().filter_map(|event| event.correlation_id.as_deref()) {
        if !ids.contains(&id) && ids.len() < CORRELATION_IDS_MAX {
            ids.push(id);
        }
    }
    let ids: Vec<&str> = ids.into_iter().map(|id| cut(id, CORRELATION_ID_CHARS_MAX)).collect();
    (!ids.is_empty()).then(|| ids.join(","))
}

/// The text, or its first characters.
fn cut(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Event, Root, Sequence, Timestamp};

    fn event(sequence: u64, correlation_id: Option<String>) -> Arc<Event> {
        Arc::new(Event {
            root: Root::new("orders", "angzarr", "r").unwrap(),
            sequence: Sequence(sequence),
            event_type: "OrderPlaced".into(),
            payload: bytes::Bytes::new(),
            chunked: None,
            correlation_id: correlation_id.map(Into::into),
            traceparent: None,
            created_at: Timestamp::from_unix_millis(0),
        })
    }

    #[test]
    fn correlation_ids_are_few_and_short() {
        assert_eq!((cut("äöü", 2), cut("äöü", 3), cut("", 1)), ("äö", "äöü", ""));
        let batch = |of: fn(u64) -> Option<String>| RootBatch {
            root: Root::new("orders", "angzarr", "r").unwrap(),
            events: (0..30).map(|sequence| event(sequence, of(sequence))).collect(),
        };
        assert_eq!(correlation_ids(&batch(|_| None)), None);
        assert_eq!(correlation_ids(&batch(|_| Some("c-1".into()))).as_deref(), Some("c-1"));
        let ids = correlation_ids(&batch(|number| Some(format!("{number}{}", "x".repeat(1_000))))).unwrap();
        assert_eq!(ids.split(',').count(), CORRELATION_IDS_MAX);
        assert!(ids.len() <= CORRELATION_IDS_MAX * (CORRELATION_ID_CHARS_MAX + 1) && ids.starts_with("0xxx"));
    }
}
