//! The Kinesis record of one root's events: encoding, partition key, size.
//!
//! Pure: no I/O, and whether the stream takes a record of this size is left to `sink`. Invariant: a record holds a
//! prefix of the batch, at least its first event.

use md5::{Digest as _, Md5};

use super::aggregation::Aggregate;
use crate::event::{Event, cloudevent_bytes, cloudevent_reference};
use crate::handler::RootBatch;

/// The longest partition key Kinesis takes, in characters; counted as UTF-16 units, the larger of the two ways to
/// count.
const PARTITION_KEY_CHARS_MAX: usize = 256;

/// How long an aggregated record grows, in bytes. A shard takes 1 MiB a second: a record of that size would wait for a
/// second in which nobody else writes, one of a quarter slips in.
pub(super) const AGGREGATED_BYTES_MAX: usize = 256 << 10;

/// What stands in the data of a record, or of a user record in an aggregated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KinesisFormat {
    /// A CloudEvents 1.0 JSON object.
    #[default]
    CloudEvents,
    /// The payload of the event, byte for byte.
    Payload,
}

/// One record of a PutRecords call.
#[derive(Debug)]
pub(super) struct Record {
    /// At most 256 characters.
    pub(super) partition_key: String,
    /// The bytes before base64.
    pub(super) data: Vec<u8>,
    /// The number of events in it, from the first of the batch.
    pub(super) events: usize,
}

impl Record {
    /// The record of the batch's first event, whose payload is whole, or, aggregated, of as many as fit; none for an empty
    /// batch.
    pub(super) fn of(batch: &RootBatch, format: KinesisFormat, aggregate: bool) -> Option<Self> {
        let (first, rest) = batch.events.split_first()?;
        let partition_key = partition_key(batch.root.key());
        let first = encode(first, format);
        // As in the KPL, a single event travels plain: it stays readable without a de-aggregator.
        if !aggregate || rest.is_empty() {
            return Some(Self { partition_key, data: first, events: 1 });
        }
        let mut aggregated = Aggregate::new(&partition_key);
        if let Err(first) = aggregated.push_within(first, AGGREGATED_BYTES_MAX) {
            return Some(Self { partition_key, data: first, events: 1 });
        }
        for event in rest {
            if !event.is_whole() || aggregated.push_within(encode(event, format), AGGREGATED_BYTES_MAX).is_err() {
                break;
            }
        }
        Some(Self { partition_key, events: aggregated.len(), data: aggregated.finish() })
    }

    /// The record that says where the batch's first event is; none for an empty batch.
    pub(super) fn reference(batch: &RootBatch, events_table: &str) -> Option<Self> {
        let data = cloudevent_reference(batch.events.first()?, events_table).to_string().into_bytes();
        Some(Self { partition_key: partition_key(batch.root.key()), data, events: 1 })
    }

    /// The size as Kinesis counts it against the record limit and the request limit: data and partition key.
    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

fn encode(event: &Event, format: KinesisFormat) -> Vec<u8> {
    match format {
        KinesisFormat::CloudEvents => cloudevent_bytes(event),
        KinesisFormat::Payload => event.payload.to_vec(),
    }
}

/// The root's key, or when it is longer than 256 characters the MD5 of it in hex: the same root always comes to the
/// same shard, and two roots with one MD5 would merely share a shard. The CloudEvents extension `partitionkey` has the
/// whole key either way.
fn partition_key(root_key: &str) -> String {
    if root_key.encode_utf16().count() <= PARTITION_KEY_CHARS_MAX {
        return root_key.to_owned();
    }
    let digest: [u8; 16] = Md5::digest(root_key).into();
    format!("{:032x}", u128::from_be_bytes(digest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::aggregation::tests::disaggregated;
    use super::*;
    use crate::event::testing::any_event;
    use crate::event::{Root, Sequence};
    use crate::handler::testing::{batch, batch_of};
    use proptest::prelude::*;

    proptest! {
        /// Whatever a batch holds, its record holds the first of its events, as many as fit, each as it would travel
        /// alone, and no more than is allowed.
        #[test]
        fn a_record_holds_the_first_events_of_any_batch(
            events in proptest::collection::vec((any_event(), 0_usize..4), 1..8),
            long in proptest::option::of(200_usize..1500),
            (aggregate, as_payload) in (any::<bool>(), any::<bool>()),
        ) {
            let id = "é".repeat(long.unwrap_or(1) / 2);
            let root = Root::new("orders", "", if id.is_empty() { "a" } else { &id }).unwrap();
            let events: Vec<_> = (0..).zip(events)
                .map(|(number, (event, large))| {
                    let payload = event.payload.repeat(1 + large * 400).into();
                    Arc::new(Event { root: root.clone(), sequence: Sequence(number), payload, ..event })
                })
                .collect();
            let batch = RootBatch { root: root.clone(), events };
            let format = if as_payload { KinesisFormat::Payload } else { KinesisFormat::CloudEvents };
            let record = Record::of(&batch, format, aggregate).unwrap();
            let alone: Vec<Vec<u8>> = batch.events.iter().map(|event| encode(event, format)).collect();

            let key = &record.partition_key;
            prop_assert!(key == root.key() || (key.len() == 32 && root.key().encode_utf16().count() > 256));
            prop_assert!(key.encode_utf16().count() <= 256);
            prop_assert_eq!(record.bytes(), record.data.len() + key.len());
            let held = disaggregated(&record.data).filter(|_| aggregate);
            let data = held.map_or_else(|| vec![record.data.clone()], |held| {
                held.into_iter().map(|(held_key, data)| { assert_eq!(held_key, *key); data }).collect()
            });
            prop_assert_eq!(data.len(), record.events);
            prop_assert!(data == alone[..record.events]);
            if aggregate && record.events < batch.events.len() {
                // One more, with the few bytes it has around it, would not have fitted.
                let more = record.data.len() + alone[record.events].len() + 64;
                prop_assert!(more > AGGREGATED_BYTES_MAX, "{} of {}", record.events, batch.events.len());
            }
            prop_assert!(record.events == 1 || (aggregate && record.data.len() <= AGGREGATED_BYTES_MAX));
        }
    }

    #[test]
    fn one_event_travels_plain() {
        let one = Record::of(&batch("a", 3..4), KinesisFormat::Payload, true).unwrap();
        assert_eq!(
            (one.partition_key.as_str(), one.data.as_slice(), one.events),
            ("orders#angzarr#a", &b"payload"[..], 1)
        );
        let first = Record::of(&batch("a", 3..9), KinesisFormat::Payload, false).unwrap();
        assert_eq!((first.data.as_slice(), first.events), (&b"payload"[..], 1));
        assert!(Record::of(&batch("a", 0..0), KinesisFormat::Payload, false).is_none());
    }

    #[test]
    fn an_aggregate_takes_what_fits_and_never_nothing() {
        let batch_of_large = batch_of("a", 0..5, &vec![1; 100_000]);
        assert_eq!(Record::of(&batch_of_large, KinesisFormat::Payload, true).unwrap().events, 2);
        let batch_of_giants = batch_of("a", 0..5, &vec![1; 390_000]);
        let giant = Record::of(&batch_of_giants, KinesisFormat::Payload, true).unwrap();
        assert_eq!((giant.events, giant.data.len()), (1, 390_000));
    }

    #[test]
    fn a_long_key_is_hashed_and_the_extension_keeps_it() {
        let id = "é".repeat(256);
        let long = Record::of(&batch(&id, 0..1), KinesisFormat::CloudEvents, false).unwrap();
        assert_eq!(long.partition_key.len(), 32);
        assert!(long.partition_key.chars().all(|character| character.is_ascii_hexdigit()));
        let event: serde_json::Value = serde_json::from_slice(&long.data).unwrap();
        assert_eq!(event["partitionkey"], format!("orders#angzarr#{id}"));
        // The longest that is taken as it stands: 15 characters of `orders#angzarr#` and 241 more.
        let fits = Record::of(&batch(&"é".repeat(241), 0..1), KinesisFormat::CloudEvents, false).unwrap();
        assert_eq!(fits.partition_key.chars().count(), 256);
    }

    #[test]
    fn the_hash_is_the_md5_in_hex() {
        // md5 of 300 times the letter a.
        assert_eq!(partition_key(&"a".repeat(300)), "4e5475d125a33c6190718e75adc1b704");
    }
}
