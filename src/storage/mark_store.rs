//! Marks on DynamoDB: on the position row, and, so that they are found without a scan, in the relay's own table.
//!
//! Rows of the relay's table: `pk = marks#{handler}`, `sk` = the root's key, with the mark's attributes; `pk =
//! skipped#{handler}`, `sk = {root key}#{sequence}`, the record of a passed event; `pk = rewound#{handler}`, `sk = {root
//! key}#{time}`, `to` N, the record of a root that was ordered back; `pk = orders`, `sk = all`, a `number`
//! that grows with each change by an operator, which a running relay looks at. Both tables change in one
//! transaction. Nothing here retries.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, TransactWriteItem, Update};

use super::call::{Call, Item, number, sequence_of, text, text_of};
use super::position_store::{PK, SEQUENCE, UPDATED_AT, position_key};
use super::transaction::{Transacted, delete, put};
use super::{Mark, MarkState, MarkStore, Marked, Marking, Skip, Standing, StorageError, TableNames};
use crate::aws::AwsClients;
use crate::event::{Root, Sequence, Timestamp, escape};
use crate::handler::HandlerName;
use crate::time::Clock;

/// S: `parked` or `deferred`.
pub(super) const MARK: &str = "mark";
/// N: the event the root stands before.
const MARK_SEQUENCE: &str = "mark_sequence";
/// N: how often the handler was given it.
const MARK_ATTEMPTS: &str = "mark_attempts";
/// S: why.
const MARK_REASON: &str = "mark_reason";
/// S: since when.
const MARKED_AT: &str = "marked_at";
/// BOOL: events before the position are given again.
const MARK_REWOUND: &str = "mark_rewound";
/// The attributes of a mark.
pub(super) const MARK_COLUMNS: [&str; 6] = [MARK, MARK_SEQUENCE, MARK_ATTEMPTS, MARK_REASON, MARKED_AT, MARK_REWOUND];

/// What the mark of a root says that was ordered back.
const REWOUND: &str = "ordered back by an operator";

/// Partition key of the number of orders, and its sort key here.
const ORDERS: (&str, &str) = ("orders", "all");
/// N: how many orders there were.
const NUMBER: &str = "number";

/// Pages of 1 MB that a list of marks takes at most; some million marks.
const LIST_PAGES_MAX: usize = 300;

/// Marks on DynamoDB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DynamoMarks {
    client: Client,
    positions: String,
    relay: String,
    clock: Clock,
}

/// The mark in a row; none when it carries none.
pub(super) fn mark_of(item: &Item) -> Result<Option<Mark>, &'static str> {
    let Some(state) = item.get(MARK) else { return Ok(None) };
    let state =
        state.as_s().ok().and_then(|text| MarkState::parse(text)).ok_or("`mark` is neither parked nor deferred (S)")?;
    let sequence = sequence_of(item, MARK_SEQUENCE).ok_or("`mark_sequence` is no whole number (N) from 0")?;
    let attempts = sequence_of(item, MARK_ATTEMPTS).and_then(|count| u32::try_from(count.0).ok()).unwrap_or(0);
    let marked_at = text_of(item, MARKED_AT)
        .and_then(|moment| Timestamp::parse(moment).ok())
        .ok_or("`marked_at` is no ISO 8601 time (S)")?;
    let rewound = item.get(MARK_REWOUND).and_then(|value| value.as_bool().ok()) == Some(&true);
    let mark = Mark::new(state, sequence, attempts, text_of(item, MARK_REASON).unwrap_or_default(), marked_at);
    Ok(Some(Mark { rewound, ..mark }))
}

fn columns_of(mark: &Mark) -> [(&'static str, AttributeValue); 6] {
    [
        (MARK, text(mark.state.as_str())),
        (MARK_SEQUENCE, number(mark.sequence)),
        (MARK_ATTEMPTS, number(Sequence(mark.attempts.into()))),
        (MARK_REASON, text(mark.reason.as_str())),
        (MARKED_AT, text(mark.marked_at.to_string())),
        (MARK_REWOUND, AttributeValue::Bool(mark.rewound)),
    ]
}

impl DynamoMarks {
    /// The marks of these tables.
    #[must_use]
    pub fn new(clients: &AwsClients, tables: &TableNames, clock: Clock) -> Self {
        let (positions, relay) = (tables.positions.clone(), tables.relay.clone());
        Self { client: clients.dynamodb.clone(), positions, relay, clock }
    }

    /// The marked roots of a handler.
    ///
    /// # Errors
    /// As the call failed, or when a row cannot be read.
    pub async fn list(&self, handler: &HandlerName) -> Result<Vec<(Root, Mark)>, StorageError> {
        let mut found = Vec::new();
        self.each_row(marks_key(handler), None, |item| {
            let key = text_of(item, "sk").unwrap_or("-");
            let unreadable =
                |reason| StorageError::Unreadable { table: self.relay.clone(), key: key.to_owned(), reason };
            let root = Root::parse(key).map_err(|_| unreadable("`sk` is no root's key"))?;
            let mark = mark_of(item).map_err(unreadable)?.ok_or_else(|| unreadable("`mark` is missing"))?;
            found.push((root, mark));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// The events that a handler was made to pass, and when.
    ///
    /// # Errors
    /// As the call failed, or when a row cannot be read.
    pub async fn skips(&self, handler: &HandlerName) -> Result<Vec<(Root, Skip, Timestamp)>, StorageError> {
        let decode = |item: &Item| {
            let (key, _) = text_of(item, "sk")?.rsplit_once('#')?;
            let attempts = sequence_of(item, "attempts").and_then(|count| u32::try_from(count.0).ok())?;
            let skip = Skip::new(sequence_of(item, "sequence")?, attempts, text_of(item, "reason")?);
            let skipped_at = text_of(item, "skipped_at").and_then(|moment| Timestamp::parse(moment).ok())?;
            Some((Root::parse(key).ok()?, skip, skipped_at))
        };
        let mut found = Vec::new();
        self.each_row(skipped_key(handler), None, |item| {
            let key = text_of(item, "sk").unwrap_or("-").to_owned();
            let reason = "the row is no record of a passed event";
            let unreadable = StorageError::Unreadable { table: self.relay.clone(), key, reason };
            found.push(decode(item).ok_or(unreadable)?);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Shows each row of a partition of the relay's table, page by page; of its attributes those named, or all.
    async fn each_row(
        &self,
        pk: String,
        attributes: Option<&str>,
        mut take: impl FnMut(&Item) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let call = Call { operation: "Query", action: "dynamodb:Query", table: &self.relay };
        let mut start = None;
        for _ in 0..LIST_PAGES_MAX {
            let request = (self.client.query())
                .table_name(&self.relay)
                .consistent_read(true)
                .set_projection_expression(attributes.map(str::to_owned))
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", text(pk.as_str()))
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            for item in answer.items() {
                take(item)?;
            }
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Lets a parked root go on from the event it stands before: the relay that runs takes it up within seconds.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn release(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        let released = Mark { state: MarkState::Deferred, attempts: 0, marked_at: self.clock.now(), ..mark.clone() };
        let change = self.change(handler, root, mark, &released, None);
        self.transact(vec![change, self.index(handler, root, &released), order(&self.relay)]).await
    }

    /// Makes a handler pass the event that a parked root stands before, for the record, and go on behind it.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn skip(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        let (state, sequence) = (MarkState::Deferred, mark.sequence.next());
        let behind = Mark { state, sequence, attempts: 0, marked_at: self.clock.now(), ..mark.clone() };
        let skip = Skip::new(mark.sequence, mark.attempts, &mark.reason);
        self.transact(vec![
            // A root that was ordered back has its position behind the event already.
            self.change(handler, root, mark, &behind, (!mark.rewound).then_some(mark.sequence)),
            self.index(handler, root, &behind),
            self.skipped(handler, root, &skip),
            order(&self.relay),
        ])
        .await
    }

    /// Makes the relay go over a root once more, from behind `position` on: under the condition that the position is
    /// still that, and that the root carries no mark.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn redeliver(
        &self,
        handler: &HandlerName,
        root: &Root,
        position: Option<Sequence>,
        reason: &str,
    ) -> Result<Marking, StorageError> {
        let sequence = position.map_or(Sequence::FIRST, Sequence::next);
        let mark = Mark::new(MarkState::Deferred, sequence, 0, reason, self.clock.now());
        let mut change = self.set(handler, root, None, &mark);
        change.conditions.push("attribute_not_exists(mark)");
        change.conditions.push(match position {
            Some(_) => "#sequence = :position",
            None => "attribute_not_exists(#sequence)",
        });
        if let Some(position) = position {
            change.values.insert(":position".into(), number(position));
        }
        self.transact(vec![change.build(), self.index(handler, root, &mark), order(&self.relay)]).await
    }

    /// Makes the relay give a root's events again, from `to` on: under the condition that its position is that far, and
    /// that it carries no mark. The position stays as it is.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn rewind(&self, handler: &HandlerName, root: &Root, to: Sequence) -> Result<Marking, StorageError> {
        let at = self.clock.now();
        let mark = Mark::new(MarkState::Deferred, to, 0, REWOUND, at);
        let mark = Mark { rewound: true, ..mark };
        let mut change = self.set(handler, root, None, &mark);
        change.conditions.extend(["attribute_not_exists(mark)", "#sequence >= :to"]);
        change.values.insert(":to".into(), number(to));
        let record = Item::from([
            ("pk".to_owned(), text(format!("rewound#{}", escape(handler.as_str())))),
            ("sk".to_owned(), text(format!("{}#{at}", root.key()))),
            ("to".to_owned(), number(to)),
        ]);
        let record = put(&self.relay, record);
        self.transact(vec![change.build(), self.index(handler, root, &mark), record, order(&self.relay)]).await
    }

    /// Changes a mark under the condition that it is still `from`.
    fn change(
        &self,
        handler: &HandlerName,
        root: &Root,
        from: &Mark,
        to: &Mark,
        covered: Option<Sequence>,
    ) -> TransactWriteItem {
        let mut update = self.set(handler, root, covered, to);
        update.values.extend(same(from));
        update.conditions.push(SAME);
        if covered.is_some() {
            update.conditions.push("(attribute_not_exists(#sequence) OR #sequence < :covered)");
        }
        update.build()
    }

    fn set(&self, handler: &HandlerName, root: &Root, covered: Option<Sequence>, mark: &Mark) -> Change<'_> {
        let mut set: Vec<String> = MARK_COLUMNS.iter().map(|column| format!("{column} = :{column}")).collect();
        set.push(format!("{UPDATED_AT} = :now"));
        let mut values: HashMap<String, AttributeValue> =
            columns_of(mark).into_iter().map(|(column, value)| (format!(":{column}"), value)).collect();
        values.insert(":now".into(), text(self.clock.now().to_string()));
        if let Some(covered) = covered {
            set.push("#sequence = :covered".into());
            values.insert(":covered".into(), number(covered));
        }
        Change {
            table: &self.positions,
            key: position_key(handler, root),
            expression: format!("SET {}", set.join(", ")),
            values,
            conditions: Vec::new(),
        }
    }

    fn index(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> TransactWriteItem {
        let mut item: Item = columns_of(mark).into_iter().map(|(column, value)| (column.to_owned(), value)).collect();
        item.extend([("pk".to_owned(), text(marks_key(handler))), ("sk".to_owned(), text(root.key()))]);
        put(&self.relay, item)
    }

    fn skipped(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> TransactWriteItem {
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

    async fn transact(&self, items: Vec<TransactWriteItem>) -> Result<Marking, StorageError> {
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

/// An update of a position row, before its conditions are complete.
struct Change<'a> {
    table: &'a str,
    key: String,
    expression: String,
    values: HashMap<String, AttributeValue>,
    conditions: Vec<&'static str>,
}

impl Change<'_> {
    fn build(self) -> TransactWriteItem {
        let sequence = (self.expression.contains("#sequence")
            || self.conditions.iter().any(|one| one.contains("#sequence")))
        .then(|| HashMap::from([("#sequence".to_owned(), SEQUENCE.to_owned())]));
        let update = Update::builder()
            .table_name(self.table)
            .key(PK, text(self.key))
            .update_expression(self.expression)
            .condition_expression(self.conditions.join(" AND "))
            .set_expression_attribute_names(sequence)
            .set_expression_attribute_values(Some(self.values));
        TransactWriteItem::builder().update(update.build().expect("key and expression are set")).build()
    }
}

/// Raises the number of orders in the relay's table: a running relay looks at what has changed.
pub(crate) fn order(relay_table: &str) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(relay_table)
        .key("pk", text(ORDERS.0))
        .key("sk", text(ORDERS.1))
        .update_expression("ADD #number :one")
        .expression_attribute_names("#number", NUMBER)
        .expression_attribute_values(":one", number(Sequence(1)));
    TransactWriteItem::builder().update(update.build().expect("key and expression are set")).build()
}

/// The row carries the mark of [`same`].
const SAME: &str = "mark = :from_mark AND mark_sequence = :from_sequence AND marked_at = :from_at";

fn same(mark: &Mark) -> [(String, AttributeValue); 3] {
    [
        (":from_mark".into(), text(mark.state.as_str())),
        (":from_sequence".into(), number(mark.sequence)),
        (":from_at".into(), text(mark.marked_at.to_string())),
    ]
}

fn skipped_key(handler: &HandlerName) -> String {
    format!("skipped#{}", escape(handler.as_str()))
}

fn marks_key(handler: &HandlerName) -> String {
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
        let mut change = self.set(handler, root, standing.position, mark);
        change.conditions.push(match standing.position {
            Some(_) => "(attribute_not_exists(#sequence) OR #sequence <= :covered)",
            None => "attribute_not_exists(#sequence)",
        });
        match &standing.mark {
            Some(from) => {
                change.values.extend(same(from));
                change.conditions.push(SAME);
            }
            None => change.conditions.push("attribute_not_exists(mark)"),
        }
        self.transact(vec![change.build(), self.index(handler, root, mark)]).await
    }

    async fn unmark(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        let change = Change {
            table: &self.positions,
            key: position_key(handler, root),
            expression: format!("REMOVE {}", MARK_COLUMNS.join(", ")),
            values: same(mark).into(),
            conditions: vec![SAME],
        };
        let key = [("pk".to_owned(), text(marks_key(handler))), ("sk".to_owned(), text(root.key()))];
        self.transact(vec![change.build(), delete(&self.relay, key.into())]).await
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
        self.each_row(marks_key(handler), Some("sk, mark"), |item| {
            let key = text_of(item, "sk").unwrap_or("-");
            let root = Root::parse(key).ok();
            let state = text_of(item, MARK).and_then(MarkState::parse);
            let reason = "`sk` is no root's key, or `mark` neither parked nor deferred";
            let unreadable = || StorageError::Unreadable { table: self.relay.clone(), key: key.to_owned(), reason };
            let (root, state) = root.zip(state).ok_or_else(unreadable)?;
            found.add(root, state);
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
