//! What an operator is told when a service does not do what a command asks: one line, with what to check.
//!
//! The SDK wraps the cause many times over; here it is looked for and the wrapping dropped. What is not known is shown
//! as the SDK says it.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::error::ErrorMetadata;

use super::connect::Service;
use crate::aws::{AwsFailure, classify_code};
use crate::storage::StorageError;

type Source = Box<dyn Error + Send + Sync>;

/// How much of a service's own message is shown.
const MESSAGE_CHARS_MAX: usize = 200;
/// How the SDK says that a call took longer than its time-out.
const TIMED_OUT: &str = "request has timed out";

/// Why a service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceTrouble {
    /// There is no region, so no endpoint either.
    #[error("no AWS region is configured: set storage.dynamo.region, AWS_REGION, or a region in the AWS profile")]
    NoRegion,
    /// Nobody listens, or nobody is reached.
    #[error("cannot connect to {service}: {reason}; {checks}")]
    Connect {
        /// The service and where it is.
        service: String,
        /// Such as `connection refused`.
        reason: String,
        /// What to check.
        checks: String,
    },
    /// Somebody listens, but there was no answer.
    #[error("{service} {reason}; {checks}")]
    NoAnswer {
        /// The service and where it is.
        service: String,
        /// What happened instead.
        reason: String,
        /// What to check.
        checks: String,
    },
    /// The standard chain found no credentials.
    #[error(
        "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in \
         AWS_PROFILE (for an emulator any text will do)"
    )]
    NoCredentials,
    /// A source of credentials is there, but gives none.
    #[error(
        "the AWS credentials cannot be loaded: {reason}; log in (`aws sso login`), or set AWS_PROFILE or \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    CredentialsNotLoaded {
        /// What the source said.
        reason: String,
    },
    /// They were found and refused.
    #[error(
        "{service} refuses the AWS credentials ({code}: {message}); renew them, and check AWS_PROFILE and the clock"
    )]
    CredentialsRefused {
        /// The service and where it is.
        service: String,
        /// The service's code, such as `ExpiredTokenException`.
        code: String,
        /// The service's message.
        message: String,
    },
    /// A table is missing.
    #[error("the table `{table}` does not exist; create it with `{create}`")]
    NoTable {
        /// Its name.
        table: String,
        /// The command that creates it.
        create: String,
    },
    /// A table could not be read or written, for a reason its error says.
    #[error(transparent)]
    Storage(StorageError),
    /// A call failed otherwise.
    #[error("{operation} of {service} failed")]
    Call {
        /// The API operation.
        operation: &'static str,
        /// The service and where it is.
        service: String,
        /// What the SDK said.
        #[source]
        source: Source,
    },
}

impl ServiceTrouble {
    /// What a failed read or write of a table means.
    pub(super) fn of_storage(service: &Service, error: StorageError) -> Self {
        Self::known(service, &error).unwrap_or(Self::Storage(error))
    }

    /// What a failed call means.
    pub(super) fn of_call(
        service: &Service,
        operation: &'static str,
        error: impl Error + Send + Sync + 'static,
    ) -> Self {
        let known = Self::known(service, &error);
        known.unwrap_or_else(|| Self::Call { operation, service: service.to_string(), source: error.into() })
    }

    /// Whether the request surely did not reach the service, so that nothing was written.
    pub(super) fn never_sent(&self) -> bool {
        match self {
            Self::NoRegion
            | Self::Connect { .. }
            | Self::NoTable { .. }
            | Self::NoCredentials
            | Self::CredentialsNotLoaded { .. }
            | Self::CredentialsRefused { .. } => true,
            Self::NoAnswer { .. } | Self::Call { .. } => false,
            Self::Storage(error) => !matches!(error, StorageError::Unavailable { .. }),
        }
    }

    /// The first cause, from the outside in, that is one of those with a line of their own.
    fn known(service: &Service, error: &(dyn Error + 'static)) -> Option<Self> {
        // Credentials first: loading them may itself fail for a refused connection.
        if let Some(error) = chain(error).find_map(|error| error.downcast_ref::<CredentialsError>()) {
            return Some(match error {
                CredentialsError::CredentialsNotLoaded(_) => Self::NoCredentials,
                other => Self::CredentialsNotLoaded { reason: innermost(other) },
            });
        }
        chain(error).find_map(|error| Self::cause(service, error))
    }

    fn cause(service: &Service, error: &(dyn Error + 'static)) -> Option<Self> {
        let connect = |reason: &str| Self::Connect {
            service: service.to_string(),
            reason: reason.to_owned(),
            checks: service.checks(),
        };
        let no_answer = |reason: &str| Self::NoAnswer {
            service: service.to_string(),
            reason: reason.to_owned(),
            checks: service.checks(),
        };
        if let Some(meta) = error.downcast_ref::<ErrorMetadata>() {
            let code = meta.code()?;
            return (classify_code(code, meta.message()) == AwsFailure::Credentials).then(|| {
                Self::CredentialsRefused {
                    service: service.to_string(),
                    code: code.to_owned(),
                    message: meta.message().unwrap_or("no message").chars().take(MESSAGE_CHARS_MAX).collect(),
                }
            });
        }
        if error.downcast_ref::<ConnectorError>().is_some_and(ConnectorError::is_timeout) {
            return Some(connect("no answer in time"));
        }
        // Closed before the answer, or before the request was sent.
        let closed = |error: &hyper::Error| error.is_incomplete_message() || error.is_canceled();
        if error.downcast_ref::<hyper::Error>().is_some_and(closed) {
            return Some(no_answer("closed the connection without an answer"));
        }
        // The SDK's own time-outs have no type that could be named.
        if error.to_string() == TIMED_OUT {
            return Some(no_answer("did not answer in time"));
        }
        match error.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::ConnectionRefused => Some(connect("connection refused")),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(connect("no route to the host")),
            io::ErrorKind::TimedOut => Some(connect("no answer in time")),
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                Some(no_answer("closed the connection without an answer"))
            }
            // Name resolution has no kind of its own.
            _ if error.to_string().contains("lookup address") => Some(connect("the host's name is not known")),
            _ => None,
        }
    }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, |error| error.to_string().chars().take(MESSAGE_CHARS_MAX).collect())
}

/// The error and its causes, from the outside in.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::error::SdkError;
    use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;

    fn explained(error: SdkError<DescribeTableError, ()>, endpoint: Option<&str>) -> String {
        let service = Service {
            name: "DynamoDB",
            endpoint: endpoint.map(str::to_owned),
            region: "eu-central-1".into(),
            setting: "storage.dynamo.endpoint",
        };
        ServiceTrouble::of_call(&service, "DescribeTable", error).to_string()
    }

    #[test]
    fn a_call_that_took_too_long_is_told_by_the_sdks_words() {
        let text = explained(SdkError::timeout_error("operation timeout after 15s"), Some("http://localhost:8000"));
        assert!(text.starts_with("DynamoDB at http://localhost:8000 did not answer in time; check that"), "{text}");
    }

    #[test]
    fn without_an_endpoint_the_region_is_what_to_check() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let text = explained(SdkError::dispatch_failure(ConnectorError::io(refused.into())), None);
        assert!(
            text.starts_with("cannot connect to DynamoDB in eu-central-1: connection refused; check the"),
            "{text}"
        );
    }

    /// Loading credentials may fail for a refused connection to their source: that is not the service's.
    #[test]
    fn credentials_go_before_connections() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let source = CredentialsError::provider_error(refused);
        let error = SdkError::dispatch_failure(ConnectorError::other(source.into(), None));
        assert!(explained(error, None).starts_with("the AWS credentials cannot be loaded: connection refused; log in"));
    }

    #[test]
    fn what_is_not_known_is_left_as_it_is() {
        let error = SdkError::construction_failure("no such thing");
        assert_eq!(explained(error, None), "DescribeTable of DynamoDB in eu-central-1 failed");
    }
}
