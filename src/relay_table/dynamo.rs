//! The relay's table on DynamoDB: rows of checkpoints and of registered handlers.
//!
//! Rows: `pk = checkpoints#{handler}`, `sk` = shard id, `sequence` S (digits: up to 40, more than a Number holds) or
//! `finished` BOOL, `updated_at` S; and `pk = handlers`, `sk` = handler, `start` S, `started_at` S (not for a start at
//! the beginning), `registered_at` S; and
//! `pk = paused`, `sk` = handler, `paused_at` S, as long as an operator has paused it. Invariant: a handler's row is written once and never changed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};

use super::{Checkpoint, CheckpointStore, HandlerRegistry, Registration, Start};
use crate::aws::{AwsClients, observe};
use crate::event::{Timestamp, escape};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Call, Item, text, text_of};
use crate::storage::mark_store::{delete, order, put};
use crate::stream::{ShardId, StreamSequence};
use crate::time::Clock;

/// Pages of checkpoints one load reads at most (1 MB each, some 5,000 shards): a handler with more has rows nobody
/// forgot.
const LOAD_PAGES_MAX: usize = 100;

pub(super) const PK: &str = "pk";
pub(super) const SK: &str = "sk";
const SEQUENCE: &str = "sequence";
const FINISHED: &str = "finished";
const UPDATED_AT: &str = "updated_at";
const START: &str = "start";
const STARTED_AT: &str = "started_at";
const REGISTERED_AT: &str = "registered_at";

/// The partition of all handlers.
const HANDLERS: &str = "handlers";

/// Partition key of all paused handlers.
const PAUSED: &str = "paused";
/// S: since when.
const PAUSED_AT: &str = "paused_at";

/// The table `{prefix}-relay`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RelayTable {
    pub(super) client: Client,
    pub(super) table: String,
    clock: Clock,
}

impl RelayTable {
    /// The relay's rows in `table`.
    #[must_use]
    pub fn new(clients: &AwsClients, table: &str, clock: Clock) -> Self {
        Self { client: clients.dynamodb.clone(), table: table.to_owned(), clock }
    }

    pub(super) fn call(&self, operation: &'static str, action: &'static str) -> Call<'_> {
        Call { operation, action, table: &self.table }
    }

    /// Pauses a handler, or lets it go on; a running relay takes it up within seconds.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn set_paused(&self, handler: &HandlerName, paused: bool) -> Result<(), StorageError> {
        let key = [(PK.to_owned(), text(PAUSED)), (SK.to_owned(), text(handler.as_str()))];
        let change = if paused {
            let mut item = Item::from(key);
            item.insert(PAUSED_AT.to_owned(), text(self.clock.now().to_string()));
            put(&self.table, item)
        } else {
            delete(&self.table, Item::from(key))
        };
        let call = self.call("TransactWriteItems", "dynamodb:PutItem, dynamodb:DeleteItem and dynamodb:UpdateItem");
        let request = (self.client.transact_write_items())
            .transact_items(change)
            .transact_items(order(&self.table))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(())
    }

    pub(super) async fn remove(&self, key: Item) -> Result<(), StorageError> {
        let call = self.call("DeleteItem", "dynamodb:DeleteItem");
        let request = (self.client.delete_item())
            .table_name(&self.table)
            .set_key(Some(key))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(())
    }

    pub(super) fn unreadable(&self, pk: &str, sk: &str, reason: &'static str) -> StorageError {
        StorageError::Unreadable { table: self.table.clone(), key: format!("{pk} {sk}"), reason }
    }

    /// What was durably registered of a handler; none when it never ran.
    ///
    /// # Errors
    /// As the call failed, or when the row cannot be read.
    pub async fn registered(&self, handler: &HandlerName) -> Result<Option<Registration>, StorageError> {
        let item = self.get(HANDLERS, handler.as_str()).await?;
        item.map(|item| self.registration(handler, &item)).transpose()
    }

    fn registration(&self, handler: &HandlerName, item: &Item) -> Result<Registration, StorageError> {
        decode_registration(item).map_err(|reason| self.unreadable(HANDLERS, handler.as_str(), reason))
    }
}

fn checkpoints_key(handler: &HandlerName) -> String {
    format!("checkpoints#{}", escape(handler.as_str()))
}

fn encode_checkpoint(handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint, now: Timestamp) -> Item {
    let place = match checkpoint {
        Checkpoint::At(sequence) => (SEQUENCE.to_owned(), text(sequence.digits())),
        Checkpoint::Finished => (FINISHED.to_owned(), AttributeValue::Bool(true)),
    };
    Item::from([
        (PK.to_owned(), text(checkpoints_key(handler))),
        (SK.to_owned(), text(shard.as_str())),
        place,
        (UPDATED_AT.to_owned(), text(now.to_string())),
    ])
}

fn decode_checkpoint(item: &Item) -> Result<(ShardId, Checkpoint), &'static str> {
    let shard = ShardId::new(text_of(item, SK).ok_or("`sk` is no text (S)")?);
    if item.get(FINISHED).and_then(|value| value.as_bool().ok()) == Some(&true) {
        return Ok((shard, Checkpoint::Finished));
    }
    let sequence = text_of(item, SEQUENCE)
        .and_then(StreamSequence::parse)
        .ok_or("neither `finished` (BOOL) nor `sequence` (S, digits) is there")?;
    Ok((shard, Checkpoint::At(sequence)))
}

fn encode_registration(handler: &HandlerName, start: Start, now: Timestamp) -> Item {
    let written = match start {
        Start::Beginning => "beginning".to_owned(),
        Start::Latest => "latest".to_owned(),
        Start::At(moment) => moment.to_string(),
    };
    let mut item = Item::from([
        (PK.to_owned(), text(HANDLERS)),
        (SK.to_owned(), text(handler.as_str())),
        (START.to_owned(), text(written)),
        (REGISTERED_AT.to_owned(), text(now.to_string())),
    ]);
    if let Some(started_at) = start.registration(now).started_at {
        item.insert(STARTED_AT.to_owned(), text(started_at.to_string()));
    }
    item
}

fn decode_registration(item: &Item) -> Result<Registration, &'static str> {
    match (text_of(item, STARTED_AT), text_of(item, START)) {
        (Some(moment), _) => Timestamp::parse(moment)
            .map(|moment| Registration { started_at: Some(moment) })
            .map_err(|_| "`started_at` is no ISO 8601 time"),
        (None, Some("beginning")) => Ok(Registration { started_at: None }),
        // To take a lost start for the beginning would run a saga over all of history.
        (None, _) => Err("`started_at` is missing and `start` is not `beginning`"),
    }
}

#[async_trait]
impl CheckpointStore for RelayTable {
    async fn load(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        let call = self.call("Query", "dynamodb:Query");
        let pk = checkpoints_key(handler);
        let mut found = BTreeMap::new();
        let mut start = None;
        for _ in 0..LOAD_PAGES_MAX {
            let request = (self.client.query())
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", text(pk.as_str()))
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            for item in answer.items() {
                let (shard, checkpoint) = decode_checkpoint(item)
                    .map_err(|reason| self.unreadable(&pk, text_of(item, SK).unwrap_or("-"), reason))?;
                found.insert(shard, checkpoint);
            }
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(found);
            }
        }
        let reason =
            format!("the handler `{handler}` has more than {LOAD_PAGES_MAX} pages of checkpoints in `{}`", self.table);
        Err(StorageError::Invalid { reason })
    }

    async fn save(&self, handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let call = self.call("PutItem", "dynamodb:PutItem");
        let request = (self.client.put_item())
            .table_name(&self.table)
            .set_item(Some(encode_checkpoint(handler, shard, checkpoint, self.clock.now())))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(())
    }

    async fn forget(&self, handler: &HandlerName, shard: &ShardId) -> Result<(), StorageError> {
        let key = [(PK.to_owned(), text(checkpoints_key(handler))), (SK.to_owned(), text(shard.as_str()))];
        self.remove(Item::from(key)).await
    }
}

#[async_trait]
impl HandlerRegistry for RelayTable {
    async fn register(
        &self,
        handler: &HandlerName,
        start: Start,
        now: Timestamp,
    ) -> Result<Registration, StorageError> {
        let call = self.call("PutItem", "dynamodb:PutItem");
        let item = encode_registration(handler, start, now);
        // What is answered is what a later start will read: the moment as the row's text has it.
        let written = self.registration(handler, &item)?;
        let request = (self.client.put_item())
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(sk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match observe(call.operation, request.send()).await {
            Ok(answer) => {
                call.consumed(answer.consumed_capacity());
                Ok(written)
            }
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                    self.registration(handler, refusal.item().unwrap_or(&Item::new()))
                }
                _ => Err(call.failed(error)),
            },
        }
    }

    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError> {
        let call = self.call("Query", "dynamodb:Query");
        // One page: there are at most as many rows as handlers ever had names.
        let request = (self.client.query())
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(PAUSED))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        let name = |item: &Item| text_of(item, SK).and_then(|name| HandlerName::new(name).ok());
        Ok(answer.items().iter().filter_map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_survives_its_row(
            name in "[^@\\p{Cc}]{1,30}", id in ".{1,60}", digits in "[0-9]{1,40}", end: bool
        ) {
            let (handler, shard) = (HandlerName::new(&name).unwrap(), ShardId::new(&id));
            let checkpoint = if end { Checkpoint::Finished } else { Checkpoint::At(StreamSequence::new(&digits)) };
            let item = encode_checkpoint(&handler, &shard, &checkpoint, Timestamp::from_unix_millis(0));
            prop_assert_eq!(decode_checkpoint(&item), Ok((shard, checkpoint)));
        }

        #[test]
        fn a_start_survives_its_row(now in 0_i64..4_000_000_000_000, at in 0_i64..4_000_000_000_000, kind in 0..3) {
            let (now, at) = (Timestamp::from_unix_millis(now), Timestamp::from_unix_millis(at));
            let start = [Start::Beginning, Start::Latest, Start::At(at)][usize::try_from(kind).unwrap()];
            let item = encode_registration(&HandlerName::new("orders").unwrap(), start, now);
            prop_assert_eq!(decode_registration(&item), Ok(start.registration(now)));
        }
    }

    #[test]
    fn a_row_without_its_start_is_not_the_beginning() {
        let mut item =
            encode_registration(&HandlerName::new("h").unwrap(), Start::Latest, Timestamp::from_unix_millis(0));
        item.remove(STARTED_AT);
        assert!(decode_registration(&item).is_err());
        assert!(decode_registration(&Item::new()).is_err());
    }

    #[test]
    fn a_row_without_a_place_is_an_error() {
        let handler = HandlerName::new("h").unwrap();
        let now = Timestamp::from_unix_millis(0);
        let mut item = encode_checkpoint(&handler, &ShardId::new("s"), &Checkpoint::Finished, now);
        item.insert(FINISHED.into(), AttributeValue::Bool(false));
        assert!(decode_checkpoint(&item).is_err());
        item.insert(SEQUENCE.into(), text("12x"));
        assert!(decode_checkpoint(&item).is_err());
    }
}
