//! Marks on DynamoDB: on the position row, and, so that they are found without a scan, in the relay's own table.
//!
//! Rows of the relay's table: `pk = marks#{handler}`, `sk` = the root's key, with the mark's attributes, or, after it was
//! taken away and until the root was looked at once more, the same with `mark` = `ending`; `pk =
//! skipped#{handler}`, `sk = {root key}#{sequence}`, the record of a passed event; `pk = rewound#{handler}`, `sk = {root
//! key}#{time}`, `to` N, `reason` S, the record of events that were ordered again; `pk = orders`, `sk = all`, a `number`
//! that grows with each change by an operator, which a running relay looks at. Both tables change in one
//! transaction. Nothing here retries.

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{Delete, ReturnConsumedCapacity, TransactWriteItem};

use super::call::{Call, Item, number, sequence_of, text, text_of};
use super::mark_row::{
    Change, ENDING, MARK, MARK_BRANCH, MARK_SEQUENCE, MARKED_AT, PASSED, branch_of, columns_of, ending_of,
};
use super::position_store::{PK, UPDATED_AT, position_key};
use super::rows::read_page;
use super::transaction::{Transacted, delete, put};
use super::{Ending, Mark, MarkState, MarkStore, Marked, Marking, Pass, Skip, Standing, StorageError, TableNames};
use crate::aws::AwsClients;
use crate::event::{Root, Sequence, escape};
use crate::handler::HandlerName;
use crate::time::Clock;

/// Partition key of the number of orders, and its sort key here.
pub(super) const ORDERS: (&str, &str) = ("orders", "all");
/// N: how many orders there were.
pub(super) const NUMBER: &str = "number";

/// Pages of 1 MB that a list of marks takes at most; some million marks.
const LIST_PAGES_MAX: usize = 300;

/// Marks on DynamoDB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DynamoMarks {
    client: Client,
    positions: String,
    pub(super) relay: String,
    pub(super) clock: Clock,
}

impl DynamoMarks {
    /// The marks of these tables.
    #[must_use]
    pub fn new(clients: &AwsClients, tables: &TableNames, clock: Clock) -> Self {
        let (positions, relay) = (tables.positions.clone(), tables.relay.clone());
        Self { client: clients.dynamodb.clone(), positions, relay, clock }
    }

    /// Shows each row of a partition of the relay's table, page by page; of its attributes those named, or all.
    pub(super) async fn each_row(
        &self,
        pk: String,
        attributes: Option<&str>,
        mut take: impl FnMut(&Item) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut start = None;
        for _ in 0..LIST_PAGES_MAX {
            let (rows, next) = read_page(&self.client, &self.relay, &pk, attributes, start).await?;
            rows.iter().try_for_each(&mut take)?;
            start = next;
            if start.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Changes a position row: nothing yet but the time, under no condition.
    pub(super) fn touch(&self, handler: &HandlerName, root: &Root) -> Change<'_> {
        let mut change = Change::of(&self.positions, position_key(handler, root));
        change.set(UPDATED_AT, ":now", text(self.clock.now().to_string()));
        change
    }

    pub(super) fn index(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> TransactWriteItem {
        let mut item: Item = columns_of(mark).into_iter().map(|(column, value)| (column.to_owned(), value)).collect();
        item.extend([("pk".to_owned(), text(marks_key(handler))), ("sk".to_owned(), text(root.key()))]);
        put(&self.relay, item)
    }

    pub(super) fn skipped(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> TransactWriteItem {
        let item = Item::from([
            ("pk".to_owned(), text(skipped_key(handler))),
            ("sk".to_owned(), text(format!("{}#{:020}", root.key(), skip.sequence.0))),
            ("sequence".to_owned(), number(skip.sequence)),
            ("attempts".to_owned(), number(Sequence(skip.attempts.into()))),
            ("reason".to_owned(), text(skip.reason.as_str())),
            ("skipped_at".to_owned(), text(self.clock.now().to_string())),
        ]);
        put(&self.relay, item)
    }

    pub(super) async fn transact(&self, items: Vec<TransactWriteItem>) -> Result<Marking, StorageError> {
        let call = Call {
            operation: "TransactWriteItems",
            action: "dynamodb:UpdateItem, dynamodb:PutItem and dynamodb:DeleteItem",
            table: &self.positions,
        };
        let request = self.client.transact_write_items().set_transact_items(Some(items));
        Ok(match call.transact(request).await? {
            Transacted::Done => Marking::Done,
            Transacted::Refused(_) => Marking::Refused,
        })
    }
}

pub(super) fn skipped_key(handler: &HandlerName) -> String {
    format!("skipped#{}", escape(handler.as_str()))
}

pub(super) fn marks_key(handler: &HandlerName) -> String {
    format!("marks#{}", escape(handler.as_str()))
}

#[async_trait]
impl MarkStore for DynamoMarks {
    async fn mark(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        mark: &Mark,
    ) -> Result<Marking, StorageError> {
        let mut change = self.touch(handler, root);
        change.mark(mark);
        change.only_standing(standing, standing.position);
        self.transact(vec![change.build(), self.index(handler, root, mark)]).await
    }

    async fn unmark(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        let mut change = Change::of(&self.positions, position_key(handler, root));
        change.unmark();
        change.only_marked(mark);
        let mut left: Item = columns_of(mark).into_iter().map(|(column, value)| (column.to_owned(), value)).collect();
        left.extend([(MARK.to_owned(), text(ENDING))]);
        left.extend([("pk".to_owned(), text(marks_key(handler))), ("sk".to_owned(), text(root.key()))]);
        self.transact(vec![change.build(), put(&self.relay, left)]).await
    }

    async fn forget(&self, handler: &HandlerName, root: &Root, ending: &Ending) -> Result<Marking, StorageError> {
        let delete = Delete::builder()
            .table_name(&self.relay)
            .key("pk", text(marks_key(handler)))
            .key("sk", text(root.key()))
            .condition_expression("mark = :ending AND mark_sequence = :sequence AND marked_at = :at")
            .expression_attribute_values(":ending", text(ENDING))
            .expression_attribute_values(":sequence", number(ending.sequence))
            .expression_attribute_values(":at", text(ending.marked_at.to_string()));
        let delete = delete.build().expect("table and key are set");
        self.transact(vec![TransactWriteItem::builder().delete(delete).build()]).await
    }

    async fn pass(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        pass: &Pass,
    ) -> Result<Marking, StorageError> {
        let mut change = self.touch(handler, root);
        change.only_standing(standing, Some(pass.position(standing.position)));
        change.set(PASSED, ":passed", text(pass.passed.to_string()));
        let known = match &standing.passed {
            Some(_) => "passed_holes = :from_passed",
            None => "(attribute_not_exists(passed_holes) OR passed_holes = :from_passed)",
        };
        let from = standing.passed.as_deref().map(ToString::to_string).unwrap_or_default();
        change.only_with(known, ":from_passed", text(from));
        let skip = Skip::new(pass.hole.first, 0, &pass.reason);
        self.transact(vec![change.build(), self.skipped(handler, root, &skip)]).await
    }

    async fn purge(&self, handler: &HandlerName, root: &Root) -> Result<(), StorageError> {
        let position = [(PK.to_owned(), text(position_key(handler, root)))];
        let index = [("pk".to_owned(), text(marks_key(handler))), ("sk".to_owned(), text(root.key()))];
        let both = vec![delete(&self.positions, position.into()), delete(&self.relay, index.into())];
        self.transact(both).await.map(|_| ())
    }

    async fn record_skip(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> Result<(), StorageError> {
        self.transact(vec![self.skipped(handler, root, skip)]).await.map(|_| ())
    }

    async fn marked(&self, handler: &HandlerName) -> Result<Marked, StorageError> {
        let mut found = Marked::default();
        let attributes = format!("sk, {MARK}, {MARK_BRANCH}, {MARK_SEQUENCE}, {MARKED_AT}");
        self.each_row(marks_key(handler), Some(&attributes), |item| {
            let key = text_of(item, "sk").unwrap_or("-");
            let root = Root::parse(key).ok();
            if let Some((root, ending)) = root.clone().zip(ending_of(item)) {
                found.ending.push((root, ending));
                return Ok(());
            }
            let state = text_of(item, MARK).and_then(MarkState::parse);
            let reason = "`sk` is no root's key, or `mark` neither parked nor deferred";
            let unreadable = || StorageError::Unreadable { table: self.relay.clone(), key: key.to_owned(), reason };
            let (root, state) = root.zip(state).ok_or_else(unreadable)?;
            found.add(root, state, branch_of(item));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn orders(&self) -> Result<u64, StorageError> {
        let call = Call { operation: "GetItem", action: "dynamodb:GetItem", table: &self.relay };
        let request = (self.client.get_item())
            .table_name(&self.relay)
            .key("pk", text(ORDERS.0))
            .key("sk", text(ORDERS.1))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(answer.item.as_ref().and_then(|item| sequence_of(item, NUMBER)).map_or(0, |number| number.0))
    }
}
