//! The table that is printed: medians of the turns, ratios to the bare loop of the same turn in bold.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::measured::Figures;
use super::{HANDLERS, Turn};

/// The machine, the versions, and the head of the table.
pub(crate) fn head(events: usize, turns: usize) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rust = Command::new("rustc").arg("--version").output();
    let rust = rust.map_or_else(|_| "rustc".to_owned(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    format!(
        "{events} events of 1 KB, medians of {turns} turns; {cores} cores of {cpu} shared with the DynamoDB; \
         angzarr-relay {}, {rust}.\n\n\
         | DynamoDB, roots | drained by | to the last delivery | to the last durable position | CPU | peak memory \
         | position writes per 1,000 events | AWS calls per 1,000 events |\n\
         |---|---|---|---|---|---|---|---|",
        env!("CARGO_PKG_VERSION")
    )
}

/// The rows of one data set.
pub(crate) fn rows(store: &str, roots: usize, events: usize, turns: &[Turn]) -> String {
    let bare: Vec<Figures> = turns.iter().map(|turn| turn.0).collect();
    let mut text = String::new();
    let per_1000 = |count: f64| count * 1000.0 / f64::from(u32::try_from(events).unwrap());
    let alone = |of: fn(&Figures) -> f64| median(bare.iter().map(of));
    writeln!(
        text,
        "| {store}, {roots} | bare loop | {:.0} ms | - | {:.0} ms | {:.0} MiB | - | {:.1} |",
        alone(|figures| figures.delivered_ms),
        alone(|figures| figures.cpu_ms),
        alone(|figures| figures.peak_mib),
        median(bare.iter().map(|figures| per_1000(figures.calls))),
    )
    .unwrap();
    for (index, handlers) in HANDLERS.iter().enumerate() {
        let pairs = || turns.iter().map(|(bare, relay)| (bare, &relay[index]));
        let cell = |of: fn(&Figures) -> f64, unit: &str| {
            let ratio = median(pairs().map(|(bare, relay)| of(relay) / of(bare)));
            format!("**{ratio:.2}** ({:.0} {unit})", median(pairs().map(|(_, relay)| of(relay))))
        };
        writeln!(
            text,
            "| {store}, {roots} | relay, {handlers} handler{} | {} | {} | {} | {} | {:.0} | {:.1} |",
            if *handlers == 1 { "" } else { "s" },
            cell(|figures| figures.delivered_ms, "ms"),
            cell(|figures| figures.durable_ms, "ms"),
            cell(|figures| figures.cpu_ms, "ms"),
            cell(|figures| figures.peak_mib, "MiB"),
            median(pairs().map(|(_, relay)| per_1000(relay.positions))),
            median(pairs().map(|(_, relay)| per_1000(relay.calls))),
        )
        .unwrap();
    }
    text
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}
