//! `angzarr-relay backfill`: how far the scans of the table are, and what one would cost.
//!
//! Reads only. The relay begins a backfill by itself, and goes on with it after any stop.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::arguments::handler_name;
use super::connect::Connection;
use super::output::{Listing, print, remark};
use super::{CliError, Context};
use crate::backfill::{
    CapacityPace, Job, JobKind, JobStore as _, ScanProgress, Scanned, Segment, TableScan, TableSize, TableSource as _,
    bar,
};
use crate::handler::HandlerName;
use crate::relay_table::RelayTable;
use crate::telemetry::with_causes;
use crate::time::Clock;

/// The subcommands of `backfill`.
#[derive(Debug, Clone, Subcommand)]
pub enum BackfillCommand {
    /// How far jobs are.
    Status(BackfillStatusArgs),
    /// What one would cost.
    Plan(BackfillPlanArgs),
}

/// Show how far backfills and reconciles are
///
/// The rows of the table are as DynamoDB counts them, every six hours; so percent and time left are estimates.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay backfill status --config config/relay.toml
  angzarr-relay backfill status --handler orders-view --json")]
pub struct BackfillStatusArgs {
    /// Of this handler only; otherwise of all that are configured
    #[arg(long, value_name = "NAME", value_parser = handler_name)]
    pub handler: Option<HandlerName>,

    /// Print JSON, one job a line
    #[arg(long)]
    pub json: bool,
}

/// Estimate reads, time and cost of a backfill before anything runs
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  angzarr-relay backfill plan --handler orders-view --config config/relay.toml")]
pub struct BackfillPlanArgs {
    /// The handler that would be built
    #[arg(long, value_name = "NAME", value_parser = handler_name)]
    pub handler: HandlerName,
}

pub(super) async fn run(command: BackfillCommand, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let config = &context.config.backfill;
    let table = RelayTable::new(&connection.clients, &connection.tables.relay, Clock::system());
    let pace = CapacityPace::new(config.max_rcu);
    let scan = TableScan::new(&connection.clients, &connection.tables.events, pace, ScanProgress::default());
    let size = scan.size().await.map_err(|error| connection.trouble(error))?;
    match command {
        BackfillCommand::Status(args) => status(args, &context, &connection, &table, size).await,
        BackfillCommand::Plan(args) => plan(&args, &context, &table, size).await,
    }
}

async fn status(
    args: BackfillStatusArgs,
    context: &Context,
    connection: &Connection,
    table: &RelayTable,
    size: TableSize,
) -> Result<(), CliError> {
    let named = context.config.handlers.iter().map(|handler| handler.name.clone());
    let handlers: Vec<HandlerName> = args.handler.map_or_else(|| named.collect(), |handler| vec![handler]);
    let mut listing = Listing::new(
        args.json,
        ["HANDLER", "JOB", "STATE", "PROGRESS", "ROWS", "ROOTS", "ROWS/S", "LEFT", "READ_UNITS", "WHY"],
    );
    let mut found = 0;
    for handler in handlers {
        let read = async { Ok((table.job(&handler).await?, table.progress(&handler).await?)) };
        let (job, progress) = read.await.map_err(|error| connection.trouble(error))?;
        let Some(job) = job else { continue };
        found += 1;
        let segments = Segment::all(&handler, &job).into_iter().map(|segment| segment.shard());
        let scanned = segments.filter_map(|segment| progress.get(&segment).copied());
        let shown = Shown::new(&handler, &job, scanned.fold(Scanned::default(), Scanned::and), size);
        listing.print(&[shown], Shown::cells)?;
    }
    if found == 0 {
        remark("no backfill or reconcile was needed so far");
    }
    Ok(())
}

/// One job as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    handler: String,
    kind: &'static str,
    /// `running` or `done`.
    state: &'static str,
    started_at: String,
    finished_at: Option<String>,
    reason: String,
    rows: u64,
    /// As DynamoDB says: brought up to date every six hours.
    rows_in_table: u64,
    roots: u64,
    rows_per_sec: u64,
    left_secs: Option<u64>,
    read_units: f64,
}

impl Shown {
    fn new(handler: &HandlerName, job: &Job, scanned: Scanned, size: TableSize) -> Self {
        let until = job.finished_at.unwrap_or_else(|| Clock::system().now());
        let rows_per_sec = scanned.rows / until.since(job.started_at).as_secs().max(1);
        let running = job.finished_at.is_none();
        let left = size.rows.saturating_sub(scanned.rows).checked_div(rows_per_sec);
        Self {
            handler: handler.to_string(),
            kind: job.kind.as_str(),
            state: if running { "running" } else { "done" },
            started_at: job.started_at.to_string(),
            finished_at: job.finished_at.map(|moment| moment.to_string()),
            reason: job.reason.clone(),
            rows: scanned.rows,
            rows_in_table: size.rows,
            roots: scanned.roots,
            rows_per_sec,
            left_secs: left.filter(|_| running),
            read_units: scanned.units,
        }
    }

    fn cells(&self) -> [String; 10] {
        let left = self.left_secs.map(|secs| humantime::format_duration(Duration::from_secs(secs)).to_string());
        [
            self.handler.clone(),
            self.kind.to_owned(),
            self.state.to_owned(),
            bar(self.rows, self.rows_in_table, self.finished_at.is_some()),
            self.rows.to_string(),
            self.roots.to_string(),
            self.rows_per_sec.to_string(),
            left.unwrap_or_else(|| "-".to_owned()),
            format!("{:.1}", self.read_units),
            self.reason.clone(),
        ]
    }
}

/// A read unit reads so many bytes when the read need not be consistent (`aws-facts` C).
const BYTES_A_UNIT: u64 = 8192;

/// Dollars for a million read units, and for a million write units, on demand in us-east-1 (`aws-facts` C).
const DOLLARS_A_MILLION_READS: f64 = 0.125;
const DOLLARS_A_MILLION_WRITES: f64 = 0.625;

async fn plan(args: &BackfillPlanArgs, context: &Context, table: &RelayTable, size: TableSize) -> Result<(), CliError> {
    if !context.config.handlers.iter().any(|handler| handler.name == args.handler) {
        return Err(CliError::Refused(format!("no handler is named `{}` in the configuration", args.handler)));
    }
    let known = match table.seen(&args.handler).await {
        Ok(seen) => seen.is_some(),
        Err(error) => {
            remark(format!("whether the handler is new could not be read: {}", with_causes(&error)));
            false
        }
    };
    let max_rcu = u64::from(context.config.backfill.max_rcu);
    let units = size.bytes.div_ceil(BYTES_A_UNIT);
    let took = humantime::format_duration(Duration::from_secs(units.div_ceil(max_rcu)));
    print(format!(
        "a backfill of `{}` reads the whole table\n  rows      {} (as DynamoDB counts them, every six hours)\n  bytes     {}\n  reads     {units} units, at most {max_rcu} a second (backfill.max_rcu)\n  time      {took} or more: the handler may be slower than the reads\n  cost      ${:.2} for the reads, at most ${:.2} for positions (on demand, us-east-1)",
        args.handler,
        size.rows,
        size.bytes,
        dollars(units, DOLLARS_A_MILLION_READS),
        dollars(size.rows, DOLLARS_A_MILLION_WRITES),
    ))?;
    if known {
        remark(format!(
            "`{}` is not new: it has its {} behind it, and goes on where it is",
            args.handler,
            JobKind::Backfill.as_str()
        ));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a sum of money is shown in cents")]
fn dollars(count: u64, a_million: f64) -> f64 {
    count as f64 / 1e6 * a_million
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    #[test]
    fn what_is_left_is_estimated_while_a_job_runs() {
        let handler = HandlerName::new("orders").unwrap();
        let began = Timestamp::from_unix_millis(0);
        let scanned = Scanned { rows: 400, roots: 40, units: 5.0 };
        let size = TableSize { rows: 1000, bytes: 100_000 };
        let mut job = Job::new(JobKind::Backfill, began, 4, "the handler is new", "stream");
        assert_eq!(Shown::new(&handler, &job, scanned, size).state, "running");
        job.finished_at = Some(began.plus(Duration::from_secs(4)));
        let done = Shown::new(&handler, &job, scanned, size);
        assert_eq!((done.rows_per_sec, done.left_secs, done.state), (100, None, "done"));
        assert!(done.cells()[3].contains("100 %"));
    }

    #[test]
    fn money_is_counted_by_the_million() {
        assert!((dollars(2_000_000, 0.125) - 0.25).abs() < 1e-9);
    }
}
