//! Waiting for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Far above what any machine needs for any condition of the tests.
const DEADLINE: Duration = Duration::from_mins(5);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks again and again until `found` finds something; fails the test, saying `what` never came, when that takes too
/// long.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(DEADLINE, looking).await.unwrap_or_else(|_elapsed| panic!("after {DEADLINE:?} still not: {what}"))
}
