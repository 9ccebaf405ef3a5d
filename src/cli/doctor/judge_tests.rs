//! What the checks make of tables, rows and streams of every kind.

use super::super::finding::Verdict;
use super::*;
use crate::storage::StreamState;

fn commands() -> TableCommands {
    TableCommands { create: "angzarr-relay tables create".into(), aws_options: " --region r".into() }
}

fn events_table() -> TableState {
    TableState {
        table: "p-events".into(),
        status: "ACTIVE".into(),
        keys: vec![],
        billing_mode: None,
        differences: vec![],
        warnings: vec![],
        stream: Some(StreamState { view_type: "NEW_IMAGE".into(), arn: Some("arn".into()) }),
        mend: None,
    }
}

#[track_caller]
fn judged(state: &TableState) -> Finding {
    let mut findings = table(state, true, &commands());
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

#[test]
fn a_good_table_is_ok() {
    let finding = judged(&events_table());
    assert_eq!((finding.verdict, finding.mend), (Verdict::Ok, None));
    assert!(finding.text.contains("NEW_IMAGE"), "{}", finding.text);
    assert_eq!(judged(&TableState { status: "UPDATING".into(), ..events_table() }).verdict, Verdict::Ok);
}

#[test]
fn every_fault_of_a_table_is_wrong_and_says_what_mends_it() {
    let create = Some("angzarr-relay tables create");
    let key = vec!["the sort key is none, not sk (N)".to_owned()];
    let keys_only = vec!["the stream's view type is KEYS_ONLY".to_owned()];
    for (state, mend, text) in [
        (TableState { status: "MISSING".into(), stream: None, ..events_table() }, create, "missing"),
        (TableState { status: "CREATING".into(), ..events_table() }, create, "being created"),
        (TableState { status: "ARCHIVED".into(), ..events_table() }, None, "ARCHIVED"),
        (TableState { differences: key, ..events_table() }, None, "storage.dynamo.table_prefix"),
        (
            TableState { differences: keys_only, mend: Some("aws x".into()), ..events_table() },
            Some("aws x"),
            "KEYS_ONLY",
        ),
        (TableState { stream: None, mend: Some("aws y".into()), ..events_table() }, Some("aws y"), "no stream"),
    ] {
        let finding = judged(&state);
        assert_eq!((finding.verdict, finding.mend.as_deref()), (Verdict::Wrong, mend), "{state:?}");
        assert!(finding.text.contains(text), "{}", finding.text);
    }
}

/// The text of the warning is the check's own, so that this fails when it is worded anew.
#[test]
fn provisioned_capacity_is_a_note_with_its_command() {
    let warning = "the billing mode is PROVISIONED, not PAY_PER_REQUEST: bursts may be throttled".to_owned();
    let findings = table(&TableState { warnings: vec![warning], ..events_table() }, true, &commands());
    assert_eq!((findings[0].verdict, findings[1].verdict), (Verdict::Ok, Verdict::Note));
    let command = "aws dynamodb update-table --table-name p-events --billing-mode PAY_PER_REQUEST --region r";
    assert_eq!(findings[1].mend.as_deref(), Some(command));
}

fn row(attributes: &[(&str, &str)]) -> Item {
    let value = |text: &str| match text.parse::<u64>() {
        Ok(_) => AttributeValue::N(text.to_owned()),
        Err(_) if text.starts_with("b:") => AttributeValue::B(text.as_bytes().into()),
        Err(_) => AttributeValue::S(text.to_owned()),
    };
    attributes.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect()
}

fn event() -> Item {
    row(&[
        ("pk", "orders#angzarr#1"),
        ("sk", "0"),
        ("event_type", "OrderPlaced"),
        ("payload", "b:secret"),
        ("created_at", "2026-01-31T12:00:00Z"),
    ])
}

#[test]
fn rows_are_judged_together() {
    let foreign = row(&[("pk", "user-1"), ("sk", "0"), ("name", "secret")]);
    let invalid = row(&[("pk", "orders#angzarr#2"), ("sk", "7"), ("data", "secret")]);
    for (items, verdicts, text) in [
        (vec![], vec![Verdict::Ok], "none yet"),
        (vec![event(), event()], vec![Verdict::Ok], "the first 2 are events"),
        (vec![foreign.clone(), invalid.clone()], vec![Verdict::Wrong], "is this another schema?"),
        (vec![event(), invalid.clone()], vec![Verdict::Wrong], "the row orders#angzarr#2 7 is no event"),
        (vec![event(), foreign.clone()], vec![Verdict::Note], "1 of the first 2 are no events"),
        (vec![event(), foreign, invalid], vec![Verdict::Wrong, Verdict::Note], "expected: pk (S), sk (N)"),
    ] {
        let findings = Sample::of(items).findings("t");
        assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), verdicts, "{findings:?}");
        assert!(findings[0].text.contains(text), "{findings:?}");
        assert!(!format!("{findings:?}").contains("secret"), "no value is shown");
    }
    let other = Sample::of(vec![row(&[("id", "x"), ("name", "y")])]).findings("t");
    assert!(other[0].text.contains("found: id (S), name (S); expected: pk (S), sk (N), event_type (S)"), "{other:?}");
}

#[test]
fn handlers_with_positions_and_no_configuration_are_named() {
    let names = |names: &[&str]| names.iter().map(|name| HandlerName::new(name).unwrap()).collect::<Vec<_>>();
    let found: BTreeSet<_> = names(&["a", "b", "c"]).into_iter().collect();
    let finding = strangers(&found, &names(&["b"])).unwrap();
    assert_eq!(finding.verdict, Verdict::Note);
    assert!(finding.text.starts_with("`a`, `c` have positions"), "{}", finding.text);
    assert_eq!(strangers(&found, &names(&["a", "b", "c"])), None);
}

#[test]
fn lists_are_bounded() {
    let names: Vec<String> = (0..LISTED_MAX + 2).map(|number| number.to_string()).collect();
    assert!(listed(names.iter()).ends_with("19, 2 more"));
}

#[test]
fn a_kinesis_stream_must_be_there() {
    let judged = |status: Option<StreamStatus>| kinesis_stream("h", "s", status.as_ref(), " --region r");
    assert_eq!(judged(Some(StreamStatus::Active)).verdict, Verdict::Ok);
    assert_eq!(judged(Some(StreamStatus::Updating)).verdict, Verdict::Ok);
    assert_eq!(judged(Some(StreamStatus::Creating)).verdict, Verdict::Wrong);
    assert_eq!(judged(Some(StreamStatus::Deleting)).verdict, Verdict::Wrong);
    let missing = judged(None);
    let command = "aws kinesis create-stream --stream-name s --stream-mode-details StreamMode=ON_DEMAND --region r";
    assert_eq!((missing.verdict, missing.mend.as_deref()), (Verdict::Wrong, Some(command)));
}
