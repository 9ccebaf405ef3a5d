//! The positions table: [`PositionStore`] on DynamoDB, and the listing of positions for operators.
//!
//! How a position is written is in `position_advance`. Reads that decide anything are consistent; listing is for people
//! and is not.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::call::{Call, Item, sequence_of, text, text_of};
use super::mark_row::{MARK_COLUMNS, PASSED, mark_of, passed_of};
use super::rows::remove_row;
use super::{Advance, Advanced, LOAD_ROOTS_MAX, PositionStore, Preloaded, Standing, StorageError};
use crate::aws::AwsClients;
use crate::event::{Root, Sequence, Timestamp, escape, unescape};
use crate::handler::HandlerName;
use crate::time::Clock;

/// Rows removed at once.
const REMOVED_AT_ONCE: usize = 8;

/// How often keys that BatchGetItem left out are asked for, the first time included.
const LOAD_ROUNDS_MAX: u32 = 4;
/// The wait before they are asked for again, times the round.
const LOAD_WAIT: Duration = Duration::from_millis(50);

/// Partition key, S: `{handler}#{domain}#{edition}#{root}`.
pub(super) const PK: &str = "pk";
/// N: the position.
pub(super) const SEQUENCE: &str = "sequence";
/// S: when it was written.
pub(super) const UPDATED_AT: &str = "updated_at";

/// The positions table on DynamoDB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DynamoPositions {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) clock: Clock,
}

/// One row of the positions table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// The handler.
    pub handler: HandlerName,
    /// The root.
    pub root: Root,
    /// The last sequence the handler has durably finished.
    pub sequence: Sequence,
    /// When it was written; none when that cannot be read.
    pub updated_at: Option<Timestamp>,
}

/// A page of positions.
#[derive(Debug, Clone, Default)]
pub struct PositionPage {
    /// The rows, in no order; a page may be empty and not be the last.
    pub rows: Vec<PositionRow>,
    /// Where the next page begins; none when this was the last.
    pub next: Option<PositionCursor>,
}

/// A place in the positions table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionCursor(String);

impl DynamoPositions {
    /// The positions in `table`.
    #[must_use]
    pub fn new(clients: &AwsClients, table: &str, clock: Clock) -> Self {
        Self { client: clients.dynamodb.clone(), table: table.to_owned(), clock }
    }

    /// Positions for an operator, read eventually: one when handler and root are given, otherwise a page of the whole
    /// table (which is scanned) with those of the handler, of the root, or all. Rows that are no position are left out.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn list(
        &self,
        handler: Option<&HandlerName>,
        root: Option<&Root>,
        after: Option<&PositionCursor>,
    ) -> Result<PositionPage, StorageError> {
        if let (Some(handler), Some(root)) = (handler, root) {
            let call = self.call("GetItem", "dynamodb:GetItem");
            let request = (self.client.get_item())
                .table_name(&self.table)
                .key(PK, text(position_key(handler, root)))
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            return Ok(PositionPage {
                rows: answer.item.as_ref().and_then(position_row).into_iter().collect(),
                next: None,
            });
        }
        let call = self.call("Scan", "dynamodb:Scan");
        let mut request = (self.client.scan())
            .table_name(&self.table)
            .set_exclusive_start_key(after.map(|cursor| Item::from([(PK.to_owned(), text(&cursor.0))])))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        if let Some(handler) = handler {
            request = request
                .filter_expression("begins_with(pk, :part)")
                .expression_attribute_values(":part", text(format!("{}#", escape(handler.as_str()))));
        } else if let Some(root) = root {
            // What contains the root's key may still be another root's: the page is filtered again below.
            request = request
                .filter_expression("contains(pk, :part)")
                .expression_attribute_values(":part", text(format!("#{}", root.key())));
        }
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        let rows = (answer.items.as_deref().unwrap_or_default().iter())
            .filter_map(position_row)
            .filter(|row| root.is_none_or(|root| row.root == *root))
            .collect();
        Ok(PositionPage { rows, next: answer.last_evaluated_key.as_ref().and_then(cursor) })
    }

    /// Removes a page of a handler's rows, positions and marks alike: it is to begin anew. Answers how many there were,
    /// and where to go on; the whole table is scanned.
    ///
    /// # Errors
    /// As a call failed; some may be gone.
    pub async fn remove_page(
        &self,
        handler: &HandlerName,
        after: Option<&PositionCursor>,
    ) -> Result<(usize, Option<PositionCursor>), StorageError> {
        let call = self.call("Scan", "dynamodb:Scan");
        let request = (self.client.scan())
            .table_name(&self.table)
            .set_exclusive_start_key(after.map(|cursor| Item::from([(PK.to_owned(), text(&cursor.0))])))
            .projection_expression(PK)
            .filter_expression("begins_with(pk, :part)")
            .expression_attribute_values(":part", text(format!("{}#", escape(handler.as_str()))))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        let remove = |key: &Item| remove_row(&self.client, &self.table, key.clone());
        let keys = answer.items();
        stream::iter(keys).map(remove).buffer_unordered(REMOVED_AT_ONCE).try_collect::<()>().await?;
        Ok((keys.len(), answer.last_evaluated_key.as_ref().and_then(cursor)))
    }

    async fn scan_ahead(&self, handlers: &[HandlerName], pages_max: usize) -> Result<Preloaded, StorageError> {
        let call = self.call("Scan", "dynamodb:Scan");
        let (mut preloaded, mut unreadable, mut start) = (Preloaded::default(), false, None);
        for _ in 0..pages_max {
            let request = (self.client.scan())
                .table_name(&self.table)
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            for item in answer.items.as_deref().unwrap_or_default() {
                let whose = text_of(item, PK).and_then(parse_key).filter(|(handler, _)| handlers.contains(handler));
                let Some((handler, root)) = whose else { continue };
                match self.standing(item) {
                    Ok(standing) => preloaded.positions.push((handler, root, standing)),
                    // Its root is loaded by itself then, which says what is wrong.
                    Err(_) => unreadable = true,
                }
            }
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                preloaded.complete = !unreadable;
                break;
            }
        }
        Ok(preloaded)
    }

    pub(super) fn call(&self, operation: &'static str, action: &'static str) -> Call<'_> {
        Call { operation, action, table: &self.table }
    }

    pub(super) fn unreadable(&self, key: &str) -> StorageError {
        StorageError::Unreadable {
            table: self.table.clone(),
            key: key.to_owned(),
            reason: "`sequence` is no whole number (N) from 0",
        }
    }

    /// What a row says: no position when it only carries a mark.
    fn standing(&self, item: &Item) -> Result<Standing, StorageError> {
        let key = || text_of(item, PK).unwrap_or("-").to_owned();
        let position = match (sequence_of(item, SEQUENCE), item.contains_key(SEQUENCE)) {
            (None, true) => return Err(self.unreadable(&key())),
            (position, _) => position,
        };
        let unreadable = |reason| StorageError::Unreadable { table: self.table.clone(), key: key(), reason };
        let mark = mark_of(item).map_err(unreadable)?;
        let passed = passed_of(item).map_err(unreadable)?;
        Ok(Standing { position, mark, passed })
    }

    /// The rows of these keys, asked for until all are answered.
    async fn rows(&self, keys: HashSet<String>) -> Result<HashMap<String, Standing>, StorageError> {
        let call = self.call("BatchGetItem", "dynamodb:BatchGetItem");
        let mut found = HashMap::with_capacity(keys.len());
        let mut open: Vec<Item> = keys.into_iter().map(|key| Item::from([(PK.to_owned(), text(key))])).collect();
        for round in 0..LOAD_ROUNDS_MAX {
            if open.is_empty() {
                return Ok(found);
            }
            tokio::time::sleep(LOAD_WAIT * round).await;
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(open))
                .consistent_read(true)
                .projection_expression(format!("pk, #sequence, {PASSED}, {}", MARK_COLUMNS.join(", ")))
                .expression_attribute_names("#sequence", SEQUENCE)
                .build()
                .expect("the keys are set");
            let request = (self.client.batch_get_item())
                .request_items(&self.table, wanted)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            for item in answer.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                if let Some(key) = text_of(&item, PK) {
                    found.insert(key.to_owned(), self.standing(&item)?);
                }
            }
            open = answer.unprocessed_keys.into_iter().flatten().flat_map(|(_, left)| left.keys).collect();
        }
        if open.is_empty() {
            return Ok(found);
        }
        Err(StorageError::Throttled { operation: call.operation, table: self.table.clone() })
    }
}

/// The key of a position: the handler's name, escaped, before the root's key as it stands.
pub(super) fn position_key(handler: &HandlerName, root: &Root) -> String {
    format!("{}#{}", escape(handler.as_str()), root.key())
}

fn parse_key(key: &str) -> Option<(HandlerName, Root)> {
    let (handler, root) = key.split_once('#')?;
    Some((HandlerName::new(&unescape(handler)?).ok()?, Root::parse(root).ok()?))
}

fn position_row(item: &Item) -> Option<PositionRow> {
    let (handler, root) = parse_key(text_of(item, PK)?)?;
    let sequence = sequence_of(item, SEQUENCE)?;
    let updated_at = text_of(item, UPDATED_AT).and_then(|moment| Timestamp::parse(moment).ok());
    Some(PositionRow { handler, root, sequence, updated_at })
}

fn cursor(key: &Item) -> Option<PositionCursor> {
    text_of(key, PK).map(|pk| PositionCursor(pk.to_owned()))
}

#[async_trait]
impl PositionStore for DynamoPositions {
    async fn load(&self, handler: &HandlerName, roots: &[Root]) -> Result<Vec<Standing>, StorageError> {
        if roots.len() > LOAD_ROOTS_MAX {
            let reason = format!("{} positions asked for at once, more than {LOAD_ROOTS_MAX}", roots.len());
            return Err(StorageError::Invalid { reason });
        }
        let keys: Vec<String> = roots.iter().map(|root| position_key(handler, root)).collect();
        let found = self.rows(keys.iter().cloned().collect()).await?;
        Ok(keys.iter().map(|key| found.get(key).cloned().unwrap_or_default()).collect())
    }

    /// By a Scan, a page of 1 MB at a time.
    async fn preload(&self, handlers: &[HandlerName], pages_max: usize) -> Result<Preloaded, StorageError> {
        let Some(handler) = handlers.first() else { return Ok(Preloaded::default()) };
        // A table of another shape has no positions to scan; asked by the key, it says what is wrong with it.
        let anybody = Root::parse("-#-#-").map_err(|error| StorageError::Invalid { reason: error.to_string() })?;
        let (preloaded, _) =
            tokio::try_join!(self.scan_ahead(handlers, pages_max), self.load(handler, std::slice::from_ref(&anybody)))?;
        Ok(preloaded)
    }

    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        self.advance_all(handler, advances).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::number;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_names_its_handler_and_root(
            name in "[^@\\p{Cc}]{1,30}", domain in ".{1,10}", edition in ".{0,10}", id in ".{1,10}", sequence: u64
        ) {
            let (handler, root) = (HandlerName::new(&name).unwrap(), Root::new(&domain, &edition, &id).unwrap());
            let key = position_key(&handler, &root);
            let item = Item::from([
                (PK.to_owned(), text(key)),
                (SEQUENCE.to_owned(), number(Sequence(sequence))),
                (UPDATED_AT.to_owned(), text("2026-01-31T12:00:00Z")),
            ]);
            let updated_at = Timestamp::parse("2026-01-31T12:00:00Z").ok();
            let row = PositionRow { handler, root, sequence: Sequence(sequence), updated_at };
            prop_assert_eq!(position_row(&item), Some(row));
        }

        #[test]
        fn no_key_panics(key in ".{0,60}") {
            if let Some((handler, root)) = parse_key(&key) {
                prop_assert_eq!(position_key(&handler, &root), key);
            }
        }
    }
}
