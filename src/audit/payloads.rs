//! What is wrong with a payload that is stored in chunks. Pure.
//!
//! Chunks are written with or before their event, so chunks without one are left over from an append that failed or lost
//! its race, or belong to one that is still under way; an event without all its chunks was damaged by hand.

use std::time::Duration;

use super::PayloadKeys;
use crate::event::{Event, Timestamp};

/// Chunks without an event that are younger may be of an append that is still under way.
const UNDER_WAY_MAX: Duration = Duration::from_hours(1);

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadFinding {
    /// The chunks belong to no event, and can go.
    Orphaned,
    /// The event's payload cannot be put together.
    Incomplete,
}

/// What is wrong with a payload; nothing mostly. `event` is the event of its sequence, and `written_at` the time of its
/// first chunk, none when there is none.
#[must_use]
pub fn judge_payload(
    payload: &PayloadKeys,
    event: Option<&Event>,
    written_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<PayloadFinding> {
    let chunked = event.and_then(|event| event.chunked.as_deref());
    let Some(chunked) = chunked.filter(|chunked| chunked.append_id == payload.key.append_id) else {
        let left_over = written_at.is_some_and(|written_at| now.since(written_at) > UNDER_WAY_MAX);
        return left_over.then_some(PayloadFinding::Orphaned);
    };
    // Where the scan met none of them it is enough that they are there: those it met are counted where it met them.
    let whole = if payload.chunks == 0 { written_at.is_some() } else { payload.chunks == u64::from(chunked.chunks) };
    (!whole).then_some(PayloadFinding::Incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ChunkKey, Chunked, Root, Sequence};

    fn found(append_id: &str, chunks: u64, event: bool, written_minutes_ago: Option<i64>) -> Option<PayloadFinding> {
        let root = Root::new("d", "", "r").unwrap();
        let chunked = Chunked::new(&[7; 30], 10, "mine");
        let of_event = Event {
            root: root.clone(),
            sequence: Sequence(1),
            event_type: "T".into(),
            payload: bytes::Bytes::new(),
            chunked: Some(Box::new(chunked)),
            correlation_id: None,
            traceparent: None,
            created_at: Timestamp::from_unix_millis(0),
        };
        let key = ChunkKey { root, sequence: Sequence(1), append_id: append_id.into() };
        let written_at = written_minutes_ago.map(|minutes| Timestamp::from_unix_millis((1000 - minutes) * 60_000));
        let now = Timestamp::from_unix_millis(1000 * 60_000);
        let payload = PayloadKeys { key, chunks, last: Sequence(chunks) };
        judge_payload(&payload, event.then_some(&of_event), written_at, now)
    }

    #[test]
    fn whole_payloads_are_right() {
        assert_eq!(found("mine", 3, true, Some(900)), None);
        assert_eq!(found("mine", 0, true, Some(900)), None, "named by the event, and there");
    }

    #[test]
    fn what_belongs_to_no_event_is_orphaned_once_no_append_can_be_at_it() {
        for (event, append_id) in [(false, "mine"), (true, "another's")] {
            assert_eq!(found(append_id, 3, event, Some(61)), Some(PayloadFinding::Orphaned));
            assert_eq!(found(append_id, 3, event, Some(59)), None);
            assert_eq!(found(append_id, 0, event, None), None, "removed meanwhile");
        }
    }

    #[test]
    fn what_lacks_a_chunk_is_incomplete() {
        assert_eq!(found("mine", 2, true, Some(900)), Some(PayloadFinding::Incomplete));
        assert_eq!(found("mine", 0, true, None), Some(PayloadFinding::Incomplete));
    }
}
