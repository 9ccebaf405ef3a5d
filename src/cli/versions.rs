//! `angzarr-relay versions`: the versions of handlers, how far each is, and dropping one.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::arguments::handler_name;
use super::connect::Connection;
use super::output::{Listing, print, remark};
use super::{CliError, Context};
use crate::backfill::{
    CapacityPace, Job, JobStore as _, ScanProgress, Scanned, Seen, TableScan, TableSource as _, bar,
};
use crate::handler::HandlerName;
use crate::relay_table::RelayTable;
use crate::storage::{DynamoMarks, DynamoPositions, StorageError};
use crate::time::Clock;

/// A handler that was seen to follow the stream this lately may still be run: it is noted every ten minutes.
const SEEN_LATELY: Duration = Duration::from_mins(15);

/// The subcommands of `versions`.
#[derive(Debug, Clone, Subcommand)]
pub enum VersionsCommand {
    /// List all handlers that have run, version by version, and how far each is
    #[command(after_help = "Example:\n  angzarr-relay versions list --handler orders-view --config config/relay.toml")]
    List(VersionsListArgs),
    /// Remove the positions and everything else of a handler that is not needed any more
    ///
    /// In bounded batches, and to be repeated when it was cut short. What the handler has made itself is not touched.
    #[command(after_help = "Example:\n  angzarr-relay versions drop orders-view@1 --config config/relay.toml")]
    Drop(VersionsDropArgs),
}

/// Which handlers to list.
#[derive(Debug, Clone, Args)]
pub struct VersionsListArgs {
    /// The versions of this handler
    #[arg(long, value_name = "NAME", value_parser = handler_name)]
    pub handler: Option<HandlerName>,

    /// Print JSON, one version a line
    #[arg(long)]
    pub json: bool,
}

/// Which version to drop.
#[derive(Debug, Clone, Args)]
pub struct VersionsDropArgs {
    /// The handler with its version, such as orders@1 or orders@2
    #[arg(value_name = "HANDLER", value_parser = handler_name)]
    pub handler: HandlerName,

    /// Though a relay ran it lately and has not ended as it should
    #[arg(long)]
    pub force: bool,
}

pub(super) async fn run(command: VersionsCommand, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let table = RelayTable::new(&connection.clients, &connection.tables.relay, Clock::system());
    match command {
        VersionsCommand::List(args) => list(args, &context, &connection, &table).await,
        VersionsCommand::Drop(args) => drop_version(args, &context, &connection, &table).await,
    }
}

async fn list(
    args: VersionsListArgs,
    context: &Context,
    connection: &Connection,
    table: &RelayTable,
) -> Result<(), CliError> {
    let failed = |error: StorageError| connection.trouble(error);
    let marks = DynamoMarks::new(&connection.clients, &connection.tables, Clock::system());
    let pace = CapacityPace::new(context.config.backfill.max_rcu);
    let scan = TableScan::new(&connection.clients, &connection.tables.events, pace, ScanProgress::default());
    let rows = scan.size().await.map_err(failed)?.rows;
    let mut handlers = table.handlers().await.map_err(failed)?;
    handlers.retain(|handler| args.handler.as_ref().is_none_or(|named| named.base() == handler.base()));
    handlers.sort_by(|one, two| (one.base(), one.version()).cmp(&(two.base(), two.version())));
    let mut listing =
        Listing::new(args.json, ["HANDLER", "VERSION", "STATE", "PROGRESS", "FOLLOWED_AT", "MARKED", "CONFIGURED"]);
    for handler in &handlers {
        let read = async {
            let (job, seen) = (table.job(handler).await?, table.seen(handler).await?);
            let progress = table.progress(handler).await?;
            let scanned = progress.into_values().fold(Scanned::default(), Scanned::and);
            Ok((job, seen, scanned, marks.list(handler).await?.len()))
        };
        let (job, seen, scanned, marked) = read.await.map_err(failed)?;
        let configured = context.config.handlers.iter().any(|named| named.name == *handler);
        let shown = Shown::new(handler, job.as_ref(), seen.as_ref(), (scanned.rows, rows), marked, configured);
        listing.print(&[shown], Shown::cells)?;
    }
    if handlers.is_empty() {
        remark("no such handler has run");
    }
    Ok(())
}

/// One version as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    handler: String,
    version: u32,
    /// `backfill` or `reconcile` while the table is scanned for it; `complete`, or `new` before it was ever seen to follow.
    state: &'static str,
    /// Rows scanned, while it is.
    rows: Option<u64>,
    rows_in_table: u64,
    /// When it was last noted that it follows the stream: every ten minutes while it runs.
    followed_at: Option<String>,
    /// Roots that are parked or deferred.
    marked: usize,
    configured: bool,
}

impl Shown {
    fn new(
        handler: &HandlerName,
        job: Option<&Job>,
        seen: Option<&Seen>,
        (rows, rows_in_table): (u64, u64),
        marked: usize,
        configured: bool,
    ) -> Self {
        let running = job.filter(|job| job.finished_at.is_none());
        let finished = if job.is_some() || seen.is_some() { "complete" } else { "new" };
        Self {
            handler: handler.base().to_owned(),
            version: handler.version(),
            state: running.map_or(finished, |job| job.kind.as_str()),
            rows: running.map(|_| rows),
            rows_in_table,
            followed_at: seen.map(|seen| seen.at.to_string()),
            marked,
            configured,
        }
    }

    fn cells(&self) -> [String; 7] {
        [
            self.handler.clone(),
            self.version.to_string(),
            self.state.to_owned(),
            self.rows.map_or_else(|| "-".to_owned(), |rows| bar(rows, self.rows_in_table, false)),
            self.followed_at.clone().unwrap_or_else(|| "-".to_owned()),
            self.marked.to_string(),
            if self.configured { "yes" } else { "no" }.to_owned(),
        ]
    }
}

async fn drop_version(
    args: VersionsDropArgs,
    context: &Context,
    connection: &Connection,
    table: &RelayTable,
) -> Result<(), CliError> {
    let failed = |error: StorageError| connection.trouble(error);
    let handler = args.handler;
    if context.config.handlers.iter().any(|named| named.name == handler) {
        let text = format!("`{handler}` is in the configuration: take it out, restart the relay, and drop it then");
        return Err(CliError::Refused(text));
    }
    if !table.handlers().await.map_err(failed)?.contains(&handler) {
        return Err(CliError::Refused(format!(
            "`{handler}` has never run; `angzarr-relay versions list` shows what has"
        )));
    }
    let lately = |seen: Seen| Clock::system().now().since(seen.at) < SEEN_LATELY;
    let runs = table.is_running(&handler).await.map_err(failed)?
        && table.seen(&handler).await.map_err(failed)?.is_some_and(lately);
    if runs && !args.force {
        return Err(CliError::Refused(format!(
            "a relay runs `{handler}`, or was killed a short time ago: stop it, or say --force when you know that none does"
        )));
    }
    let positions = DynamoPositions::new(&connection.clients, &connection.tables.positions, Clock::system());
    let (mut removed, mut after) = (0, None);
    loop {
        let (rows, next) = positions.remove_page(&handler, after.as_ref()).await.map_err(failed)?;
        removed += rows;
        after = next;
        if after.is_none() {
            break;
        }
        remark(format!("{removed} positions removed"));
    }
    table.forget_handler(&handler).await.map_err(failed)?;
    print(format!("`{handler}` is gone with its {removed} positions; under this name a handler would begin anew"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backfill::JobKind;
    use crate::event::Timestamp;

    #[test]
    fn a_version_says_how_far_it_is() {
        let (handler, at) = (HandlerName::new("orders@2").unwrap(), Timestamp::from_unix_millis(0));
        let shown = |job: Option<&Job>, seen: Option<&Seen>| Shown::new(&handler, job, seen, (5, 10), 0, true);
        assert_eq!(shown(None, None).state, "new");
        let mut job = Job::new(JobKind::Backfill, at, 4, "the handler is new", "stream");
        let building = shown(Some(&job), None);
        assert_eq!((building.state, building.rows, building.version), ("backfill", Some(5), 2));
        job.finished_at = Some(at);
        let seen = Seen { at, stream: "stream".into() };
        let built = shown(Some(&job), Some(&seen));
        assert_eq!((built.state, built.rows, built.followed_at.is_some()), ("complete", None, true));
    }
}
