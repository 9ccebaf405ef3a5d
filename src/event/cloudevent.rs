//! The CloudEvents 1.0 JSON encoding of an event (design section 5).
//!
//! `id` is stable across redeliveries, so a receiver can drop what it has seen by `source` + `id`; `sequence` is
//! zero-padded because the extension orders as text.

use base64::Engine as _;
use base64::encoded_len;
use base64::engine::general_purpose::STANDARD;
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
    put("sequence", format!("{:0SEQUENCE_DIGITS$}", event.sequence.0));
    put("partitionkey", root.key().to_owned());
    object
}

/// The event as the bytes of a CloudEvents JSON object, on one line.
#[must_use]
pub fn cloudevent_bytes(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_cloudevent(event, &mut bytes);
    bytes
}

/// Appends the event as a CloudEvents JSON object, on one line. The payload is encoded in its place: of a large one there
/// is one copy.
pub fn write_cloudevent(event: &Event, bytes: &mut Vec<u8>) {
    // An object of texts: it never ends in anything but its brace.
    let text = Value::Object(attributes(event)).to_string();
    let text = text.strip_suffix('}').unwrap_or(&text);
    let encoded = encoded_len(event.payload.len(), true).unwrap_or_default();
    // With room for what stands between events: else that would double the buffer.
    bytes.reserve_exact(text.len() + PAYLOAD_NAME.len() + encoded + PAYLOAD_END.len() + 2);
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(PAYLOAD_NAME);
    let begin = bytes.len();
    bytes.resize(begin + encoded, 0);
    // It fits: its length was computed by the same rule.
    let written = STANDARD.encode_slice(&event.payload, &mut bytes[begin..]).unwrap_or_default();
    bytes.truncate(begin + written);
    bytes.extend_from_slice(PAYLOAD_END);
}

/// What stands before and behind the encoded payload.
const PAYLOAD_NAME: &[u8] = b",\"data_base64\":\"";
const PAYLOAD_END: &[u8] = b"\"}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Root, Sequence, Timestamp};

    #[test]
    fn encodes_every_attribute() {
        let event = Event {
            root: Root::new("orders", "angzarr", "a/1").unwrap(),
            sequence: Sequence(42),
            event_type: "OrderPlaced".into(),
            payload: vec![0, 255, 16].into(),
            chunked: None,
            correlation_id: Some("c-1".into()),
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
            "sequence": "00000000000000000042",
            "partitionkey": "orders#angzarr#a/1",
            "data_base64": "AP8Q",
        });
        assert_eq!(cloudevent_json(&event), expected);
        let bytes = cloudevent_bytes(&event);
        assert!(!bytes.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
    }
}
