//! What the service answers when it does not answer, in the form the SDKs decode. Pure.

use axum::http::StatusCode;

/// The namespace of the errors in the service's model.
const MODELLED: &str = "com.amazonaws.dynamodb.v20120810";
/// That of throttling, which is not in the model.
const THROTTLING: &str = "com.amazon.coral.availability";
/// That of wrong requests.
const VALIDATION: &str = "com.amazon.coral.validate";
/// That of operations nobody knows.
const SERVICE: &str = "com.amazon.coral.service";

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("Requested resource not found: {0}")]
    NotFound(String),
    #[error("The operation attempted to read past the oldest stream record in a shard")]
    Trimmed,
    #[error("Iterator expired. The iterator was created more than its lifetime ago")]
    Expired,
    #[error("{0}")]
    Invalid(String),
    /// Too many calls to the service.
    #[error("Rate exceeded")]
    Throttled,
    /// Too many calls to a shard.
    #[error("There are too many reads of this shard")]
    LimitExceeded,
    #[error("{0}")]
    UnknownOperation(String),
    /// The upstream does not answer, or something of this server failed.
    #[error("{0}")]
    Internal(String),
}

impl Fault {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> String {
        let (namespace, name) = match self {
            Self::NotFound(_) => (MODELLED, "ResourceNotFoundException"),
            Self::Trimmed => (MODELLED, "TrimmedDataAccessException"),
            Self::Expired => (MODELLED, "ExpiredIteratorException"),
            Self::Invalid(_) => (VALIDATION, "ValidationException"),
            Self::Throttled => (THROTTLING, "ThrottlingException"),
            Self::LimitExceeded => (MODELLED, "LimitExceededException"),
            Self::UnknownOperation(_) => (SERVICE, "UnknownOperationException"),
            Self::Internal(_) => (MODELLED, "InternalServerError"),
        };
        serde_json::json!({ "__type": format!("{namespace}#{name}"), "message": self.to_string() }).to_string()
    }
}
