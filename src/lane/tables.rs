//! Calls to the tables that lanes cannot go on without, and changes of marks carried out.
//!
//! A table that cannot be reached is asked again for ever, with growing waits, while the health report says so.

use std::time::Duration;

use tokio::time::sleep;

use super::{LanesParts, MarkOrder};
use crate::event::Sequence;
use crate::storage::{Marking, StorageError};
use crate::telemetry::with_causes;
use crate::time::{Backoff, BackoffPolicy};

/// The waits between attempts at a table that cannot be reached.
const TABLE_BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Makes a change of a mark, once; what became of it is for the lanes to judge.
pub(super) async fn carry_out(parts: &LanesParts, mut order: MarkOrder) -> (MarkOrder, Result<Marking, StorageError>) {
    let result = match &mut order {
        MarkOrder::Mark { root, standing, mark } => {
            mark.marked_at = parts.clock.now();
            parts.marks.mark(&parts.name, root, standing, mark).await
        }
        MarkOrder::Unmark { root, mark } => parts.marks.unmark(&parts.name, root, mark).await,
        MarkOrder::Forget { root, ending } => parts.marks.forget(&parts.name, root, ending).await,
        MarkOrder::Purge { root, .. } => {
            match parts.events.read_consistent(root, Sequence::FIRST, Sequence(u64::MAX), 1).await {
                Ok(page) if page.rows.is_empty() && page.next.is_none() => {
                    parts.marks.purge(&parts.name, root).await.map(|()| Marking::Done)
                }
                Ok(_) => Ok(Marking::Refused),
                Err(error) => Err(error),
            }
        }
        MarkOrder::Pass { root, standing, pass } => parts.marks.pass(&parts.name, root, standing, pass).await,
        MarkOrder::Skip { root, skip } => {
            parts.marks.record_skip(&parts.name, root, skip).await.map(|()| Marking::Done)
        }
    };
    (order, result)
}

/// Tries until it works: nothing can go on without the answer.
pub(super) async fn until_done<T, F>(parts: &LanesParts, subject: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StorageError>>,
{
    let mut backoff = Backoff::new(TABLE_BACKOFF, parts.random.clone());
    let mut failed = false;
    loop {
        match attempt().await {
            Ok(answer) => {
                if failed {
                    parts.health.mended(subject);
                }
                return answer;
            }
            Err(error) => {
                failed = true;
                parts.health.problem(subject, with_causes(&error));
                sleep(backoff.next_wait()).await;
            }
        }
    }
}
