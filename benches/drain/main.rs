//! How long and how costly it is to drain a stream through the relay, against a bare GetRecords loop over the same
//! stream.
//!
//! One data set a DynamoDB and number of roots, then in turns the bare loop, the relay with one handler, with three,
//! and again; each in a process of its own, so that CPU time and memory are its own. Ratios are taken within a turn
//! and their median is shown: the machine's noise is in all of a turn alike. Prints the table of `benches/README.md`,
//! which says how to run it.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its table, and one that cannot run panics"
)]

mod dataset;
mod measured;
mod process;
mod table;

mod support;

use dataset::{DataSet, Store};
use measured::{Figures, Job};
use tokio::runtime::Runtime;

/// What to run.
struct Size {
    events: usize,
    roots: [usize; 2],
    /// Turns that count, after one that does not.
    turns: usize,
}

const FULL: Size = Size { events: 40_000, roots: [500, 20_000], turns: 7 };
const QUICK: Size = Size { events: 8_000, roots: [500, 4_000], turns: 3 };

/// Handlers of the relay's two measurements.
const HANDLERS: [usize; 2] = [1, 3];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Runtime::new().unwrap();
    if let Some(job) = Job::from_arguments(&arguments) {
        println!("{}", runtime.block_on(job.run()));
        return;
    }
    let size = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let only = |name: &str| {
        !arguments.iter().any(|argument| argument == "--local" || argument == "--embedded")
            || arguments.contains(&format!("--{name}"))
    };
    println!("{}", table::head(size.events, size.turns));
    for (store, name) in [(Store::DynamoDbLocal, "local"), (Store::Embedded, "embedded")] {
        if only(name) {
            for roots in size.roots {
                let turns = runtime.block_on(turns(store, size.events, roots, size.turns));
                print!("{}", table::rows(store.name(), roots, size.events, &turns));
            }
        }
    }
}

/// A turn's figures: the bare loop's and the relay's, by [`HANDLERS`].
type Turn = (Figures, [Figures; 2]);

async fn turns(store: Store, events: usize, roots: usize, turns: usize) -> Vec<Turn> {
    let data = DataSet::fill(store, events, roots).await;
    let mut counted = Vec::new();
    for turn in 0..=turns {
        let bare = process::measure(&data.job(None, turn));
        let mut figures = Vec::new();
        for handlers in HANDLERS {
            data.prepare(turn, handlers).await;
            figures.push(process::measure(&data.job(Some(handlers), turn)));
        }
        // The first turn warms the store up.
        if turn > 0 {
            counted.push((bare, figures.try_into().unwrap()));
        }
    }
    counted
}
