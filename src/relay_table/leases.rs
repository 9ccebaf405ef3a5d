//! The leases on DynamoDB: read by handler or by key, changed under the condition of their owner and epoch.
//!
//! Invariants: a checkpoint is written under the epoch of its lease, and never by anybody else; a shard's end and its
//! children's leases are one transaction; whatever adds or finishes a lease raises the lineage.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, Put, ReturnConsumedCapacity, ReturnValue, TransactWriteItem, Update,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::lease_row::{
    ANNOUNCED, BRANCH, CLEAN, EPOCH, FINISHED, OWNER, PARTS, SEQUENCE, UPDATED_AT, decode, decode_checkpoint, encode,
    lease_key, number, part_key,
};
use super::members::raise_lineage;
use super::table::{PK, SK};
use super::{Checkpoint, RelayTable};
use crate::fleet::{Changed, Lease, LeaseKey, Taken};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, text, text_of};
use crate::storage::transaction::Transacted;

/// Leases added in one transaction, with the lineage: DynamoDB takes 100 items.
const ADDED_AT_ONCE: usize = 99;

/// Keys read in one BatchGetItem: DynamoDB's limit.
const KEYS_AT_ONCE: usize = 100;

/// Calls of one reading under way at once.
const CALLS_AT_ONCE: usize = 8;

/// The owner, and that there is none.
const SAME_OWNER: &str = "#owner = :was AND #epoch = :at";
const NO_OWNER: &str = "attribute_not_exists(#owner) AND #epoch = :at";

impl RelayTable {
    pub(super) async fn leases_by_handler(&self, handler: &HandlerName) -> Result<Vec<(Lease, Item)>, StorageError> {
        let parts: Vec<Vec<Item>> = stream::iter((0..PARTS).map(|part| part_key(handler, part)))
            .map(|pk| async move { self.partition(&pk).await })
            .buffered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        let lease = |item: Item| Ok((self.lease(handler, &item)?, item));
        parts.into_iter().flatten().map(lease).collect()
    }

    fn lease(&self, handler: &HandlerName, item: &Item) -> Result<Lease, StorageError> {
        decode(handler, item).map_err(|reason| self.unreadable_lease(item, reason))
    }

    fn unreadable_lease(&self, item: &Item, reason: &'static str) -> StorageError {
        self.unreadable(text_of(item, PK).unwrap_or("leases"), text_of(item, SK).unwrap_or("-"), reason)
    }

    pub(super) fn checkpoint_of(&self, item: &Item) -> Result<Option<Checkpoint>, StorageError> {
        decode_checkpoint(item).map_err(|reason| self.unreadable_lease(item, reason))
    }

    pub(super) async fn leases_by_key(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        let mut found = Vec::new();
        for chunk in keys.chunks(KEYS_AT_ONCE) {
            found.extend(self.leases_of_chunk(chunk).await?);
        }
        Ok(found)
    }

    async fn leases_of_chunk(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        let call = self.call("BatchGetItem", "dynamodb:BatchGetItem");
        let rows: Vec<Item> = keys.iter().map(lease_key).collect();
        let asked = KeysAndAttributes::builder().set_keys(Some(rows.clone())).consistent_read(true).build();
        let asked = asked.map_err(|error| StorageError::Invalid { reason: error.to_string() })?;
        let request = (self.client.batch_get_item())
            .request_items(&self.table, asked)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        // What was not processed is read again with the next look.
        let found = answer.responses.and_then(|mut tables| tables.remove(&self.table)).unwrap_or_default();
        let handler = |item: &Item| {
            let is_same = |row: &Item| row.get(PK) == item.get(PK) && row.get(SK) == item.get(SK);
            rows.iter().position(is_same).map(|index| &keys[index].handler)
        };
        found.iter().filter_map(|item| Some(self.lease(handler(item)?, item))).collect()
    }

    pub(super) async fn add_leases(&self, leases: &[Lease]) -> Result<(), StorageError> {
        for chunk in leases.chunks(ADDED_AT_ONCE) {
            // One that is there already refuses the whole: then each is put for itself.
            let whole = chunk.iter().map(|lease| self.added(lease)).chain([raise_lineage(&self.table)]);
            if let Transacted::Done = self.transact_leases(whole.collect()).await? {
                continue;
            }
            for lease in chunk {
                self.transact_leases(vec![self.added(lease), raise_lineage(&self.table)]).await?;
            }
        }
        Ok(())
    }

    fn added(&self, lease: &Lease) -> TransactWriteItem {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(encode(lease)))
            .condition_expression("attribute_not_exists(pk)");
        TransactWriteItem::builder().put(put.build().expect("table and item are set")).build()
    }

    pub(super) async fn transact_leases(&self, items: Vec<TransactWriteItem>) -> Result<Transacted, StorageError> {
        let call = self.call("TransactWriteItems", "dynamodb:PutItem and dynamodb:UpdateItem");
        call.transact(self.client.transact_write_items().set_transact_items(Some(items))).await
    }

    pub(super) async fn change_lease(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        let set = "SET #epoch = :epoch, #announced = :announced, #clean = :clean, #updated_at = :now";
        let request = self
            .conditional(read)
            .update_expression(match changed.owner {
                Some(_) => format!("{set}, #owner = :owner"),
                None => format!("{set} REMOVE #owner"),
            })
            .expression_attribute_names("#announced", ANNOUNCED)
            .expression_attribute_names("#clean", CLEAN)
            .expression_attribute_names("#updated_at", UPDATED_AT)
            .expression_attribute_values(":epoch", number(changed.epoch.0))
            .expression_attribute_values(":announced", AttributeValue::Bool(changed.announced))
            .expression_attribute_values(":clean", AttributeValue::Bool(changed.clean))
            .expression_attribute_values(":now", text(self.clock.now().to_string()))
            .return_values(ReturnValue::AllNew);
        let request = match &changed.owner {
            Some(owner) => request.expression_attribute_values(":owner", text(owner.as_str())),
            None => request,
        };
        let Some(row) = self.update_lease(request).await? else { return Ok(None) };
        Ok(Some(Changed { checkpoint: self.checkpoint_of(&row)? }))
    }

    /// An update of a lease's row, if its owner and epoch are those that were read and it is there.
    fn conditional(&self, read: &Lease) -> UpdateItemFluentBuilder {
        let request = (self.client.update_item())
            .table_name(&self.table)
            .set_key(Some(lease_key(&read.key())))
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_names("#epoch", EPOCH)
            .expression_attribute_values(":at", number(read.epoch.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match &read.owner {
            Some(owner) => {
                request.condition_expression(SAME_OWNER).expression_attribute_values(":was", text(owner.as_str()))
            }
            None => request.condition_expression(NO_OWNER),
        }
    }

    /// Makes an update; the row as it asked for it, or none when its condition does not hold.
    async fn update_lease(&self, request: UpdateItemFluentBuilder) -> Result<Option<Item>, StorageError> {
        let call = self.call("UpdateItem", "dynamodb:UpdateItem");
        let answer = call.make_if(request.send()).await?;
        call.consumed(answer.iter().filter_map(|answer| answer.consumed_capacity()));
        Ok(answer.map(|answer| answer.attributes.unwrap_or_default()))
    }

    pub(super) async fn checkpoint_lease(
        &self,
        key: &LeaseKey,
        taken: &Taken,
        checkpoint: &Checkpoint,
    ) -> Result<bool, StorageError> {
        let (name, place) = match checkpoint {
            Checkpoint::At(sequence) => (SEQUENCE, text(sequence.digits())),
            Checkpoint::Finished => (FINISHED, AttributeValue::Bool(true)),
        };
        let request = (self.client.update_item())
            .table_name(&self.table)
            .set_key(Some(lease_key(key)))
            .update_expression("SET #place = :place, #updated_at = :now")
            .condition_expression(SAME_OWNER)
            .expression_attribute_names("#place", name)
            .expression_attribute_names("#updated_at", UPDATED_AT)
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_names("#epoch", EPOCH)
            .expression_attribute_values(":place", place)
            .expression_attribute_values(":now", text(self.clock.now().to_string()))
            .expression_attribute_values(":was", text(taken.owner.as_str()))
            .expression_attribute_values(":at", number(taken.epoch.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        Ok(self.update_lease(request).await?.is_some())
    }

    pub(super) async fn finish_lease(
        &self,
        key: &LeaseKey,
        taken: &Taken,
        children: &[Lease],
    ) -> Result<bool, StorageError> {
        let finished = Update::builder()
            .table_name(&self.table)
            .set_key(Some(lease_key(key)))
            .update_expression("SET #finished = :yes, #clean = :yes, #updated_at = :now REMOVE #owner, #announced")
            .condition_expression(SAME_OWNER)
            .expression_attribute_names("#finished", FINISHED)
            .expression_attribute_names("#clean", CLEAN)
            .expression_attribute_names("#announced", ANNOUNCED)
            .expression_attribute_names("#updated_at", UPDATED_AT)
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_names("#epoch", EPOCH)
            .expression_attribute_values(":yes", AttributeValue::Bool(true))
            .expression_attribute_values(":now", text(self.clock.now().to_string()))
            .expression_attribute_values(":was", text(taken.owner.as_str()))
            .expression_attribute_values(":at", number(taken.epoch.0));
        let finished =
            TransactWriteItem::builder().update(finished.build().expect("key and expression are set")).build();
        let items = [finished, raise_lineage(&self.table)].into_iter();
        let items = items.chain(children.iter().map(|child| self.child(child)));
        Ok(matches!(self.transact_leases(items.collect()).await?, Transacted::Done))
    }

    /// A child's lease is put where there is none. One that is there, put by whoever compared the leases with the stream,
    /// stays as it is, but for its branch, which both know.
    fn child(&self, lease: &Lease) -> TransactWriteItem {
        let mut update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(lease_key(&lease.key())))
            .expression_attribute_names("#branch", BRANCH)
            .expression_attribute_values(":branch", text(lease.branch.as_str()));
        let mut sets = vec!["#branch = :branch".to_owned()];
        let row = encode(lease);
        for (index, (name, value)) in
            row.into_iter().filter(|(name, _)| ![PK, SK, BRANCH].contains(&&**name)).enumerate()
        {
            sets.push(format!("#n{index} = if_not_exists(#n{index}, :v{index})"));
            update = update
                .expression_attribute_names(format!("#n{index}"), name)
                .expression_attribute_values(format!(":v{index}"), value);
        }
        let update = update.update_expression(format!("SET {}", sets.join(", ")));
        TransactWriteItem::builder().update(update.build().expect("key and expression are set")).build()
    }

    pub(super) async fn forget_lease(&self, read: &Lease) -> Result<bool, StorageError> {
        let call = self.call("DeleteItem", "dynamodb:DeleteItem");
        let request = (self.client.delete_item())
            .table_name(&self.table)
            .set_key(Some(lease_key(&read.key())))
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_names("#epoch", EPOCH)
            .expression_attribute_values(":at", number(read.epoch.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = match &read.owner {
            Some(owner) => {
                request.condition_expression(SAME_OWNER).expression_attribute_values(":was", text(owner.as_str()))
            }
            None => request.condition_expression(NO_OWNER),
        };
        let answer = call.make_if(request.send()).await?;
        call.consumed(answer.iter().filter_map(|answer| answer.consumed_capacity()));
        Ok(answer.is_some())
    }
}
