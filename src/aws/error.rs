//! What an SDK error means, in the few kinds this program tells apart; and the counting of calls.
//!
//! Codes are compared as text, because services and emulators answer with more of them than the SDK's models know.

use std::future::Future;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::telemetry;

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsFailure {
    /// The service asks for fewer calls.
    Throttled,
    /// The credentials are good but do not allow the action.
    Denied,
    /// There are no credentials, or they are wrong or have expired.
    Credentials,
    /// The table, stream or shard does not exist.
    NotFound,
    /// A write's condition did not hold.
    ConditionFailed,
    /// A transaction was cancelled; its reasons say why.
    TransactionCancelled,
    /// Another transaction on the same item is under way.
    Conflict,
    /// The request breaks a rule of the service.
    Validation,
    /// No answer: not connected, cut off, or too late. Whether a write happened is unknown.
    Connection,
    /// Anything else, mostly a fault of the service.
    Other,
}

impl AwsFailure {
    /// The label of the metric.
    fn outcome(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Denied | Self::Credentials => "denied",
            Self::ConditionFailed | Self::TransactionCancelled | Self::Conflict => "refused",
            Self::NotFound | Self::Validation | Self::Connection | Self::Other => "failed",
        }
    }
}

/// The kind of an error.
pub fn classify<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> AwsFailure {
    match error {
        SdkError::ServiceError(service) => {
            service.err().code().map_or(AwsFailure::Other, |code| classify_code(code, service.err().message()))
        }
        // Not sent: the credentials could not be loaded or the request could not be built.
        SdkError::ConstructionFailure(_) => AwsFailure::Other,
        _ => AwsFailure::Connection,
    }
}

/// The kind of an error code, as a service, a statement of a batch or a cancelled transaction gives it.
#[must_use]
pub fn classify_code(code: &str, message: Option<&str>) -> AwsFailure {
    match code.rsplit('#').next().unwrap_or(code).trim_end_matches("Exception") {
        "ProvisionedThroughputExceeded"
        | "LimitExceeded"
        | "Throttling"
        | "ThrottlingError"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "SlowDown" => AwsFailure::Throttled,
        "AccessDenied" | "NotAuthorized" => AwsFailure::Denied,
        "UnrecognizedClient"
        | "InvalidSignature"
        | "ExpiredToken"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "IncompleteSignature"
        | "SignatureDoesNotMatch" => AwsFailure::Credentials,
        "ResourceNotFound" | "TableNotFound" => AwsFailure::NotFound,
        "ConditionalCheckFailed" | "DuplicateItem" => AwsFailure::ConditionFailed,
        "TransactionCanceled" => AwsFailure::TransactionCancelled,
        "TransactionConflict" | "TransactionInProgress" => AwsFailure::Conflict,
        "Validation" | "ValidationError" | "Serialization" | "IdempotentParameterMismatch" | "InvalidArgument" => {
            AwsFailure::Validation
        }
        // Some throttles come under a general code; the message is what tells.
        _ if message.is_some_and(|message| message.contains("Rate exceeded")) => AwsFailure::Throttled,
        _ => AwsFailure::Other,
    }
}

/// Makes a call and counts it by its outcome. The call is boxed, because the SDK's futures have some 20 KB; so is its
/// error, which carries the whole answer.
///
/// # Errors
/// The call's own.
pub fn observe<T, E: ProvideErrorMetadata, R>(
    operation: &'static str,
    call: impl Future<Output = Result<T, SdkError<E, R>>>,
) -> impl Future<Output = Result<T, Box<SdkError<E, R>>>> {
    let call = Box::pin(call);
    async move {
        let answer = call.await.map_err(Box::new);
        let outcome = answer.as_ref().map_or_else(|error| classify(error).outcome(), |_| "ok");
        telemetry::record_aws_call(operation, outcome);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_codes_of_services_and_emulators() {
        for (code, message, kind) in [
            ("ProvisionedThroughputExceededException", None, AwsFailure::Throttled),
            ("com.amazonaws.dynamodb.v20120810#LimitExceededException", None, AwsFailure::Throttled),
            ("ThrottlingError", None, AwsFailure::Throttled),
            ("Whatever", Some("Rate exceeded for account"), AwsFailure::Throttled),
            ("AccessDeniedException", None, AwsFailure::Denied),
            ("UnrecognizedClientException", None, AwsFailure::Credentials),
            ("ExpiredTokenException", None, AwsFailure::Credentials),
            ("ResourceNotFoundException", None, AwsFailure::NotFound),
            ("ConditionalCheckFailed", None, AwsFailure::ConditionFailed),
            ("DuplicateItem", None, AwsFailure::ConditionFailed),
            ("TransactionCanceledException", None, AwsFailure::TransactionCancelled),
            ("TransactionConflict", None, AwsFailure::Conflict),
            ("ValidationException", None, AwsFailure::Validation),
            ("InternalServerError", None, AwsFailure::Other),
        ] {
            assert_eq!(classify_code(code, message), kind, "{code}");
        }
    }
}
