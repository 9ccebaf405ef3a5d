//! `angzarr-relay audit`: whether every event reached its handlers, and what mends what did not.

mod payloads;
mod shown;

use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::shown::Shown;
use super::arguments::handler_name;
use super::connect::Connection;
use super::output::{Listing, remark};
use super::{CliError, Context};
use crate::audit::{Ahead, Finding, Judged, KeyScan, Open, PassedHoles, RootKeys, judge};
use crate::backfill::{CapacityPace, JobStore as _, ScanProgress, TableScan, TableSource as _, bar};
use crate::config::HandlerConfig;
use crate::event::{Root, Sequence, Timestamp};
use crate::handler::{HandlerKind, HandlerName};
use crate::lane::Subscription;
use crate::relay::subscription;
use crate::relay_table::{HandlerRegistry as _, RelayTable};
use crate::storage::{
    Consistency, DynamoMarks, DynamoPositions, EventSource as _, EventStore, Marking, Passed, PositionStore as _,
    Standing, StorageError,
};
use crate::time::Clock;

/// Batches of roots that wait to be compared.
const BATCHES_MAX: usize = 16;

/// Rows read at once in search of the first event that a handler wants.
const SEARCH_ROWS: usize = 100;

/// How often the progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What the mark of a root says that was ordered again.
const REPAIR_REASON: &str = "ordered again by an audit";

/// Compare every root's newest event with what handlers have durably done
///
/// Scans the events table (keys only, but DynamoDB charges for whole rows; no faster than backfill.max_rcu) and reads the
/// position of every root for every handler. Ends with 1 when something is missing, ahead, unexplained, or has a hole, or a
/// payload in chunks is not what its event says.
/// It can run beside the relay: what was written within --late-after is late, not missing.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay audit --config config/relay.toml
  angzarr-relay audit --handler orders-view --json
  angzarr-relay audit --handler orders-view --repair")]
pub struct AuditArgs {
    /// Of this handler only; otherwise of all that are configured
    #[arg(long, value_name = "NAME", value_parser = handler_name)]
    pub handler: Option<HandlerName>,

    /// Let the relay deliver what is missing, each such root from behind its position on; and remove chunks of no event
    #[arg(long)]
    pub repair: bool,

    /// Repair sagas too, which may act again on events they have had
    #[arg(long)]
    pub rerun_side_effects: bool,

    /// An event older than this is missing when it is not covered
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub late_after: Duration,

    /// Print JSON, one finding a line
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(args: AuditArgs, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let table = RelayTable::new(&connection.clients, &connection.tables.relay, Clock::system());
    let audited = audited(&args, &context, &connection, &table).await?;
    if audited.is_empty() {
        return Err(CliError::Refused("there is nothing to audit: no such handler has run".to_owned()));
    }
    let max_rcu = context.config.backfill.max_rcu;
    let pace = CapacityPace::new(max_rcu);
    let sizes = TableScan::new(&connection.clients, &connection.tables.events, pace.clone(), ScanProgress::default());
    let rows = sizes.size().await.map_err(|error| connection.trouble(error))?.rows;
    let keys = KeyScan::new(&connection.clients, &connection.tables.events, pace, context.config.backfill.segments);
    let clock = Clock::system();
    let mut audit = Audit {
        positions: DynamoPositions::new(&connection.clients, &connection.tables.positions, clock.clone()),
        marks: DynamoMarks::new(&connection.clients, &connection.tables, clock.clone()),
        events: connection.event_store(),
        clock,
        listing: Listing::new(
            args.json,
            ["HANDLER", "FINDING", "DOMAIN", "EDITION", "ROOT", "POSITION", "NEWEST", "WHAT"],
        ),
        args,
        audited,
        counts: Counts::default(),
        connection,
    };
    audit.all(keys, rows).await?;
    audit.verdict()
}

/// A handler under audit.
struct Audited {
    name: HandlerName,
    kind: HandlerKind,
    subscription: Subscription,
    /// Events before this moment are not the handler's.
    started_at: Option<Timestamp>,
}

/// The handlers to audit: those that have run.
async fn audited(
    args: &AuditArgs,
    context: &Context,
    connection: &Connection,
    table: &RelayTable,
) -> Result<Vec<Audited>, CliError> {
    let mut audited = Vec::new();
    let chosen = |handler: &&HandlerConfig| args.handler.as_ref().is_none_or(|name| handler.name == *name);
    for handler in context.config.handlers.iter().filter(chosen) {
        let name = handler.name.clone();
        let read =
            async { Ok((table.registered(&name).await?, table.job(&name).await?, table.interests(&name).await?)) };
        let (registered, job, interests) = read.await.map_err(|error| connection.trouble(error))?;
        let Some(registered) = registered else {
            remark(format!("`{name}` has never run"));
            continue;
        };
        if let Some(job) = job.filter(|job| job.finished_at.is_none()) {
            remark(format!(
                "a {} of `{name}` is under way: what it has not reached is shown as missing",
                job.kind.as_str()
            ));
        }
        let started_at = registered.started_at;
        let subscription = subscription(handler);
        // What was added and not taken up by a relay yet is nothing that it could have delivered.
        let subscription = match interests {
            Some(interests) => subscription.holding(&interests, Clock::system().now()),
            None => subscription,
        };
        audited.push(Audited { name, kind: handler.kind, subscription, started_at });
    }
    Ok(audited)
}

#[derive(Debug, Default)]
struct Counts {
    rows: u64,
    roots: u64,
    faults: u64,
    marked: u64,
    late: u64,
    repaired: u64,
}

struct Audit {
    connection: Connection,
    positions: DynamoPositions,
    marks: DynamoMarks,
    events: EventStore,
    clock: Clock,
    args: AuditArgs,
    audited: Vec<Audited>,
    listing: Listing<8>,
    counts: Counts,
}

impl Audit {
    async fn all(&mut self, keys: KeyScan, rows: u64) -> Result<(), CliError> {
        let (send, mut batches) = mpsc::channel(BATCHES_MAX);
        let mut readers = JoinSet::new();
        for segment in 0..keys.segments() {
            readers.spawn(keys.clone().read(segment, send.clone()));
        }
        drop(send);
        let mut shown_at = Instant::now();
        while let Some(batch) = batches.recv().await {
            let batch = batch.map_err(|error| self.connection.trouble(error))?;
            for index in 0..self.audited.len() {
                self.compare(index, &batch.roots).await?;
            }
            self.compare_payloads(&batch.payloads).await?;
            self.counts.roots += batch.roots.len() as u64;
            self.counts.rows += batch.roots.iter().map(|keys| keys.count).sum::<u64>();
            self.counts.rows += batch.payloads.iter().map(|payload| payload.chunks).sum::<u64>();
            if shown_at.elapsed() >= PROGRESS_INTERVAL {
                shown_at = Instant::now();
                let Counts { rows: done, roots, faults, .. } = self.counts;
                remark(format!("{} {done} rows, {roots} roots, {faults} faults", bar(done, rows, false)));
            }
        }
        // A part that ended early has not been compared.
        while let Some(ended) = readers.join_next().await {
            ended.map_err(|error| CliError::Failed(error.into()))?;
        }
        Ok(())
    }

    async fn compare(&mut self, index: usize, batch: &[RootKeys]) -> Result<(), CliError> {
        let audited = &self.audited[index];
        let mine: Vec<&RootKeys> = batch.iter().filter(|keys| audited.subscription.covers(&keys.root)).collect();
        let roots: Vec<Root> = mine.iter().map(|keys| keys.root.clone()).collect();
        if roots.is_empty() {
            return Ok(());
        }
        let standings = self.positions.load(&audited.name, &roots).await;
        let standings = standings.map_err(|error| self.connection.trouble(error))?;
        for (keys, standing) in mine.into_iter().zip(standings) {
            if let Some(finding) = self.look(index, keys, &standing).await? {
                self.tell(index, keys, &standing, &finding)?;
                if self.args.repair && matches!(finding, Finding::Missing(_)) {
                    self.repair(index, &keys.root, standing.position).await?;
                }
            }
        }
        Ok(())
    }

    async fn look(&self, index: usize, keys: &RootKeys, standing: &Standing) -> Result<Option<Finding>, CliError> {
        let behind = standing.position.is_none_or(|position| position < keys.last);
        let mut ahead = Ahead::Unconfirmed;
        if standing.position.is_some_and(|position| position > keys.last) {
            let newest = self.events.last(&keys.root).await.map_err(|error| self.connection.trouble(error))?;
            if newest < standing.position {
                ahead = Ahead::Confirmed;
            }
        }
        let open = if behind && standing.mark.is_none() {
            self.open(&self.audited[index], keys, standing.position).await?
        } else {
            None
        };
        let holes = match &standing.passed {
            Some(passed) if standing.mark.is_none() => self.holes(&self.audited[index], &keys.root, passed).await?,
            _ => PassedHoles::default(),
        };
        let (now, late_after) = (self.clock.now(), self.args.late_after);
        Ok(judge(Judged { keys, standing, open, ahead, holes, now, late_after }))
    }

    /// What the table has in the holes that were passed.
    async fn holes(&self, audited: &Audited, root: &Root, passed: &Passed) -> Result<PassedHoles, CliError> {
        let mut found = PassedHoles { missing: passed.count(), filled: false };
        for hole in passed.holes() {
            let mut from = Some(hole.first);
            while let Some(next) = from {
                let page = self.events.read_consistent(root, next, hole.last, SEARCH_ROWS).await;
                let page = page.map_err(|error| self.connection.trouble(error))?;
                for row in &page.rows {
                    found.missing = found.missing.saturating_sub(1);
                    found.filled |= row.as_ref().map_or(true, |event| audited.subscription.wants(event));
                }
                from = page.next;
            }
        }
        Ok(found)
    }

    /// The first event above a position that the handler wants.
    async fn open(
        &self,
        audited: &Audited,
        keys: &RootKeys,
        position: Option<Sequence>,
    ) -> Result<Option<Open>, CliError> {
        let mut from = position.map_or(keys.first, Sequence::next);
        loop {
            let page = self.events.read(&keys.root, from, Consistency::Strong, SEARCH_ROWS).await;
            let page = page.map_err(|error| self.connection.trouble(error))?;
            for row in page.rows {
                let open = match row {
                    Ok(event) => {
                        let own = audited.started_at.is_none_or(|started_at| event.created_at >= started_at);
                        (own && audited.subscription.wants(&event))
                            .then_some(Open { sequence: event.sequence, created_at: event.created_at })
                    }
                    // What cannot be read is nobody's to leave out; how old it is cannot be known.
                    Err(invalid) => {
                        Some(Open { sequence: invalid.sequence, created_at: Timestamp::from_unix_millis(0) })
                    }
                };
                if open.is_some() {
                    return Ok(open);
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(None),
            }
        }
    }

    fn tell(&mut self, index: usize, keys: &RootKeys, standing: &Standing, finding: &Finding) -> Result<(), CliError> {
        match finding {
            Finding::Late(_) => self.counts.late += 1,
            Finding::Marked(_) => self.counts.marked += 1,
            _ => self.counts.faults += 1,
        }
        self.print(&Shown::new(&self.audited[index].name, keys, standing, finding))
    }

    fn print(&mut self, shown: &Shown) -> Result<(), CliError> {
        self.listing.print(std::slice::from_ref(shown), Shown::cells)
    }

    /// Lets the relay go over a root from behind its position on.
    async fn repair(&mut self, index: usize, root: &Root, position: Option<Sequence>) -> Result<(), CliError> {
        let audited = &self.audited[index];
        if audited.kind == HandlerKind::Saga && !self.args.rerun_side_effects {
            remark(format!(
                "`{}` is a saga: {root} is left; say --rerun-side-effects to let it have the events",
                audited.name
            ));
            return Ok(());
        }
        match self.marks.redeliver(&audited.name, root, position, REPAIR_REASON).await {
            Ok(Marking::Done) => self.counts.repaired += 1,
            Ok(Marking::Refused) => remark(format!("{root} has moved meanwhile and is left as it is")),
            Err(StorageError::Conflict { .. } | StorageError::Throttled { .. }) => {
                remark(format!("{root} could not be ordered at the moment; repeat the audit"));
            }
            Err(error) => return Err(self.connection.trouble(error).into()),
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), CliError> {
        let Counts { rows, roots, faults, marked, late, repaired } = self.counts;
        remark(format!("{rows} rows of {roots} roots: {faults} faults, {marked} parked or deferred, {late} late"));
        if self.args.repair {
            remark("a position that was edited forward within the events looks delivered: the tables cannot tell");
        }
        if repaired > 0 {
            remark(format!("{repaired} roots are delivered again by the relay within seconds, or at its next start"));
        }
        match faults {
            0 => Ok(()),
            1 => Err(CliError::Unsound("1 thing is not as it should be".to_owned())),
            faults => Err(CliError::Unsound(format!("{faults} things are not as they should be"))),
        }
    }
}
