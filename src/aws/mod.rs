//! The AWS SDK's clients, built once, and what its errors mean to this program.
//!
//! Credentials and region come from the SDK's standard chain unless given. The SDK hardly retries (the caller's own
//! policy decides) and every call has time-outs, which the SDK by itself does not set. Who calls what is left to the
//! adapters in `storage`, `relay_table`, `stream` and `handler`; each of their calls goes through [`observe`], so that
//! it is counted.

mod clients;
mod error;

pub use clients::{
    AwsClients, AwsSettings, CONNECT_TIMEOUT, DYNAMODB_ATTEMPTS_MAX, OPERATION_TIMEOUT, READ_TIMEOUT, StaticCredentials,
};
pub use error::{AwsFailure, classify, classify_code, observe};
