//! What three idle replicas consume of the tables in an hour, by the number of shards.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::sleep;

use super::receiver::Receiver;
use super::replicas::Replicas;

const SHARDS: [u32; 3] = [1, 10, 1_000];
const REPLICAS: usize = 3;

/// After it is settled, what was begun by settling ends.
const REST: Duration = Duration::from_secs(20);

/// Dollars for a million units on demand in us-east-1, by AWS's price list.
const DOLLARS_A_MILLION_READS: f64 = 0.125;
const DOLLARS_A_MILLION_WRITES: f64 = 0.625;

const HOURS_A_MONTH: f64 = 730.0;

/// What was consumed: read units, write units.
#[derive(Debug, Clone, Copy, Default)]
struct Units {
    read: f64,
    written: f64,
}

/// Measures each number of shards for so long; the table of what is consumed.
pub(crate) async fn measure(window_secs: u32) -> String {
    let mut text = format!(
        "{REPLICAS} idle replicas, one handler, lease_duration 10 s; measured for {window_secs} s\n\n| shards | read units an hour | write units an hour | on demand, a month |\n|---|---|---|---|\n"
    );
    for shards in SHARDS {
        let receiver = Receiver::default();
        let mut replicas = Replicas::new(shards, receiver.serve().await, "5s").await;
        for _ in 0..REPLICAS {
            replicas.start().await;
        }
        replicas.settled(shards as usize).await;
        sleep(REST).await;
        let before = consumed(&replicas).await;
        sleep(Duration::from_secs(u64::from(window_secs))).await;
        let after = consumed(&replicas).await;
        let an_hour = 3600.0 / f64::from(window_secs);
        let units =
            Units { read: (after.read - before.read) * an_hour, written: (after.written - before.written) * an_hour };
        let dollars = (units.read * DOLLARS_A_MILLION_READS + units.written * DOLLARS_A_MILLION_WRITES) / 1e6;
        let month = dollars * HOURS_A_MONTH;
        writeln!(text, "| {shards} | {:.0} | {:.0} | ${month:.2} |", units.read, units.written).unwrap();
    }
    text
}

/// What all replicas have consumed of all tables.
async fn consumed(replicas: &Replicas) -> Units {
    let mut units = Units::default();
    for (_, relay) in replicas.running.values() {
        for (operation, consumed) in by_operation(&relay.metrics().await) {
            match operation.as_str() {
                "Query" | "GetItem" | "BatchGetItem" | "Scan" => units.read += consumed,
                _ => units.written += consumed,
            }
        }
    }
    units
}

fn by_operation(metrics: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in metrics.lines() {
        let Some(labels) = line.strip_prefix("angzarr_relay_consumed_capacity_units_total{") else { continue };
        let operation = labels.split("operation=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let consumed: f64 = labels.rsplit(' ').next().unwrap().parse().unwrap();
        *found.entry(operation.to_owned()).or_default() += consumed;
    }
    found
}
