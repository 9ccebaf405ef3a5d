//! What an answer of Kinesis means: for a record of a call, or for a call as a whole.
//!
//! Decides which of the kinds of failure something is, never what is done about it. No error here holds data of a
//! record.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::PutRecordsResultEntry;

use crate::handler::HandlerError;

/// A call that failed as a whole: every record in it, and every record that would come after it.
#[derive(Debug, Clone)]
pub(super) struct CallFailure {
    reason: String,
    cause: Option<Cause>,
    /// The outcome for the metric of AWS calls.
    pub(super) outcome: &'static str,
}

/// What AWS or the network said, in words: one cause is told to many roots.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Cause(Arc<str>);

impl CallFailure {
    /// Reads the failure of `operation` (as the API spells it) on `stream`.
    pub(super) fn of<E, R>(operation: &'static str, stream: &str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let (outcome, reason) = match error {
            SdkError::ServiceError(service) => {
                of_code(operation, stream, service.err().code().unwrap_or("no error code"))
            }
            SdkError::TimeoutError(_) => ("failed", format!("{operation} on the stream `{stream}` timed out")),
            _ => ("failed", format!("{operation} on the stream `{stream}` failed: Kinesis could not be reached")),
        };
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message);
        let cause = message.map_or_else(|| deepest(error), |message| Cause(message.into()));
        Self { reason, cause: Some(cause), outcome }
    }

    /// The answer holds another number of results than the call had records, so none can be told.
    pub(super) fn of_count(stream: &str, records: usize, results: usize) -> Self {
        let reason = format!("PutRecords on the stream `{stream}` answered {results} results for {records} records");
        Self { reason, cause: None, outcome: "failed" }
    }

    /// A record could not be made into an entry of a request.
    pub(super) fn of_entry(stream: &str, error: &(dyn Error + 'static)) -> Self {
        let reason = format!("a record for the stream `{stream}` could not be put into a request");
        Self { reason, cause: Some(deepest(error)), outcome: "failed" }
    }

    /// Whether the credentials do not allow the call.
    pub(super) fn is_denied(&self) -> bool {
        self.outcome == "denied"
    }

    /// What it means for each root: the stream is out, the event is not to blame.
    pub(super) fn error(&self) -> HandlerError {
        let source = self.cause.clone().map(|cause| Box::new(cause) as Box<dyn Error + Send + Sync>);
        HandlerError::Unavailable { reason: self.reason.clone(), after: None, source }
    }
}

/// The last cause: the SDK's own texts (`dispatch failure`, `service error`) say nothing.
fn deepest(error: &(dyn Error + 'static)) -> Cause {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    Cause(last.to_string().into())
}

fn of_code(operation: &'static str, stream: &str, code: &str) -> (&'static str, String) {
    match code {
        "AccessDeniedException" | "AccessDenied" => (
            "denied",
            format!(
                "access denied: kinesis:{operation} on the stream `{stream}` is not allowed; \
                 allow it in the IAM policy of this role"
            ),
        ),
        "KMSAccessDeniedException" => (
            "denied",
            format!(
                "access denied: kms:GenerateDataKey on the key of the stream `{stream}` is not allowed; \
                 allow it in the IAM policy of this role and in the policy of the key"
            ),
        ),
        "ResourceNotFoundException" => (
            "refused",
            format!("the stream `{stream}` does not exist in this region and account, or is not active yet"),
        ),
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "KMSThrottlingException" => {
            ("throttled", format!("{operation} on the stream `{stream}` was throttled: {code}"))
        }
        "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException" => {
            ("denied", format!("AWS does not accept the credentials for {operation} on the stream `{stream}`: {code}"))
        }
        // Every record was checked before the call, so what is refused here is the stream's name, its key or its state.
        _ => ("refused", format!("{operation} on the stream `{stream}` was refused: {code}")),
    }
}

/// Why a single record of a call was not taken; none when it was.
pub(super) fn record_failure(stream: &str, result: &PutRecordsResultEntry) -> Option<HandlerError> {
    let code = result.error_code()?;
    if code.starts_with("KMS") {
        return Some(HandlerError::unavailable(of_code("PutRecords", stream, code).1));
    }
    // The message beside the code names the stream and the account only, and is left out.
    let reason = format!("the stream `{stream}` did not take the record: {code}");
    // The shard has no capacity left for the moment: it says nothing about the record.
    let throttled = code == "ProvisionedThroughputExceededException";
    Some(if throttled { HandlerError::throttled(reason) } else { HandlerError::retry(reason) })
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::error::ErrorMetadata;
    use aws_sdk_kinesis::operation::put_records::PutRecordsError;

    use super::*;

    fn failure(code: &str) -> CallFailure {
        let error = PutRecordsError::generic(ErrorMetadata::builder().code(code).message("said by AWS").build());
        CallFailure::of("PutRecords", "orders", &SdkError::service_error(error, ()))
    }

    #[test]
    fn every_failure_of_a_call_is_an_outage_that_names_the_stream() {
        let cases = [
            ("AccessDeniedException", "denied", "kinesis:PutRecords"),
            ("KMSAccessDeniedException", "denied", "kms:GenerateDataKey"),
            ("ExpiredTokenException", "denied", "credentials"),
            ("ResourceNotFoundException", "refused", "does not exist"),
            ("ProvisionedThroughputExceededException", "throttled", "throttled"),
            ("KMSDisabledException", "refused", "KMSDisabledException"),
            ("SomethingNew", "refused", "SomethingNew"),
        ];
        for (code, outcome, part) in cases {
            let failure = failure(code);
            assert_eq!(failure.outcome, outcome, "{code}");
            assert_eq!(failure.is_denied(), outcome == "denied", "{code}");
            let error = failure.error();
            assert!(matches!(error, HandlerError::Unavailable { .. }), "{code}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains("`orders`"), "{text}");
            assert!(error.source().unwrap().to_string().contains("said by AWS"));
        }
    }

    #[test]
    fn a_timed_out_call_is_an_outage() {
        let error: SdkError<PutRecordsError, ()> = SdkError::timeout_error("after 5 s");
        let failure = CallFailure::of("PutRecords", "orders", &error);
        assert_eq!(failure.outcome, "failed");
        assert!(failure.error().source().unwrap().to_string().contains("after 5 s"));
    }

    #[test]
    fn a_record_is_tried_again() {
        let result = |code: &str| PutRecordsResultEntry::builder().error_code(code).build();
        assert!(record_failure("orders", &PutRecordsResultEntry::builder().shard_id("1").build()).is_none());
        let throttled = record_failure("orders", &result("ProvisionedThroughputExceededException"));
        assert!(matches!(throttled, Some(HandlerError::Throttled { .. })));
        for code in ["InternalFailure", "SomethingNew"] {
            assert!(matches!(record_failure("orders", &result(code)), Some(HandlerError::Retry { .. })), "{code}");
        }
        let kms = record_failure("orders", &result("KMSAccessDeniedException"));
        assert!(matches!(kms, Some(HandlerError::Unavailable { .. })));
    }
}
