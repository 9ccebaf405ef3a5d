//! One TransactWriteItems, as every adapter makes it: done, refused by a condition, or failed; and its parts.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::transact_write_items::builders::TransactWriteItemsFluentBuilder;
use aws_sdk_dynamodb::types::{CancellationReason, Delete, Put, ReturnConsumedCapacity, TransactWriteItem};

use super::StorageError;
use super::call::{Call, Item};
use crate::aws::{AwsFailure, classify_code, observe};

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Transacted {
    /// All of it was written.
    Done,
    /// A condition does not hold; nothing was written. A reason for each part, in their order.
    Refused(Vec<CancellationReason>),
}

impl Call<'_> {
    /// Makes this transaction. It may have been applied when it fails.
    pub(crate) async fn transact(self, request: TransactWriteItemsFluentBuilder) -> Result<Transacted, StorageError> {
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        match observe(self.operation, request.send()).await {
            Ok(answer) => {
                self.consumed(answer.consumed_capacity());
                Ok(Transacted::Done)
            }
            Err(error) => match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    let reasons = cancelled.cancellation_reasons();
                    if reasons.iter().any(is_condition) {
                        return Ok(Transacted::Refused(reasons.to_vec()));
                    }
                    Err(self.cancelled_by(reasons))
                }
                _ => Err(self.failed(error)),
            },
        }
    }

    fn cancelled_by(self, reasons: &[CancellationReason]) -> StorageError {
        let named = |reason: &&CancellationReason| reason.code().is_some_and(|code| code != "None");
        let reason = reasons.iter().rfind(named).and_then(|reason| Some((reason.code()?, reason.message())));
        let (code, message) = reason.unwrap_or(("TransactionCanceled", Some("no reason was given")));
        self.part_failed(code, message)
    }
}

/// Whether a part was refused by its condition.
pub(crate) fn is_condition(reason: &CancellationReason) -> bool {
    reason.code().is_some_and(|code| classify_code(code, reason.message()) == AwsFailure::ConditionFailed)
}

/// A row to be removed.
pub(crate) fn delete(table: &str, key: Item) -> TransactWriteItem {
    let delete = Delete::builder().table_name(table).set_key(Some(key)).build().expect("table and key are set");
    TransactWriteItem::builder().delete(delete).build()
}

/// A row to be put.
pub(crate) fn put(table: &str, item: Item) -> TransactWriteItem {
    let put = Put::builder().table_name(table).set_item(Some(item)).build().expect("table and item are set");
    TransactWriteItem::builder().put(put).build()
}
