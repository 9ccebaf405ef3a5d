//! The body of a request: one CloudEvent, or a JSON array of some. Large payloads are encoded as they are sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::settings::HttpBatch;
use crate::event::{CloudEventPieces, Event};

/// Events on their way. Its length is known from the beginning.
#[derive(Debug)]
pub(super) struct EventsBody {
    parts: VecDeque<Part>,
    bytes_left: u64,
}

#[derive(Debug)]
enum Part {
    Text(&'static str),
    Event(CloudEventPieces),
}

impl EventsBody {
    /// The first of these events, or an array of all.
    pub(super) fn new(batch: HttpBatch, events: &[Arc<Event>]) -> Self {
        let mut body = Self { parts: VecDeque::new(), bytes_left: 0 };
        match batch {
            HttpBatch::Single => events.first().into_iter().for_each(|event| body.event(event)),
            HttpBatch::CloudEventsBatch => {
                body.text("[");
                for (index, event) in events.iter().enumerate() {
                    if index > 0 {
                        body.text(",");
                    }
                    body.event(event);
                }
                body.text("]");
            }
        }
        body
    }

    /// How many bytes are still to be sent.
    pub(super) fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    fn text(&mut self, text: &'static str) {
        self.bytes_left += text.len() as u64;
        self.parts.push_back(Part::Text(text));
    }

    fn event(&mut self, event: &Arc<Event>) {
        let pieces = CloudEventPieces::new(event.clone());
        self.bytes_left += pieces.total_bytes() as u64;
        self.parts.push_back(Part::Event(pieces));
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            let piece = match self.parts.front_mut()? {
                Part::Text(text) => Some(Bytes::from(std::mem::take(text))).filter(|text| !text.is_empty()),
                Part::Event(pieces) => pieces.next(),
            };
            match piece {
                Some(piece) => {
                    self.bytes_left = self.bytes_left.saturating_sub(piece.len() as u64);
                    return Some(piece);
                }
                None => drop(self.parts.pop_front()),
            }
        }
    }
}

impl Body for EventsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().next_piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
