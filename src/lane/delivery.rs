//! One call of a handler: its time limit, its panics, large payloads put together, and, when care is taken, the note
//! that goes before it.

use std::collections::HashSet;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use super::LanesParts;
use super::dispatch::STANDS_MAX;
use super::payload::put_together;
use super::spans::BatchSpans;
use super::tables::until_done;
use crate::event::Root;
use crate::handler::{Accepted, Handler, HandlerError, RootBatch};
use crate::relay_table::Suspect;
use crate::storage::Standing;

/// What a call brought.
#[derive(Default)]
pub(super) struct Delivered {
    /// What the handler answered.
    pub(super) answers: Vec<(RootBatch, Result<Accepted, HandlerError>)>,
    /// What it could not be given, and why.
    pub(super) broken: Vec<(RootBatch, HandlerError)>,
    /// How long it took to answer.
    pub(super) took: Duration,
}

/// Notes the event, alone in its group, and calls the handler: should the process end meanwhile, the note says with what.
/// One event of the whole process is noted at a time, as long as none of them takes long: else nobody could tell which of
/// two handlers' events it was.
pub(super) async fn deliver_noted(parts: Arc<LanesParts>, group: Vec<RootBatch>) -> Delivered {
    let began = Instant::now();
    let alone = timeout(ALONE_WAIT, parts.care.clone().acquire_owned()).await.ok().and_then(Result::ok);
    if let Some(suspect) = suspect(&parts, &group).filter(|_| alone.is_some()) {
        until_done(&parts, "relay table", || parts.lives.suspect(&parts.name, &suspect)).await;
        let delivered = deliver(parts.clone(), group, began).await;
        until_done(&parts, "relay table", || parts.lives.clear(&parts.name)).await;
        return delivered;
    }
    deliver(parts, group, began).await
}

/// The longest an event waits to be noted alone; then it is given without a note, so that a slow handler holds no other.
const ALONE_WAIT: Duration = Duration::from_millis(200);

fn suspect(parts: &LanesParts, group: &[RootBatch]) -> Option<Suspect> {
    let batch = group.first()?;
    let sequence = batch.events.first()?.sequence;
    let before = parts.suspect.as_ref().filter(|before| before.root == batch.root && before.sequence == sequence);
    let attempts = before.map_or(0, |before| before.attempts) + 1;
    Some(Suspect { root: batch.root.clone(), sequence, attempts })
}

/// Gives the handler a group, its payloads put together.
pub(super) async fn deliver(parts: Arc<LanesParts>, group: Vec<RootBatch>, began: Instant) -> Delivered {
    let whole = put_together(&parts, &group).await;
    let passed = passed_meanwhile(&parts, &group, began).await;
    if whole.is_none() && passed.is_empty() {
        return call(&parts, group, if began.elapsed() < STANDS_MAX { began } else { Instant::now() }).await;
    }
    let (batches, _room) = match whole {
        Some(whole) => (whole.batches, Some(whole.room)),
        None => (group.iter().cloned().map(Ok).collect(), None),
    };
    let is_given = |batch: &&RootBatch| !passed.contains(&batch.root);
    let given = batches.iter().filter_map(|batch| batch.as_ref().ok()).filter(is_given);
    let given: Vec<RootBatch> = given.cloned().collect();
    let called = if given.is_empty() { Delivered::default() } else { call(&parts, given, Instant::now()).await };
    let mut answers = called.answers.into_iter();
    let mut delivered = Delivered { took: called.took, ..Delivered::default() };
    for (batch, whole) in group.into_iter().zip(batches) {
        match whole {
            Ok(_) if passed.contains(&batch.root) => {
                delivered.answers.push((batch, Err(HandlerError::throttled("another replica has come further"))));
            }
            Ok(_) => delivered.answers.extend(answers.next().map(|(_, answer)| (batch, answer))),
            Err(broken) => delivered.broken.push((batch, broken)),
        }
    }
    delivered
}

/// The roots that another replica has passed while their payloads, or the room for them, were waited for (contract
/// clause 3): they are asked as a root that has stood is before its turn.
async fn passed_meanwhile(parts: &LanesParts, group: &[RootBatch], began: Instant) -> HashSet<Root> {
    if began.elapsed() < STANDS_MAX {
        return HashSet::new();
    }
    let roots: Vec<Root> = group.iter().map(|batch| batch.root.clone()).collect();
    let load = || parts.positions.load(&parts.name, &roots);
    let standings = until_done(parts, "positions table", load).await;
    let passes = |(batch, standing): (&RootBatch, Standing)| {
        let first = batch.events.first().map(|event| event.sequence);
        // What was ordered back is given again though its position is beyond it.
        let is_passed = standing.mark.is_none() && standing.position.is_some() && first <= standing.position;
        is_passed.then(|| batch.root.clone())
    };
    group.iter().zip(standings).filter_map(passes).collect()
}

/// Calls the handler, and counts the time from `began`.
async fn call(parts: &LanesParts, group: Vec<RootBatch>, began: Instant) -> Delivered {
    let limit = parts.settings.deliver_timeout;
    if !(parts.may_deliver)() {
        let refused = same(&group, || {
            HandlerError::throttled("this replica may have lost its leases: it has not renewed in time")
        });
        return Delivered {
            answers: group.into_iter().zip(refused).collect(),
            broken: Vec::new(),
            took: Duration::ZERO,
        };
    }
    let spans = BatchSpans::begin(&parts.name, &group);
    let answered = {
        let mut call = pin!(AssertUnwindSafe(spans.around(answers(&*parts.handler, &group))).catch_unwind());
        // Who answers at once needs no timer.
        match poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
            Poll::Ready(answered) => Ok(answered),
            Poll::Pending => timeout(limit, call).await,
        }
    };
    let answers = match answered {
        Ok(Ok(answers)) => answers,
        Ok(Err(_panic)) => same(&group, || HandlerError::retry("the handler panicked")),
        Err(_elapsed) => same(&group, || HandlerError::retry(format!("the handler took longer than {limit:?}"))),
    };
    let missing = std::iter::repeat_with(|| Err(HandlerError::retry("the handler did not answer for this root")));
    let answers: Vec<_> = group.into_iter().zip(answers.into_iter().chain(missing)).collect();
    spans.end(answers.iter().map(|(_, answer)| answer));
    Delivered { answers, broken: Vec::new(), took: began.elapsed() }
}

async fn answers(handler: &dyn Handler, group: &[RootBatch]) -> Vec<Result<Accepted, HandlerError>> {
    match group {
        [batch] => vec![handler.deliver(batch).await],
        group => handler.deliver_group(group).await,
    }
}

fn same(group: &[RootBatch], error: impl Fn() -> HandlerError) -> Vec<Result<Accepted, HandlerError>> {
    group.iter().map(|_| Err(error())).collect()
}
