//! Decoding a row of the events table, whichever SDK's attribute type it comes in.
//!
//! A row whose *key* is no event key belongs to somebody else; a row with a good key and a bad *body* is an event that
//! cannot be read, and stops its root. The two are told apart here and nowhere else. Nothing of a payload ever enters
//! an error.

use std::collections::HashMap;
use std::hash::BuildHasher;

use bytes::Bytes;

use super::chunk::{ChunkKey, Chunked, PAYLOAD_BYTES_MAX};
use super::{Event, Root, Sequence, Timestamp, TraceParent};

/// The attribute names of the events table.
pub mod columns {
    /// Partition key, S: `{domain}#{edition}#{root}`.
    pub const PK: &str = "pk";
    /// Sort key, N: the sequence.
    pub const SK: &str = "sk";
    /// S: the type's name.
    pub const EVENT_TYPE: &str = "event_type";
    /// B: the body; not there when it is stored in chunks.
    pub const PAYLOAD: &str = "payload";
    /// N: the bytes of a body in chunks.
    pub const PAYLOAD_BYTES: &str = "payload_bytes";
    /// N: its chunks.
    pub const PAYLOAD_CHUNKS: &str = "payload_chunks";
    /// B: its SHA-256.
    pub const PAYLOAD_SHA256: &str = "payload_sha256";
    /// S: the append that wrote its chunks.
    pub const APPEND_ID: &str = "append_id";
    /// B: the bytes of a chunk, in its own row.
    pub const CHUNK: &str = "chunk";
    /// S, ISO 8601: when a chunk was written.
    pub const WRITTEN_AT: &str = "written_at";
    /// S, optional.
    pub const CORRELATION_ID: &str = "correlation_id";
    /// S, optional: the trace it was made in. Writers other than ours may set it.
    pub const TRACEPARENT: &str = "traceparent";
    /// S, ISO 8601.
    pub const CREATED_AT: &str = "created_at";
}

/// A DynamoDB attribute value of either SDK, taken apart. `None` means it is of another type.
pub trait Attribute {
    /// The text of an S.
    fn into_text(self) -> Option<String>;
    /// The digits of an N.
    fn into_number(self) -> Option<String>;
    /// The bytes of a B.
    fn into_binary(self) -> Option<Bytes>;
}

/// A row with a good key whose body is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {root} {sequence} is no event: {reason}")]
pub struct InvalidRow {
    /// The root its key names.
    pub root: Root,
    /// The sequence its key names.
    pub sequence: Sequence,
    /// What is wrong with it: attribute and expectation, never a value of the payload.
    pub reason: String,
}

/// A row with a good key: an event, or one that cannot be read.
pub type Row = Result<Event, InvalidRow>;

/// Why a row is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The key is no event key.
    #[error("the row with the key `{key}` is no event row: {reason}")]
    Key {
        /// The partition and sort key found, shortened.
        key: String,
        /// What is wrong with them.
        reason: String,
    },
    /// It holds a part of an event's payload.
    #[error("the row is a chunk of an event's payload")]
    Chunk,
    /// The key is good, the body is not.
    #[error(transparent)]
    Body(#[from] InvalidRow),
}

/// How much of a wrong key an error shows.
const SHOWN_CHARS_MAX: usize = 120;

/// Decodes one row of the events table (design section 3).
///
/// # Errors
/// [`RowError::Key`] when `pk` and `sk` are no event key, [`RowError::Chunk`] when they are a chunk's, [`RowError::Body`]
/// when the rest is no event.
pub fn decode_row<A: Attribute, S: BuildHasher>(mut item: HashMap<String, A, S>) -> Result<Event, RowError> {
    let (root, sequence) = decode_key(&mut item)?;
    decode_body(item, root, sequence).map_err(RowError::Body)
}

fn decode_key<A: Attribute, S: BuildHasher>(item: &mut HashMap<String, A, S>) -> Result<(Root, Sequence), RowError> {
    let pk = item.remove(columns::PK).and_then(A::into_text);
    let sk = item.remove(columns::SK).and_then(A::into_number);
    let shown = |reason: String| RowError::Key {
        key: format!("{} {}", pk.as_deref().unwrap_or("-"), sk.as_deref().unwrap_or("-"))
            .chars()
            .take(SHOWN_CHARS_MAX)
            .collect(),
        reason,
    };
    let root = match pk.as_deref() {
        Some(key) if ChunkKey::is_chunk(key) => return Err(RowError::Chunk),
        Some(key) => Root::parse(key).map_err(|error| shown(error.to_string()))?,
        None => return Err(shown("`pk` is no text (S)".into())),
    };
    let sequence = match sk.as_deref() {
        // The greatest number has none after it: it could never be covered.
        Some(digits) => match digits.parse() {
            Ok(number) if number < u64::MAX => number,
            _ => return Err(shown("`sk` is no whole number from 0".into())),
        },
        None => return Err(shown("`sk` is no number (N)".into())),
    };
    Ok((root, Sequence(sequence)))
}

fn decode_body<A: Attribute, S: BuildHasher>(mut item: HashMap<String, A, S>, root: Root, sequence: Sequence) -> Row {
    let found = decode_attributes(&mut item);
    match found {
        Ok((event_type, (payload, chunked), (correlation_id, traceparent), created_at)) => {
            Ok(Event { root, sequence, event_type, payload, chunked, correlation_id, traceparent, created_at })
        }
        Err(reason) => Err(InvalidRow { root, sequence, reason }),
    }
}

type Payload = (Bytes, Option<Box<Chunked>>);

type Body = (Box<str>, Payload, (Option<Box<str>>, Option<TraceParent>), Timestamp);

fn decode_attributes<A: Attribute, S: BuildHasher>(item: &mut HashMap<String, A, S>) -> Result<Body, String> {
    let event_type =
        item.remove(columns::EVENT_TYPE).and_then(A::into_text).ok_or("`event_type` is missing or no text (S)")?;
    if event_type.is_empty() {
        return Err("`event_type` is empty".into());
    }
    let payload = decode_payload(item)?;
    let correlation_id = match item.remove(columns::CORRELATION_ID) {
        Some(value) => Some(value.into_text().ok_or("`correlation_id` is no text (S)")?.into()),
        None => None,
    };
    // One that is none is no reason to refuse the event.
    let traceparent = item.remove(columns::TRACEPARENT).and_then(A::into_text);
    let traceparent = traceparent.and_then(|text| TraceParent::parse(&text));
    let created_at =
        item.remove(columns::CREATED_AT).and_then(A::into_text).ok_or("`created_at` is missing or no text (S)")?;
    let created_at = Timestamp::parse(&created_at).map_err(|_| "`created_at` is not an ISO 8601 time")?;
    Ok((event_type.into(), payload, (correlation_id, traceparent), created_at))
}

fn decode_payload<A: Attribute, S: BuildHasher>(item: &mut HashMap<String, A, S>) -> Result<Payload, String> {
    if let Some(payload) = item.remove(columns::PAYLOAD) {
        let payload = payload.into_binary().ok_or("`payload` is not binary (B)")?;
        return Ok((payload, None));
    }
    let Some(chunks) = item.remove(columns::PAYLOAD_CHUNKS) else {
        return Err("`payload` is missing".into());
    };
    let chunks = chunks.into_number().and_then(|digits| digits.parse().ok());
    let chunks = chunks.ok_or("`payload_chunks` is no whole number (N)")?;
    let bytes = item.remove(columns::PAYLOAD_BYTES).and_then(A::into_number).and_then(|digits| digits.parse().ok());
    let bytes = bytes
        .filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)
        .ok_or_else(|| format!("`payload_bytes` is no number (N) up to {PAYLOAD_BYTES_MAX}"))?;
    let sha256 = item.remove(columns::PAYLOAD_SHA256).and_then(A::into_binary);
    let sha256 = sha256.and_then(|digest| <[u8; 32]>::try_from(&digest[..]).ok());
    let sha256 = sha256.ok_or("`payload_sha256` is missing or not 32 bytes (B)")?;
    let append_id =
        item.remove(columns::APPEND_ID).and_then(A::into_text).ok_or("`append_id` is missing or no text (S)")?;
    Ok((Bytes::new(), Some(Box::new(Chunked { bytes, chunks, sha256, append_id: append_id.into() }))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::testing::{AnyValue, any_row, any_value};
    use proptest::prelude::*;

    /// All attributes of a row that somebody looks at.
    const COLUMNS: [&str; 10] = [
        columns::PK,
        columns::SK,
        columns::EVENT_TYPE,
        columns::PAYLOAD,
        columns::PAYLOAD_BYTES,
        columns::PAYLOAD_CHUNKS,
        columns::PAYLOAD_SHA256,
        columns::APPEND_ID,
        columns::CORRELATION_ID,
        columns::CREATED_AT,
    ];

    type AnyRow = HashMap<String, AnyValue>;

    /// A good row, with its payload or with the description of one in chunks, of which some attributes are gone or hold
    /// something else.
    fn almost_good_row() -> impl Strategy<Value = AnyRow> {
        let text = |text: &str| AnyValue::S(text.to_owned());
        let number = |number: u64| AnyValue::N(number.to_string());
        let good = [
            text("orders##1"),
            number(7),
            text("OrderPlaced"),
            AnyValue::B(b"payload".to_vec()),
            number(700_000),
            number(2),
            AnyValue::B(vec![7; 32]),
            text("x"),
            text("c-1"),
            text("2026-01-31T12:00:00Z"),
        ];
        let change = proptest::option::weighted(0.15, proptest::option::weighted(0.7, any_value()));
        (proptest::collection::vec(change, COLUMNS.len()), any::<bool>()).prop_map(move |(changes, whole)| {
            let kept = COLUMNS.iter().zip(good.iter().cloned()).zip(changes);
            let mut row: AnyRow = kept
                .filter_map(|((name, good), change)| Some(((*name).to_owned(), change.unwrap_or(Some(good))?)))
                .collect();
            if !whole {
                row.remove(columns::PAYLOAD);
            }
            row
        })
    }

    /// The key of a row, where it is one of events.
    fn key_of(row: &AnyRow) -> Option<(Root, u64)> {
        let (Some(AnyValue::S(pk)), Some(AnyValue::N(sk))) = (row.get("pk"), row.get("sk")) else { return None };
        let digits = !sk.is_empty() && sk.chars().all(|digit| digit.is_ascii_digit());
        let sequence = sk.parse().ok().filter(|sequence| digits && *sequence != u64::MAX);
        Some((Root::parse(pk).ok()?, sequence?))
    }

    /// The attributes that keep a row with a good key from being an event, by the design's table.
    fn wrong_attributes(row: &AnyRow) -> Vec<&'static str> {
        let number_to = |name, most: u64| matches!(row.get(name), Some(AnyValue::N(digits)) if digits.parse::<u64>().is_ok_and(|number| number <= most));
        let text = |name| if let Some(AnyValue::S(text)) = row.get(name) { Some(text.as_str()) } else { None };
        let whole = row.contains_key("payload");
        let rules = [
            ("event_type", text("event_type").is_some_and(|text| !text.is_empty())),
            (
                "payload",
                matches!(row.get("payload"), Some(AnyValue::B(_))) || (!whole && row.contains_key("payload_chunks")),
            ),
            ("payload_chunks", whole || number_to("payload_chunks", u64::from(u32::MAX))),
            ("payload_bytes", whole || number_to("payload_bytes", 64 << 20)),
            (
                "payload_sha256",
                whole || matches!(row.get("payload_sha256"), Some(AnyValue::B(bytes)) if bytes.len() == 32),
            ),
            ("append_id", whole || text("append_id").is_some()),
            ("correlation_id", !row.contains_key("correlation_id") || text("correlation_id").is_some()),
            ("created_at", text("created_at").is_some_and(|text| Timestamp::parse(text).is_ok())),
        ];
        rules.into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name).collect()
    }

    proptest! {
        /// Whatever a row holds: it is an event, or it is said which attribute is wrong, or that its key is none of events.
        #[test]
        fn any_row_is_an_event_or_says_why_not(row in prop_oneof![3 => almost_good_row(), 1 => any_row(&COLUMNS)]) {
            let key = key_of(&row);
            let wrong = wrong_attributes(&row);
            match decode_row(row.clone()) {
                Ok(event) => {
                    prop_assert_eq!((Some((event.root.clone(), event.sequence.0)), wrong), (key, vec![]));
                    prop_assert_eq!(row.get("event_type"), Some(&AnyValue::S(event.event_type.to_string())));
                    let correlation_id = event.correlation_id.as_deref().map(|id| AnyValue::S(id.to_owned()));
                    prop_assert_eq!(row.get("correlation_id"), correlation_id.as_ref());
                    let payload = AnyValue::B(event.payload.to_vec());
                    match event.chunked {
                        None => prop_assert_eq!(row.get("payload"), Some(&payload)),
                        Some(chunked) => {
                            prop_assert!(event.payload.is_empty() && !row.contains_key("payload"));
                            prop_assert_eq!(row.get("payload_sha256"), Some(&AnyValue::B(chunked.sha256.to_vec())));
                            prop_assert_eq!(row.get("append_id"), Some(&AnyValue::S(chunked.append_id.to_string())));
                        }
                    }
                }
                Err(RowError::Body(invalid)) => {
                    prop_assert_eq!(Some((invalid.root, invalid.sequence.0)), key);
                    let named = wrong.iter().any(|name| invalid.reason.contains(&format!("`{name}`")));
                    prop_assert!(named, "{:?}: {}", wrong, invalid.reason);
                    prop_assert!(invalid.reason.len() < 80, "it holds more than names: {}", invalid.reason);
                }
                Err(RowError::Chunk) => {
                    prop_assert!(matches!(row.get("pk"), Some(AnyValue::S(pk)) if pk.starts_with("#chunk#")));
                }
                Err(RowError::Key { key: shown, .. }) => {
                    prop_assert_eq!(key, None);
                    prop_assert!(shown.chars().count() <= SHOWN_CHARS_MAX);
                }
            }
        }
    }

    #[derive(Clone)]
    enum Value {
        S(&'static str),
        N(&'static str),
        B(&'static [u8]),
    }

    impl Attribute for Value {
        fn into_text(self) -> Option<String> {
            if let Self::S(text) = self { Some(text.into()) } else { None }
        }
        fn into_number(self) -> Option<String> {
            if let Self::N(digits) = self { Some(digits.into()) } else { None }
        }
        fn into_binary(self) -> Option<Bytes> {
            if let Self::B(bytes) = self { Some(Bytes::from_static(bytes)) } else { None }
        }
    }

    fn row() -> HashMap<String, Value> {
        [
            ("pk", Value::S("orders#angzarr#1")),
            ("sk", Value::N("7")),
            ("event_type", Value::S("OrderPlaced")),
            ("payload", Value::B(b"\x00\xffbody")),
            ("correlation_id", Value::S("c-1")),
            ("created_at", Value::S("2026-01-31T12:00:00Z")),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    #[test]
    fn decodes_a_full_row() {
        let event = decode_row(row()).unwrap();
        assert_eq!(event.root.key(), "orders#angzarr#1");
        assert_eq!(event.sequence, Sequence(7));
        assert_eq!(&*event.event_type, "OrderPlaced");
        assert_eq!(&event.payload[..], b"\x00\xffbody");
        assert_eq!(event.correlation_id.as_deref(), Some("c-1"));
        assert!(!format!("{event:?}").contains("body\""), "the payload must not be shown");
    }

    #[test]
    fn the_correlation_id_may_be_absent_and_other_attributes_are_ignored() {
        let mut item = row();
        item.remove("correlation_id");
        item.insert("ttl".into(), Value::N("1"));
        assert_eq!(decode_row(item).unwrap().correlation_id, None);
    }

    #[test]
    fn a_trace_is_taken_and_what_is_none_does_no_harm() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (attribute, expected) in [
            (Some(Value::S(trace)), Some(trace)),
            (Some(Value::S("none")), None),
            (Some(Value::N("1")), None),
            (None, None),
        ] {
            let mut item = row();
            item.extend(attribute.map(|value| ("traceparent".to_owned(), value)));
            let event = decode_row(item).unwrap();
            assert_eq!(event.traceparent.as_ref().map(TraceParent::as_str), expected);
        }
    }

    #[test]
    fn a_payload_in_chunks_is_described() {
        let mut item = row();
        item.remove("payload");
        item.extend([
            ("payload_bytes".to_owned(), Value::N("700000")),
            ("payload_chunks".to_owned(), Value::N("2")),
            ("payload_sha256".to_owned(), Value::B(&[7; 32])),
            ("append_id".to_owned(), Value::S("x")),
        ]);
        let event = decode_row(item.clone()).unwrap();
        assert_eq!((event.payload.len(), event.payload_bytes(), event.chunked.unwrap().chunks), (0, 700_000, 2));
        for (name, value) in [
            ("payload_bytes", Value::N("99999999999")),
            ("payload_chunks", Value::N("-1")),
            ("payload_sha256", Value::B(&[7; 31])),
            ("append_id", Value::N("1")),
        ] {
            let mut item = item.clone();
            item.insert(name.into(), value);
            assert!(
                matches!(decode_row(item), Err(RowError::Body(invalid)) if invalid.reason.contains(name)),
                "{name}"
            );
        }
        item.insert("pk".into(), Value::S("#chunk#orders#angzarr#1#7#x"));
        assert_eq!(decode_row(item), Err(RowError::Chunk));
    }

    #[test]
    fn a_wrong_key_and_a_wrong_body_are_told_apart() {
        for (name, value) in [
            ("pk", Value::S("no-key")),
            ("pk", Value::N("1")),
            ("sk", Value::N("-1")),
            ("sk", Value::N("1.5")),
            ("sk", Value::N("18446744073709551615")),
            ("sk", Value::S("1")),
        ] {
            let mut item = row();
            item.insert(name.into(), value);
            assert!(matches!(decode_row(item), Err(RowError::Key { .. })), "{name}");
        }
        for (name, value) in [
            ("event_type", Value::N("1")),
            ("event_type", Value::S("")),
            ("payload", Value::S("text")),
            ("correlation_id", Value::N("1")),
            ("created_at", Value::S("now")),
        ] {
            let mut item = row();
            item.insert(name.into(), value);
            assert!(matches!(decode_row(item), Err(RowError::Body(_))), "{name}");
        }
        for name in ["event_type", "payload", "created_at"] {
            let mut item = row();
            item.remove(name);
            let Err(RowError::Body(invalid)) = decode_row(item) else { panic!("{name} is required") };
            assert_eq!((invalid.root.key(), invalid.sequence), ("orders#angzarr#1", Sequence(7)));
            assert!(invalid.reason.contains(name));
        }
    }
}
