//! `angzarr-relay tables`: the tables of the event store and the relay's own.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::connect::Connection;
use super::output::{Columns, print, remark};
use super::{CliError, Context};
use crate::shell::own_command;
use crate::storage::{TableProgress, TableState, TablesError, create_all, describe_all};

/// How long a wait is before it is said again.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What to do with the tables.
#[derive(Debug, Clone, Subcommand)]
pub enum TablesCommand {
    /// Create the tables that are missing, with the events table's stream
    ///
    /// Creates {prefix}-events (with a stream of new images), {prefix}-positions, {prefix}-snapshots and
    /// {prefix}-relay, billed per request, and waits until they are active. Tables that are there and right are left
    /// alone; a table of another shape is refused, saying what differs. The prefix is storage.dynamo.table_prefix.
    #[command(after_help = "Example:\n  DYNAMO_ENDPOINT=http://localhost:8000 angzarr-relay tables create")]
    Create,
    /// Show the tables, and how they differ from what they should be
    ///
    /// The exit code is 1 if a table is missing, not active, or of another shape. With --json each line is one table.
    #[command(after_help = "Example:\n  angzarr-relay tables describe --json | jq -r .status")]
    Describe(TablesDescribeArgs),
}

/// How to show the tables.
#[derive(Debug, Clone, Args)]
pub struct TablesDescribeArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(command: TablesCommand, context: Context) -> Result<(), CliError> {
    match command {
        TablesCommand::Create => create(context).await,
        TablesCommand::Describe(args) => describe(args, context).await,
    }
}

async fn create(context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let mut progress = Progress::default();
    let mut say = |step| {
        if let Some(line) = progress.line(&step) {
            remark(line);
        }
    };
    match create_all(&connection.clients, &connection.tables, &mut say).await {
        Ok(()) => print(format!("the tables `{}-*` are ready", context.config.storage.dynamo.table_prefix)),
        Err(TablesError::Storage(error)) => Err(connection.trouble(error).into()),
        Err(error @ (TablesError::WrongShape(_) | TablesError::NotReady { .. })) => {
            Err(CliError::Unsound(error.to_string()))
        }
    }
}

/// What to say of each step; of waiting only now and then.
#[derive(Debug, Default)]
struct Progress {
    /// The table waited for, and how long it was when that was last said.
    waiting: Option<(String, Duration)>,
}

impl Progress {
    fn line(&mut self, step: &TableProgress) -> Option<String> {
        Some(match step {
            TableProgress::Present { table, warnings } => {
                let remarks: Vec<&str> =
                    std::iter::once("is there").chain(warnings.iter().map(String::as_str)).collect();
                format!("{table}: {}", remarks.join("; note: "))
            }
            TableProgress::Creating { table } => format!("{table}: creating"),
            TableProgress::EnablingStream { table } => format!("{table}: enabling its stream"),
            TableProgress::Waiting { table, status, waited } => {
                let said = self.waiting.as_ref().filter(|(said, _)| said == table).map(|(_, waited)| *waited);
                if said.is_some_and(|said| *waited < said + SAY_EVERY) {
                    return None;
                }
                self.waiting = Some((table.clone(), *waited));
                format!("{table}: {status}, waited {} s", waited.as_secs())
            }
            TableProgress::Ready { table } => format!("{table}: ready"),
        })
    }
}

async fn describe(args: TablesDescribeArgs, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let states =
        describe_all(&connection.clients, &connection.tables).await.map_err(|error| connection.trouble(error))?;
    if args.json {
        for state in &states {
            print(serde_json::json!(state))?;
        }
    } else if let Some(lines) = Columns::new(["TABLE", "STATUS", "STREAM", "REMARKS"]).lines(described(&states)) {
        print(lines)?;
    }
    let wrong = states.iter().filter(|state| !state.is_ready()).count();
    if wrong > 0 {
        let mend = own_command(&["doctor"], context.config_path.as_deref());
        return Err(CliError::Unsound(format!(
            "{wrong} of {} tables are not as they must be; see `{mend}`",
            states.len()
        )));
    }
    Ok(())
}

fn described(states: &[TableState]) -> Vec<[String; 4]> {
    let row = |state: &TableState| {
        let stream = state.stream.as_ref().map_or_else(|| "-".to_owned(), |stream| stream.view_type.clone());
        let remarks: Vec<&str> = state.differences.iter().chain(&state.warnings).map(String::as_str).collect();
        [state.table.clone(), state.status.clone(), stream, remarks.join("; ")]
    };
    states.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_said_now_and_then() {
        let mut progress = Progress::default();
        let mut waited = |table: &str, seconds| {
            let step = TableProgress::Waiting {
                table: table.into(),
                status: "CREATING".into(),
                waited: Duration::from_secs(seconds),
            };
            progress.line(&step)
        };
        assert_eq!(waited("a", 0).as_deref(), Some("a: CREATING, waited 0 s"));
        assert_eq!(waited("a", 4), None);
        assert_eq!(waited("a", 5).as_deref(), Some("a: CREATING, waited 5 s"));
        assert_eq!(waited("a", 9), None);
        assert!(waited("b", 0).is_some(), "another table is another wait");
    }
}
