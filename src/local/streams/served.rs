//! The streams a server has been asked for: each is found in the upstream, begun and kept.
//!
//! Invariants: a stream has one keeper; its shards are in the file, if there is one, before anybody is told of them;
//! every task ends with this.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cursor::Given;
use super::error::ShardsError;
use super::fault::Fault;
use super::follower::Follower;
use super::keeper::Keeper;
use super::layout::Layout;
use super::log::Log;
use super::misbehaviour::Misbehaviour;
use super::options::StreamsOptions;
use super::rates::Rates;
use super::saved::SavedLayouts;
use super::stream::{StreamName, VirtualStream};
use super::upstream::{Upstream, UpstreamError};
use crate::time::{Clock, Random};

/// Streams one server serves.
const STREAMS_MAX: usize = 32;

/// The longest ARN; a longer one is none.
const ARN_CHARS_MAX: usize = 1024;

/// The streams of one server.
#[derive(Debug)]
pub(super) struct ServedStreams {
    pub(super) upstream: Upstream,
    pub(super) options: StreamsOptions,
    keepers: RwLock<BTreeMap<String, Arc<Keeper>>>,
    /// Streams are found one at a time.
    finding: tokio::sync::Mutex<()>,
    saved: Option<Mutex<SavedLayouts>>,
    rates: Mutex<Rates>,
    misbehaviour: Mutex<Misbehaviour>,
    tasks: Mutex<JoinSet<()>>,
    started_at: Instant,
    epoch: AtomicU64,
}

impl ServedStreams {
    pub(super) fn new(upstream: Upstream, options: StreamsOptions, saved: Option<SavedLayouts>) -> Self {
        let rates = Rates::new(options.describes_per_second, options.reads_per_second);
        Self {
            upstream,
            options,
            keepers: RwLock::default(),
            finding: tokio::sync::Mutex::new(()),
            saved: saved.map(Mutex::new),
            rates: Mutex::new(rates),
            misbehaviour: Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
            started_at: Instant::now(),
            epoch: AtomicU64::new(Random::from_entropy().below(u64::MAX / 2)),
        }
    }

    pub(super) fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn misbehaviour(&self) -> MutexGuard<'_, Misbehaviour> {
        self.misbehaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an iterator that is given out now says of its time.
    pub(super) fn given(&self) -> Given {
        let at_millis = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Given { epoch: self.epoch.load(Ordering::Relaxed), at_millis }
    }

    /// No iterator given out so far holds any more.
    pub(super) fn expire_iterators(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn known(&self, arn: &str) -> Option<Arc<Keeper>> {
        self.keepers.read().unwrap_or_else(PoisonError::into_inner).get(arn).cloned()
    }

    /// The keeper of a stream; begun if this is the first that is heard of it.
    pub(super) async fn find(&self, arn: &str) -> Result<Arc<Keeper>, Fault> {
        let keeper = match self.known(arn) {
            Some(keeper) => keeper,
            None => self.begin(arn).await?,
        };
        keeper.ready().await?;
        Ok(keeper)
    }

    async fn begin(&self, arn: &str) -> Result<Arc<Keeper>, Fault> {
        let _one_at_a_time = self.finding.lock().await;
        if let Some(keeper) = self.known(arn) {
            return Ok(keeper);
        }
        let not_found = || Fault::NotFound(format!("Stream: {arn}"));
        let failed =
            |error: UpstreamError| if error.is_not_found() { not_found() } else { Fault::Internal(error.to_string()) };
        if arn.len() > ARN_CHARS_MAX {
            return Err(not_found());
        }
        let facts = self.upstream.stream(arn).await.map_err(failed)?;
        // Some upstreams answer for the ARN of a stream that was replaced.
        if !arn.ends_with(&format!("/stream/{}", facts.label)) {
            return Err(not_found());
        }
        let table = self.upstream.table(&facts.table).await.map_err(failed)?;
        let name = StreamName {
            arn: arn.to_owned(),
            label: facts.label.clone(),
            table: facts.table.clone(),
            view_type: facts.view_type.clone(),
            created: facts.created.clone(),
            key_schema: table.key_schema,
        };
        let (layout, restored) = self.layout(arn).map_err(|error| Fault::Internal(error.to_string()))?;
        let stream = VirtualStream::new(name, layout, Log::new(self.options.log_bytes_max), restored);
        let follower = Follower::new(self.upstream.clone(), arn.to_owned(), &facts);
        self.keep(arn, Arc::new(Keeper::new(stream, follower)))
    }

    /// The shards of a stream: as they were kept, or new.
    fn layout(&self, arn: &str) -> Result<(Layout, bool), ShardsError> {
        let now = u64::try_from(Clock::system().now().unix_millis()).unwrap_or(0);
        let new = || Layout::new(self.options.shards, now);
        let Some(saved) = &self.saved else { return Ok((new(), false)) };
        let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = saved.get(arn)? {
            return Ok((layout, true));
        }
        let layout = new();
        saved.put(arn, &layout)?;
        Ok((layout, false))
    }

    fn keep(&self, arn: &str, keeper: Arc<Keeper>) -> Result<Arc<Keeper>, Fault> {
        let mut keepers = self.keepers.write().unwrap_or_else(PoisonError::into_inner);
        if keepers.len() >= STREAMS_MAX {
            return Err(Fault::Internal(format!("this server serves {STREAMS_MAX} streams at most")));
        }
        keepers.insert(arn.to_owned(), keeper.clone());
        let (kept, poll_interval, retention) = (keeper.clone(), self.options.poll_interval, self.options.retention);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(async move { kept.run(poll_interval, retention).await });
        Ok(keeper)
    }

    /// Acts on a table's latest stream at its head. What that makes of the shards is kept, or undone when it cannot be.
    pub(super) async fn change<T>(
        &self,
        table: &str,
        act: impl FnOnce(&mut VirtualStream, u64) -> Result<T, ShardsError>,
    ) -> Result<T, ShardsError> {
        let facts = self.upstream.table(table).await.map_err(ShardsError::Upstream)?;
        let missing = UpstreamError::Malformed { operation: "DescribeTable", missing: "LatestStreamArn" };
        let arn = facts.stream.ok_or(ShardsError::Upstream(missing))?;
        let keeper = self.find(&arn).await.map_err(|fault| ShardsError::Refused(fault.to_string()))?;
        let acted = keeper.at_head(|stream| {
            let Some(saved) = &self.saved else { return act(stream, keeper.now_unix_millis()) };
            let before = stream.layout.clone();
            let done = act(stream, keeper.now_unix_millis())?;
            let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
            if stream.layout != before
                && let Err(error) = saved.put(&arn, &stream.layout)
            {
                stream.layout = before;
                return Err(error);
            }
            Ok(done)
        });
        acted.await.map_err(ShardsError::Upstream)?
    }

    /// Ends every task.
    pub(super) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}
