//! Any event, and any row that a table may hold, for the properties of whoever encodes or decodes them. Nothing else
//! belongs here.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Attribute, Event, Root, Sequence, Timestamp, TraceParent};

/// An attribute value of any type that DynamoDB has, nested ones included.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AnyValue {
    S(String),
    N(String),
    B(Vec<u8>),
    Bool(bool),
    Null,
    Ss(Vec<String>),
    Ns(Vec<String>),
    Bs(Vec<Vec<u8>>),
    L(Vec<AnyValue>),
    M(BTreeMap<String, AnyValue>),
}

/// Makes the conversion of [`AnyValue`] into the attribute value of an SDK.
macro_rules! into_sdk_value {
    ($sdk:ty) => {
        impl From<crate::event::testing::AnyValue> for $sdk {
            fn from(value: crate::event::testing::AnyValue) -> Self {
                use crate::event::testing::AnyValue;
                use aws_smithy_types::Blob;
                match value {
                    AnyValue::S(text) => Self::S(text),
                    AnyValue::N(digits) => Self::N(digits),
                    AnyValue::B(bytes) => Self::B(Blob::new(bytes)),
                    AnyValue::Bool(flag) => Self::Bool(flag),
                    AnyValue::Null => Self::Null(true),
                    AnyValue::Ss(texts) => Self::Ss(texts),
                    AnyValue::Ns(numbers) => Self::Ns(numbers),
                    AnyValue::Bs(blobs) => Self::Bs(blobs.into_iter().map(Blob::new).collect()),
                    AnyValue::L(values) => Self::L(values.into_iter().map(Self::from).collect()),
                    AnyValue::M(values) => {
                        Self::M(values.into_iter().map(|(name, value)| (name, Self::from(value))).collect())
                    }
                }
            }
        }
    };
}
pub(crate) use into_sdk_value;

impl Attribute for AnyValue {
    fn into_text(self) -> Option<String> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    fn into_number(self) -> Option<String> {
        if let Self::N(digits) = self { Some(digits) } else { None }
    }

    fn into_binary(self) -> Option<Bytes> {
        if let Self::B(bytes) = self { Some(bytes.into()) } else { None }
    }
}

/// Texts as DynamoDB writes numbers, and such as it never would.
fn any_digits() -> impl Strategy<Value = String> {
    const EDGES: [&str; 8] =
        ["0", "-1", "1.5", "1E+30", "18446744073709551614", "18446744073709551615", "18446744073709551616", ""];
    prop_oneof![3 => "[0-9]{1,3}", 1 => select(&EDGES[..]).prop_map(str::to_owned), 1 => "-?[0-9]{1,45}"]
}

/// Texts such as the tables hold, and others.
fn any_text() -> impl Strategy<Value = String> {
    const WORDS: [&str; 18] = [
        "",
        "parked",
        "deferred",
        "releasing",
        "shard",
        "segment",
        "desk",
        "backfill",
        "reconcile",
        "latest",
        "time",
        "beginning",
        "2,5-9",
        "9-5",
        "2026-01-31T12:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "00012",
        "7@8@9",
    ];
    prop_oneof![
        2 => select(&WORDS[..]).prop_map(str::to_owned),
        1 => "[a%#@1]{0,9}",
        1 => "(orders|#chunk)#[a-z%#]{0,3}#[0-9a#]{0,5}",
        1 => any::<String>(),
    ]
}

/// Any attribute value.
pub(crate) fn any_value() -> impl Strategy<Value = AnyValue> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let plain = prop_oneof![
        4 => any_text().prop_map(AnyValue::S),
        3 => any_digits().prop_map(AnyValue::N),
        2 => bytes().prop_map(AnyValue::B),
        1 => any::<bool>().prop_map(AnyValue::Bool),
        1 => Just(AnyValue::Null),
        1 => proptest::collection::vec(any_text(), 0..3).prop_map(AnyValue::Ss),
        1 => proptest::collection::vec(any_digits(), 0..3).prop_map(AnyValue::Ns),
        1 => proptest::collection::vec(bytes(), 0..3).prop_map(AnyValue::Bs),
    ];
    plain.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(AnyValue::L),
            proptest::collection::btree_map(any_text(), inner, 0..4).prop_map(AnyValue::M),
        ]
    })
}

/// A row that has some of these attributes, whatever they hold, and perhaps one that nobody knows.
pub(crate) fn any_row(names: &'static [&'static str]) -> impl Strategy<Value = HashMap<String, AnyValue>> {
    let name = prop_oneof![9 => select(names).prop_map(str::to_owned), 1 => any_text()];
    proptest::collection::hash_map(name, any_value(), 0..=names.len() + 1)
}

/// A name with the characters that matter to somebody, or any.
pub(crate) fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z%#:/@*é ]{1,6}", "[^\\p{Cc}]{1,20}", ".{1,20}"]
}

/// Any event whose payload is whole.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let trace = "0[0-9]-[0-9a-f]{31}1-[0-9a-f]{15}1-0[01]";
    let root = (any_name(), prop_oneof![Just(String::new()), any_name()], any_name());
    let body = (any_name(), proptest::collection::vec(any::<u8>(), 0..300));
    let optional = (proptest::option::of(any_name()), proptest::option::of(trace));
    (root, 0..u64::MAX, body, optional, any::<i64>()).prop_map(|(root, sequence, body, optional, millis)| Event {
        root: Root::new(&root.0, &root.1, &root.2).unwrap(),
        sequence: Sequence(sequence),
        event_type: body.0.into(),
        payload: body.1.into(),
        chunked: None,
        correlation_id: optional.0.map(Into::into),
        traceparent: optional.1.and_then(|trace| TraceParent::parse(&trace)),
        created_at: Timestamp::from_unix_millis(millis),
    })
}
