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
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::testing::any_event;
    use crate::event::{Root, Sequence, Timestamp, TraceParent};
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    proptest! {
        /// Whatever an event holds, it is a JSON object on one line with what CloudEvents 1.0 demands and the README
        /// promises, and the event can be read from it.
        #[test]
        fn any_event_is_a_cloudevent(event in any_event()) {
            let bytes = cloudevent_bytes(&event);
            prop_assert!(bytes.iter().all(|byte| *byte >= b' '));
            let object: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&object, &cloudevent_json(&event));
            let object = object.as_object().unwrap();

            let (root, text) = (&event.root, |name: &str| object.get(name).and_then(Value::as_str));
            let mut expected = BTreeSet::from(["id", "source", "subject", "specversion", "type", "time", "data_base64"]);
            expected.extend(["sequence", "partitionkey"]);
            expected.extend(event.correlation_id.as_ref().map(|_| "correlationid"));
            expected.extend(event.traceparent.as_ref().map(|_| "traceparent"));
            prop_assert_eq!(object.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
            for name in ["id", "source", "specversion", "type", "subject", "time"] {
                prop_assert!(text(name).is_some_and(|value| !value.is_empty()), "{}", name);
            }
            prop_assert_eq!(text("specversion"), Some("1.0"));
            prop_assert_eq!(text("type"), Some(&*event.event_type));
            prop_assert_eq!(text("subject"), Some(root.id()));
            let (domain, edition, id, number) = (root.domain(), root.edition(), root.id(), event.sequence.0);
            prop_assert_eq!(&object["id"], &format!("{domain}:{edition}:{id}:{number}"));
            prop_assert_eq!(&object["source"], &format!("angzarr/{domain}/{edition}/{id}"));
            prop_assert_eq!(text("correlationid"), event.correlation_id.as_deref());
            prop_assert_eq!(text("traceparent"), event.traceparent.as_ref().map(TraceParent::as_str));

            prop_assert_eq!(text("partitionkey").map(Root::parse), Some(Ok(event.root.clone())));
            let sequence = text("sequence").unwrap();
            prop_assert_eq!((sequence.len(), sequence.parse()), (20, Ok(event.sequence.0)));
            prop_assert_eq!(text("time").map(Timestamp::parse), Some(Ok(event.created_at)));
            let payload = text("data_base64").map(|payload| STANDARD.decode(payload).unwrap());
            prop_assert_eq!(payload.as_deref(), Some(&event.payload[..]));

            let pieces: Vec<u8> = CloudEventPieces::new(Arc::new(event)).flatten().collect();
            prop_assert_eq!(pieces, bytes);
        }

        /// The reference has the same attributes, names the row, and has nothing of the payload.
        #[test]
        fn any_event_can_be_referred_to(event in any_event()) {
            let (mut reference, mut whole) = (cloudevent_reference(&event, "t-events"), cloudevent_json(&event));
            let dataref = reference.as_object_mut().unwrap().remove("dataref").unwrap();
            whole.as_object_mut().unwrap().remove("data_base64");
            prop_assert_eq!(reference, whole);
            let parts: Vec<&str> = dataref.as_str().unwrap().strip_prefix("dynamodb://").unwrap().split('/').collect();
            let [table, key, sequence] = parts[..] else { panic!("three parts: {parts:?}") };
            prop_assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'));
            prop_assert_eq!(percent_decode_str(key).decode_utf8().unwrap(), event.root.key());
            prop_assert_eq!((table, sequence.parse()), ("t-events", Ok(event.sequence.0)));
        }

        /// CloudEvents: who meets the same `source` and `id` again may take it for a repeat. One text is cut into parts in two
        /// ways, mostly at its separators.
        #[test]
        fn source_and_id_tell_events_apart(
            text in prop_oneof!["(a|:|:){5,9}", "(a|/|/){5,9}", "[a:/]{5,9}"],
            cuts in proptest::collection::vec(0_usize..9, 4),
        ) {
            let parts = |one: usize, two: usize| {
                let (one, two) = (one.min(two), one.max(two));
                let (domain, rest) = (text.get(..one)?, text.get(one + 1..)?);
                let (edition, id) = (rest.get(..two.checked_sub(one + 1)?)?, rest.get(two - one..)?);
                (!domain.is_empty() && !id.is_empty()).then_some((domain, edition, id))
            };
            let (Some(one), Some(two)) = (parts(cuts[0], cuts[1]), parts(cuts[2], cuts[3])) else { return Ok(()) };
            let named = |(domain, edition, id): (&str, &str, &str)| {
                let event = Event {
                    root: Root::new(domain, edition, id).unwrap(),
                    sequence: Sequence(7),
                    event_type: "T".into(),
                    payload: Bytes::new(),
                    chunked: None,
                    correlation_id: None,
                    traceparent: None,
                    created_at: Timestamp::from_unix_millis(0),
                };
                let object = cloudevent_json(&event);
                (object["source"].clone(), object["id"].clone())
            };
            prop_assert_eq!(named(one) == named(two), one == two);
        }
    }

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
