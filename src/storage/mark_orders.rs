//! What operators do with marks: look at them, release and skip parked roots, and order roots back.
//!
//! Every change is conditional on the mark as it was shown, and raises the number of orders, which a running relay looks
//! at. Nothing here retries.

use aws_sdk_dynamodb::types::{TransactWriteItem, Update};

use super::call::{Item, number, sequence_of, text, text_of};
use super::mark_row::{Change, PASSED, ending_of, mark_of};
use super::mark_store::{NUMBER, ORDERS, marks_key, skipped_key};
use super::transaction::put;
use super::{DynamoMarks, Mark, MarkState, Marking, Skip, Standing, StorageError};
use crate::event::{Root, Sequence, Timestamp, escape};
use crate::handler::HandlerName;

/// What the mark of a root says that was ordered back.
const REWOUND: &str = "ordered back by an operator";

impl DynamoMarks {
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
            if ending_of(item).is_some() {
                return Ok(());
            }
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

    /// Lets a root that is parked so go on from the event it stands before: the relay that runs takes it up within seconds.
    /// When that event appeared in a hole that was passed, what follows it is given again.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn release(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
    ) -> Result<Marking, StorageError> {
        let Some(mark) = parked(standing) else { return Ok(Marking::Refused) };
        let filled = standing.filled();
        let (state, rewound) = (MarkState::Deferred, mark.rewound || filled.is_some());
        let released = Mark { state, rewound, attempts: 0, marked_at: self.clock.now(), ..mark.clone() };
        let mut change = self.change(handler, root, mark, &released);
        if let Some(passed) = filled {
            change.set(PASSED, ":passed", text(passed.to_string()));
        }
        self.transact(vec![change.build(), self.index(handler, root, &released), order(&self.relay)]).await
    }

    /// Makes a handler pass the event that a root parked so stands before, for the record, and go on behind it.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn skip(&self, handler: &HandlerName, root: &Root, standing: &Standing) -> Result<Marking, StorageError> {
        let Some(mark) = parked(standing) else { return Ok(Marking::Refused) };
        let (state, sequence) = (MarkState::Deferred, mark.sequence.next());
        let behind = Mark { state, sequence, attempts: 0, marked_at: self.clock.now(), ..mark.clone() };
        let skip = Skip::new(mark.sequence, mark.attempts, &mark.reason);
        let mut change = self.change(handler, root, mark, &behind);
        match &standing.passed {
            Some(passed) if passed.contains(mark.sequence) => {
                change.set(PASSED, ":passed", text(passed.without(mark.sequence).to_string()));
            }
            // A root that was ordered back has its position behind the event already.
            _ if mark.rewound => {}
            _ => {
                change.set("#sequence", ":covered", number(mark.sequence));
                change.only("(attribute_not_exists(#sequence) OR #sequence < :covered)");
            }
        }
        self.transact(vec![
            change.build(),
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
        let mut change = self.touch(handler, root);
        change.mark(&mark);
        change.only("attribute_not_exists(mark)");
        match position {
            Some(position) => change.only_with("#sequence = :position", ":position", number(position)),
            None => change.only("attribute_not_exists(#sequence)"),
        }
        self.order_again(handler, root, change, &mark).await
    }

    /// Makes the relay give a root's events again, from `to` on: under the condition that its position is that far, and
    /// that it carries no mark. The position stays as it is.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn rewind(&self, handler: &HandlerName, root: &Root, to: Sequence) -> Result<Marking, StorageError> {
        let mark = Mark::new(MarkState::Deferred, to, 0, REWOUND, self.clock.now());
        let mark = Mark { rewound: true, ..mark };
        let mut change = self.touch(handler, root);
        change.mark(&mark);
        change.only("attribute_not_exists(mark)");
        change.only_with("#sequence >= :to", ":to", number(to));
        self.order_again(handler, root, change, &mark).await
    }

    /// Carries out what makes the relay give events again, with its record.
    async fn order_again(
        &self,
        handler: &HandlerName,
        root: &Root,
        change: Change<'_>,
        mark: &Mark,
    ) -> Result<Marking, StorageError> {
        let record = Item::from([
            ("pk".to_owned(), text(format!("rewound#{}", escape(handler.as_str())))),
            ("sk".to_owned(), text(format!("{}#{}", root.key(), mark.marked_at))),
            ("to".to_owned(), number(mark.sequence)),
            ("reason".to_owned(), text(mark.reason.as_str())),
        ]);
        let record = put(&self.relay, record);
        self.transact(vec![change.build(), self.index(handler, root, mark), record, order(&self.relay)]).await
    }

    /// Changes a mark under the condition that it is still `from`.
    fn change(&self, handler: &HandlerName, root: &Root, from: &Mark, to: &Mark) -> Change<'_> {
        let mut change = self.touch(handler, root);
        change.mark(to);
        change.only_marked(from);
        change
    }
}

fn parked(standing: &Standing) -> Option<&Mark> {
    standing.mark.as_ref().filter(|mark| mark.state == MarkState::Parked)
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
