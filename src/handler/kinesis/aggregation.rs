//! The aggregated record format of the Kinesis Producer Library: several user records in one Kinesis record.
//!
//! `F3 89 9A C2`, then a protobuf message `AggregatedRecord`, then the 16 bytes of that message's MD5. The KCL, Lambda
//! with a de-aggregation library and Firehose take it apart again. All user records here have one partition key: a
//! consumer that checks each user record's hash against its shard (the KCL does) keeps them all. Invariant:
//! [`Aggregate::bytes`] is exactly the length of what [`Aggregate::finish`] returns.

use md5::{Digest as _, Md5};
use prost::Message;

/// What an aggregated record begins with.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// The length of the MD5 at the end.
const DIGEST_BYTES: usize = 16;

/// The tag of a field in front of its length: both message fields used here have one-byte tags.
const TAG_BYTES: usize = 1;

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct UserRecord {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "vec", required, tag = "3")]
    data: Vec<u8>,
}

/// An aggregated record in the making.
#[derive(Debug)]
pub(super) struct Aggregate {
    message: AggregatedRecord,
    message_bytes: usize,
}

impl Aggregate {
    /// An aggregate without user records, all of which will have this partition key.
    pub(super) fn new(partition_key: &str) -> Self {
        let message = AggregatedRecord { partition_key_table: vec![partition_key.to_owned()], ..Default::default() };
        Self { message_bytes: message.encoded_len(), message }
    }

    /// The length of the whole record as it stands.
    pub(super) fn bytes(&self) -> usize {
        MAGIC.len() + self.message_bytes + DIGEST_BYTES
    }

    /// Adds `data` as a user record unless the record would become longer than `bytes_max`; gives it back then.
    pub(super) fn push_within(&mut self, data: Vec<u8>, bytes_max: usize) -> Result<(), Vec<u8>> {
        let record = UserRecord { partition_key_index: 0, explicit_hash_key_index: None, data };
        let length = record.encoded_len();
        let added = TAG_BYTES + prost::length_delimiter_len(length) + length;
        if self.bytes() + added > bytes_max {
            return Err(record.data);
        }
        self.message_bytes += added;
        self.message.records.push(record);
        Ok(())
    }

    /// How many user records it holds.
    pub(super) fn len(&self) -> usize {
        self.message.records.len()
    }

    /// The data of the Kinesis record.
    pub(super) fn finish(self) -> Vec<u8> {
        let message = self.message.encode_to_vec();
        let mut data = Vec::with_capacity(MAGIC.len() + message.len() + DIGEST_BYTES);
        data.extend_from_slice(&MAGIC);
        data.extend_from_slice(&message);
        data.extend_from_slice(&Md5::digest(&message));
        data
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by the Python package `aws_kinesis_agg` 1.2.3 of AWS Labs from the user records below: all but the 200
    /// bytes of the last.
    const BY_AWS_LABS: (&str, &str) = (
        "f3899ac20a126f726465727323616e677a61727223612f311a0908001a0566697273741a0408001a001acd0108001ac801",
        "5da340c25ae90d0264755f9ecbcdc0db",
    );

    /// The user records of an aggregated record, each with its partition key: read by hand, by the published format alone.
    pub(in super::super) fn disaggregated(record: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
        let rest = record.strip_prefix(&[0xF3, 0x89, 0x9A, 0xC2])?;
        let (message, digest) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
        if <[u8; 16]>::from(Md5::digest(message)) != digest {
            return None;
        }
        let (mut keys, mut records) = (Vec::new(), Vec::new());
        for (tag, _, bytes) in fields(message)? {
            match tag {
                1 => keys.push(String::from_utf8(bytes.to_vec()).ok()?),
                3 => records.push(fields(bytes)?),
                _ => return None,
            }
        }
        let user_record = |fields: Vec<(u64, u64, &[u8])>| match fields[..] {
            [(1, index, _), (3, _, data)] => Some((keys.get(usize::try_from(index).ok()?)?.clone(), data.to_vec())),
            _ => None,
        };
        records.into_iter().map(user_record).collect()
    }

    /// The fields of a protobuf message: the tag, the number of a varint, the bytes of what has a length.
    fn fields(mut message: &[u8]) -> Option<Vec<(u64, u64, &[u8])>> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message)?;
            let number = varint(&mut message)?;
            let bytes = match key & 7 {
                0 => &[][..],
                2 => {
                    let (bytes, rest) = message.split_at_checked(usize::try_from(number).ok()?)?;
                    message = rest;
                    bytes
                }
                _ => return None,
            };
            fields.push((key >> 3, number, bytes));
        }
        Some(fields)
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(first & 0x7F).checked_shl(shift)?;
            shift += 7;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
    }

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn equals_byte_for_byte_what_another_implementation_makes() {
        let mut aggregate = Aggregate::new("orders#angzarr#a/1");
        for data in [b"first".to_vec(), Vec::new(), vec![7; 200]] {
            aggregate.push_within(data, usize::MAX).unwrap();
        }
        let (before, after) = BY_AWS_LABS;
        assert_eq!(hex(&aggregate.finish()), format!("{before}{}{after}", "07".repeat(200)));
    }

    #[test]
    fn takes_what_fits_to_the_byte() {
        let mut full = Aggregate::new("key");
        full.push_within(vec![1; 1000], 10_000).unwrap();
        let bytes = full.bytes();
        let mut exact = Aggregate::new("key");
        assert_eq!(exact.push_within(vec![1; 1000], bytes - 1), Err(vec![1; 1000]));
        assert_eq!(exact.push_within(vec![1; 1000], bytes), Ok(()));
    }

    proptest! {
        #[test]
        fn any_records_are_taken_apart_again(
            key in ".{1,300}",
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..30),
            damage: proptest::sample::Index,
        ) {
            let mut aggregate = Aggregate::new(&key);
            for record in &records {
                prop_assert_eq!(aggregate.push_within(record.clone(), usize::MAX), Ok(()));
            }
            let mut data = aggregate.finish();
            let expected: Vec<_> = records.into_iter().map(|record| (key.clone(), record)).collect();
            prop_assert_eq!(disaggregated(&data), Some(expected));
            let at = damage.index(data.len());
            data[at] ^= 1;
            prop_assert_eq!(disaggregated(&data), None, "a damaged byte is seen");
        }

        #[test]
        fn counts_its_size_exactly_and_keeps_the_limit(
            key in ".{1,300}",
            lengths in proptest::collection::vec(0_usize..40_000, 0..12),
            bytes_max in 400_usize..120_000,
        ) {
            let mut aggregate = Aggregate::new(&key);
            let empty = aggregate.bytes();
            let mut kept = 0;
            for length in lengths {
                let before = aggregate.bytes();
                match aggregate.push_within(vec![1; length], bytes_max) {
                    Ok(()) => kept += 1,
                    Err(data) => {
                        prop_assert_eq!(data.len(), length);
                        prop_assert_eq!(aggregate.bytes(), before);
                    }
                }
            }
            prop_assert_eq!(aggregate.len(), kept);
            prop_assert!(aggregate.bytes() <= bytes_max.max(empty));
            let bytes = aggregate.bytes();
            prop_assert_eq!(aggregate.finish().len(), bytes);
        }
    }
}
