//! Appending to the event store: the one way in which events come to be.
//!
//! # What an append guarantees
//!
//! Each row is put under the condition that there is none with its key, so of two writers
//! that begin at the same sequence exactly one succeeds. The numbers of a root stay without gaps, because before
//! anything is written a consistent read shows that the event before the first exists (or, for a new root, that the
//! root does not begin elsewhere). Reading first, rather than a condition in the same transaction, is sound because
//! events are never removed: what stood there still stands. It is also cheaper (a read unit instead of two write units
//! a kilobyte of the event before) and leaves all 100 items of a transaction to events.
//!
//! # Lost replies
//!
//! When an append fails with [`StorageError::Unavailable`] it may have happened. One made by
//! [`EventStore::append_with_token`] can be made again with the same token within ten minutes: it has its effect once.
//! After [`EventStore::append`], read the root first.

use aws_sdk_dynamodb::config::{Config, retry::RetryConfig};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{Put, ReturnConsumedCapacity, TransactWriteItem};
use bytes::Bytes;

use super::call::{Call, Item, binary, number, text};
use super::event_chunks::{chunk_items, description};
use super::transaction::Transacted;
use super::{EventStore, StorageError};
use crate::aws::observe;
use crate::event::{Chunked, PAYLOAD_BYTES_MAX, Root, Sequence, Timestamp, columns};

/// The most events of one append: the items of a transaction.
pub const APPEND_EVENTS_MAX: usize = 100;
/// The most bytes of one append as DynamoDB counts them: 4 MB.
pub const APPEND_BYTES_MAX: usize = 4 << 20;
/// The most bytes of one event's row as DynamoDB counts them, names included: 400 KB.
pub const EVENT_BYTES_MAX: usize = 400 << 10;

/// The bytes that stand in a row for a payload in chunks, names included, at most.
const DESCRIPTION_BYTES_MAX: usize = 256;

/// The bytes of a chunk's row besides the chunk and its key, names included, at most.
const CHUNK_ROW_BYTES: usize = 64;

/// What the key of a chunk has besides the root's key, in bytes, at most: `#chunk#`, the sequence, the token escaped, a digest.
const CHUNK_KEY_BYTES_MAX: usize = 8 + 21 + 3 * 4 * TOKEN_CHARS_MAX + 17;

/// DynamoDB's limit for a partition key, in bytes.
const KEY_BYTES_MAX: usize = 2048;

/// The longest request token.
const TOKEN_CHARS_MAX: usize = 36;

const NO_SUCH_ROW: &str = "attribute_not_exists(sk)";

/// An event to append; its root and sequence follow from where it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The type's name, not empty.
    pub event_type: Box<str>,
    /// The body.
    pub payload: Bytes,
    /// What ties together the events of one business transaction; not empty if there is one.
    pub correlation_id: Option<Box<str>>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl NewEvent {
    fn item(&self, root: &Root, sequence: Sequence, chunked: Option<&Chunked>) -> Item {
        let mut item = Item::from([
            (columns::PK.to_owned(), text(root.key())),
            (columns::SK.to_owned(), number(sequence)),
            (columns::EVENT_TYPE.to_owned(), text(&*self.event_type)),
            (columns::CREATED_AT.to_owned(), text(self.created_at.to_string())),
        ]);
        match chunked {
            Some(chunked) => item.extend(description(chunked)),
            None => drop(item.insert(columns::PAYLOAD.to_owned(), binary(&self.payload))),
        }
        if let Some(correlation_id) = &self.correlation_id {
            item.insert(columns::CORRELATION_ID.to_owned(), text(&**correlation_id));
        }
        item
    }

    /// The row's size as DynamoDB counts it: names and values in UTF-8 or raw, numbers by their significant digits. A
    /// payload in chunks is described in fewer than [`DESCRIPTION_BYTES_MAX`].
    fn row_bytes(&self, root: &Root, sequence: Sequence, chunk_bytes: usize) -> usize {
        let digits = sequence.to_string();
        let significant = digits.trim_end_matches('0').len();
        let correlation_id = self.correlation_id.as_ref().map_or(0, |id| columns::CORRELATION_ID.len() + id.len());
        columns::PK.len()
            + root.key().len()
            + columns::SK.len()
            + significant.div_ceil(2)
            + 1
            + columns::EVENT_TYPE.len()
            + self.event_type.len()
            + if self.payload.len() > chunk_bytes {
                DESCRIPTION_BYTES_MAX
            } else {
                columns::PAYLOAD.len() + self.payload.len()
            }
            + columns::CREATED_AT.len()
            + self.created_at.to_string().len()
            + correlation_id
    }
}

impl EventStore {
    /// Appends events to a root behind the last event its writer saw, `expected` (none: the root is new, its first
    /// event is 0); all of them or none. Answers the sequence of the last. At most [`APPEND_EVENTS_MAX`] events with rows of
    /// [`EVENT_BYTES_MAX`] each and [`APPEND_BYTES_MAX`] together. A payload larger than a chunk is stored beside its row, up to
    /// [`PAYLOAD_BYTES_MAX`]: in the same transaction where it fits, else before it, so that no event is there without its
    /// payload. Chunks of an append that fails may stay; they belong to no event.
    ///
    /// # Errors [`StorageError::LostRace`] when another writer was first, [`StorageError::NotContiguous`] when the root
    /// has no event `expected`, [`StorageError::Invalid`] when a rule is broken: nothing was written then. After
    /// [`StorageError::Unavailable`] that is unknown.
    pub async fn append(
        &self,
        root: &Root,
        expected: Option<Sequence>,
        events: &[NewEvent],
    ) -> Result<Sequence, StorageError> {
        let rows = Rows::check(root, expected, events, self.chunk_bytes)?;
        self.check_predecessor(&rows, expected).await?;
        let token = self.random.token();
        let append = Append::new(&rows, events, &token, self.chunk_bytes);
        let chunks_first = !append.fits_one_transaction();
        if chunks_first {
            self.put_chunks(append.chunks(Some(self.clock.now()))).await?;
        }
        match events {
            [_] if chunks_first || !append.has_chunks() => self.put(&append).await?,
            _ => self.transact(&append, !chunks_first, &token).await?,
        }
        Ok(rows.last)
    }

    /// As [`EventStore::append`], as one transaction (twice the write units for a single event) under a token of 1 to
    /// 36 characters. The same append may be made again with the same token within ten minutes and has its effect once.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn append_with_token(
        &self,
        root: &Root,
        expected: Option<Sequence>,
        events: &[NewEvent],
        token: &str,
    ) -> Result<Sequence, StorageError> {
        if token.is_empty() || token.chars().count() > TOKEN_CHARS_MAX {
            return Err(invalid(format!("a request token has 1 to {TOKEN_CHARS_MAX} characters")));
        }
        let rows = Rows::check(root, expected, events, self.chunk_bytes)?;
        self.check_predecessor(&rows, expected).await?;
        // With the token as the append's id, an append that is made again writes the same chunks again.
        let append = Append::new(&rows, events, token, self.chunk_bytes);
        let chunks_first = !append.fits_one_transaction();
        if chunks_first {
            self.put_chunks(append.chunks(Some(self.clock.now()))).await?;
        }
        self.transact(&append, !chunks_first, token).await?;
        Ok(rows.last)
    }

    /// Checks that the event before the append exists; for a new root, that the root does not begin above 0. Whether
    /// the place of the append is free is left to the write's condition, so that a repeated append with a token is
    /// answered as the first was.
    async fn check_predecessor(&self, rows: &Rows<'_>, expected: Option<Sequence>) -> Result<(), StorageError> {
        let at = expected.unwrap_or(Sequence::FIRST);
        let call = self.query_call();
        let request = (self.client.query())
            .table_name(&self.table)
            .consistent_read(true)
            .limit(1)
            .projection_expression("sk")
            .key_condition_expression(if expected.is_some() {
                "pk = :pk AND sk = :at"
            } else {
                "pk = :pk AND sk >= :at"
            })
            .expression_attribute_values(":pk", text(rows.root.key()))
            .expression_attribute_values(":at", number(at))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        let found = answer.items().first().map(|item| super::call::sequence_of(item, columns::SK));
        match (expected, found) {
            (Some(expected), None) => Err(StorageError::NotContiguous { first: expected.next() }),
            (None, Some(found)) if found != Some(Sequence::FIRST) => self.lost(rows).await,
            _ => Ok(()),
        }
    }

    /// Puts an append of a single event.
    async fn put(&self, append: &Append<'_>) -> Result<(), StorageError> {
        let call = self.write_call("PutItem");
        // Sent once: a second attempt after a lost reply would meet its own row and call it a lost race.
        let once = Config::builder().retry_config(RetryConfig::disabled());
        let request = (self.client.put_item())
            .table_name(&self.table)
            .set_item(append.rows().next())
            .condition_expression(NO_SUCH_ROW)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            .config_override(once);
        match observe(call.operation, request.send()).await {
            Ok(answer) => {
                call.consumed(answer.consumed_capacity());
                Ok(())
            }
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(_)) => self.lost(append.rows).await,
                _ => Err(call.failed(error)),
            },
        }
    }

    async fn transact(&self, append: &Append<'_>, with_chunks: bool, token: &str) -> Result<(), StorageError> {
        let call = self.write_call("TransactWriteItems");
        let chunks = append.chunks(None).filter(|_| with_chunks);
        let puts = append.rows().chain(chunks).map(|item| {
            let put = Put::builder()
                .table_name(&self.table)
                .set_item(Some(item))
                .condition_expression(NO_SUCH_ROW)
                .build()
                .expect("table and item are set");
            TransactWriteItem::builder().put(put).build()
        });
        let request =
            (self.client.transact_write_items()).set_transact_items(Some(puts.collect())).client_request_token(token);
        match call.transact(request).await? {
            Transacted::Done => Ok(()),
            Transacted::Refused(_) => self.lost(append.rows).await,
        }
    }

    fn write_call(&self, operation: &'static str) -> Call<'_> {
        Call { operation, action: "dynamodb:PutItem", table: &self.table }
    }

    async fn lost(&self, rows: &Rows<'_>) -> Result<(), StorageError> {
        // That the race was lost is sure; where the root stands now is only of help.
        let actual = self.last(rows.root).await.unwrap_or(None);
        Err(StorageError::LostRace { expected: rows.first, actual })
    }
}

fn invalid(reason: String) -> StorageError {
    StorageError::Invalid { reason }
}

/// Where an append's rows go.
#[derive(Debug)]
struct Rows<'a> {
    root: &'a Root,
    first: Sequence,
    last: Sequence,
    bytes: usize,
}

impl<'a> Rows<'a> {
    /// Checks an append against every rule that can be known without asking.
    fn check(
        root: &'a Root,
        expected: Option<Sequence>,
        events: &[NewEvent],
        chunk_bytes: usize,
    ) -> Result<Self, StorageError> {
        if events.is_empty() {
            return Err(invalid("an append needs at least one event".into()));
        }
        if events.len() > APPEND_EVENTS_MAX {
            return Err(invalid(format!("an append of {} events has more than {APPEND_EVENTS_MAX}", events.len())));
        }
        let first = expected.map_or(Some(0), |expected| expected.0.checked_add(1));
        let last = first.and_then(|first| first.checked_add(events.len() as u64 - 1));
        let (Some(first), Some(last)) = (first, last) else {
            return Err(invalid("the append goes beyond the greatest sequence there can be".into()));
        };
        let mut bytes = 0;
        for (event, sequence) in events.iter().zip(first..) {
            if event.event_type.is_empty() {
                return Err(invalid(format!("the event {sequence} of {root} has an empty event type")));
            }
            if event.correlation_id.as_deref() == Some("") {
                return Err(invalid(format!(
                    "the event {sequence} of {root} has an empty correlation id: leave it out"
                )));
            }
            let payload = event.payload.len();
            if payload > PAYLOAD_BYTES_MAX {
                return Err(invalid(format!(
                    "the payload of the event {sequence} of {root} has {payload} bytes, more than {PAYLOAD_BYTES_MAX}"
                )));
            }
            if payload > chunk_bytes && root.key().len() + CHUNK_KEY_BYTES_MAX > KEY_BYTES_MAX {
                return Err(invalid(format!(
                    "the payload of the event {sequence} of {root} has {payload} bytes, more than {chunk_bytes}, and the \
                     root's key is too long to store it in chunks"
                )));
            }
            let row = event.row_bytes(root, Sequence(sequence), chunk_bytes);
            if row > EVENT_BYTES_MAX {
                let reason = format!("the event {sequence} of {root} has {row} bytes, more than {EVENT_BYTES_MAX}");
                return Err(invalid(reason));
            }
            bytes += row;
        }
        if bytes > APPEND_BYTES_MAX {
            return Err(invalid(format!("the append to {root} has {bytes} bytes, more than {APPEND_BYTES_MAX}")));
        }
        Ok(Self { root, first: Sequence(first), last: Sequence(last), bytes })
    }
}

/// One append: its events, and how each large payload is stored.
struct Append<'a> {
    rows: &'a Rows<'a>,
    events: &'a [NewEvent],
    chunked: Vec<Option<Chunked>>,
    chunk_bytes: usize,
}

impl<'a> Append<'a> {
    fn new(rows: &'a Rows<'a>, events: &'a [NewEvent], id: &str, chunk_bytes: usize) -> Self {
        let chunked = |event: &NewEvent| {
            let large = event.payload.len() > chunk_bytes;
            large.then(|| Chunked::new(&event.payload, chunk_bytes, id).with_digest_in_id())
        };
        Self { rows, events, chunked: events.iter().map(chunked).collect(), chunk_bytes }
    }

    fn has_chunks(&self) -> bool {
        self.chunked.iter().any(Option::is_some)
    }

    /// Whether the events and all their chunks can be written together.
    fn fits_one_transaction(&self) -> bool {
        let all = || self.chunked.iter().flatten();
        let chunks: usize = all().map(|chunked| chunked.chunks as usize).sum();
        let key_bytes = self.rows.root.key().len() + CHUNK_KEY_BYTES_MAX;
        let bytes = all().map(|chunked| chunked.bytes).sum::<usize>() + chunks * (key_bytes + CHUNK_ROW_BYTES);
        self.events.len() + chunks <= APPEND_EVENTS_MAX && self.rows.bytes + bytes <= APPEND_BYTES_MAX
    }

    /// The events' own rows.
    fn rows(&self) -> impl Iterator<Item = Item> {
        let events = self.events.iter().zip(&self.chunked).zip(self.rows.first.0..);
        events.map(|((event, chunked), sequence)| event.item(self.rows.root, Sequence(sequence), chunked.as_ref()))
    }

    /// The rows of all chunks. Those that are written before their event say when; those in its transaction say what the
    /// event does, so that the transaction can be repeated as it was.
    fn chunks(&self, written_at: Option<Timestamp>) -> impl Iterator<Item = Item> {
        let events = self.events.iter().zip(&self.chunked).zip(self.rows.first.0..);
        let large = events.filter_map(|((event, chunked), sequence)| Some((event, chunked.as_ref()?, sequence)));
        large.flat_map(move |(event, chunked, sequence)| {
            let (payload, written_at) = ((&event.payload, self.chunk_bytes), written_at.unwrap_or(event.created_at));
            chunk_items((self.rows.root, Sequence(sequence)), payload, &chunked.append_id, written_at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode_row;
    use crate::event::testing::any_event;
    use proptest::prelude::*;

    fn event(payload_bytes: usize) -> NewEvent {
        NewEvent {
            event_type: "OrderPlaced".into(),
            payload: vec![7; payload_bytes].into(),
            correlation_id: None,
            created_at: Timestamp::from_unix_millis(0),
        }
    }

    fn problem(expected: Option<Sequence>, events: &[NewEvent]) -> String {
        let root = Root::new("orders", "", "1").unwrap();
        match Rows::check(&root, expected, events, EVENT_BYTES_MAX) {
            Ok(rows) => format!("{}..={}", rows.first, rows.last),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn numbers_the_events_behind_the_expected_one() {
        assert_eq!(problem(None, &[event(1)]), "0..=0");
        assert_eq!(problem(Some(Sequence(4)), &[event(1), event(1)]), "5..=6");
    }

    #[test]
    fn refuses_what_dynamodb_would_not_take() {
        assert!(problem(None, &[]).contains("at least one"));
        assert!(problem(None, &vec![event(1); 101]).contains("more than 100"));
        assert_eq!(problem(None, &vec![event(1); 100]), "0..=99");
        assert!(problem(Some(Sequence(u64::MAX)), &[event(1)]).contains("greatest"));
        assert!(problem(Some(Sequence(u64::MAX - 1)), &[event(1), event(1)]).contains("greatest"));
        assert!(problem(None, &[NewEvent { event_type: "".into(), ..event(1) }]).contains("empty event type"));
        let uncorrelated = NewEvent { correlation_id: Some("".into()), ..event(1) };
        assert!(problem(None, &[uncorrelated]).contains("correlation id"));
        assert!(problem(None, &vec![event(50_000); 90]).contains("more than 4194304"));
    }

    #[test]
    fn counts_an_item_as_dynamodb_does() {
        let root = Root::new("orders", "", "1").unwrap();
        // pk 2 + `orders##1` 9, sk 2 + zero 1, event_type 10 + 11, payload 7, created_at 10 + 20.
        assert_eq!(event(0).row_bytes(&root, Sequence(0), EVENT_BYTES_MAX), 72);
        assert_eq!(event(0).row_bytes(&root, Sequence(1_000), EVENT_BYTES_MAX), 72 + 1);
        assert_eq!(event(0).row_bytes(&root, Sequence(1_234), EVENT_BYTES_MAX), 72 + 2);
        assert_eq!(problem(None, &[event(EVENT_BYTES_MAX - 72)]), "0..=0");
        assert!(problem(None, &[event(EVENT_BYTES_MAX - 71)]).contains("more than 409600"));
    }

    proptest! {
        /// What is appended is what is read, its payload in its row or in chunks.
        #[test]
        fn an_event_survives_its_row(mut event in any_event(), in_chunks in proptest::option::of(1_usize..400)) {
            event.traceparent = None;
            event.chunked = in_chunks.map(|chunk_bytes| Box::new(Chunked::new(&event.payload, chunk_bytes, "t")));
            let new = NewEvent {
                event_type: event.event_type.clone(),
                payload: event.payload.clone(),
                correlation_id: event.correlation_id.clone(),
                created_at: event.created_at,
            };
            let item = new.item(&event.root, event.sequence, event.chunked.as_deref());
            if event.chunked.is_some() {
                event.payload = Bytes::new();
            }
            prop_assert_eq!(decode_row(item), Ok(event));
        }
    }
}
