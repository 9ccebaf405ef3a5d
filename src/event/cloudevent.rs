//! The CloudEvents 1.0 JSON encoding of an event (design section 5).
//!
//! `id` is stable across redeliveries, so a receiver can drop what it has seen by `source` + `id`; `sequence` is
//! zero-padded because the extension orders as text.

use std::sync::Arc;

use base64::Engine as _;
use base64::encoded_len;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::Event;

/// The media type of one structured CloudEvent.
pub const CLOUDEVENTS_CONTENT_TYPE: &str = "application/cloudevents+json";

/// The width of the `sequence` extension: the digits of the greatest `u64`.
const SEQUENCE_DIGITS: usize = 20;

/// The CloudEvents `id`: `{domain}:{edition}:{root}:{sequence}`.
#[must_use]
pub fn cloudevent_id(event: &Event) -> String {
    format!("{}:{}:{}:{}", event.root.domain(), event.root.edition(), event.root.id(), event.sequence)
}

/// The event as a CloudEvents JSON object.
#[must_use]
pub fn cloudevent_json(event: &Event) -> Value {
    let mut object = attributes(event);
    object.insert("data_base64".to_owned(), Value::String(STANDARD.encode(&event.payload)));
    Value::Object(object)
}

/// The event without its payload: the CloudEvents extension `dataref` says where its row is, as
/// `dynamodb://{table}/{partition key}/{sequence}`, the key percent-encoded.
#[must_use]
pub fn cloudevent_reference(event: &Event, table: &str) -> Value {
    let key = utf8_percent_encode(event.root.key(), NON_ALPHANUMERIC);
    let mut object = attributes(event);
    object.insert("dataref".to_owned(), Value::String(format!("dynamodb://{table}/{key}/{}", event.sequence)));
    Value::Object(object)
}

fn attributes(event: &Event) -> Map<String, Value> {
    let root = &event.root;
    let mut object = Map::new();
    let mut put = |name: &str, value: String| {
        object.insert(name.to_owned(), Value::String(value));
    };
    put("specversion", "1.0".into());
    put("id", cloudevent_id(event));
    put("source", format!("angzarr/{}/{}/{}", root.domain(), root.edition(), root.id()));
    put("subject", root.id().to_owned());
    put("type", event.event_type.to_string());
    put("time", event.created_at.to_string());
    if let Some(correlation_id) = &event.correlation_id {
        put("correlationid", correlation_id.to_string());
    }
    if let Some(traceparent) = &event.traceparent {
        put("traceparent", traceparent.to_string());
    }
    put("sequence", format!("{:0SEQUENCE_DIGITS$}", event.sequence.0));
    put("partitionkey", root.key().to_owned());
    object
}

/// The event as the bytes of a CloudEvents JSON object, on one line.
#[must_use]
pub fn cloudevent_bytes(event: &Event) -> Vec<u8> {
    completed(head(event), event)
}

/// The event on one line, of which this is what stands before the encoded payload.
fn completed(head: String, event: &Event) -> Vec<u8> {
    let mut bytes = head.into_bytes();
    let begin = bytes.len();
    bytes.reserve_exact(encoded_bytes(event) + PAYLOAD_END.len());
    bytes.resize(begin + encoded_bytes(event), 0);
    // It fits: its length was computed by the same rule.
    let written = STANDARD.encode_slice(&event.payload, &mut bytes[begin..]).unwrap_or_default();
    bytes.truncate(begin + written);
    bytes.extend_from_slice(PAYLOAD_END);
    bytes
}

/// Bytes of a payload that are encoded at a time: a multiple of three, so that the parts join without padding.
const PIECE_BYTES: usize = 48 << 10;

/// An event as the bytes of a CloudEvents JSON object, on one line, piece by piece: a large payload is encoded as it is
/// taken, so there is never a copy of all of it.
#[derive(Debug)]
pub struct CloudEventPieces {
    event: Arc<Event>,
    total_bytes: usize,
    next: Option<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// What stands before the payload, and with it all of the event when that is little.
    First(String),
    /// The payload from here on.
    Payload(usize),
}

impl CloudEventPieces {
    /// The pieces of an event.
    #[must_use]
    pub fn new(event: Arc<Event>) -> Self {
        let head = head(&event);
        let total_bytes = head.len() + encoded_bytes(&event) + PAYLOAD_END.len();
        Self { event, total_bytes, next: Some(Piece::First(head)) }
    }

    /// How many bytes all of them have together.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }
}

impl Iterator for CloudEventPieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let payload = &self.event.payload;
        Some(match self.next.take()? {
            Piece::First(head) if payload.len() <= PIECE_BYTES => completed(head, &self.event).into(),
            Piece::First(head) => {
                self.next = Some(Piece::Payload(0));
                head.into()
            }
            Piece::Payload(at) if at >= payload.len() => PAYLOAD_END.into(),
            Piece::Payload(at) => {
                let end = payload.len().min(at + PIECE_BYTES);
                self.next = Some(Piece::Payload(end));
                STANDARD.encode(&payload[at..end]).into()
            }
        })
    }
}

fn encoded_bytes(event: &Event) -> usize {
    encoded_len(event.payload.len(), true).unwrap_or_default()
}

/// All that stands before the encoded payload.
fn head(event: &Event) -> String {
    // An object of texts: it never ends in anything but its brace.
    let text = Value::Object(attributes(event)).to_string();
    format!("{},\"data_base64\":\"", text.strip_suffix('}').unwrap_or(&text))
}

/// What stands behind it.
const PAYLOAD_END: &[u8] = b"\"}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Root, Sequence, Timestamp, TraceParent};

    #[test]
    fn encodes_every_attribute() {
        let event = Event {
            root: Root::new("orders", "angzarr", "a/1").unwrap(),
            sequence: Sequence(42),
            event_type: "OrderPlaced".into(),
            payload: vec![0, 255, 16].into(),
            chunked: None,
            correlation_id: Some("c-1".into()),
            traceparent: TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            created_at: Timestamp::parse("2026-01-31T12:00:00Z").unwrap(),
        };
        let expected = serde_json::json!({
            "specversion": "1.0",
            "id": "orders:angzarr:a/1:42",
            "source": "angzarr/orders/angzarr/a/1",
            "subject": "a/1",
            "type": "OrderPlaced",
            "time": "2026-01-31T12:00:00Z",
            "correlationid": "c-1",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "sequence": "00000000000000000042",
            "partitionkey": "orders#angzarr#a/1",
            "data_base64": "AP8Q",
        });
        assert_eq!(cloudevent_json(&event), expected);
        let bytes = cloudevent_bytes(&event);
        assert!(!bytes.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
    }

    #[test]
    fn pieces_are_the_same_bytes() {
        for payload_bytes in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES + 2] {
            let event = Event {
                root: Root::new("orders", "angzarr", "a/1").unwrap(),
                sequence: Sequence(42),
                event_type: "OrderPlaced".into(),
                payload: (0..=255).cycle().take(payload_bytes).collect::<Vec<u8>>().into(),
                chunked: None,
                correlation_id: None,
                traceparent: None,
                created_at: Timestamp::parse("2026-01-31T12:00:00Z").unwrap(),
            };
            let whole = cloudevent_bytes(&event);
            let pieces = CloudEventPieces::new(Arc::new(event));
            assert_eq!(pieces.total_bytes(), whole.len());
            let mut joined = Vec::new();
            for piece in pieces {
                assert!(piece.len() <= PIECE_BYTES * 4 / 3 + 1000);
                joined.extend_from_slice(&piece);
            }
            assert!(joined == whole, "{payload_bytes}");
        }
    }
}
