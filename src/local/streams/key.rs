//! Where an item lies: the hash of its partition key, then its sort key. Pure.
//!
//! As in DynamoDB, shards divide this space: most of them between two hashes, those of a large item collection between
//! two of its sort keys. Invariant: points are ordered by hash, then as the table orders its sort keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::Value;

/// One part of an item's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// `{"S": ..}`
    Text(String),
    /// `{"N": ..}`
    Number(String),
    /// `{"B": ..}`
    Binary(Vec<u8>),
}

impl KeyPart {
    /// Reads an attribute as the service writes it; none when it can be no key.
    pub(super) fn of_attribute(attribute: &Value) -> Option<Self> {
        let (kind, value) = attribute.as_object()?.iter().next()?;
        let value = value.as_str()?;
        match kind.as_str() {
            "S" => Some(Self::Text(value.to_owned())),
            "N" => Some(Self::Number(value.to_owned())),
            "B" => Some(Self::Binary(STANDARD.decode(value).ok()?)),
            _ => None,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) | Self::Number(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Bytes that are ordered as the keys of this type are; never empty.
    fn rank(&self) -> Box<[u8]> {
        match self {
            Self::Number(digits) => number_rank(digits),
            Self::Text(_) | Self::Binary(_) => [&[RANKED], self.bytes()].concat().into(),
        }
    }
}

/// The first byte of a rank, so that none is empty.
const RANKED: u8 = 1;

/// A point of the space in which shards have their ranges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// The hash of the partition key.
    pub(super) hash: u64,
    /// The rank of the sort key; empty: before every item of this hash.
    pub(super) sort: Box<[u8]>,
}

impl Point {
    /// Where an item lies.
    pub(super) fn of_item(partition: &KeyPart, sort: Option<&KeyPart>) -> Self {
        let digest: [u8; 16] = Md5::digest(partition.bytes()).into();
        let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self { hash: u64::from_be_bytes(*head), sort: sort.map(KeyPart::rank).unwrap_or_default() }
    }

    /// The beginning of the items with this hash.
    pub(super) fn at_hash(hash: u64) -> Self {
        Self { hash, sort: Box::default() }
    }
}

const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;
/// Above every inverted digit: of two negative numbers the one with fewer digits is greater.
const NEGATIVE_END: u8 = 0xFF;

/// The rank of a decimal number: its sign, its magnitude's exponent, its significant digits.
fn number_rank(text: &str) -> Box<[u8]> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    let leading_zeros = length(&digits) - length(significant);
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return [ZERO].into();
    }
    // The number is 0.d1d2.. times ten to this power.
    let power = exponent.parse::<i64>().unwrap_or(0).saturating_add(length(whole) - leading_zeros);
    let power = power.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) - i64::from(i32::MIN);
    let power = u32::try_from(power).unwrap_or(u32::MAX);
    let invert = |byte: &u8| if negative { !byte } else { *byte };
    let mut rank = vec![if negative { NEGATIVE } else { POSITIVE }];
    rank.extend(power.to_be_bytes().iter().chain(significant.as_bytes()).map(invert));
    if negative {
        rank.push(NEGATIVE_END);
    }
    rank.into()
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn number(text: &str) -> Box<[u8]> {
        KeyPart::Number(text.into()).rank()
    }

    #[test]
    fn keys_are_read_from_attributes() {
        let read = |attribute| KeyPart::of_attribute(&attribute);
        assert_eq!(read(json!({ "S": "orders##1" })), Some(KeyPart::Text("orders##1".into())));
        assert_eq!(read(json!({ "N": "7" })), Some(KeyPart::Number("7".into())));
        assert_eq!(read(json!({ "B": "AP8=" })), Some(KeyPart::Binary(vec![0, 255])));
        for wrong in [json!({ "B": "%" }), json!({ "BOOL": true }), json!({}), json!(7), json!({ "S": 7 })] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_are_ordered_by_value_however_they_are_written() {
        let ascending = [
            "-1e30", "-123", "-12.5", "-12", "-1", "-0.001", "0", "0.0009", "0.001", "1", "9", "10", "10.5", "123",
            "1E5", "2e100",
        ];
        for pair in ascending.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
        for same in [["10", "1e1"], ["0", "-0.0"], ["007", "7.00"], ["0.05", "5E-2"], ["+3", "3"]] {
            assert_eq!(number(same[0]), number(same[1]), "{same:?}");
        }
        // What is no number is ordered somehow.
        assert!(!number("x").is_empty() && !number("").is_empty());
    }

    #[test]
    fn an_item_lies_behind_the_beginning_of_its_hash() {
        let partition = KeyPart::Text("orders##1".into());
        for sort in [KeyPart::Text(String::new()), KeyPart::Number("-5".into()), KeyPart::Binary(Vec::new())] {
            let item = Point::of_item(&partition, Some(&sort));
            assert!(item > Point::at_hash(item.hash));
            assert_eq!(Point::of_item(&partition, None), Point::at_hash(item.hash));
        }
    }

    proptest! {
        #[test]
        fn integers_are_ordered_by_value(one: i64, two: i64) {
            prop_assert_eq!(number(&one.to_string()).cmp(&number(&two.to_string())), one.cmp(&two));
        }

        #[test]
        fn fractions_are_ordered_by_value(one in -100_000_i64..100_000, two in -100_000_i64..100_000) {
            let written = |thousandths: i64| {
                let sign = if thousandths < 0 { "-" } else { "" };
                format!("{sign}{}.{:03}", thousandths.abs() / 1000, thousandths.abs() % 1000)
            };
            prop_assert_eq!(number(&written(one)).cmp(&number(&written(two))), one.cmp(&two));
        }

        #[test]
        fn texts_are_ordered_by_their_bytes(one: String, two: String) {
            let ranks = [&one, &two].map(|text| KeyPart::Text(text.clone()).rank());
            prop_assert_eq!(ranks[0].cmp(&ranks[1]), one.as_bytes().cmp(two.as_bytes()));
        }
    }
}
