//! What relays call of AWS, held to the IAM documents of the chart: nothing that these do not allow, table by table.
//!
//! Looked at whenever a test asks a relay for its metrics, and before it is stopped. What was seen is written below
//! `target/tmp/actions-seen`, where `.ci/terraform` finds whether the documents allow anything that no test needs.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

/// The tables, as the placeholders of the documents name them.
const TABLES: [&str; 4] = ["events", "positions", "snapshots", "relay"];

/// Holds the metrics of a relay to the documents.
///
/// # Panics
/// When it has called what they do not allow.
pub(crate) fn hold_to_documents(metrics: &str) {
    for line in metrics.lines() {
        let Some(operation) = label(line, "operation") else { continue };
        if line.starts_with("angzarr_relay_aws_calls_total{") {
            let documents = &actions()[operation]["documents"];
            let allowed = documents
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == "relay.json" || one == "kinesis.json"));
            assert!(allowed, "no IAM document of the relay allows {operation}");
            note(operation);
        }
        let table =
            label(line, "table").and_then(|table| TABLES.into_iter().find(|one| table.ends_with(&format!("-{one}"))));
        if let Some(table) = table.filter(|_| line.starts_with("angzarr_relay_consumed_capacity_units_total{")) {
            let needed = actions()[operation]["actions"].as_array().expect("every operation has actions");
            let has = |action: &Value| allowed_on(table).contains(action.as_str().unwrap_or_default());
            // A transaction is authorised by its parts, which the metric does not tell.
            let is_allowed =
                if operation == "TransactWriteItems" { needed.iter().any(has) } else { needed.iter().all(has) };
            assert!(is_allowed, "relay.json does not allow {operation} on the table {table}");
        }
    }
}

fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("{name}=\""))?.1.split('"').next()
}

fn document(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/angzarr-relay/docs/iam").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn actions() -> &'static Value {
    static ACTIONS: OnceLock<Value> = OnceLock::new();
    ACTIONS.get_or_init(|| document("actions.json"))
}

/// The actions that `relay.json` allows on a table.
fn allowed_on(table: &str) -> BTreeSet<String> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    let statements = DOCUMENT.get_or_init(|| document("relay.json"))["Statement"].as_array().unwrap();
    let of_table =
        statements.iter().filter(|one| one["Resource"].as_str().unwrap().ends_with(&format!("/PREFIX-{table}")));
    of_table.flat_map(|one| one["Action"].as_array().unwrap()).map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn note(operation: &str) {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SEEN.lock().unwrap().insert(operation.to_owned()) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("actions-seen");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(std::process::id().to_string());
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{operation}").unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = r#"angzarr_relay_consumed_capacity_units_total{table="it-events",operation="OPERATION"} 3"#;

    #[test]
    fn what_the_documents_allow_is_let_pass() {
        hold_to_documents("# HELP x\n");
        hold_to_documents(r#"angzarr_relay_aws_calls_total{operation="GetRecords",outcome="ok"} 3"#);
        hold_to_documents(&EVENTS.replace("OPERATION", "Query"));
        hold_to_documents(&EVENTS.replace("it-events", "somebodys").replace("OPERATION", "PutItem"));
    }

    #[test]
    #[should_panic(expected = "relay.json does not allow PutItem on the table events")]
    fn what_they_do_not_allow_on_a_table_is_refused() {
        hold_to_documents(&EVENTS.replace("OPERATION", "PutItem"));
    }

    #[test]
    #[should_panic(expected = "no IAM document of the relay allows CreateTable")]
    fn what_is_for_others_is_refused() {
        hold_to_documents(r#"angzarr_relay_aws_calls_total{operation="CreateTable",outcome="ok"} 1"#);
    }
}
