//! A position written together with a handler's own writes: all of it or nothing (contract clause 9).
//!
//! The condition is equality with the position the writes were computed from: that is the fence against another life, or
//! another replica, that has applied the same events. A request that is repeated with its token is applied once.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem, Update};

use super::call::{Call, number, text};
use super::position_store::{PK, SEQUENCE, UPDATED_AT, position_key};
use super::transaction::{Transacted, is_condition};
use super::{DynamoPositions, PositionStore, StorageError};
use crate::event::{Root, Sequence, Timestamp};
use crate::handler::HandlerName;

/// A position to be written with other writes.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose position.
    pub root: Root,
    /// What the table must hold: none for no position.
    pub base: Option<Sequence>,
    /// The new position.
    pub to: Sequence,
    /// The other writes, at most 99; none of them on the positions table.
    pub writes: Vec<TransactWriteItem>,
    /// When: part of what is written, so the same for every attempt.
    pub at: Timestamp,
    /// The same for every attempt at the same writes.
    pub token: String,
}

/// What became of a [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// All of it was written.
    Done,
    /// The table holds another position; nothing was written.
    Moved,
    /// A condition of this one of the other writes, from 0, does not hold; nothing was written.
    Refused(usize),
}

/// Positions of which one can be written together with a handler's own writes.
#[async_trait]
pub trait CommitStore: PositionStore {
    /// Writes a position and a handler's own writes in one transaction. What is repeated with its token is written once.
    ///
    /// # Errors
    /// As the call failed. It may have been applied all the same when no answer came: repeat it as it is.
    async fn commit(&self, handler: &HandlerName, commit: &Commit) -> Result<Committed, StorageError>;
}

impl DynamoPositions {
    fn position(&self, handler: &HandlerName, commit: &Commit) -> TransactWriteItem {
        let mut position = Update::builder()
            .table_name(&self.table)
            .key(PK, text(position_key(handler, &commit.root)))
            .update_expression("SET #sequence = :to, #updated_at = :now")
            .expression_attribute_names("#sequence", SEQUENCE)
            .expression_attribute_names("#updated_at", UPDATED_AT)
            .expression_attribute_values(":to", number(commit.to))
            .expression_attribute_values(":now", text(commit.at.to_string()));
        position = match commit.base {
            Some(base) => {
                position.condition_expression("#sequence = :base").expression_attribute_values(":base", number(base))
            }
            None => position.condition_expression("attribute_not_exists(#sequence)"),
        };
        let position = position.build().expect("key and expression are set");
        TransactWriteItem::builder().update(position).build()
    }
}

#[async_trait]
impl CommitStore for DynamoPositions {
    async fn commit(&self, handler: &HandlerName, commit: &Commit) -> Result<Committed, StorageError> {
        let call = Call {
            operation: "TransactWriteItems",
            action: "the writes of the handler, with dynamodb:UpdateItem of its position",
            table: &self.table,
        };
        let position = self.position(handler, commit);
        let request = (self.client.transact_write_items())
            .set_transact_items(Some([&[position], &commit.writes[..]].concat()))
            .client_request_token(&commit.token);
        Ok(match call.transact(request).await? {
            Transacted::Done => Committed::Done,
            Transacted::Refused(reasons) => refusal(&reasons),
        })
    }
}

/// Which condition did not hold; the position's is the first.
fn refusal(reasons: &[CancellationReason]) -> Committed {
    match reasons.iter().position(is_condition) {
        None | Some(0) => Committed::Moved,
        Some(at) => Committed::Refused(at - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_that_does_not_hold_is_named() {
        let reasons = |codes: &[&str]| -> Vec<CancellationReason> {
            codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect()
        };
        assert_eq!(refusal(&reasons(&["ConditionalCheckFailed", "None"])), Committed::Moved);
        assert_eq!(refusal(&reasons(&["None", "None", "ConditionalCheckFailed"])), Committed::Refused(1));
    }
}
