//! Whether a handler needs a job. Pure.
//!
//! The stream keeps its records for 24 hours. Whatever a handler has not read by then must be found in the table; so
//! must what was written while the table had no stream, and all that is older than a new handler. Invariant: a handler
//! is answered "none" only when everything it has not been given is still on the stream it is about to read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Job, JobKind, Seen};
use crate::event::Timestamp;
use crate::relay_table::Checkpoint;
use crate::stream::ShardId;

/// How long the stream is relied upon: its 24 hours (`aws-facts` A), less what a start and slow reads may take.
pub const STREAM_KEEPS: Duration = Duration::from_hours(20);

/// The stream as it is listed.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its name.
    pub stream: &'a str,
    /// Its shards.
    pub shards: &'a BTreeSet<ShardId>,
    /// The time.
    pub now: Timestamp,
}

impl Listed<'_> {
    /// Whether all that was created since then is on the stream: it is that old, and keeps what is no older. What comes
    /// from now on always is.
    fn holds(&self, since: Timestamp) -> bool {
        let age = self.now.since(since);
        let began = self.shards.iter().filter_map(ShardId::created_unix_millis).min();
        age < JUST_NOW || (age < STREAM_KEEPS && began.is_none_or(|began| began <= since.unix_millis()))
    }
}

/// A handler that starts with what comes was registered so lately.
const JUST_NOW: Duration = Duration::from_mins(1);

/// What is known of a handler when it sees the stream for the first time in this process.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Events before this moment are not the handler's; none when all are.
    pub started_at: Option<Timestamp>,
    /// When it last followed a stream, and which.
    pub seen: Option<&'a Seen>,
    /// Its last job.
    pub job: Option<&'a Job>,
    /// Its checkpoints.
    pub checkpoints: &'a BTreeMap<ShardId, Checkpoint>,
}

/// The job a handler needs, and why.
pub type Need = Option<(JobKind, String)>;

/// What a handler needs at its first sight of the stream. One whose job runs goes on with it.
#[must_use]
pub fn at_first_sight(known: Known<'_>, listed: Listed<'_>) -> Need {
    let reconcile = |reason: String| Some((JobKind::Reconcile, reason));
    match known.job {
        // It read the table while another stream brought what came behind it; that one's rest is on neither.
        Some(job) if job.finished_at.is_none() && job.stream != listed.stream => {
            return reconcile(other_stream(&job.stream));
        }
        Some(job) if job.finished_at.is_none() => return None,
        Some(job) if job.finished_at.is_some_and(|finished_at| after_job(job, finished_at).is_some()) => {
            return after_job(job, listed.now);
        }
        _ => {}
    }
    // One that was built follows the stream of its job, noted or not.
    let built = known.job.map(|job| Seen { at: job.started_at, stream: job.stream.clone() });
    let Some(seen) = known.seen.or(built.as_ref()) else {
        let within = known.started_at.is_some_and(|start| listed.holds(start));
        return (!within).then(|| (JobKind::Backfill, "the handler is new".to_owned()));
    };
    if seen.stream != listed.stream {
        return reconcile(other_stream(&seen.stream));
    }
    let away = listed.now.since(seen.at);
    if away > STREAM_KEEPS {
        let hours = away.as_secs() / 3600;
        return reconcile(format!("the handler was away for {hours} hours, and the stream keeps 24"));
    }
    let open = |(_, checkpoint): &(&ShardId, &Checkpoint)| **checkpoint != Checkpoint::Finished;
    let gone = known.checkpoints.iter().filter(open).map(|(shard, _)| shard);
    let mut gone = gone.filter(|shard| super::Segment::of_shard(shard).is_none() && !listed.shards.contains(*shard));
    gone.next().and_then(|shard| reconcile(format!("the shard {shard} it was reading is gone")))
}

/// Why a reconcile follows when the table has another stream than before.
#[must_use]
pub fn other_stream(before: &str) -> String {
    format!("the table has another stream now than {before}: what was written in between is on neither")
}

/// What a handler needs when its job is done: a backfill that took longer than the stream keeps its records leaves a gap,
/// because its lanes read no stream meanwhile. In a reconcile they do, so none follows it.
#[must_use]
pub fn after_job(job: &Job, now: Timestamp) -> Need {
    let took = now.since(job.started_at);
    (job.kind == JobKind::Backfill && took > STREAM_KEEPS).then(|| {
        let hours = took.as_secs() / 3600;
        (JobKind::Reconcile, format!("the {} took {hours} hours, and the stream keeps 24", job.kind.as_str()))
    })
}

/// What a handler needs that begins to read a shard at its horizon: of an old shard the first records are trimmed.
/// `complete_since`: what is older is delivered, or a job that began then delivers it.
#[must_use]
pub fn at_opening(shard: &ShardId, complete_since: Timestamp, now: Timestamp) -> Need {
    let created_at = Timestamp::from_unix_millis(shard.created_unix_millis()?);
    let trimmed = now.since(created_at) > OLD_SHARD && now.since(complete_since) > OLD_SHARD;
    trimmed
        .then(|| (JobKind::Reconcile, format!("the shard {shard} was begun only when its first records were trimmed")))
}

/// The first records of a shard this old may be trimmed.
const OLD_SHARD: Duration = Duration::from_hours(23);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamSequence;

    const HOUR: i64 = 3_600_000;

    /// So many hours after a moment of our time.
    fn at(hours: i64) -> Timestamp {
        Timestamp::from_unix_millis(EPOCH + hours * HOUR)
    }

    const EPOCH: i64 = 1_700_000_000_000;

    fn id(name: &str) -> ShardId {
        ShardId::new(name)
    }

    fn kind(need: &Need) -> Option<JobKind> {
        need.as_ref().map(|(kind, _)| *kind)
    }

    #[derive(Default)]
    struct Case {
        started_at: Option<Timestamp>,
        seen: Option<Seen>,
        job: Option<Job>,
        checkpoints: BTreeMap<ShardId, Checkpoint>,
    }

    impl Case {
        fn seen(hours: i64, stream: &str) -> Self {
            Self { seen: Some(Seen { at: at(hours), stream: stream.into() }), ..Self::default() }
        }

        fn need(&self) -> Need {
            let shards = BTreeSet::from([id("listed")]);
            let known = Known {
                started_at: self.started_at,
                seen: self.seen.as_ref(),
                job: self.job.as_ref(),
                checkpoints: &self.checkpoints,
            };
            at_first_sight(known, Listed { stream: "now", shards: &shards, now: at(1000) })
        }
    }

    #[test]
    fn a_new_handler_is_built_from_the_table_unless_it_starts_within_the_stream() {
        let from = |started_at| kind(&Case { started_at, ..Case::default() }.need());
        assert_eq!(from(None), Some(JobKind::Backfill));
        assert_eq!(from(Some(at(900))), Some(JobKind::Backfill));
        assert_eq!(from(Some(at(1000))), None);
        assert_eq!(from(Some(at(990))), None, "shards of an emulator, whose ids hold no time");
        let shards = BTreeSet::from([id(&format!("shardId-{:020}-x", EPOCH + 985 * HOUR))]);
        let none = BTreeMap::new();
        let since = |start| {
            let known = Known { started_at: Some(at(start)), seen: None, job: None, checkpoints: &none };
            kind(&at_first_sight(known, Listed { stream: "now", shards: &shards, now: at(1000) }))
        };
        assert_eq!((since(990), since(984)), (None, Some(JobKind::Backfill)));
    }

    #[test]
    fn one_that_was_built_is_not_new_though_nobody_noted_that_it_follows() {
        let built = |hours, stream: &str| {
            let mut job = Job::new(JobKind::Backfill, at(hours), 4, "the handler is new", stream);
            job.finished_at = Some(at(hours));
            kind(&Case { job: Some(job), ..Case::default() }.need())
        };
        assert_eq!(built(999, "now"), None);
        assert_eq!(built(999, "before"), Some(JobKind::Reconcile));
        assert_eq!(built(900, "now"), Some(JobKind::Reconcile), "it was away for too long");
    }

    #[test]
    fn one_that_was_there_lately_goes_on() {
        let mut case = Case::seen(999, "now");
        case.checkpoints.insert(id("listed"), Checkpoint::At(StreamSequence::new("5")));
        case.checkpoints.insert(id("gone"), Checkpoint::Finished);
        case.checkpoints.insert(id("backfill#h#1#0#1"), Checkpoint::At(StreamSequence::new("5")));
        assert_eq!(case.need(), None);
    }

    #[test]
    fn what_the_stream_cannot_have_any_more_is_found_in_the_table() {
        assert_eq!(kind(&Case::seen(979, "now").need()), Some(JobKind::Reconcile));
        assert_eq!(kind(&Case::seen(999, "before").need()), Some(JobKind::Reconcile));
        let mut vanished = Case::seen(999, "now");
        vanished.checkpoints.insert(id("gone"), Checkpoint::At(StreamSequence::new("5")));
        assert_eq!(kind(&vanished.need()), Some(JobKind::Reconcile));
    }

    #[test]
    fn a_job_that_runs_goes_on_and_one_that_took_too_long_is_followed_by_another() {
        let mut case = Case::seen(999, "now");
        case.job = Some(Job::new(JobKind::Backfill, at(970), 4, "", "now"));
        assert_eq!(case.need(), None);
        case.job = Some(Job::new(JobKind::Backfill, at(970), 4, "", "before"));
        assert_eq!(kind(&case.need()), Some(JobKind::Reconcile), "the stream has changed since it began");
        let mut job = Job::new(JobKind::Backfill, at(970), 4, "", "now");
        job.finished_at = Some(at(980));
        case.job = Some(job.clone());
        assert_eq!(case.need(), None);
        job.finished_at = Some(at(995));
        case.job = Some(job.clone());
        assert_eq!(kind(&case.need()), Some(JobKind::Reconcile), "the one that was to follow was never begun");
        assert_eq!(kind(&after_job(&job, at(1000))), Some(JobKind::Reconcile));
        job.started_at = at(990);
        assert_eq!(after_job(&job, at(1000)), None);
        // Its lanes read the stream meanwhile: however long it takes, no other follows, or it would never end.
        let mut reconcile = Job::new(JobKind::Reconcile, at(900), 4, "", "now");
        reconcile.finished_at = Some(at(990));
        assert_eq!(after_job(&reconcile, at(990)), None);
        case.job = Some(reconcile);
        assert_eq!(case.need(), None);
    }

    #[test]
    fn an_old_shard_that_was_never_begun_has_lost_its_first_records() {
        let shard = id(&format!("shardId-{:020}-x", EPOCH + 970 * HOUR));
        assert_eq!(kind(&at_opening(&shard, at(900), at(1000))), Some(JobKind::Reconcile));
        assert_eq!(at_opening(&shard, at(990), at(1000)), None, "a job covers them");
        assert_eq!(at_opening(&shard, at(900), at(975)), None, "they are still there");
        assert_eq!(at_opening(&id("other"), at(900), at(1000)), None);
    }
}
