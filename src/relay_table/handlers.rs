//! The rows of handlers in the relay's table: since when each is there, and whether an operator has paused it.
//!
//! Rows: `pk = handlers`, `sk` = handler, `start` S, `started_at` S (not for a start at the beginning), `registered_at`
//! S; and `pk = paused`, `sk` = handler, `paused_at` S, as long as it is paused. Invariant: a handler's row is written
//! once and never changed.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};

use super::interests::{INTERESTS, decode_interests, encode_interests};
use super::table::{SK, keyed};
use super::{HandlerRegistry, RegisteredInterest, Registration, RelayTable, Start};
use crate::aws::observe;
use crate::event::Timestamp;
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, text, text_of};
use crate::storage::mark_orders::order;
use crate::storage::transaction::{delete, put};

const START: &str = "start";
const STARTED_AT: &str = "started_at";
const REGISTERED_AT: &str = "registered_at";

/// The partition of all handlers.
pub(super) const HANDLERS: &str = "handlers";

/// The partition of all paused handlers.
pub(super) const PAUSED: &str = "paused";
/// S: since when.
const PAUSED_AT: &str = "paused_at";

fn encode_registration(handler: &HandlerName, start: Start, now: Timestamp) -> Item {
    let written = match start {
        Start::Beginning => "beginning".to_owned(),
        Start::Latest => "latest".to_owned(),
        Start::At(moment) => moment.to_string(),
    };
    let mut item = keyed(HANDLERS, handler.as_str());
    item.extend([(START.to_owned(), text(written)), (REGISTERED_AT.to_owned(), text(now.to_string()))]);
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

impl RelayTable {
    /// Pauses a handler, or lets it go on; a running relay takes it up within seconds.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn set_paused(&self, handler: &HandlerName, paused: bool) -> Result<(), StorageError> {
        let mut row = keyed(PAUSED, handler.as_str());
        let change = if paused {
            row.insert(PAUSED_AT.to_owned(), text(self.clock.now().to_string()));
            put(&self.table, row)
        } else {
            delete(&self.table, row)
        };
        let call = self.call("TransactWriteItems", "dynamodb:PutItem, dynamodb:DeleteItem and dynamodb:UpdateItem");
        let request = self.client.transact_write_items().transact_items(change).transact_items(order(&self.table));
        call.transact(request).await.map(|_| ())
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

    async fn interests(&self, handler: &HandlerName) -> Result<Option<Vec<RegisteredInterest>>, StorageError> {
        let item = self.get(INTERESTS, handler.as_str()).await?;
        let decode =
            |item: Item| decode_interests(&item).map_err(|reason| self.unreadable(INTERESTS, handler.as_str(), reason));
        item.map(decode).transpose()
    }

    async fn put_interests(&self, handler: &HandlerName, interests: &[RegisteredInterest]) -> Result<(), StorageError> {
        self.put(encode_interests(handler, interests)).await
    }

    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError> {
        let name = |item: &Item| text_of(item, SK).and_then(|name| HandlerName::new(name).ok());
        Ok(self.partition(PAUSED).await?.iter().filter_map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::testing::any_item;
    use proptest::prelude::*;

    proptest! {
        /// What cannot be read is never a start: it would play history, or leave it out.
        #[test]
        fn any_row_is_a_registration_or_says_what_is_wrong(item in any_item(&[START, STARTED_AT, REGISTERED_AT])) {
            let written = text_of(&item, STARTED_AT);
            match decode_registration(&item) {
                Ok(Registration { started_at: Some(moment) }) => {
                    prop_assert_eq!(written.map(Timestamp::parse), Some(Ok(moment)));
                }
                Ok(Registration { started_at: None }) => {
                    prop_assert_eq!((written, text_of(&item, START)), (None, Some("beginning")));
                }
                Err(_) => prop_assert!(written.is_some() || text_of(&item, START) != Some("beginning")),
            }
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
}
