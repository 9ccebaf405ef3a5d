//! The spans of one call of a handler: one for each batch, with what it holds and what became of it.

use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Level, Span, field, span_enabled, trace_span};

use crate::handler::{Accepted, HandlerError, HandlerName, RootBatch};
use crate::telemetry::{SPANS, follow};

/// Correlation ids of one batch that its span names; of more, the first ones.
const CORRELATION_IDS_MAX: usize = 10;

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
                    span.record("otel.status_description", field::display(error));
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
    (!ids.is_empty()).then(|| ids.join(","))
}
