//! The integration tests: the whole crate against real components, in one binary, one module for each behaviour.
//!
//! A missing component fails its tests with a message that says what to install; nothing is ever skipped.
//!
//! A scenario of `scenarios!` is a function of the clients and a table prefix, so that it runs against any DynamoDB.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

/// Makes two tests of each scenario: on an embedded pair of its own, and on a DynamoDB Local that all scenarios share,
/// each with its own tables.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        mod on_embedded {
            $(
                #[tokio::test]
                async fn $name() {
                    let embedded = crate::embedded::Embedded::start().await;
                    super::$name(&embedded.aws, concat!("it-", stringify!($name))).await;
                }
            )*
        }
        mod on_dynamodb_local {
            $(
                #[tokio::test]
                async fn $name() {
                    let endpoint = crate::support::DynamoDbLocal::shared().await;
                    let aws = crate::embedded::clients(Some(endpoint), None).await;
                    super::$name(&aws, concat!("it-", stringify!($name))).await;
                }
            )*
        }
    };
}
pub(crate) use scenarios;

mod support;
mod admin;
mod audit;
mod backfill;
mod binary;
mod bounds;
mod chaos;
mod chunks;
mod cli;
mod commands;
mod embedded;
mod emulators;
mod examples;
mod events;
mod faults;
mod fleet;
mod holes;
mod handlers;
mod local;
mod misbehaving_stream;
mod mixed_fleet;
mod outage;
mod parking;
mod positions;
mod relay_table;
mod relaying;
mod replicas;
mod resharding;
mod shards;
mod sharded_relay;
mod snapshots;
mod stream;
mod tables;
mod tidy;
mod traces;
mod transactional;
mod verdict;
mod versions;
