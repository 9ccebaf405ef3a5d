//! Memory within its limit whatever the table holds: 200,000 roots, one root of 50,000 events, one event of 20 MB, and a
//! handler that is blocked by its service.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};

use angzarr_relay::storage::TableNames;

use crate::embedded::{clients, tables};
use crate::outage::shows;
use crate::support::{DynamoDbLocal, RelayHome, Writer, fill, root_and_sequence, until};

/// Design section 5: the process has at most this much besides `memory_limit`. Its own code, which is several times as large
/// without optimisation, is not counted.
const BESIDES_LIMIT_MIB: f64 = 40.0;

const LIMIT_MIB: f64 = 64.0;

const ROOTS: u64 = 200_000;
const LONG_ROOT_EVENTS: u64 = 50_000;

/// 20 MB.
const LARGE_BYTES: usize = 20 << 20;

/// The most memory a process has had that is not of a file it has mapped, in MiB: what is anonymous now, and what the peak
/// was above now.
fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    (kib("VmHWM") - kib("VmRSS") + kib("RssAnon")) / 1024.0
}

/// The first sequences of each root in a file of CloudEvents, in their order, and how many lines it has.
fn first_in_order(path: &std::path::Path) -> (BTreeMap<String, u64>, u64) {
    let (mut next, mut lines) = (BTreeMap::<String, u64>::new(), 0);
    for line in BufReader::new(fs::File::open(path).unwrap()).lines() {
        let (root, sequence) = root_and_sequence(line.unwrap().as_bytes());
        let next = next.entry(root).or_default();
        assert!(sequence <= *next, "an event is missing before {sequence}");
        *next = (*next).max(sequence + 1);
        lines += 1;
    }
    (next, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_roots_a_long_one_and_a_large_event_stay_within_the_limit() {
    let dynamodb = DynamoDbLocal::start_alone().await;
    let aws = clients(Some(&dynamodb.endpoint), None).await;
    tables(&aws, RelayHome::PREFIX).await;
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    let rows = (0..LONG_ROOT_EVENTS).map(|sequence| ("long".to_owned(), sequence));
    let rows: Vec<(String, u64)> = rows.chain((0..ROOTS).map(|root| (format!("r{root}"), 0))).collect();
    fill(&aws, &table, &rows).await;
    Writer::new(&aws).append_payload(ROOTS, &vec![7; LARGE_BYTES]).await;
    let home = RelayHome::new();
    let handlers = r#"
        memory_limit = "64MiB"
        [backfill]
        max_rcu = 1000000
        [[handlers]]
        name = "audit"
        subscribe = [{ domain = "*" }]
        jsonl = { path = "HOME/audit.jsonl" }
        [[handlers]]
        name = "blocked"
        kind = "projector"
        start = "beginning"
        subscribe = [{ domain = "*" }]
        http = { url = "http://127.0.0.1:1/" }
    "#;
    home.configure(&dynamodb.endpoint, &format!("[relay]{handlers}"));
    let mut relay = home.start().await;
    let lines = async || {
        let delivered = r#"angzarr_relay_events_delivered_total{handler="audit",outcome="accepted"}"#;
        let delivered = relay.metric(delivered).await?;
        (delivered >= f64::from(u32::try_from(ROOTS + LONG_ROOT_EVENTS + 1).unwrap())).then_some(())
    };
    until("everything is delivered", lines).await;
    shows(&relay, r#"angzarr_relay_jobs{handler="audit",kind="backfill"}"#, 0.0).await;
    shows(&relay, r#"angzarr_relay_handler_up_ratio{handler="blocked"}"#, 0.0).await;
    let peak = peak_mib(relay.pid());
    assert!(relay.terminate().await.success(), "{}", relay.output());
    let (next, lines) = first_in_order(&home.path("audit.jsonl"));
    assert_eq!((next.len() as u64, lines), (ROOTS + 2, ROOTS + LONG_ROOT_EVENTS + 1), "each once");
    assert_eq!(next["long"], LONG_ROOT_EVENTS);
    assert!(peak <= BESIDES_LIMIT_MIB + LIMIT_MIB, "{peak} MiB");
}
