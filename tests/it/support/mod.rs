//! What the integration tests stand on: the real components as child processes, clients for them, and the relay's own
//! binary.
//!
//! Everything started here is gone when its value is dropped, and when the test process dies in any other way. A test
//! that uses an emulator first waits for one of a few slots, so that a machine with two cores is not asked to run ten
//! JVMs. Support code panics instead of returning errors: the panic is the test's verdict, and it prints the end of
//! the component's log.

mod actions;
mod needs;
mod packages;
mod process;
pub(crate) mod http;
mod slots;
mod dynamodb_local;
mod kinesis_mock;
mod kinesis_process;
mod relay_process;
mod relay_home;
mod filling;
mod forwarder;
mod throttling;
mod waiting;
mod writer;
mod clients;
mod faulty_way;

pub(crate) use clients::sdk_config;
pub(crate) use dynamodb_local::DynamoDbLocal;
pub(crate) use faulty_way::{Fault, FaultyWay};
pub(crate) use filling::fill;
pub(crate) use forwarder::Forwarder;
pub(crate) use kinesis_mock::KinesisMock;
pub(crate) use kinesis_process::KinesisProcess;
pub(crate) use needs::node;
pub(crate) use process::free_port;
pub(crate) use relay_home::{RelayHome, root_and_sequence};
pub(crate) use relay_process::{BINARY, RelayProcess};
pub(crate) use throttling::Throttling;
pub(crate) use waiting::until;
pub(crate) use writer::Writer;
