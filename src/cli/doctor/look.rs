//! The calls of `doctor` to DynamoDB, in the order of what depends on what: nothing is asked of a service that was
//! found not to answer. Every call only reads.

use std::collections::BTreeSet;

use super::finding::{Finding, Report};
use super::judge::{self, Sample, TableCommands};
use super::receivers;
use crate::aws::observe;
use crate::cli::connect::Connection;
use crate::cli::{Context, ServiceTrouble};
use crate::handler::HandlerName;
use crate::shell::aws_options;
use crate::storage::call::Call;
use crate::storage::{DynamoPositions, StorageError, TableState, describe_all};
use crate::time::Clock;

/// Rows of the events table that are looked at.
const SAMPLE_ROWS: i32 = 100;
/// Pages of the positions table that are looked at, 1 MB each.
const POSITION_PAGES_MAX: usize = 4;

/// Looks at everything.
pub(super) async fn look(context: &Context) -> Report {
    let mut report = Report(vec![configuration(context)]);
    let connection = match Connection::new(context).await {
        Ok(connection) => connection,
        Err(trouble) => {
            report.0.push(Finding::wrong("region", trouble.to_string()));
            return report;
        }
    };
    let admin_token = context.config.telemetry.admin_token.as_ref().and_then(receivers::unreadable);
    report.0.extend(admin_token.map(|why| Finding::wrong("admin endpoint", format!("telemetry.admin_token: {why}"))));
    report.0.extend(dynamodb(context, &connection).await);
    for handler in &context.config.handlers {
        report.0.extend(receivers::look(handler, &connection).await);
    }
    report
}

fn configuration(context: &Context) -> Finding {
    let check = "configuration";
    let origin = context.config_path.as_deref().map(|path| path.display().to_string());
    match (context.config.validate(&context.handlers.names()), origin) {
        (Ok(()), origin) => {
            let origin = origin.unwrap_or_else(|| "the environment".to_owned());
            Finding::ok(check, format!("{origin}, handlers: {}", context.config.handlers.len()))
        }
        // Without a file there can hardly be handlers: somebody looks at the tables only.
        (Err(_), None) => Finding::note(check, "no file was named (--config): no handler is looked at"),
        (Err(error), Some(origin)) => {
            let error = error.to_string();
            let lines: Vec<&str> = error.lines().map(str::trim).collect();
            Finding::wrong(check, format!("{origin}: {}", lines.join("; ")))
        }
    }
}

/// Tables, stream, rows and positions.
async fn dynamodb(context: &Context, connection: &Connection) -> Vec<Finding> {
    let service = &connection.dynamodb;
    let states = match describe_all(&connection.clients, &connection.tables).await {
        Ok(states) => states,
        Err(error) => {
            return vec![Finding::wrong("credentials", explained(connection.trouble(error)))];
        }
    };
    let mut findings = vec![Finding::ok("credentials", format!("{service} takes them"))];
    let commands = TableCommands {
        create: connection.create_tables.clone(),
        aws_options: aws_options(&service.region, service.endpoint.as_deref()),
    };
    let usable = |name: &str| states.iter().any(|state| state.table == name && state.is_ready());
    for state in &states {
        let events = state.table == connection.tables.events;
        findings.extend(judge::table(state, events, &commands));
        if events && state.is_ready() {
            findings.push(stream(state, connection).await);
        }
    }
    if usable(&connection.tables.events) {
        findings.extend(rows(connection).await);
    }
    if usable(&connection.tables.positions) && !context.config.handlers.is_empty() {
        findings.extend(positions(context, connection).await);
    }
    findings
}

/// Whether the stream of the events table can be read.
async fn stream(state: &TableState, connection: &Connection) -> Finding {
    let check = "stream";
    let Some(arn) = state.stream.as_ref().and_then(|stream| stream.arn.as_deref()) else {
        return Finding::wrong(check, "DynamoDB does not tell the stream's ARN");
    };
    let request = connection.clients.streams.describe_stream().stream_arn(arn).limit(1);
    match observe("DescribeStream", request.send()).await {
        Ok(_) => Finding::ok(check, format!("{} can be read", connection.streams)),
        Err(error) => {
            let trouble = ServiceTrouble::of_call(&connection.streams, "DescribeStream", error);
            Finding::wrong(check, explained(trouble))
        }
    }
}

/// Whether the first rows are events.
async fn rows(connection: &Connection) -> Vec<Finding> {
    let table = &connection.tables.events;
    let call = Call { operation: "Scan", action: "dynamodb:Scan", table };
    match call.make(connection.clients.dynamodb.scan().table_name(table).limit(SAMPLE_ROWS).send()).await {
        Ok(page) => Sample::of(page.items.unwrap_or_default()).findings(table),
        Err(error) => vec![unseen(&format!("rows of `{table}`"), connection, error)],
    }
}

/// Whose positions there are that are not configured.
async fn positions(context: &Context, connection: &Connection) -> Option<Finding> {
    let store = DynamoPositions::new(&connection.clients, &connection.tables.positions, Clock::system());
    let (mut found, mut after) = (BTreeSet::new(), None);
    for _ in 0..POSITION_PAGES_MAX {
        match store.list(None, None, after.as_ref()).await {
            Ok(page) => {
                found.extend(page.rows.into_iter().map(|row| row.handler));
                after = page.next;
            }
            Err(error) => return Some(unseen("positions", connection, error)),
        }
        if after.is_none() {
            break;
        }
    }
    let configured: Vec<HandlerName> = context.config.handlers.iter().map(|handler| handler.name.clone()).collect();
    judge::strangers(&found, &configured)
}

/// What could not be looked at. The relay itself does not need the permission, so a denial alone is no fault.
fn unseen(check: &str, connection: &Connection, error: StorageError) -> Finding {
    match error {
        StorageError::Denied { action, .. } => Finding::note(check, format!("not looked at: {action} is not allowed")),
        error => Finding::wrong(check, explained(connection.trouble(error))),
    }
}

/// A failure and its causes on one line.
pub(super) fn explained(trouble: ServiceTrouble) -> String {
    crate::cli::CliError::from(trouble).report()
}
