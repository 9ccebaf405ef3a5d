//! The rows of checkpoints in the relay's table.
//!
//! Rows: `pk = checkpoints#{handler}`, `sk` = shard id, `sequence` S (digits: up to 40, more than a Number holds) or
//! `finished` BOOL, `updated_at` S.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;

use super::table::{SK, keyed};
use super::{Checkpoint, CheckpointStore, RelayTable};
use crate::event::{Timestamp, escape};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, text, text_of};
use crate::stream::{ShardId, StreamSequence};

const SEQUENCE: &str = "sequence";
const FINISHED: &str = "finished";
const UPDATED_AT: &str = "updated_at";

fn checkpoints_key(handler: &HandlerName) -> String {
    format!("checkpoints#{}", escape(handler.as_str()))
}

fn encode_checkpoint(handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint, now: Timestamp) -> Item {
    let place = match checkpoint {
        Checkpoint::At(sequence) => (SEQUENCE.to_owned(), text(sequence.digits())),
        Checkpoint::Finished => (FINISHED.to_owned(), AttributeValue::Bool(true)),
    };
    let mut item = keyed(&checkpoints_key(handler), shard.as_str());
    item.extend([place, (UPDATED_AT.to_owned(), text(now.to_string()))]);
    item
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

#[async_trait]
impl CheckpointStore for RelayTable {
    async fn load(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        let pk = checkpoints_key(handler);
        (self.partition(&pk).await?.iter())
            .map(|item| {
                decode_checkpoint(item).map_err(|reason| self.unreadable(&pk, text_of(item, SK).unwrap_or("-"), reason))
            })
            .collect()
    }

    async fn save(&self, handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.put(encode_checkpoint(handler, shard, checkpoint, self.clock.now())).await
    }

    async fn forget(&self, handler: &HandlerName, shard: &ShardId) -> Result<(), StorageError> {
        self.remove(&checkpoints_key(handler), shard.as_str()).await
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
