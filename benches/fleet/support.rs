//! The part of the tests' support that starts DynamoDB Local and the relay.
#![expect(dead_code, reason = "the support of the tests holds more than a benchmark needs")]

#[cfg_attr(test, expect(unused_imports, reason = "its unit tests are not run here"))]
#[path = "../../tests/it/support/actions.rs"]
mod actions;
#[path = "../../tests/it/support/dynamodb_local.rs"]
mod dynamodb_local;
#[path = "../../tests/it/support/http.rs"]
mod http;
#[path = "../../tests/it/support/needs.rs"]
mod needs;
#[path = "../../tests/it/support/packages.rs"]
mod packages;
#[path = "../../tests/it/support/process.rs"]
mod process;
#[path = "../../tests/it/support/relay_home.rs"]
mod relay_home;
#[cfg_attr(test, expect(unused_imports, reason = "its unit tests are not run here"))]
#[path = "../../tests/it/support/relay_process.rs"]
mod relay_process;
#[path = "../../tests/it/support/slots.rs"]
mod slots;

pub(crate) use dynamodb_local::DynamoDbLocal;
pub(crate) use relay_home::RelayHome;
pub(crate) use relay_process::RelayProcess;
#[cfg(test)]
pub(crate) use {needs::node, process::free_port};
