//! The snapshots table: the newest state of a root that somebody computed from its events, to begin from when it is
//! loaded.
//!
//! One row a root. What a state holds is its writer's; the relay itself reads no snapshots. Invariant: a snapshot is
//! only ever replaced by one of a later sequence.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use bytes::Bytes;

use super::call::{Call, Item, binary, number, sequence_of, text};
use super::{Consistency, EVENT_BYTES_MAX, StorageError};
use crate::aws::{AwsClients, observe};
use crate::event::{Attribute as _, Root, Sequence, Timestamp};

const PK: &str = "pk";
const SEQUENCE: &str = "sequence";
const STATE: &str = "state";
const CREATED_AT: &str = "created_at";

/// What a row holds besides root and state, in bytes, at most: names, the number, the time.
const ROW_OVERHEAD_BYTES: usize = 100;

/// The snapshots table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    client: Client,
    table: String,
}

/// The state of a root after an event.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last event in it.
    pub sequence: Sequence,
    /// The state, as its writer encoded it.
    pub state: Bytes,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Shows the size of the state, never the state.
impl std::fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Snapshot")
            .field("sequence", &self.sequence)
            .field("state_bytes", &self.state.len())
            .finish_non_exhaustive()
    }
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotPut {
    /// It is the root's snapshot now.
    Written,
    /// The root has one of the same or a later sequence, which stays.
    NotNewer {
        /// The sequence of that one.
        durable: Sequence,
    },
}

impl SnapshotStore {
    /// The snapshots in `table`.
    #[must_use]
    pub fn new(clients: &AwsClients, table: &str) -> Self {
        Self { client: clients.dynamodb.clone(), table: table.to_owned() }
    }

    /// The snapshot of a root, if it has one.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`] when the row is no snapshot; otherwise as the call failed.
    pub async fn get(&self, root: &Root, consistency: Consistency) -> Result<Option<Snapshot>, StorageError> {
        let call = self.call("GetItem", "dynamodb:GetItem");
        let request = (self.client.get_item())
            .table_name(&self.table)
            .key(PK, text(root.key()))
            .consistent_read(consistency == Consistency::Strong)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        answer.item.map(decode).transpose().map_err(|reason| self.unreadable(root, reason))
    }

    /// Writes a snapshot unless the root has one of the same or a later sequence. At most 400 KB with its key.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] when it is too large; otherwise as the call failed. It is safe to do again.
    pub async fn put(&self, root: &Root, snapshot: &Snapshot) -> Result<SnapshotPut, StorageError> {
        let bytes = ROW_OVERHEAD_BYTES + root.key().len() + snapshot.state.len();
        if bytes > EVENT_BYTES_MAX {
            let reason = format!("the snapshot of {root} has {bytes} bytes, more than {EVENT_BYTES_MAX}");
            return Err(StorageError::Invalid { reason });
        }
        let call = self.call("PutItem", "dynamodb:PutItem");
        let request = (self.client.put_item())
            .table_name(&self.table)
            .item(PK, text(root.key()))
            .item(SEQUENCE, number(snapshot.sequence))
            .item(STATE, binary(&snapshot.state))
            .item(CREATED_AT, text(snapshot.created_at.to_string()))
            .condition_expression("attribute_not_exists(#sequence) OR #sequence < :new")
            .expression_attribute_names("#sequence", SEQUENCE)
            .expression_attribute_values(":new", number(snapshot.sequence))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match observe(call.operation, request.send()).await {
            Ok(answer) => {
                call.consumed(answer.consumed_capacity());
                Ok(SnapshotPut::Written)
            }
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                    let durable = refusal.item().and_then(|item| sequence_of(item, SEQUENCE));
                    durable
                        .map(|durable| SnapshotPut::NotNewer { durable })
                        .ok_or_else(|| self.unreadable(root, "`sequence` is no whole number (N) from 0"))
                }
                _ => Err(call.failed(error)),
            },
        }
    }

    fn call(&self, operation: &'static str, action: &'static str) -> Call<'_> {
        Call { operation, action, table: &self.table }
    }

    fn unreadable(&self, root: &Root, reason: &'static str) -> StorageError {
        StorageError::Unreadable { table: self.table.clone(), key: root.key().to_owned(), reason }
    }
}

fn decode(mut item: Item) -> Result<Snapshot, &'static str> {
    let sequence = sequence_of(&item, SEQUENCE).ok_or("`sequence` is no whole number (N) from 0")?;
    let state =
        item.remove(STATE).and_then(AttributeValue::into_binary).ok_or("`state` is missing or not binary (B)")?;
    let created_at = (item.remove(CREATED_AT).and_then(AttributeValue::into_text))
        .and_then(|moment| Timestamp::parse(&moment).ok())
        .ok_or("`created_at` is missing or no ISO 8601 time (S)")?;
    Ok(Snapshot { sequence, state, created_at })
}
