//! The jobs of the handlers while they run: begun, read segment by segment, noted, done.
//!
//! What a handler needs is decided in `backfill`, and segments are read as shards are, by `shards`. Invariants: a job is
//! durable before its first segment is read, and is done only when every segment is finished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::backfill::{Job, JobKind, JobStore, ScanProgress, Scanned, Segment, TableSource, bar};
use crate::handler::HandlerName;
use crate::relay_table::Checkpoint;
use crate::storage::StorageError;
use crate::stream::{Shard, ShardId};
use crate::telemetry::{Health, names, with_causes};
use crate::time::Clock;

/// How often the progress of a job is written where `backfill status` finds it.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What jobs need of the outside.
#[derive(Clone)]
pub(super) struct JobPorts {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) scan: Arc<dyn TableSource>,
    pub(super) progress: ScanProgress,
    pub(super) clock: Clock,
    pub(super) health: Health,
    /// The parts of a new job.
    pub(super) segments: u32,
}

/// One handler's job.
pub(super) struct Running {
    job: Job,
    name: HandlerName,
    health: Health,
    unfinished: BTreeSet<ShardId>,
    rows_in_table: u64,
    /// Since when this process works on it, and how many rows had been scanned by then.
    since: (Instant, u64),
    logged_at: Instant,
}

impl JobPorts {
    /// Begins a job: it is durable when this answers.
    pub(super) async fn begin(
        &self,
        name: &HandlerName,
        (kind, reason): (JobKind, &str),
        stream: &str,
    ) -> Result<Running, StorageError> {
        let before = self.store.progress(name).await?;
        let job = Job::new(kind, self.clock.now(), self.segments, reason, stream);
        self.store.put_job(name, &job).await?;
        for segment in before.keys() {
            self.store.forget_progress(name, segment).await?;
        }
        match kind {
            JobKind::Backfill => {
                info!(handler = %name, segments = job.segments, reason, "a backfill begins: the table is scanned, then the stream is read");
            }
            JobKind::Reconcile => {
                warn!(handler = %name, segments = job.segments, reason, "a reconcile begins: what the stream lost is looked for in the table");
            }
        }
        counter!(names::JOBS_BEGUN, "handler" => name.as_str().to_owned(), "kind" => kind.as_str()).increment(1);
        Ok(self.run(name, job, &BTreeMap::new()).await)
    }

    /// Goes on with a job that an earlier life has begun.
    pub(super) async fn resume(
        &self,
        name: &HandlerName,
        job: Job,
        checkpoints: &BTreeMap<ShardId, Checkpoint>,
    ) -> Result<Running, StorageError> {
        info!(handler = %name, kind = job.kind.as_str(), "goes on with a job of {}", job.started_at);
        Ok(self.run(name, job, checkpoints).await)
    }

    /// Goes on counting where a segment was left, by whoever held it.
    pub(super) async fn resume_segment(&self, name: &HandlerName, segment: &ShardId, checkpoint: Option<&Checkpoint>) {
        // What cannot be read counts from 0: it is what is shown, no more.
        let noted = self.store.progress(name).await.unwrap_or_default();
        let scanned = noted.get(segment).copied().unwrap_or_default();
        // What was read and not covered is read, and counted, again.
        let covered = match checkpoint {
            Some(Checkpoint::Finished) => scanned.rows,
            Some(Checkpoint::At(place)) => place.row().map_or(0, |(rows, _, _)| rows),
            None => 0,
        };
        self.progress.resume(segment, scanned.at(covered));
    }

    /// Writes how far a segment is that this replica reads.
    pub(super) async fn note_segment(&self, name: &HandlerName, segment: &ShardId) {
        if let Err(error) = self.store.put_progress(name, segment, &self.progress.of(segment)).await {
            warn!(handler = %name, error = %with_causes(&error), "the progress of a job could not be written");
        }
    }

    async fn run(&self, name: &HandlerName, job: Job, checkpoints: &BTreeMap<ShardId, Checkpoint>) -> Running {
        let segments = Segment::all(name, &job).into_iter().map(|segment| segment.shard());
        let finished = |segment: &ShardId| checkpoints.get(segment) == Some(&Checkpoint::Finished);
        let unfinished = segments.filter(|segment| !finished(segment)).collect();
        // An estimate for the log; the job does not wait for it.
        let rows_in_table = self.scan.size().await.map_or(0, |size| size.rows);
        let name = name.clone();
        let mut running = Running {
            job,
            name,
            health: self.health.clone(),
            unfinished,
            rows_in_table,
            since: (Instant::now(), 0),
            logged_at: Instant::now(),
        };
        running.since.1 = running.noted(self).await.rows;
        running.show(true);
        running
    }
}

impl Drop for Running {
    /// Whoever takes up the desk after this replica shows it; one that is done nobody.
    fn drop(&mut self) {
        self.show(false);
    }
}

impl Running {
    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// Whether the handler's shards are not read meanwhile.
    pub(super) fn holds(&self) -> bool {
        self.job.kind == JobKind::Backfill
    }

    /// All its segments, as shards without parents.
    pub(super) fn segments(&self) -> Vec<Shard> {
        Segment::all(&self.name, &self.job)
            .into_iter()
            .map(|segment| Shard { id: segment.shard(), parent: None })
            .collect()
    }

    /// A segment was read to its end, and all of it is covered.
    pub(super) fn finish(&mut self, segment: &ShardId) {
        self.unfinished.remove(segment);
    }

    /// Whether nothing is left to scan.
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished.is_empty()
    }

    fn show(&self, runs: bool) {
        let labels = [("handler", self.name.as_str().to_owned()), ("kind", self.job.kind.as_str().to_owned())];
        gauge!(names::JOBS, &labels).set(f64::from(u8::from(runs)));
        let subject = format!("reconcile of {}", self.name);
        match (self.job.kind, runs) {
            (JobKind::Reconcile, true) => {
                self.health.problem(&subject, format!("the table is searched: {}", self.job.reason));
            }
            (JobKind::Reconcile, false) => self.health.mended(&subject),
            (JobKind::Backfill, _) => {}
        }
    }

    /// Now and then logs how far the segments are, by what their readers have noted.
    pub(super) async fn log_now_and_then(&mut self, ports: &JobPorts) {
        if self.logged_at.elapsed() < LOG_INTERVAL {
            return;
        }
        self.logged_at = Instant::now();
        self.log(self.noted(ports).await);
    }

    async fn noted(&self, ports: &JobPorts) -> Scanned {
        let noted = ports.store.progress(&self.name).await.unwrap_or_default();
        let all = self.segments().into_iter().filter_map(|segment| noted.get(&segment.id).copied());
        all.fold(Scanned::default(), Scanned::and)
    }

    fn log(&self, scanned: Scanned) {
        let (began, before) = self.since;
        let pace =
            Pace::new(scanned.rows - before.min(scanned.rows), began.elapsed(), scanned.rows, self.rows_in_table);
        info!(
            handler = %self.name, kind = self.job.kind.as_str(), rows = scanned.rows, roots = scanned.roots,
            rows_per_sec = pace.rows_per_sec, left = ?pace.left, capacity_units = scanned.units,
            "{}", bar(scanned.rows, self.rows_in_table, self.is_complete())
        );
    }

    /// Notes that the job is done; to be tried again when it fails.
    pub(super) async fn complete(&mut self, ports: &JobPorts) -> Result<(), StorageError> {
        let done = Job { finished_at: Some(ports.clock.now()), ..self.job.clone() };
        ports.store.put_job(&self.name, &done).await?;
        self.log(self.noted(ports).await);
        info!(handler = %self.name, kind = self.job.kind.as_str(), "the job is done");
        self.job = done;
        Ok(())
    }
}

/// How fast a scan goes, and how long it still takes.
struct Pace {
    rows_per_sec: u64,
    left: Option<Duration>,
}

impl Pace {
    fn new(rows: u64, took: Duration, done: u64, of: u64) -> Self {
        let rows_per_sec = rows * 1000 / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let left = of.saturating_sub(done).checked_div(rows_per_sec).map(Duration::from_secs);
        Self { rows_per_sec, left }
    }
}
