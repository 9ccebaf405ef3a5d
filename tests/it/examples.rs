//! The examples, and `local` that they run against, as a new user meets them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::support::{BINARY, RelayProcess, free_port};

const DEADLINE: Duration = Duration::from_mins(2);

fn example(name: &str) -> PathBuf {
    Path::new(BINARY).parent().unwrap().join("examples").join(name)
}

/// Waits until the output of a program holds a text, and answers what follows it on its line.
async fn shown(program: &RelayProcess, text: &str) -> String {
    let found = timeout(DEADLINE, async {
        loop {
            let output = program.output();
            if let Some((_, rest)) = output.split_once(text)
                && rest.contains('\n')
            {
                return rest.lines().next().unwrap_or_default().to_owned();
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{text:?} was never shown:\n{}", program.output()))
}

fn start(command: &[OsString], endpoint: &str) -> RelayProcess {
    let environment = [
        ("DYNAMO_ENDPOINT", endpoint),
        ("ANGZARR_RELAY__TELEMETRY__LISTEN", "127.0.0.1:0"),
        ("ANGZARR_RELAY__TELEMETRY__ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    RelayProcess::spawn_program(command, free_port(), &environment)
}

#[tokio::test(flavor = "multi_thread")]
async fn local_shows_where_everything_is_and_the_examples_run_against_it() {
    let mut local = RelayProcess::spawn_program(
        &[BINARY.into(), "local".into()],
        free_port(),
        &[
            ("ANGZARR_RELAY__TELEMETRY__LISTEN", "127.0.0.1:0"),
            ("ANGZARR_RELAY__TELEMETRY__ADMIN_LISTEN", "127.0.0.1:0"),
        ],
    );
    let endpoint = shown(&local, "DynamoDB  ").await;
    let endpoint = endpoint.split_whitespace().next().unwrap();
    assert!(shown(&local, "Kinesis   ").await.starts_with("http://127.0.0.1:"));
    shown(&local, "the first event was delivered").await;

    let mut projector = start(&[example("projector").into()], endpoint);
    let counts = shown(&projector, "{\"Order").await;
    assert!(counts.contains(": "), "{counts}");
    let mut totals = start(&[example("totals").into()], endpoint);
    shown(&totals, "order-").await;
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/saga.toml");
    let command = [example("saga").into(), "run".into(), "--config".into(), config.into()];
    let mut saga = start(&command, endpoint);
    shown(&saga, "invoice for order-").await;

    assert!(saga.terminate().await.success(), "{}", saga.output());
    projector.kill();
    totals.kill();
    assert!(local.terminate().await.success(), "{}", local.output());
    let summary = local.output();
    assert!(summary.contains("stopped after"), "{summary}");
    for handler in ["orders-stream", "orders-audit", "orders-view"] {
        let line = summary.lines().rev().find(|line| line.contains(handler)).unwrap();
        assert!(line.contains("events delivered") && !line.contains(" 0 events"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_keeps_its_tables_and_goes_on_where_it_stopped() {
    let data = tempfile::tempdir().unwrap();
    let mut totals = Vec::new();
    for _ in 0..2 {
        let mut local = RelayProcess::spawn_program(
            &[BINARY.into(), "local".into(), "--data".into(), data.path().into()],
            free_port(),
            &[
                ("ANGZARR_RELAY__TELEMETRY__LISTEN", "127.0.0.1:0"),
                ("ANGZARR_RELAY__TELEMETRY__ADMIN_LISTEN", "127.0.0.1:0"),
            ],
        );
        shown(&local, "the first event was delivered").await;
        assert!(local.terminate().await.success(), "{}", local.output());
        let lines = std::fs::read_to_string(data.path().join("orders-audit.jsonl")).unwrap();
        let mut ids: Vec<String> = (lines.lines())
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        let total = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), total, "an event stands in the file twice");
        totals.push(total);
    }
    assert!(totals[0] > 0 && totals[1] > totals[0], "{totals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_reads_many_shards_that_change_and_finds_them_again() {
    let data = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut local = RelayProcess::spawn_program(
            &[BINARY.into(), "local".into(), "--shards".into(), "4".into(), "--data".into(), data.path().into()],
            free_port(),
            &[
                ("ANGZARR_RELAY__TELEMETRY__LISTEN", "127.0.0.1:0"),
                ("ANGZARR_RELAY__TELEMETRY__ADMIN_LISTEN", "127.0.0.1:0"),
            ],
        );
        shown(&local, "the first event was delivered").await;
        // A shard rolls or splits into others.
        shown(&local, " into ").await;
        assert!(local.terminate().await.success(), "{}", local.output());
        assert!(!local.output().contains("trimmed") && !local.output().contains("is gone"), "{}", local.output());
        let lines = std::fs::read_to_string(data.path().join("orders-audit.jsonl")).unwrap();
        let mut ids: Vec<String> = (lines.lines())
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        let total = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), total, "an event stands in the file twice");
        let streams = std::fs::read_to_string(data.path().join("streams.json")).unwrap();
        let streams: serde_json::Value = serde_json::from_str(&streams).unwrap();
        let shards = streams.as_object().unwrap().values().next().unwrap()["shards"].as_array().unwrap();
        let shards: std::collections::BTreeSet<String> =
            shards.iter().map(|shard| shard["id"].as_str().unwrap().to_owned()).collect();
        seen.push((total, shards));
    }
    assert!(seen[0].0 > 0 && seen[1].0 > seen[0].0);
    assert!(seen[0].1.is_subset(&seen[1].1) && seen[0].1.len() > 4 && seen[1].1.len() > seen[0].1.len(), "{seen:?}");
}
