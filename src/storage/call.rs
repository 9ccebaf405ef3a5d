//! One call to DynamoDB, as every adapter makes it: counted, its capacity recorded, its error told apart; and the
//! values of the SDK.

use std::collections::HashMap;
use std::future::Future;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};
use bytes::Bytes;

use super::StorageError;
use crate::aws::{AwsFailure, classify, classify_code, observe};
use crate::event::{Attribute, Sequence};
use crate::telemetry;

/// An item as the SDK holds it.
pub(crate) type Item = HashMap<String, AttributeValue>;

impl Attribute for AttributeValue {
    fn into_text(self) -> Option<String> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    fn into_number(self) -> Option<String> {
        if let Self::N(digits) = self { Some(digits) } else { None }
    }

    fn into_binary(self) -> Option<Bytes> {
        if let Self::B(blob) = self { Some(blob.into_bytes()) } else { None }
    }
}

/// An S.
pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// An N.
pub(crate) fn number(sequence: Sequence) -> AttributeValue {
    AttributeValue::N(sequence.to_string())
}

/// A B. The bytes are copied: the SDK wants its own.
pub(crate) fn binary(bytes: &Bytes) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes.to_vec()))
}

/// The text of an item's S.
pub(crate) fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str)
}

/// The sequence in an item's N; none when it is missing or no sequence.
pub(crate) fn sequence_of(item: &Item, name: &str) -> Option<Sequence> {
    item.get(name).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok()).map(Sequence)
}

/// Which call it is, for metrics and errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The API operation.
    pub(crate) operation: &'static str,
    /// The IAM action that allows it.
    pub(crate) action: &'static str,
    /// The table.
    pub(crate) table: &'a str,
}

impl Call<'_> {
    /// Makes the call and counts it.
    pub(crate) fn make<T, E, R>(
        self,
        call: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> impl Future<Output = Result<T, StorageError>>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let answer = observe(self.operation, call);
        async move { answer.await.map_err(|error| self.failed(error)) }
    }

    /// Makes a conditional call and counts it; none when its condition does not hold.
    pub(crate) async fn make_if<T, E, R>(
        self,
        call: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<Option<T>, StorageError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        match observe(self.operation, call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if classify(&error) == AwsFailure::ConditionFailed => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Records what the call consumed.
    pub(crate) fn consumed<'c>(self, capacity: impl IntoIterator<Item = &'c ConsumedCapacity>) {
        let units: f64 = capacity.into_iter().filter_map(ConsumedCapacity::capacity_units).sum();
        if units > 0.0 {
            telemetry::record_capacity(self.table, self.operation, units);
        }
    }

    /// The error of the call as a whole.
    pub(crate) fn failed<E, R>(self, error: Box<SdkError<E, R>>) -> StorageError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let service = error.as_service_error();
        let said = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let (code, message) =
            (said(service.and_then(|error| error.code())), said(service.and_then(|error| error.message())));
        self.error(classify(&*error), &format!("{code}: {message}"), error)
    }

    /// The error of one part of a batch or transaction, by its code.
    pub(crate) fn part_failed(self, code: &str, message: Option<&str>) -> StorageError {
        let said = format!("{code}: {}", message.unwrap_or_default());
        self.error(classify_code(code, message), &said.clone(), said)
    }

    fn error(
        self,
        kind: AwsFailure,
        said: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StorageError {
        let Self { operation, action, table } = self;
        match kind {
            AwsFailure::Throttled => StorageError::Throttled { operation, table: table.into() },
            AwsFailure::Denied => StorageError::Denied { action, resource: table.into(), source: source.into() },
            AwsFailure::NotFound => StorageError::NoTable { table: table.into() },
            AwsFailure::Conflict => StorageError::Conflict { operation, table: table.into() },
            AwsFailure::Validation => {
                StorageError::Invalid { reason: format!("{operation} on `{table}` breaks a rule of DynamoDB: {said}") }
            }
            AwsFailure::Credentials
            | AwsFailure::ConditionFailed
            | AwsFailure::TransactionCancelled
            | AwsFailure::Connection
            | AwsFailure::Other => StorageError::Unavailable { operation, table: table.into(), source: source.into() },
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Any item, for the properties of whoever decodes one.

    use proptest::prelude::*;

    use super::{AttributeValue, Item};
    use crate::event::testing::{any_row, into_sdk_value};

    into_sdk_value!(AttributeValue);

    /// An item that has some of these attributes, whatever they hold.
    pub(crate) fn any_item(names: &'static [&'static str]) -> impl Strategy<Value = Item> {
        any_row(names).prop_map(|row| row.into_iter().map(|(name, value)| (name, value.into())).collect())
    }
}
