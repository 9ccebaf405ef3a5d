//! What is asked: the relay's table, the marks, and the stream where nobody reads it.
//!
//! Invariant: the looks into the stream are few, so that they take nothing from a relay that reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use crate::aws::AwsClients;
use crate::backfill::{CapacityPace, Job, JobStore as _, ScanProgress, Scanned, Segment, TableScan, TableSource as _};
use crate::config::Config;
use crate::event::Timestamp;
use crate::fleet::{LeaseKind, MemberId};
use crate::handler::HandlerName;
use crate::relay_table::{Checkpoint, HandlerRegistry as _, LeaseRow, RelayTable, RollCall};
use crate::storage::{DynamoMarks, MarkStore as _, StorageError, TableNames};
use crate::stream::{DynamoStream, STREAM_RETENTION, ShardSource as _, StreamError, StreamPoint};
use crate::telemetry::with_causes;
use crate::time::Clock;

/// Unread shards whose first waiting record is looked for; of more, only the number is told.
const UNREAD_LOOKS_MAX: usize = 50;

/// Looks into the stream at once.
const LOOKS_AT_ONCE: usize = 4;

/// Pages of a shard that are read to find a record: a shard may answer with empty pages.
const PAGES_MAX: usize = 5;

/// Where to look.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) clients: AwsClients,
    pub(crate) tables: TableNames,
    /// Handlers that are to be there, though no row may say so.
    pub(crate) configured: Vec<HandlerName>,
    /// See `backfill.max_rcu`.
    pub(crate) max_rcu: u32,
}

impl Place {
    /// The tables that are configured.
    pub(crate) fn of(config: &Config, clients: &AwsClients) -> Self {
        Self {
            clients: clients.clone(),
            tables: TableNames::from_prefix(&config.storage.dynamo.table_prefix),
            configured: config.handlers.iter().map(|handler| handler.name.clone()).collect(),
            max_rcu: config.backfill.max_rcu,
        }
    }
}

/// One handler as its rows say it.
#[derive(Debug, Clone, Default)]
pub(super) struct HandlerRows {
    pub(super) leases: Vec<LeaseRow>,
    pub(super) job: Option<(Job, Scanned)>,
    pub(super) parked: usize,
    pub(super) deferred: usize,
    /// The age of the oldest record that waits in a shard that nobody reads; none when none was found.
    pub(super) unread: Option<Duration>,
}

/// Everything that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(super) at: Timestamp,
    pub(super) roll: RollCall,
    pub(super) paused: BTreeSet<HandlerName>,
    pub(super) handlers: BTreeMap<HandlerName, HandlerRows>,
    pub(super) rows_in_table: u64,
    /// Why the stream could not be looked into.
    pub(super) no_stream: Option<String>,
}

impl Seen {
    /// Whether a member renews in the time that the others wait for it, by its own clock and this machine's.
    pub(super) fn renews(&self, id: &MemberId) -> bool {
        let Some(member) = self.roll.fleet.member(id).filter(|member| !member.dead) else { return false };
        let renewed_at = self.roll.told.get(id).and_then(|(renewed_at, _)| *renewed_at);
        renewed_at.is_none_or(|renewed_at| self.at.since(renewed_at) <= member.patience.expires_after)
    }

    /// Whether a shard is to be read and nobody reads it.
    pub(super) fn is_unread(&self, row: &LeaseRow) -> bool {
        let LeaseRow { lease, .. } = row;
        let is_read = lease.owner.as_ref().is_some_and(|owner| self.renews(owner));
        lease.kind == LeaseKind::Shard && !lease.finished && !is_read
    }
}

/// Looks at everything once.
pub(crate) async fn look(place: &Place) -> Result<Seen, StorageError> {
    let clock = Clock::system();
    let table = RelayTable::new(&place.clients, &place.tables.relay, clock.clone());
    let marks = DynamoMarks::new(&place.clients, &place.tables, clock.clone());
    let max_rcu = CapacityPace::new(place.max_rcu);
    let scan = TableScan::new(&place.clients, &place.tables.events, max_rcu, ScanProgress::default());
    let mut names: BTreeSet<HandlerName> = table.handlers().await?.into_iter().collect();
    names.extend(place.configured.iter().cloned());
    let mut handlers = BTreeMap::new();
    for name in names {
        handlers.insert(name.clone(), handler_rows(&name, &table, &marks).await?);
    }
    // Members after their leases: one that is not among them by then is gone.
    let roll = table.roll_call().await?;
    let rows_in_table = scan.size().await.map_or(0, |size| size.rows);
    let paused = table.paused().await?;
    let mut seen = Seen { at: clock.now(), roll, paused, handlers, rows_in_table, no_stream: None };
    if let Err(error) = look_into_stream(&mut seen, place).await {
        seen.no_stream = Some(with_causes(&error));
    }
    Ok(seen)
}

async fn handler_rows(
    name: &HandlerName,
    table: &RelayTable,
    marks: &DynamoMarks,
) -> Result<HandlerRows, StorageError> {
    let (leases, job, progress, marked) =
        tokio::try_join!(table.lease_rows(name), table.job(name), table.progress(name), marks.marked(name))?;
    let job = job.map(|job| {
        let segments = Segment::all(name, &job).into_iter().map(|segment| segment.shard());
        let scanned = segments.filter_map(|segment| progress.get(&segment).copied());
        let scanned = scanned.fold(Scanned::default(), Scanned::and);
        (job, scanned)
    });
    Ok(HandlerRows { leases, job, parked: marked.parked, deferred: marked.deferred.len(), unread: None })
}

/// How old the oldest record is that waits in each handler's unread shards.
async fn look_into_stream(seen: &mut Seen, place: &Place) -> Result<(), StreamError> {
    let now = seen.at;
    let unread: Vec<(HandlerName, LeaseRow)> = (seen.handlers.iter())
        .flat_map(|(name, rows)| rows.leases.iter().map(move |row| (name.clone(), row.clone())))
        .filter(|(_, row)| seen.is_unread(row))
        .take(UNREAD_LOOKS_MAX)
        .collect();
    if unread.is_empty() {
        return Ok(());
    }
    let source = &DynamoStream::connect(&place.clients, &place.tables.events).await?;
    let found: Vec<_> = stream::iter(unread)
        .map(|(name, row)| async move { (name, waits_for(source, &row, now).await) })
        .buffer_unordered(LOOKS_AT_ONCE)
        .collect()
        .await;
    for (name, waits) in found {
        let rows = seen.handlers.entry(name).or_default();
        rows.unread = rows.unread.max(waits?);
    }
    Ok(())
}

async fn waits_for(source: &DynamoStream, row: &LeaseRow, now: Timestamp) -> Result<Option<Duration>, StreamError> {
    let from = match &row.checkpoint {
        Some(Checkpoint::At(sequence)) => StreamPoint::After(sequence.clone()),
        Some(Checkpoint::Finished) | None => StreamPoint::Horizon,
    };
    let mut iterator = match source.open(&row.lease.shard, &from).await {
        Ok(iterator) => iterator,
        // What was there is gone: it is older than what the stream keeps.
        Err(StreamError::Trimmed) => return Ok(Some(STREAM_RETENTION)),
        Err(StreamError::Gone) => return Ok(None),
        Err(error) => return Err(error),
    };
    for _ in 0..PAGES_MAX {
        let page = source.read(&iterator).await?;
        if let Some(record) = page.records.first() {
            return Ok(Some(now.since(record.happened_at)));
        }
        match page.next {
            Some(next) => iterator = next,
            None => break,
        }
    }
    Ok(None)
}
