//! What a replica tells by its metrics: a recorder of its own, and what the checker holds against it.
//!
//! It keeps counters by name and handler; what an answer was is told apart by the label `outcome`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// The name of a metric, its handler, and its outcome; empty where it has none.
type Series = (String, String, String);

/// The counters of one replica.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<BTreeMap<Series, Arc<AtomicU64>>>);

impl Told {
    fn series(&self, key: &Key) -> Arc<AtomicU64> {
        let label = |name: &str| {
            let found = key.labels().find(|label| label.key() == name);
            found.map_or_else(String::new, |label| label.value().to_owned())
        };
        let series = (key.name().to_owned(), label("handler"), label("outcome"));
        self.0.lock().unwrap().entry(series).or_default().clone()
    }

    /// What a counter has counted.
    pub(crate) fn counted(&self, name: &str, handler: &str, outcome: &str) -> u64 {
        let series = (name.to_owned(), handler.to_owned(), outcome.to_owned());
        self.0.lock().unwrap().get(&series).map_or(0, |value| value.load(Ordering::Relaxed))
    }
}

impl Recorder for Told {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
