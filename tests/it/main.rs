//! Everything against real wire protocols: one binary, one module a concern.
//!
//! A scenario is a function of the clients and a table prefix, so that it runs against any DynamoDB; `scenarios!` makes
//! the tests of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Makes one test a scenario, each with an embedded pair of its own.
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
    };
}
pub(crate) use scenarios;

mod embedded;
mod local;
mod tables;
mod events;
mod positions;
mod snapshots;
mod relay_table;
mod stream;
