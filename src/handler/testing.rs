//! Batches of made-up events for the tests of this folder. Nothing else belongs here.

use std::ops::Range;
use std::sync::Arc;

use super::RootBatch;
use crate::event::{Event, Root, Sequence, Timestamp};

/// Events of the root `orders#angzarr#{id}` with a small payload each.
pub(super) fn batch(id: &str, sequences: Range<u64>) -> RootBatch {
    batch_of(id, sequences, b"payload")
}

/// Events of the root `orders#angzarr#{id}` with this payload each.
pub(super) fn batch_of(id: &str, sequences: Range<u64>, payload: &[u8]) -> RootBatch {
    let root = Root::new("orders", "angzarr", id).unwrap();
    let events = sequences
        .map(|sequence| {
            Arc::new(Event {
                root: root.clone(),
                sequence: Sequence(sequence),
                event_type: "OrderPlaced".into(),
                payload: payload.to_vec().into(),
                chunked: None,
                correlation_id: None,
                traceparent: None,
                created_at: Timestamp::from_unix_millis(1_700_000_000_000),
            })
        })
        .collect();
    RootBatch { root, events }
}
