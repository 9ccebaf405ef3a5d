//! `angzarr-relay read`: the events of a root.

use std::num::NonZeroUsize;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};

use super::connect::Connection;
use super::output::{Columns, print, remark};
use super::{CliError, Context, RootArgs};
use crate::event::{Event, Row, Sequence};
use crate::shell::shown;
use crate::storage::Consistency;

/// How much of a payload the table shows.
const PAYLOAD_CHARS_MAX: usize = 80;

/// Show the events of a root
///
/// One event a line, in sequence order, with the beginning of a payload that is text. With --json each line is one
/// event whole: domain, edition, root, sequence, event_type, created_at, correlation_id (or null) and payload_base64. A
/// row that cannot be read as an event is shown in its place; in JSON it has `invalid` with the reason instead.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay read orders order-1
  angzarr-relay read orders order-1 --from 10 --limit 5 --json | jq -r .payload_base64 | base64 -d")]
pub struct ReadArgs {
    /// The root.
    #[command(flatten)]
    pub root: RootArgs,

    /// The first sequence to show
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: u64,

    /// How many events to show at most
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub limit: NonZeroUsize,

    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,

    /// Read consistently: see every write that was answered before, at twice the price
    #[arg(long)]
    pub consistent: bool,
}

pub(super) async fn run(args: ReadArgs, context: Context) -> Result<(), CliError> {
    let root = args.root.root()?;
    let connection = Connection::new(&context).await?;
    let store = connection.event_store();
    let consistency = if args.consistent { Consistency::Strong } else { Consistency::Eventual };
    let mut columns = Columns::new(["SEQUENCE", "CREATED_AT", "TYPE", "CORRELATION_ID", "BYTES", "PAYLOAD"]);
    let (mut next, mut left) = (Some(Sequence(args.from)), args.limit.get());
    while let Some(from) = next.filter(|_| left > 0) {
        let page = (store.read(&root, from, consistency, left).await).map_err(|error| connection.trouble(error))?;
        left = left.saturating_sub(page.rows.len());
        next = page.next;
        if args.json {
            for row in page.rows {
                let row = match row {
                    Ok(event) => {
                        let payload = store.payload(&event).await.map_err(|error| connection.trouble(error))?;
                        Ok(Event { payload, ..event })
                    }
                    invalid => invalid,
                };
                print(json(&row))?;
            }
        } else if let Some(lines) = columns.lines(page.rows.iter().map(cells).collect()) {
            print(lines)?;
        }
    }
    if let Some(next) = next {
        remark(format!("there may be more: go on with --from {next}"));
    } else if left == args.limit.get() {
        remark(format!("{} has no event from sequence {} on", shown(root.key()), args.from));
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 6] {
    match row {
        Ok(event) => [
            event.sequence.to_string(),
            event.created_at.to_string(),
            event.event_type.to_string(),
            event.correlation_id.as_deref().unwrap_or("-").to_owned(),
            event.payload_bytes().to_string(),
            match &event.chunked {
                Some(chunked) => format!("(in {} chunks)", chunked.chunks),
                None => beginning(&event.payload),
            },
        ],
        Err(invalid) => {
            let blank = String::new;
            [
                invalid.sequence.to_string(),
                "-".into(),
                "-".into(),
                "-".into(),
                blank(),
                format!("no event: {}", invalid.reason),
            ]
        }
    }
}

/// The first line of a payload that is text, shortened.
fn beginning(payload: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(payload) else { return "(binary)".into() };
    let text = text.trim();
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(PAYLOAD_CHARS_MAX).collect();
    if shown.len() < text.len() { shown + " ..." } else { shown }
}

fn json(row: &Row) -> Value {
    let (root, sequence) = match row {
        Ok(event) => (&event.root, event.sequence),
        Err(invalid) => (&invalid.root, invalid.sequence),
    };
    let mut object = json!({
        "domain": root.domain(),
        "edition": root.edition(),
        "root": root.id(),
        "sequence": sequence.0,
    });
    match row {
        Ok(event) => {
            object["event_type"] = json!(event.event_type);
            object["created_at"] = json!(event.created_at.to_string());
            object["correlation_id"] = json!(event.correlation_id);
            object["payload_base64"] = json!(STANDARD.encode(&event.payload));
        }
        Err(invalid) => object["invalid"] = json!(invalid.reason),
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shown_by_its_beginning() {
        assert_eq!(beginning(b"{\"total\": 12}\n"), "{\"total\": 12}");
        assert_eq!(beginning("ü".repeat(PAYLOAD_CHARS_MAX + 1).as_bytes()), "ü".repeat(PAYLOAD_CHARS_MAX) + " ...");
        assert_eq!(beginning(b"one\ntwo"), "one ...");
        assert_eq!(beginning(b"\xff\x00"), "(binary)");
        assert_eq!(beginning(b""), "");
    }
}
