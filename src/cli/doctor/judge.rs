//! From what was found to findings: tables, rows, positions, Kinesis streams. Pure.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::types::StreamStatus;

use super::finding::Finding;
use crate::event::{RowError, decode_row};
use crate::handler::HandlerName;
use crate::shell::quote;
use crate::storage::TableState;
use crate::storage::call::Item;

/// How many attributes or names one finding lists.
const LISTED_MAX: usize = 20;

const EXPECTED_ATTRIBUTES: &str =
    "pk (S), sk (N), event_type (S), payload (B), correlation_id (S, optional), created_at (S, ISO 8601)";

/// The commands that mend tables.
#[derive(Debug)]
pub(super) struct TableCommands {
    /// Creates what is missing.
    pub(super) create: String,
    /// The options that point the AWS CLI at the same DynamoDB.
    pub(super) aws_options: String,
}

/// What a table's state means. `streamed`: it is the events table.
pub(super) fn table(state: &TableState, streamed: bool, commands: &TableCommands) -> Vec<Finding> {
    let check = format!("table `{}`", state.table);
    if !state.exists() {
        return vec![Finding::wrong(&check, "it is missing").mend(&commands.create)];
    }
    let mut findings = vec![shape(&check, state, streamed, commands)];
    for warning in &state.warnings {
        let note = Finding::note(&check, warning);
        findings.push(if warning.contains("PAY_PER_REQUEST") {
            let (table, options) = (quote(&state.table), &commands.aws_options);
            note.mend(format!("aws dynamodb update-table --table-name {table} --billing-mode PAY_PER_REQUEST{options}"))
        } else {
            note
        });
    }
    findings
}

fn shape(check: &str, state: &TableState, streamed: bool, commands: &TableCommands) -> Finding {
    if !state.differences.is_empty() {
        let text = format!("it has another shape: {}", state.differences.join("; "));
        return match &state.mend {
            Some(mend) => Finding::wrong(check, text).mend(mend),
            None => Finding::wrong(
                check,
                text + "; name another storage.dynamo.table_prefix, or delete the table if nobody needs it",
            ),
        };
    }
    match state.status.as_str() {
        // An updating table can be used.
        "ACTIVE" | "UPDATING" => {}
        "CREATING" => return Finding::wrong(check, "it is being created; this waits for it").mend(&commands.create),
        status => return Finding::wrong(check, format!("it is {status} and cannot be used")),
    }
    match (&state.mend, &state.stream) {
        (Some(mend), _) => Finding::wrong(check, "it has no stream: the relay would see no event").mend(mend),
        (None, Some(stream)) if streamed => {
            Finding::ok(check, format!("{}, with a stream of view type {}", state.status, stream.view_type))
        }
        (None, _) => Finding::ok(check, &*state.status),
    }
}

/// What some rows of the events table are.
#[derive(Debug, Default)]
pub(super) struct Sample {
    rows: usize,
    /// Rows with no event's key, the first one's error.
    foreign: Option<(usize, String)>,
    /// Rows with an event's key and no event's body, the first one's error.
    invalid: Option<(usize, String)>,
    /// The attributes of those that are no events.
    attributes: BTreeSet<String>,
}

impl Sample {
    pub(super) fn of(items: Vec<Item>) -> Self {
        let mut sample = Self::default();
        for item in items {
            sample.rows += 1;
            let attributes: Vec<String> =
                item.iter().map(|(name, value)| format!("{name} ({})", type_name(value))).collect();
            let Err(error) = decode_row(item) else { continue };
            let text = error.to_string();
            let kind = match error {
                RowError::Chunk => continue,
                RowError::Key { .. } => &mut sample.foreign,
                RowError::Body(_) => &mut sample.invalid,
            };
            sample.attributes.extend(attributes);
            kind.get_or_insert((0, text)).0 += 1;
        }
        sample
    }

    /// What they say about the table.
    pub(super) fn findings(&self, table: &str) -> Vec<Finding> {
        let check = format!("rows of `{table}`");
        let count = |kind: &Option<(usize, String)>| kind.as_ref().map_or(0, |(count, _)| *count);
        let (foreign, invalid) = (count(&self.foreign), count(&self.invalid));
        if self.rows == 0 {
            return vec![Finding::ok(&check, "there are none yet")];
        }
        if foreign + invalid == 0 {
            return vec![Finding::ok(&check, format!("the first {} are events", self.rows))];
        }
        let attributes = format!("found: {}; expected: {EXPECTED_ATTRIBUTES}", listed(self.attributes.iter()));
        if foreign + invalid == self.rows {
            let text = format!("none of the first {} is an event: is this another schema? {attributes}", self.rows);
            return vec![Finding::wrong(&check, text)];
        }
        let mut findings = Vec::new();
        if let Some((count, first)) = &self.invalid {
            let text = format!("{count} of the first {} stop their roots: {first}; {attributes}", self.rows);
            findings.push(Finding::wrong(&check, text));
        }
        if let Some((count, first)) = &self.foreign {
            let text = format!("{count} of the first {} are no events and will be passed: {first}", self.rows);
            findings.push(Finding::note(&check, text));
        }
        findings
    }
}

fn type_name(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "S",
        AttributeValue::N(_) => "N",
        AttributeValue::B(_) => "B",
        AttributeValue::Bool(_) => "BOOL",
        AttributeValue::Null(_) => "NULL",
        AttributeValue::M(_) => "M",
        AttributeValue::L(_) => "L",
        AttributeValue::Ss(_) => "SS",
        AttributeValue::Ns(_) => "NS",
        AttributeValue::Bs(_) => "BS",
        _ => "?",
    }
}

/// The handlers that have positions and are not configured.
pub(super) fn strangers(found: &BTreeSet<HandlerName>, configured: &[HandlerName]) -> Option<Finding> {
    let strangers: Vec<String> =
        found.iter().filter(|name| !configured.contains(name)).map(|name| format!("`{name}`")).collect();
    let text = "have positions but are not configured: renamed, removed, or of another relay? A renamed handler \
                is new and starts over";
    (!strangers.is_empty()).then(|| Finding::note("positions", format!("{} {text}", listed(strangers.iter()))))
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let mut list: Vec<String> = names.take(LISTED_MAX).cloned().collect();
    if more > 0 {
        list.push(format!("{more} more"));
    }
    list.join(", ")
}

/// What a Kinesis stream's status means; none: there is no such stream.
pub(super) fn kinesis_stream(check: &str, stream: &str, status: Option<&StreamStatus>, aws_options: &str) -> Finding {
    match status {
        Some(status @ (StreamStatus::Active | StreamStatus::Updating)) => Finding::ok(
            check,
            format!(
                "the Kinesis stream `{stream}` is {status} (whether kinesis:PutRecords is allowed shows at the first \
                 delivery only)"
            ),
        ),
        Some(StreamStatus::Creating) => {
            let wait = format!("aws kinesis wait stream-exists --stream-name {stream}{aws_options}");
            Finding::wrong(check, format!("the Kinesis stream `{stream}` is being created")).mend(wait)
        }
        Some(status) => Finding::wrong(check, format!("the Kinesis stream `{stream}` is {status}")),
        None => {
            let mode = "--stream-mode-details StreamMode=ON_DEMAND";
            let create = format!("aws kinesis create-stream --stream-name {stream} {mode}{aws_options}");
            Finding::wrong(check, format!("the Kinesis stream `{stream}` does not exist")).mend(create)
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
