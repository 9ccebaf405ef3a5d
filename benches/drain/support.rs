//! The part of the tests' support that starts DynamoDB Local.
#![expect(dead_code, reason = "the support of the tests holds more than a benchmark needs")]

#[path = "../../tests/it/support/needs.rs"]
mod needs;
#[path = "../../tests/it/support/packages.rs"]
mod packages;
#[path = "../../tests/it/support/process.rs"]
mod process;
#[path = "../../tests/it/support/http.rs"]
mod http;
#[path = "../../tests/it/support/slots.rs"]
mod slots;
#[path = "../../tests/it/support/dynamodb_local.rs"]
mod dynamodb_local;

pub(crate) use dynamodb_local::DynamoDbLocal;
