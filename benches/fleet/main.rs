//! What a fleet of three replicas costs when idle, and how long it takes to go on after one of them stops or crashes.
//!
//! Real processes of the relay, on DynamoDB Local behind the server of many shards, with the default `lease_duration`.
//! Prints the tables of `benches/README.md`, which says how to run it.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its table, and one that cannot run panics"
)]

mod cost;
mod handover;
mod receiver;
mod replicas;
mod support;

use tokio::runtime::Runtime;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| {
        let named = |argument: &String| argument == "--handover" || argument == "--cost";
        !arguments.iter().any(named) || arguments.contains(&format!("--{name}"))
    };
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let runtime = Runtime::new().unwrap();
    if asked("handover") {
        println!("{}", runtime.block_on(handover::measure(if quick { 3 } else { 20 })));
    }
    if asked("cost") {
        println!("{}", runtime.block_on(cost::measure(if quick { 15 } else { 60 })));
    }
}
