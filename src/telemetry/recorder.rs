//! The process's recorder of metrics, in Prometheus' form.
//!
//! A process has one recorder. Relays that share a process share it; where the host program has installed one of its
//! own, ours stays empty and says so. The HTTP side is `endpoints`'.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::metrics::{describe_all, names};

/// Upper bounds of the deliver durations, in seconds.
const DELIVER_DURATION_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often samples of histograms are folded, so that they do not pile up where nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What is rendered when the metrics go to another recorder.
const FOREIGN: &str = "# this program installed a metrics recorder of its own: the relay's metrics are there\n";

/// The recorder of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    handle: Option<PrometheusHandle>,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

impl Recorder {
    /// Installs the recorder, or answers the one that was installed before. Must run before the first metric is
    /// recorded: what was recorded earlier is lost.
    #[must_use]
    pub fn install() -> Self {
        RECORDER
            .get_or_init(|| {
                let installed = Self::builder().install_recorder();
                if let Err(error) = &installed {
                    tracing::warn!(%error, "metrics go to the recorder that the program installed before");
                }
                describe_all();
                Self { handle: installed.ok() }
            })
            .clone()
    }

    fn builder() -> PrometheusBuilder {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(names::DELIVER_DURATION.to_owned()), &DELIVER_DURATION_BUCKETS)
            .expect("the list of buckets is not empty")
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.as_ref().map_or_else(|| FOREIGN.to_owned(), PrometheusHandle::render)
    }

    /// Keeps the memory of histograms bounded until cancelled; one such task a process is enough, several do no harm.
    pub async fn upkeep(self, cancel: CancellationToken) {
        let Some(handle) = self.handle else { return };
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = ticks.tick() => handle.run_upkeep(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_gives_the_same_recorder_with_real_buckets() {
        let (first, second) = (Recorder::install(), Recorder::install());
        ::metrics::histogram!(names::DELIVER_DURATION, "handler" => "recorder-test").record(0.02);
        for recorder in [first, second] {
            let text = recorder.render();
            let bucket = r#"angzarr_relay_deliver_duration_seconds_bucket{handler="recorder-test",le="0.025"} 1"#;
            assert!(text.contains(bucket), "{text}");
            assert!(text.contains("# HELP angzarr_relay_deliver_duration_seconds how long"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn upkeep_ends_when_cancelled() {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(Recorder::install().upkeep(cancel.clone()));
        tokio::time::advance(UPKEEP_INTERVAL * 3).await;
        cancel.cancel();
        task.await.unwrap();
    }
}
