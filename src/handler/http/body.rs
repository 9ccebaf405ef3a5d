//! The body of a request: one CloudEvent, or a JSON array of some. Large payloads are encoded as they are sent.

use std::convert::Infallible;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::settings::HttpBatch;
use crate::event::{CloudEventPieces, Event};

/// Events on their way. Its length is known from the beginning.
pub(super) struct EventsBody {
    pieces: Box<dyn Iterator<Item = Bytes> + Send + Sync>,
    bytes_left: u64,
}

impl EventsBody {
    /// The first of these events, or an array of all.
    pub(super) fn new(batch: HttpBatch, events: &[Arc<Event>]) -> Self {
        let (open, between, close, count) = match batch {
            HttpBatch::Single => ("", "", "", 1),
            HttpBatch::CloudEventsBatch => ("[", ",", "]", events.len()),
        };
        let events: Vec<_> = events.iter().take(count).cloned().map(CloudEventPieces::new).collect();
        let texts = open.len() + between.len() * events.len().saturating_sub(1) + close.len();
        let bytes = texts + events.iter().map(CloudEventPieces::total_bytes).sum::<usize>();
        let text = |text: &'static str| iter::once(Bytes::from_static(text.as_bytes()));
        let listed = events.into_iter().enumerate();
        let listed = listed.flat_map(move |(at, event)| text(if at == 0 { open } else { between }).chain(event));
        let pieces = listed.chain(text(close)).filter(|piece| !piece.is_empty());
        Self { pieces: Box::new(pieces), bytes_left: bytes as u64 }
    }

    /// How many bytes are still to be sent.
    pub(super) fn bytes_left(&self) -> u64 {
        self.bytes_left
    }
}

impl Body for EventsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        let piece = body.pieces.next();
        body.bytes_left -= piece.as_ref().map_or(0, |piece| piece.len() as u64).min(body.bytes_left);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
