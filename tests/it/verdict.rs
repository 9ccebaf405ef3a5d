//! The judge of the chaos run, `tests/verdict`: how it is called, and that it has teeth.
//!
//! It is tried on what no relay has done: events, positions, records and lines written by hand, right but for one thing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedKinesis, KinesisOptions};
use angzarr_relay::storage::TableNames;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use serde_json::{Value, json};

use crate::embedded::{clients, tables};
use crate::relaying::STREAM;
use crate::support::{BINARY, RelayHome, Writer};

const ROOTS: u64 = 2;
const EACH: u64 = 4;

/// What the judge says of what it is shown: its exit code, and what it has printed.
///
/// # Panics
/// When it was not built.
pub(crate) fn judged(arguments: &[&str]) -> (Option<i32>, String) {
    let program = Path::new(BINARY).parent().unwrap().join("examples/verdict");
    assert!(
        program.is_file(),
        "the judge was not built: `cargo test` without `--test` builds it, or `cargo build --examples`"
    );
    let output = Command::new(program).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A line of a root and a sequence, as a relay would write it.
fn line(root: u64, sequence: u64) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("orders:angzarr:r{root}:{sequence}"),
        "source": format!("angzarr/orders/angzarr/r{root}"),
        "subject": format!("r{root}"),
        "type": "OrderPlaced",
        "time": "2026-01-31T12:00:00.123Z",
        "correlationid": "c-1",
        "sequence": format!("{sequence:020}"),
        "partitionkey": format!("orders#angzarr#r{root}"),
        "data_base64": "MA==",
    })
}

/// A table, and what two handlers were given of it: `copy` in Kinesis, `lines` in a file.
struct Setting {
    dynamo: EmbeddedDynamo,
    kinesis: EmbeddedKinesis,
    aws: AwsClients,
    folder: tempfile::TempDir,
    lines: Vec<Value>,
}

impl Setting {
    /// All is well.
    async fn build() -> Self {
        let dynamo = EmbeddedDynamo::start(None).unwrap();
        let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
        let aws = clients(Some(dynamo.endpoint()), Some(kinesis.endpoint())).await;
        tables(&aws, RelayHome::PREFIX).await;
        Writer::new(&aws).append_to(0..ROOTS, EACH).await;
        aws.kinesis.create_stream().stream_name(STREAM).shard_count(2).send().await.unwrap();
        let lines: Vec<Value> =
            (0..EACH).flat_map(|sequence| (0..ROOTS).map(move |root| line(root, sequence))).collect();
        let setting = Self { dynamo, kinesis, aws, folder: tempfile::tempdir().unwrap(), lines };
        for event in &setting.lines {
            setting.put_record(event).await;
        }
        for key in ["copy", "lines"].iter().flat_map(|handler| (0..ROOTS).map(move |root| position_key(handler, root)))
        {
            setting.put_position(&key, EACH - 1, None).await;
        }
        setting
    }

    async fn put_record(&self, event: &Value) {
        let put = self.aws.kinesis.put_record().stream_name(STREAM).data(Blob::new(event.to_string()));
        put.partition_key(event["partitionkey"].as_str().unwrap()).send().await.unwrap();
    }

    async fn put_position(&self, key: &str, sequence: u64, mark: Option<&str>) {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        let put = self.aws.dynamodb.put_item().table_name(TableNames::from_prefix(RelayHome::PREFIX).positions);
        let put = put.item("pk", text(key)).item("updated_at", text("2026-01-31T12:00:00Z"));
        let put = put.item("sequence", AttributeValue::N(sequence.to_string()));
        let put = match mark {
            Some(mark) => put.item("mark", text(mark)),
            None => put,
        };
        put.send().await.unwrap();
    }

    /// What is said when the file holds these lines, and this was struck.
    fn judged(&self, lines: &[Value], strikes: &Value) -> (Option<i32>, String) {
        self.judged_text(&text_of(lines), strikes)
    }

    fn judged_text(&self, text: &str, strikes: &Value) -> (Option<i32>, String) {
        let [file, struck] = ["lines.jsonl", "strikes.json"].map(|name| self.folder.path().join(name));
        std::fs::write(&file, text).unwrap();
        std::fs::write(&struck, strikes.to_string()).unwrap();
        judged(&[
            "--dynamodb",
            self.dynamo.endpoint(),
            "--kinesis",
            self.kinesis.endpoint(),
            "--prefix",
            RelayHome::PREFIX,
            "--output",
            &format!("copy=kinesis:{STREAM}"),
            "--output",
            &format!("lines=jsonl:{}", file.display()),
            "--strikes",
            struck.to_str().unwrap(),
        ])
    }

    /// Neither a strike nor anything wrong with the file.
    fn judged_as_it_is(&self) -> (Option<i32>, String) {
        self.judged(&self.lines, &json!([]))
    }
}

fn text_of(lines: &[Value]) -> String {
    lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
}

fn position_key(handler: &str, root: u64) -> String {
    format!("{handler}#orders#angzarr#r{root}")
}

#[track_caller]
fn assert_broken((code, said): (Option<i32>, String), violations: &[impl AsRef<str>]) {
    assert_eq!(code, Some(1), "{said}");
    for violation in violations.iter().map(AsRef::as_ref) {
        assert!(said.contains(violation), "{violation} is not in:\n{said}");
    }
    assert!(said.ends_with(&format!("the contract is broken: {} violations\n", violations.len())), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_is_called_right_and_what_is_wrong_by_its_clause() {
    let setting = Setting::build().await;
    let (code, said) = setting.judged_as_it_is();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("the contract holds: 0 violations\n"), "{said}");
    let none = json!([]);
    // The lines are r0 0, r1 0, r0 1, r1 1, and so on.
    let doctored = |doctor: fn(&mut Vec<Value>)| {
        let mut lines = setting.lines.clone();
        doctor(&mut lines);
        setting.judged(&lines, &none)
    };
    let missing = doctored(|lines| drop(lines.remove(2)));
    let root = "lines: orders#angzarr#r0";
    let [order, loss] = ["clause 1 (order)", "clause 2 (no loss)"];
    assert_broken(
        missing,
        &[&format!("{loss}: {root} 1 is in the table and never came"), &format!("{order}: {root} 2 came behind 0")],
    );
    assert_broken(
        doctored(|lines| drop(lines.pop())),
        &["clause 2 (no loss): lines: orders#angzarr#r1 3 is in the table"],
    );
    let swapped = doctored(|lines| lines.swap(2, 4));
    assert_broken(
        swapped,
        &[
            &format!("{order}: {root} 2 came behind 0"),
            &format!("{order}: {root} 1 came behind 2"),
            &format!("{order}: {root} 3 came behind 1"),
        ],
    );
    let changed = doctored(|lines| lines[3]["data_base64"] = "MQ==".into());
    assert_broken(changed, &["content: lines: orders#angzarr#r1 1: the payload is not that of the table"]);
    let renamed = doctored(|lines| lines[3]["type"] = "OrderLost".into());
    assert_broken(renamed, &["content: lines: orders#angzarr#r1 1: type is not that of the table"]);
    let invented = doctored(|lines| lines.push(line(0, 4)));
    assert_broken(invented, &[&format!("{loss}: {root} 4 came and is not in the table")]);
    let whole = text_of(&setting.lines);
    let torn = setting.judged_text(&format!("{whole}{{\"specver"), &none);
    let file = setting.folder.path().join("lines.jsonl");
    let [ends, part] = [" ends in a torn line".to_owned(), format!(": line {} is no JSON", EACH * ROOTS + 1)];
    assert_broken(torn, &[ends, part].each_ref().map(|what| format!("content: lines: {}{what}", file.display())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_was_struck_and_not_durable() {
    let setting = Setting::build().await;
    let mut lines = setting.lines.clone();
    lines.push(line(0, 2));
    let again = "clause 3 (repeats): lines: orders#angzarr#r0 2 came again";
    assert_broken(setting.judged(&lines, &json!([])), &[&format!("{again}, and nothing was struck")]);
    let struck = |arrived: u64, durable: Option<u64>| {
        let of_root: BTreeMap<_, _> = [("orders#angzarr#r0", json!({ "arrived": arrived, "durable": durable }))].into();
        json!([{ "what": "kill", "handlers": { "lines": of_root } }])
    };
    assert_broken(setting.judged(&lines, &struck(4, Some(2))), &[&format!("{again} after kill, and 2 was durable")]);
    assert_broken(setting.judged(&lines, &struck(5, None)), &[&format!("{again}, and nothing was struck")]);
    for durable in [None, Some(1)] {
        let (code, said) = setting.judged(&lines, &struck(4, durable));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("lines was given 9, 1 of them again"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_and_kinesis_are_looked_at_too() {
    let setting = Setting::build().await;
    let key = position_key("copy", 1);
    let clause = "clause 4 (positions): copy: orders#angzarr#r1";
    for wrong in [EACH - 2, EACH] {
        setting.put_position(&key, wrong, None).await;
        assert_broken(setting.judged_as_it_is(), &[&format!("{clause} has position {wrong}, its last event is 3")]);
    }
    setting.put_position(&key, EACH - 1, Some("deferred")).await;
    assert_broken(setting.judged_as_it_is(), &[&format!("{clause} is marked")]);
    setting.put_position(&key, EACH - 1, None).await;
    setting.put_record(&line(1, 0)).await;
    let again = "clause 3 (repeats): copy: orders#angzarr#r1 0 came again, and nothing was struck";
    assert_broken(setting.judged_as_it_is(), &[again]);
}

#[test]
fn a_wrong_call_is_told_from_a_wrong_relay() {
    for arguments in [&["--dynamodb"][..], &["--wrong", "x"], &["--dynamodb", "http://127.0.0.1:1", "--prefix", "it"]] {
        let (code, said) = judged(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("usage: verdict"), "{said}");
    }
}

#[test]
fn it_knows_nothing_of_the_library() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verdict");
    let sources: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(sources.len(), 3);
    for source in sources {
        assert!(!std::fs::read_to_string(&source).unwrap().contains("angzarr_relay"), "{}", source.display());
    }
}
